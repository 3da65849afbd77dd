// Progress for people, on standard error, so that standard output stays for results: a live line on
// a terminal, plain lines otherwise.
// Thread safety: calls come from one thread, the training's.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "concord/train/trainer.h"

namespace concord::cli {

// The live line, of at most `width` columns. Where it does not fit, the bar is left out, then words
// are shortened, then pieces are left out from the right.
std::string format_progress(const train::Progress& progress, const train::RunStart& run, int width);

// "epoch 2/12 step 500/5628, loss 0.4123, ...": the same pieces, all of them, for logs.
std::string format_log_line(const train::Progress& progress, const train::RunStart& run);

// "epoch 2, step 938: test loss 0.312, accuracy 89.10 %, 10000 samples in 1.2 s"
std::string format_evaluation(const train::Progress& progress, const train::Evaluation& evaluation);

// Which rank computes which leaves: "leaves 8: ranks 0-3 have 2 each". Where several ranks share a
// leaf (`ranks` is more than there are entries): "leaves 4: ranks 0-1 along data have 2 each".
std::string format_leaves(const std::vector<std::int64_t>& leaves_of_ranks, int ranks);
// "mesh {data: 2, tensor: 2}, zero 1, offload optimizer": what of these is not as usual; "" where
// all is.
std::string format_division(const train::RunStart& run);

class ProgressObserver final : public train::TrainObserver {
 public:
  struct Options {
    std::FILE* stream = stderr;
    int terminal = -1;            // that shows the stream: a live line in place of plain ones
    std::int64_t log_every = 50;  // steps between two plain lines; 0: none
    std::string job;              // who trains: "4 ranks by Open MPI on 1 host"; "": this process
  };
  explicit ProgressObserver(const Options& options) : options_(options) {}
  ~ProgressObserver() override { erase(); }
  ProgressObserver(const ProgressObserver&) = delete;
  ProgressObserver& operator=(const ProgressObserver&) = delete;

  void started(const train::RunStart& run) override;
  void stepped(const train::Progress& progress) override;
  void evaluated(const train::Progress& progress, const train::Evaluation& evaluation) override;
  void message(const std::string& text) override { print_line(text); }

  // Takes the live line off the terminal, so that other lines may be written.
  void erase();

 private:
  void print_line(const std::string& text);
  void redraw(const train::Progress& progress);
  bool is_held_up() const;
  int width() const;

  Options options_;
  train::RunStart run_;
  double drawn_at_ = 0;  // seconds
  bool drawn_ = false;
};

}  // namespace concord::cli
