// Measures the training steps of an engine: how long one takes, and on which ops the time goes.
// Reading data is not part of what is measured. Used by one thread, with nothing else computing.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "concord/train/engine.h"

namespace concord::train {

struct StepBenchmarkOptions {
  int warmup = 3;     // steps before the first that counts
  int steps = 20;     // that count
  bool by_op = true;  // whether ops are timed
  bool by_layer = false;
  int runs_alone = 0;  // of each matrix product and convolution; 0: they are not run alone
};

// One kind of op in a step, over all its uses, or over those of one layer.
struct OpTime {
  std::string op;
  std::string layer;   // empty where times are not by layer
  double runs = 0;     // kernel runs a step
  double seconds = 0;  // a step
  double flops = 0;    // a step
};

struct StepBenchmark {
  int steps = 0;
  double step_seconds = 0;  // the median
  double fastest_seconds = 0;
  double slowest_seconds = 0;
  double spread = 0;                  // the distance of the quartiles, as a share of the median
  double samples_per_second = 0;      // at the median
  double flops_per_second = 0;        // at the median
  double products_alone_seconds = 0;  // a step; 0 where they were not run alone
  double communication_seconds = 0;   // a step, in collectives of several ranks: the mean
  double exposed_seconds = 0;         // of that, those in which this rank waited for them
  std::uint64_t sent_bytes = 0;       // in each step, by this rank (comm::Communicator::Usage)
  std::vector<OpTime> by_op;          // slowest first; programs of the full microbatch alone
};

// Of one training step with this rank's samples of a full batch, by a learning rate of 0; where
// steps overlap, from one's beginning to the next's, and who calls it drains the engine.
// Collective.
double seconds_of_step(Engine& engine, const Samples& samples, std::int64_t step);

// Runs `options.warmup` steps, then `options.steps` that are timed one by one, then up to as many
// in which every op is timed (reading the clock so often slows a step down, hence apart), then, if
// asked for, each matrix product and convolution by itself (Engine::seconds_of_products_alone). The
// learning rate is 0, so that the weights stay what they are; every kernel runs as in training.
// With several ranks all do so together; what is not said to be of the whole job is this rank's.
// `next_batch` gives this rank's samples of the next step, of full batches; they stay valid until
// its next call. It is called warmup + 2 * steps times at most, outside of what is timed. Throws
// Error where steps < 1 or warmup < 0.
StepBenchmark benchmark_steps(Engine& engine, const std::function<Samples()>& next_batch,
                              const StepBenchmarkOptions& options);

// Runs steps, numbered from 1, of which what every rank does is written down. Collective; the
// traces of all ranks at rank 0, of others nothing.
JobTrace trace_steps(Engine& engine, const std::function<Samples()>& next_batch, int steps);

}  // namespace concord::train
