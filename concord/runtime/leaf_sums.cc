#include "concord/runtime/leaf_sums.h"

#include "concord/base/error.h"
#include "concord/base/parallel.h"

namespace concord {

void LeafSums::clear() {
  free_.clear();
  for (std::size_t i = buffers_.size(); i-- > 0;) free_.push_back(i);
  stack_.clear();
  heights_.clear();
  pending_ = kNone;
}

std::size_t LeafSums::take_buffer() {
  if (free_.empty()) {
    buffers_.emplace_back(bytes_);
    free_.reserve(buffers_.size());
    stack_.reserve(buffers_.size());
    heights_.reserve(buffers_.size());
    return buffers_.size() - 1;
  }
  const std::size_t buffer = free_.back();
  free_.pop_back();
  return buffer;
}

std::byte* LeafSums::next() {
  if (pending_ == kNone) pending_ = take_buffer();
  return buffers_[pending_].data();
}

void LeafSums::add(bool first_of_leaf) {
  CONCORD_CHECK(pending_ != kNone);
  stack_.push_back(pending_);
  heights_.push_back(0);
  pending_ = kNone;
  if (!first_of_leaf) join(stack_.size() - 2, stack_.size() - 1);
}

void LeafSums::finish_leaf() {
  while (stack_.size() >= 2 && heights_[heights_.size() - 2] == heights_.back()) {
    join(stack_.size() - 2, stack_.size() - 1);
    ++heights_.back();
  }
}

std::byte* LeafSums::finish() {
  CONCORD_CHECK(!stack_.empty(), "a step without leaves");
  while (stack_.size() >= 2) join(stack_.size() - 2, stack_.size() - 1);
  return buffers_[stack_[0]].data();
}

void LeafSums::join(std::size_t into, std::size_t from) {
  CONCORD_CHECK(from + 1 == stack_.size());
  auto* a = reinterpret_cast<float*>(buffers_[stack_[into]].data());
  const auto* b = reinterpret_cast<const float*>(buffers_[stack_[from]].data());
  parallel_for(static_cast<std::int64_t>(bytes_ / sizeof(float)), 1 << 14,
               [=](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i) a[i] += b[i];
               });
  free_.push_back(stack_[from]);
  stack_.pop_back();
  heights_.pop_back();
}

}  // namespace concord
