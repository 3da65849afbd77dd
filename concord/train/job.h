// Job: what a configuration asks for, opened: the data sets, the model's graphs, and an engine.
#pragma once

#include <algorithm>
#include <memory>

#include "concord/data/loader.h"
#include "concord/data/open.h"
#include "concord/formats/safetensors.h"
#include "concord/optim/schedule.h"
#include "concord/train/config.h"
#include "concord/train/decoder.h"
#include "concord/train/engine.h"

namespace concord::train {

// Bytes that a rank will have resident, by kind (memory.h).
struct MemoryReport {
  std::size_t process = 0;        // before: code, data sets, kernels
  std::size_t states = 0;         // parameters, statistics and the optimizer's
  std::size_t common_states = 0;  // of these, what the ranks of a host hold once
  std::size_t offloaded = 0;      // on the disk, beside those: parallel.offload
  std::size_t gradients = 0;      // sums over leaves
  std::size_t workspace = 0;      // activations: arena and prologues
  std::size_t communication = 0;
  std::size_t loaders = 0;              // batches that are prepared
  std::size_t checkpoint_of_first = 0;  // of the next, what rank 0 has and no other
  std::size_t checkpoint = 0;  // the copy of the states that is being saved, and one being read
  std::size_t of_others = 0;   // what is read of other ranks' where it lies: resident here, too

  std::size_t opening = 0;  // the most that was resident before, while the data was opened

  std::size_t of_training() const {
    return process + states + gradients + workspace + communication + loaders + checkpoint +
           of_others;
  }
  std::size_t peak() const { return std::max(opening, of_training()); }
};

struct Job {
  Config config;
  data::Task task;
  std::unique_ptr<data::Dataset> train_set;  // null where the job is an evaluation alone
  std::unique_ptr<data::Dataset> test_set;
  std::unique_ptr<Engine> engine;

  // Of training jobs.
  MemoryReport memory;  // as it was foreseen
  std::int64_t steps_per_epoch() const;
  // Steps of all epochs; schedules span these. train.max_steps may end the run before.
  std::int64_t schedule_steps() const { return config.train.epochs * steps_per_epoch(); }
  std::int64_t total_steps() const;
  double learning_rate(std::int64_t step) const;
  // Batches of the training set from `first_step` on, shuffled and augmented: of each what this
  // rank computes.
  std::unique_ptr<data::Loader> train_loader(std::int64_t first_step, std::int64_t end_step) const;

  // Whether the loss counts what is predicted correctly.
  bool has_accuracy() const;
  // The test set once, in order, normalized.
  std::unique_ptr<data::Loader> test_loader() const;
};

// As many as parallel.mesh has, by the axes that it names.
int ranks_of_mesh(const ParallelConfig& config);
// Whether its ranks on one host would have memory in common.
bool shares_memory(const ParallelConfig& config);

// Opens the data, sets the compute threads, and compiles the model with fresh weights. `choices`:
// kernel choices that are part of the run (a resumed one's); they win over the machine's cache.
// `ranks`: who train together, and outlive the job; null: this one alone. Collective: rank 0 makes
// the kernel choices of all, and refuses what does not fit in memory (memory.h). Throws Error.
// `only_planned`: a job to be looked at, whose states and workspace have no memory.
Job open_job(const Config& config, const KernelChoices& choices = {},
             comm::Communicator* ranks = nullptr, bool only_planned = false);

// The engine that a rank would have with another configuration of the same model and data, among
// `ranks` (comm/planned.h where they divide the work otherwise). It is only planned.
std::unique_ptr<Engine> plan_engine(const Job& job, const Config& config,
                                    comm::Communicator& ranks);

// For evaluating a model that has learned `task`: opens the test set alone, and compiles no
// training program.
Job open_evaluation(const Config& config, const data::Task& task, const KernelChoices& choices);

// An engine that predicts, up to `samples` at once; no data is opened.
std::unique_ptr<Engine> make_predictor(const Config& config, const data::Task& task,
                                       std::int64_t samples, const KernelChoices& choices);

// Reads texts with the model that has learned `task`, in f32 whatever train.precision; no data is
// opened. Its weights are zero.
std::unique_ptr<Decoder> make_decoder(const Config& config, const data::Task& task,
                                      const KernelChoices& choices);

// The batch as the engine takes it.
Samples samples_of(const data::Batch& batch);

// Takes the weights of model.weights, where it is given.
void load_initial_weights(Job& job);

// Copies every tensor of a safetensors file (weights by name) into the parameters and statistics.
// Throws Error naming the tensor when one is missing in the file, has another shape or
// element type, holds numbers that are not finite, or is unknown to the model (with the nearest
// name).
void load_weights(StateStore& states, const formats::SafetensorsFile& file,
                  const std::string& source);

}  // namespace concord::train
