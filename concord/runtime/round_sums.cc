#include "concord/runtime/round_sums.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "concord/base/error.h"

namespace concord {

RoundSums::RoundSums(const Sizes& sizes, comm::Communicator& ranks) : sizes_(sizes), ranks_(ranks) {
  CONCORD_CHECK(std::has_single_bit(static_cast<unsigned>(ranks.size())), "{} ranks", ranks.size());
  own_.reserve(1);
}

std::size_t RoundSums::depth() const {
  return static_cast<std::size_t>(
      std::bit_width(static_cast<std::uint64_t>(std::max<std::int64_t>(1, sizes_.rounds))));
}

RoundSums::~RoundSums() {
  try {
    settle();
  } catch (const std::exception&) {
    // It came to nothing, which whoever is told of it knows.
  }
}

void RoundSums::share() {
  if (!totals_.empty()) return;
  if (sizes_.bytes > 0) contribution_ = ranks_.share(sizes_.bytes);
  for (std::size_t i = 0; i < depth(); ++i) totals_.emplace_back(sizes_.totals_bytes);
  free_.reserve(depth());
  stack_.reserve(depth());
}

void RoundSums::clear(const StepPlace& place) {
  share();
  free_.clear();
  for (Buffer& buffer : totals_) free_.push_back(buffer.data());
  stack_.clear();
  round_ = 0;
  rounds_ = place.rounds;
}

void RoundSums::begin_round(bool contributes) {
  CONCORD_CHECK(round_ < rounds_ && !free_.empty(), "round {} of {}", round_, rounds_);
  own_.clear();
  if (contributes) own_.push_back({{0, ranks_.rank()}, contribution_});  // of the round
  out_ = free_.back();
  free_.pop_back();
}

void RoundSums::begin_microbatch(const MicrobatchPlace& place) {
  CONCORD_CHECK(place.first_of_leaf && place.last_of_leaf, "a leaf in several microbatches");
  begin_round(/*contributes=*/true);
}

void RoundSums::begin_standing_by() { begin_round(/*contributes=*/false); }

void RoundSums::start(const Bucket& bucket) {
  settle();  // from here on its memory is used again
  bucket_ = &bucket;
  ticket_ = ranks_.start(
      bucket.pieces.empty()
          ? comm::tree_sum(own_, bucket.offset, bucket.bytes, out_ + bucket.offset, bucket.label)
          : comm::tree_scatter(own_, bucket.pieces, bucket.bytes, out_, bucket.label));
}

// A sum that each gets all of may lie with another rank, which will use that memory again.
void RoundSums::settle() {
  if (ticket_ == 0) return;
  const comm::Ticket ticket = std::exchange(ticket_, 0);
  const std::byte* const sum = ranks_.wait(ticket).sum;
  if (!bucket_->pieces.empty() || sum == out_ + bucket_->offset) return;
  std::memcpy(out_ + bucket_->offset, sum, bucket_->bytes);
}

void RoundSums::end_microbatch() {
  settle();
  const bool is_read_in_place = ranks_.has_common_memory() && sizes_.bytes > 0;
  if (is_read_in_place) ranks_.run(comm::barrier("the sums of a round"));
  const int height = std::countr_zero(static_cast<unsigned>(ranks_.size()));
  stack_.push_back({{height, round_}, out_});
  comm::join_halves(stack_, [this] { join_last_two(); });
  ++round_;
}

// The one before the last keeps its node.
void RoundSums::join_last_two() {
  const comm::Part last = stack_.back();
  stack_.pop_back();
  comm::add_floats(stack_.back().data, last.data, sizes_.totals_bytes);
  free_.push_back(last.data);
}

const std::byte* RoundSums::finish(std::span<const Bucket>) {
  CONCORD_CHECK(round_ == rounds_ && !stack_.empty(), "{} of {} rounds", round_, rounds_);
  while (stack_.size() > 1) join_last_two();
  return stack_[0].data;
}

}  // namespace concord
