// Loader: prepares batches in background threads, ahead of the step that uses them.
//
// Batches come in the order of their steps and hold the same bits for any number of threads: what
// is in a batch is a pure function of (data set, sampler, augmentation or masking, step). The
// threads share the work within a batch, chunk by chunk, and fill a ring of batches whose memory is
// allocated once. Thread safety: next() and the other members are called by one thread, the
// consumer's.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "concord/data/augment.h"
#include "concord/data/dataset.h"
#include "concord/data/masking.h"
#include "concord/data/sampler.h"
#include "concord/tensor/buffer.h"

namespace concord::data {

// The samples of one step, or slices of them. Spans begin at 64-byte boundaries. The memory behind
// `features`, `tokens`, `labels` and `targets` has room for a full one; after a shorter one the
// rest is zero. It belongs to the loader; the consumer may overwrite it.
struct Batch {
  std::int64_t step = 0;
  std::int64_t epoch = 0;
  std::int64_t step_count = 0;     // samples of the step: the sampler's batch size, or less at an
                                   // epoch's end
  std::int64_t count = 0;          // samples here; 0 where the slices lie beyond those of the step
  std::span<float> features;       // [count, sample shape]; empty unless samples are values
  std::span<std::int32_t> tokens;  // [count, length]; empty unless samples are tokens
  std::span<std::int32_t> labels;  // [count, labels of a sample]; empty unless targets are classes
  std::span<float> targets;        // [count, width]; empty unless targets are values
  std::span<const std::int64_t> indices;  // [count], which samples
};

struct LoaderOptions {
  int threads = 1;   // 0: next() prepares the batch itself
  int prefetch = 4;  // batches prepared ahead of the one in use
  std::int64_t first_step = 0;
  std::int64_t end_step = std::numeric_limits<std::int64_t>::max();  // one past the last step
  std::optional<Masking> masking = std::nullopt;                     // of samples of tokens
  // Which places of each batch are read, one after another; the others belong to other ranks.
  std::vector<Slice> slices = {{0, std::numeric_limits<std::int64_t>::max()}};
};

class Loader {
 public:
  // `dataset` must outlive the loader. Throws Error for a negative number of threads or of steps,
  // for a prefetch below 1, and for slices that are none.
  Loader(const Dataset& dataset, Sampler sampler, Augmentation augmentation,
         const LoaderOptions& options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // Of the batches that a loader holds, of which each has so many samples.
  static std::size_t bytes(const Dataset& dataset, std::int64_t samples,
                           const LoaderOptions& options);

  // Whether steps are left before end_step.
  bool has_next() const { return next_step_ < options_.end_step; }
  // The batch of the next step, valid until the next call. Throws the error met while preparing it,
  // such as Error for a corrupt image, and throws it again when called again. Does not allocate.
  const Batch& next();
  // Waits, before the first next(), until as many batches are prepared as there may be. From then
  // on next() waits only where data comes more slowly than it is used.
  void wait_until_ahead();
  // Seconds that next() has spent waiting, or preparing batches where there are no threads.
  double wait_seconds() const { return wait_seconds_; }

 private:
  // A place for one batch in the ring. Its owner is a stage of its life: filled by the threads
  // until `ready`, then read by the consumer until released_ passes it.
  struct Slot {
    Buffer features, tokens, labels, targets;
    std::vector<std::int64_t> indices;
    Batch batch;
    std::atomic<std::int64_t> left = 0;  // chunks not yet filled
    bool ready = false;                  // guarded by mutex_
    std::exception_ptr error;            // guarded by mutex_; of the sample error_sample
    std::int64_t error_sample = 0;
  };
  struct Chunk {
    Slot* slot;
    std::int64_t begin, end;  // samples of the batch
  };

  Slot& slot_of(std::int64_t step) {
    return slots_[static_cast<std::size_t>((step - options_.first_step) % slot_count_)];
  }
  void allocate(Slot& slot) const;
  void open(Slot& slot, std::int64_t step);
  void read_samples(const Chunk& chunk, std::span<float> raw) const;
  void fill(const Chunk& chunk, std::span<float> raw);
  std::optional<Chunk> claim();
  bool wait_for_space(std::int64_t step);
  void work(std::span<float> raw);
  void stop();
  void wait_until_ready(Slot& slot);

  const Dataset& dataset_;
  Sampler sampler_;
  Augmentation augmentation_;
  LoaderOptions options_;
  std::size_t elements_;  // floats or tokens of a sample
  std::size_t labels_;    // of a sample
  std::int64_t chunk_;    // samples that a thread claims at once
  std::int64_t slot_count_;
  std::unique_ptr<Slot[]> slots_;
  std::vector<float> raw_;  // [threads, or 1 for the consumer; elements_], samples as read

  // The consumer's alone.
  std::int64_t next_step_;
  bool holds_batch_ = false;
  double wait_seconds_ = 0;

  // The next chunk to fill, and the sampler; guarded by claim_mutex_, which is taken before mutex_.
  std::mutex claim_mutex_;
  std::int64_t claim_step_;
  std::int64_t claim_begin_ = 0;

  std::mutex mutex_;
  std::condition_variable space_;  // a slot was released, or stopping_
  std::condition_variable ready_;  // a slot became ready
  std::int64_t released_;          // guarded by mutex_: batches before this step are released
  bool stopping_ = false;          // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace concord::data
