#include "concord/runtime/rehearsals.h"

#include <algorithm>
#include <span>

#include "concord/base/error.h"

namespace concord {
namespace {

// Lists of numbers, one after another, each with its length before it.
class Lists {
 public:
  Lists() = default;
  explicit Lists(std::span<const double> numbers) : numbers_(numbers.begin(), numbers.end()) {}

  void put(const std::vector<double>& list) {
    numbers_.push_back(static_cast<double>(list.size()));
    numbers_.insert(numbers_.end(), list.begin(), list.end());
  }
  std::vector<double> take() {
    CONCORD_CHECK(next_ < numbers_.size());
    const auto count = static_cast<std::size_t>(numbers_[next_++]);
    CONCORD_CHECK(count <= numbers_.size() - next_);
    const auto begin = numbers_.begin() + static_cast<std::ptrdiff_t>(next_);
    next_ += count;
    return {begin, begin + static_cast<std::ptrdiff_t>(count)};
  }
  const std::vector<double>& numbers() const { return numbers_; }

 private:
  std::vector<double> numbers_;
  std::size_t next_ = 0;
};

void put(const Executor::Rehearsal& one, Lists& lists) {
  lists.put(one.prologue);
  lists.put(one.update);
  lists.put(one.inputs);
  for (const auto& seconds : one.microbatches) lists.put(seconds);
  for (const auto& seconds : one.additions) lists.put(seconds);
}

Executor::Rehearsal take(Lists& lists) {
  Executor::Rehearsal one;
  one.prologue = lists.take();
  one.update = lists.take();
  one.inputs = lists.take();
  for (std::size_t m = 0; m < one.inputs.size(); ++m) one.microbatches.push_back(lists.take());
  for (std::size_t m = 0; m < one.inputs.size(); ++m) one.additions.push_back(lists.take());
  return one;
}

std::vector<Lists> gather(comm::Communicator& ranks, const Lists& own) {
  const auto size = static_cast<std::size_t>(ranks.size());
  const std::uint64_t count = own.numbers().size();
  std::vector<std::uint64_t> counts(size);
  ranks.run(comm::all_gather(std::as_bytes(std::span(&count, 1)),
                             std::as_writable_bytes(std::span(counts)), "rehearsals"));
  const std::size_t most = *std::ranges::max_element(counts);
  std::vector<double> padded = own.numbers(), all(most * size);
  padded.resize(most);
  ranks.run(comm::all_gather(std::as_bytes(std::span(padded)),
                             std::as_writable_bytes(std::span(all)), "rehearsals"));
  std::vector<Lists> result;
  for (std::size_t r = 0; r < size; ++r) {
    result.emplace_back(std::span(all).subspan(r * most, counts[r]));
  }
  return result;
}

}  // namespace

std::vector<std::vector<Executor::Rehearsal>> gather_rehearsals(
    comm::Communicator& ranks, const std::vector<Executor::Rehearsal>& own) {
  Lists lists;
  for (const Executor::Rehearsal& one : own) put(one, lists);
  std::vector<std::vector<Executor::Rehearsal>> result;
  for (Lists& of_rank : gather(ranks, lists)) {
    auto& rehearsals = result.emplace_back();
    for (std::size_t i = 0; i < own.size(); ++i) rehearsals.push_back(take(of_rank));
  }
  return result;
}

}  // namespace concord
