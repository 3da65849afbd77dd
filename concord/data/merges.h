// The merges of a byte-pair encoding, and their use on one word.
// Thread safety: const methods may be called by several threads, each with a scratch of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace concord::data {

using TokenId = std::int32_t;

class Merges {
 public:
  // What apply() works in; kept by its caller so that a word allocates nothing.
  struct Scratch {
    struct Symbol {
      TokenId id;  // kJoined: part of a symbol before it
      std::size_t previous;
      std::size_t next;
    };
    struct Candidate {
      std::int32_t rank;
      TokenId id;         // of the merged symbol
      std::size_t place;  // of the left symbol
      // Lower ranks first, then places further left: std::*_heap keeps the greatest in front.
      bool operator<(const Candidate& other) const {
        return rank != other.rank ? rank > other.rank : place > other.place;
      }
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> candidates;
  };

  bool empty() const { return by_pair_.empty(); }
  // `left` and `right` in a row become `merged`. A pair given twice counts as the last time.
  void set(TokenId left, TokenId right, std::int32_t rank, TokenId merged);

  // Merges neighbours in ids[first..], the lowest rank and then the leftmost first, until no merge
  // applies. Takes time n log n.
  void apply(std::vector<TokenId>& ids, std::size_t first, Scratch& scratch) const;

 private:
  struct Merge {
    std::int32_t rank;
    TokenId id;
  };
  const Merge* find(TokenId left, TokenId right) const;
  void propose(std::size_t left, Scratch& scratch) const;
  void join(std::size_t left, TokenId merged, Scratch& scratch) const;

  std::unordered_map<std::uint64_t, Merge> by_pair_;
};

}  // namespace concord::data
