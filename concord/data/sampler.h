// The order in which samples are used. An epoch visits every sample once, cut into batches; the
// last batch of an epoch holds what is left, so that no sample is dropped or repeated. Which
// samples a step uses is a pure function of (size, batch, seed, step): resuming needs the step's
// number alone.
//
// Shuffling is the permutation of Fisher and Yates (Durstenfeld, "Algorithm 235", 1964), drawn anew
// for every epoch from (seed, epoch).
// Thread safety: none; it remembers the permutation of the last epoch asked for. Copies are
// independent.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace concord::data {

// Places of a batch: [begin, end).
struct Slice {
  std::int64_t begin = 0, end = 0;
};

class Sampler {
 public:
  // Throws Error unless 0 < size < 2^32 and batch > 0.
  Sampler(std::int64_t size, std::int64_t batch, std::uint64_t seed, bool shuffle);

  std::int64_t size() const { return size_; }
  std::int64_t batch() const { return batch_; }
  std::int64_t steps_per_epoch() const { return (size_ + batch_ - 1) / batch_; }
  // Steps are counted from 0 through all epochs.
  std::int64_t epoch(std::int64_t step) const { return step / steps_per_epoch(); }
  // Number of samples of a step: batch(), or less for the last step of an epoch.
  std::int64_t count(std::int64_t step) const;
  // The samples of a step, valid until the next call. Does not allocate.
  std::span<const std::int64_t> indices(std::int64_t step);

 private:
  void permute(std::int64_t epoch);

  std::int64_t size_;
  std::int64_t batch_;
  std::uint64_t seed_;
  bool shuffle_;
  std::int64_t epoch_ = -1;          // the epoch of order_
  std::vector<std::int64_t> order_;  // [size]
};

}  // namespace concord::data
