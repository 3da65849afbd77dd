// Training, evaluation and prediction as a configuration describes them: what the command runs, and
// what a C++ program may call instead.
//
// The run folder (output.dir) receives config.toml (resolved), metrics.jsonl, events for
// TensorBoard, checkpoints/, and an empty file, lock, that a running training holds. Errors throw
// concord::Error. One training per process at a time uses the compute threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "concord/comm/communicator.h"
#include "concord/graph/mesh.h"
#include "concord/tensor/dtype.h"
#include "concord/train/config.h"

namespace concord::train {

// What a run is, said once before the first step.
struct RunStart {
  std::string model;
  std::int64_t parameters = 0;
  std::int64_t train_samples = 0;
  std::int64_t test_samples = 0;
  std::int64_t batch = 0;
  std::int64_t leaves = 0;
  std::int64_t microbatch = 0;
  int ranks = 1;
  std::vector<std::int64_t> leaves_of_ranks;  // along data
  Mesh mesh = {};
  std::int64_t zero = 0;         // parallel.zero
  std::string offload = "none";  // parallel.offload
  int threads = 0;               // of each rank
  DType precision = DType::kF32;
  std::int64_t first_step = 0;  // 0, or where a resumed run continues
  std::int64_t total_steps = 0;
  std::int64_t steps_per_epoch = 0;
  double flops_per_step = 0;
  double peak_flops_per_second = 0;  // measured with these threads, of all ranks
  std::size_t workspace_bytes = 0;   // of arena and prologues
  std::string output_dir;
};

// The state of a run, told after every step.
struct Progress {
  std::int64_t step = 0;  // steps completed
  std::int64_t total_steps = 0;
  std::int64_t epoch = 0;  // of the last step, from 1
  double loss = 0;         // mean over the samples of the last step
  double accuracy = -1;    // fraction of them predicted correctly; negative where it does not apply
  double learning_rate = 0;
  // Updates between the weights of the last step's gradients and its own (engine.h, StepResult).
  std::int64_t staleness = 0;
  double samples_per_second = 0;  // over the last seconds
  double flops_per_second = 0;
  double data_wait_fraction = 0;  // share of the time in which compute waited for data
  // Of several ranks: the share in which this one waited for collectives; and of the time that
  // these took, the share in which it computed meanwhile.
  double communication_fraction = 0;
  double hidden_fraction = 0;
  double eta_seconds = 0;  // until the end, evaluations included
};

struct Evaluation {
  double loss = 0;       // mean over the test set
  double accuracy = -1;  // negative where it does not apply
  std::int64_t samples = 0;
  double seconds = 0;
};

// Told what happens during a run. Calls come from the training thread; they should be quick.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  virtual void started(const RunStart&) {}
  virtual void stepped(const Progress&) {}
  virtual void evaluated(const Progress&, const Evaluation&) {}
  virtual void message(const std::string&) {}  // one line for a person
};

struct Summary {
  std::int64_t step = 0;
  std::int64_t epoch = 0;  // completed epochs
  double loss = 0;         // on the test set; when interrupted before it was evaluated, of the last
                           // step, and NaN where none was done
  double accuracy = -1;    // on the test set; negative where it does not apply
  std::optional<double> train_loss;  // of the last step; nullopt where none was done
  double samples_per_second = 0;
  double seconds = 0;
  std::size_t peak_rss_bytes = 0;
  std::size_t predicted_peak_bytes = 0;  // MemoryReport; 0: nothing was foreseen
  std::string weights_hash;
  std::int64_t skipped_steps = 0;  // whose numbers were not finite (train.nonfinite = "skip")
  // A stop was requested before the end. The test set is then not evaluated once more.
  bool interrupted = false;
};

struct TrainRequest {
  bool resume = false;  // continue from the newest intact checkpoint of output.dir
  // When it becomes true, the step in progress is finished, a checkpoint saved, and the run ends.
  const std::atomic<bool>* stop = nullptr;
  // Who train together; null: this process alone. Each rank makes the same call; rank 0 keeps the
  // run folder.
  comm::Communicator* ranks = nullptr;
};

Summary train(const Config& config, const TrainRequest& request, TrainObserver& observer);

// Evaluates a checkpoint (a checkpoint's directory, or a run folder: its newest intact one) on the
// test set.
Summary evaluate(const Config& config, const std::filesystem::path& checkpoint);

struct Prediction {
  std::string file;
  int label = -1;  // the class with the largest probability; -1 where numbers are predicted
  std::string class_name;
  // Probabilities of the classes; or the predicted numbers, which of a binary cross-entropy are
  // the probabilities of 1.
  std::vector<double> values;
  std::vector<std::string> names;  // of predicted values that are columns of a table
};

// Predicts from image files (JPEG, PNG), .npy arrays or, for a model of tables, CSV tables with or
// without their target columns; every sample is prepared as the test set is, by what the checkpoint
// says. No data set is opened.
std::vector<Prediction> predict(const Config& config, const std::filesystem::path& checkpoint,
                                const std::vector<std::filesystem::path>& files);

// Largest resident memory of this process so far, in bytes.
std::size_t peak_rss_bytes();

}  // namespace concord::train
