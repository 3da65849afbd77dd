#include "concord/data/sampler.h"

#include <algorithm>
#include <numeric>

#include "concord/base/error.h"
#include "concord/base/philox.h"
#include "concord/data/streams.h"

namespace concord::data {

Sampler::Sampler(std::int64_t size, std::int64_t batch, std::uint64_t seed, bool shuffle)
    : size_(size), batch_(batch), seed_(seed), shuffle_(shuffle) {
  if (batch <= 0) fail("batch size {}: expected a positive number", batch);
  if (size <= 0 || size > std::int64_t{0xffffffff}) {
    fail("a data set of {} samples: expected 1 to 2^32 - 1", size);
  }
  order_.resize(static_cast<std::size_t>(size));
  std::iota(order_.begin(), order_.end(), 0);
}

std::int64_t Sampler::count(std::int64_t step) const {
  return std::min(batch_, size_ - step % steps_per_epoch() * batch_);
}

std::span<const std::int64_t> Sampler::indices(std::int64_t step) {
  CONCORD_CHECK(step >= 0);
  if (shuffle_ && epoch(step) != epoch_) permute(epoch(step));
  return std::span<const std::int64_t>(order_).subspan(
      static_cast<std::size_t>(step % steps_per_epoch() * batch_),
      static_cast<std::size_t>(count(step)));
}

void Sampler::permute(std::int64_t epoch) {
  std::iota(order_.begin(), order_.end(), 0);
  const RandomStream stream{seed_, kShuffleStream, static_cast<std::uint32_t>(epoch)};
  PhiloxBlock draws{};
  for (std::size_t i = 0; i + 1 < order_.size(); ++i) {
    if (i % 4 == 0) draws = stream.block(i / 4);
    const auto left = static_cast<std::uint32_t>(order_.size() - i);
    std::swap(order_[i], order_[i + uniform_below(draws[i % 4], left)]);
  }
  epoch_ = epoch;
}

}  // namespace concord::data
