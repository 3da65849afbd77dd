#include "concord/runtime/leaf_sums.h"

#include <algorithm>

#include "concord/base/error.h"

namespace concord {

std::size_t LeafSums::buffers_for(std::int64_t begin, std::int64_t end, bool parts,
                                  int most_height) {
  std::size_t most = 0;
  std::vector<comm::Subtree> stack;
  for (std::int64_t leaf = begin; leaf < end; ++leaf) {
    stack.push_back({0, leaf});
    most = std::max(most, stack.size());
    comm::join_halves(
        stack, [&] { stack.pop_back(); }, most_height);
  }
  return most + (parts && most > 0 ? 1 : 0);
}

void LeafSums::share() {
  if (ranks_.size() == 1 || !all_.empty()) return;
  std::byte* const memory = ranks_.share(buffers_ * bytes_);
  for (std::size_t i = 0; i < buffers_; ++i) all_.push_back(memory + i * bytes_);
  free_.reserve(buffers_);
  stack_.reserve(buffers_);
  joined_.reserve(buffers_);
  last_joins_.reserve(buffers_);
}

void LeafSums::clear(const StepPlace& place) {
  share();
  free_.assign(all_.rbegin(), all_.rend());
  stack_.clear();
  joined_.clear();
  last_joins_.clear();
  sums_.clear();
  settled_ = 0;
  sum_ = nullptr;
  step_ = place.step;
  next_leaf_ = place.first_leaf;
  pending_ = nullptr;
}

std::byte* LeafSums::take_buffer() {
  if (free_.empty()) {
    CONCORD_CHECK(ranks_.size() == 1, "more buffers than leaves need");
    all_.push_back(ranks_.share(bytes_));
    free_.reserve(all_.size());
    stack_.reserve(all_.size());
    joined_.reserve(all_.size());
    last_joins_.reserve(all_.size());
    return all_.back();
  }
  std::byte* const buffer = free_.back();
  free_.pop_back();
  return buffer;
}

std::byte* LeafSums::next() {
  if (pending_ == nullptr) pending_ = take_buffer();
  return pending_;
}

void LeafSums::begin_microbatch(const MicrobatchPlace& place) {
  CONCORD_CHECK(pending_ != nullptr);
  stack_.push_back({{0, next_leaf_}, pending_});
  pending_ = nullptr;
  joins_.clear();
  if (!place.first_of_leaf) join_last_two();
  if (place.last_of_leaf) {
    ++next_leaf_;
    comm::join_halves(
        stack_, [this] { join_last_two(); }, most_height_);
  }
  last_of_step_ = place.last_of_step;
}

void LeafSums::join_encoders() {
  for (const comm::Part& part : stack_) {
    joined_.push_back(part);
    comm::join_halves(joined_, [this] {
      last_joins_.push_back({joined_[joined_.size() - 2].data, joined_.back().data});
      joined_.pop_back();
    });
  }
}

// The one before the last keeps its node.
void LeafSums::join_last_two() {
  const comm::Part last = stack_.back();
  stack_.pop_back();
  joins_.push_back({stack_.back().data, last.data});
  emptied_.push_back(last.data);
}

void LeafSums::add(const Bucket& bucket) {
  for (const Join& join : joins_) {
    comm::add_floats(join.into + bucket.offset, join.from + bucket.offset, bucket.bytes);
  }
  if (last_of_step_) start_sum(bucket);
}

void LeafSums::end_microbatch() {
  free_.insert(free_.end(), emptied_.begin(), emptied_.end());
  emptied_.clear();
}

void LeafSums::start_sum(const Bucket& bucket) {
  if (bucket.coding != nullptr) {
    bucket.coding->begin(stack_, step_, own());
    const comm::Ticket ticket = ranks_.start(comm::in_rounds(*bucket.coding, bucket.label));
    sums_.push_back({bucket.offset, ticket, /*is_whole=*/false});
    return;
  }
  if (joined_.empty()) join_encoders();
  for (const Join& join : last_joins_) {
    comm::add_floats(join.into + bucket.offset, join.from + bucket.offset, bucket.bytes);
  }
  const bool is_whole = bucket.pieces.empty();
  const comm::Operation sum =
      is_whole ? comm::tree_sum(joined_, bucket.offset, bucket.bytes, own() + bucket.offset,
                                bucket.label)
               : comm::tree_scatter(joined_, bucket.pieces, bucket.bytes, own(), bucket.label);
  sums_.push_back({bucket.offset, ranks_.start(sum), is_whole});
}

const std::byte* LeafSums::finish(std::span<const Bucket> buckets) {
  if (sums_.empty()) {
    for (const Bucket& bucket : buckets) start_sum(bucket);
  }
  CONCORD_CHECK(sums_.size() == buckets.size(), "{} of {} buckets", sums_.size(), buckets.size());
  settle();
  return sum_;
}

void LeafSums::settle() {
  for (; settled_ < sums_.size(); ++settled_) {
    const Started& started = sums_[settled_];
    const std::byte* const sum = ranks_.wait(started.ticket).sum;
    if (!started.is_whole) continue;
    CONCORD_CHECK(sum_ == nullptr || sum_ == sum - started.offset, "buckets lie apart");
    sum_ = sum - started.offset;
  }
}

LeafSums::~LeafSums() {
  try {
    settle();
  } catch (const std::exception&) {
    // They came to nothing, which whoever is told of it knows.
  }
}

}  // namespace concord
