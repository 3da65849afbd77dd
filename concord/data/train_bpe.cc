#include "concord/data/train_bpe.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <queue>
#include <unordered_map>

#include "concord/base/error.h"
#include "concord/base/text.h"
#include "concord/data/split_pattern.h"
#include "concord/data/utf8.h"

namespace concord::data {
namespace {

constexpr int kBytes = 256;

using Pair = std::pair<TokenId, TokenId>;

struct PairHash {
  std::size_t operator()(const Pair& pair) const {
    return std::hash<std::uint64_t>()(std::uint64_t{static_cast<std::uint32_t>(pair.first)} << 32 |
                                      static_cast<std::uint32_t>(pair.second));
  }
};

// The different words of the texts and how often each occurs; sorted, so that nothing depends on
// the order of a hash table.
std::vector<std::pair<std::string_view, std::int64_t>> count_words(
    std::span<const std::string> texts) {
  const SplitPattern pattern(std::string(kGpt2Pattern), "GPT-2");
  std::unordered_map<std::string_view, std::int64_t> counts;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    check_utf8(texts[i], fmt::format("text {} of {}", i + 1, texts.size()));
    pattern.split(texts[i], [&](std::string_view word) { ++counts[word]; });
  }
  std::vector<std::pair<std::string_view, std::int64_t>> words(counts.begin(), counts.end());
  std::ranges::sort(words);
  return words;
}

// The words as linked symbols, and where each pair of neighbours stands. A merge visits the places
// of its pair alone, so that all merges together take time in proportion to the symbols joined.
class PairCounts {
 public:
  explicit PairCounts(std::span<const std::pair<std::string_view, std::int64_t>> words) {
    for (const auto& [word, count] : words) {
      const std::size_t begin = symbols_.size();
      for (const char byte : word) {
        const std::size_t place = symbols_.size();
        symbols_.push_back({static_cast<std::uint8_t>(byte), place - 1, place + 1, count});
      }
      symbols_[begin].previous = kNone;
      symbols_.back().next = kNone;
    }
    for (std::size_t place = 0; place < symbols_.size(); ++place) add(place);
    offer_changed();
  }

  struct Best {
    Pair pair;
    std::int64_t count = 0;  // 0: there is none
  };
  Best best() {
    while (!candidates_.empty()) {
      Candidate candidate = candidates_.top();
      const auto found = occurrences_.find(candidate.pair);
      const std::int64_t count = found == occurrences_.end() ? 0 : found->second.count;
      if (candidate.count == count && count > 0) return {candidate.pair, count};
      candidates_.pop();
      candidate.count = count;  // it has fallen since
      if (count > 0) candidates_.push(candidate);
    }
    return {};
  }

  // Replaces the pair by `merged` wherever it stands, from the left.
  void merge(const Pair& pair, TokenId merged) {
    std::vector<std::size_t> places = std::move(occurrences_[pair].places);
    std::ranges::sort(places);
    for (const std::size_t place : places) {
      if (stands_at(pair, place)) join(place, merged);
    }
    occurrences_.erase(pair);
    offer_changed();
  }

 private:
  static constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();
  static constexpr TokenId kJoined = -1;

  struct Symbol {
    TokenId id;
    std::size_t previous;
    std::size_t next;
    std::int64_t count;  // of the word
  };
  struct Occurrences {
    std::int64_t count = 0;
    std::vector<std::size_t> places;  // of the left symbol; some may be out of date
  };
  struct Candidate {
    std::int64_t count;
    Pair pair;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  Pair pair_at(std::size_t place) const {
    return {symbols_[place].id, symbols_[symbols_[place].next].id};
  }
  bool stands_at(const Pair& pair, std::size_t place) const {
    return symbols_[place].id == pair.first && symbols_[place].next != kNone &&
           symbols_[symbols_[place].next].id == pair.second;
  }

  // Counts the pair that begins at `place`, if one does.
  void add(std::size_t place) {
    if (place == kNone || symbols_[place].next == kNone) return;
    const Pair pair = pair_at(place);
    Occurrences& occurrences = occurrences_[pair];
    occurrences.count += symbols_[place].count;
    occurrences.places.push_back(place);
    changed_.push_back(pair);
  }
  void remove(std::size_t place) {
    if (place == kNone || symbols_[place].next == kNone) return;
    occurrences_[pair_at(place)].count -= symbols_[place].count;
  }

