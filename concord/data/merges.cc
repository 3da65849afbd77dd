#include "concord/data/merges.h"

#include <algorithm>
#include <limits>

namespace concord::data {
namespace {

constexpr TokenId kJoined = -1;
constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

std::uint64_t key_of(TokenId left, TokenId right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

}  // namespace

void Merges::set(TokenId left, TokenId right, std::int32_t rank, TokenId merged) {
  by_pair_[key_of(left, right)] = {rank, merged};
}

const Merges::Merge* Merges::find(TokenId left, TokenId right) const {
  const auto found = by_pair_.find(key_of(left, right));
  return found == by_pair_.end() ? nullptr : &found->second;
}

void Merges::propose(std::size_t left, Scratch& scratch) const {
  const Scratch::Symbol& symbol = scratch.symbols[left];
  if (symbol.next == kNone) return;
  const Merge* merge = find(symbol.id, scratch.symbols[symbol.next].id);
  if (merge == nullptr) return;
  scratch.candidates.push_back({merge->rank, merge->id, left});
  std::push_heap(scratch.candidates.begin(), scratch.candidates.end());
}

void Merges::join(std::size_t left, TokenId merged, Scratch& scratch) const {
  Scratch::Symbol& symbol = scratch.symbols[left];
  Scratch::Symbol& absorbed = scratch.symbols[symbol.next];
  symbol.id = merged;
  symbol.next = absorbed.next;
  absorbed.id = kJoined;
  if (symbol.next != kNone) scratch.symbols[symbol.next].previous = left;
  if (symbol.previous != kNone) propose(symbol.previous, scratch);
  propose(left, scratch);
}

void Merges::apply(std::vector<TokenId>& ids, std::size_t first, Scratch& scratch) const {
  const std::size_t count = ids.size() - first;
  if (count < 2 || empty()) return;
  scratch.symbols.clear();
  scratch.candidates.clear();
  for (std::size_t i = 0; i < count; ++i) {
    scratch.symbols.push_back({ids[first + i], i - 1, i + 1 < count ? i + 1 : kNone});
  }
  static_assert(kNone == std::size_t{0} - 1);  // before the first symbol
  for (std::size_t i = 0; i + 1 < count; ++i) propose(i, scratch);
  while (!scratch.candidates.empty()) {
    std::pop_heap(scratch.candidates.begin(), scratch.candidates.end());
    const Scratch::Candidate candidate = scratch.candidates.back();
    scratch.candidates.pop_back();
    // A candidate is stale where one of its symbols has been merged since.
    const Scratch::Symbol& symbol = scratch.symbols[candidate.place];
    if (symbol.id == kJoined || symbol.next == kNone) continue;
    const Merge* merge = find(symbol.id, scratch.symbols[symbol.next].id);
    if (merge == nullptr || merge->id != candidate.id) continue;
    join(candidate.place, candidate.id, scratch);
  }
  ids.resize(first);
  for (const Scratch::Symbol& symbol : scratch.symbols) {
    if (symbol.id != kJoined) ids.push_back(symbol.id);
  }
}

}  // namespace concord::data