  void join(std::size_t place, TokenId merged) {
    Symbol& left = symbols_[place];
    Symbol& right = symbols_[left.next];
    remove(left.previous);
    remove(place);
    remove(left.next);
    left.id = merged;
    left.next = right.next;
    right.id = kJoined;
    if (left.next != kNone) symbols_[left.next].previous = place;
    add(left.previous);
    add(place);
  }

  // Pairs whose count rose become candidates; one whose count falls is found out by best().
  void offer_changed() {
    std::ranges::sort(changed_);
    changed_.erase(std::unique(changed_.begin(), changed_.end()), changed_.end());
    for (const Pair& pair : changed_) {
      const auto found = occurrences_.find(pair);
      if (found != occurrences_.end()) candidates_.push({found->second.count, pair});
    }
    changed_.clear();
  }

  std::vector<Symbol> symbols_;
  std::unordered_map<Pair, Occurrences, PairHash> occurrences_;
  std::priority_queue<Candidate> candidates_;
  std::vector<Pair> changed_;
};

int wanted_merges(const BpeOptions& options) {
  for (const std::string& token : options.special_tokens) {
    if (token.empty() || std::ranges::count(options.special_tokens, token) > 1) {
      fail("the special token {}: expected different ones that are not empty",
           quote(shortened(token)));
    }
  }
  const int fixed = kBytes + static_cast<int>(options.special_tokens.size());
  if (options.vocabulary_size < fixed) {
    fail("a vocabulary of {} tokens: expected at least {}, for the bytes and {} special tokens",
         options.vocabulary_size, fixed, options.special_tokens.size());
  }
  return options.vocabulary_size - fixed;
}

// Learns merges until the vocabulary has grown by `wanted` tokens. Two merges may have the same
// outcome, ab + c and a + bc: then the second adds no token.
void learn(PairCounts& pairs, TokenizerParts& parts, int wanted, const BpeOptions& options) {
  constexpr int kProgressEvery = 64;
  std::unordered_map<std::string, TokenId> ids;
  for (const std::string& token : parts.tokens) {
    ids.emplace(token, static_cast<TokenId>(ids.size()));
  }
  while (static_cast<int>(parts.tokens.size()) < kBytes + wanted) {
    const PairCounts::Best best = pairs.best();
    const int learned = static_cast<int>(parts.tokens.size()) - kBytes;
    if (best.count < 2) {
      fail(
          "a vocabulary of {} tokens: the pairs that occur twice in the text give {}: ask for at "
          "most that, or give more text",
          options.vocabulary_size, options.vocabulary_size - wanted + learned);
    }
    const auto spelling = [&](TokenId id) { return parts.tokens[static_cast<std::size_t>(id)]; };
    const std::string merged = spelling(best.pair.first) + spelling(best.pair.second);
    const auto [place, is_new] = ids.emplace(merged, static_cast<TokenId>(parts.tokens.size()));
    if (is_new) parts.tokens.push_back(merged);
    parts.merges.push_back(best.pair);
    pairs.merge(best.pair, place->second);
    if (options.progress && learned % kProgressEvery == 0) options.progress(learned, wanted);
  }
  if (options.progress) options.progress(wanted, wanted);
}

}  // namespace

Tokenizer train_bpe(std::span<const std::string> texts, const BpeOptions& options) {
  TokenizerParts parts = Tokenizer::bytes().parts();
  parts.patterns.emplace_back(kGpt2Pattern);
  const int wanted = wanted_merges(options);
  const auto words = count_words(texts);
  PairCounts pairs(words);
  learn(pairs, parts, wanted, options);
  for (const std::string& token : options.special_tokens) {
    if (std::ranges::find(parts.tokens, token) != parts.tokens.end()) {
      fail("the special token {} was also learned from the text: expected another name for it",
           quote(shortened(token)));
    }
    parts.tokens.push_back(token);
    parts.added.push_back({.content = token, .special = true});
  }
  return Tokenizer(std::move(parts), "the trained tokenizer");
}

}  // namespace concord::data
