#include "concord/net/lines.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace concord::net {
namespace {

constexpr double kHoldSeconds = 0.3;
// Of a message: what ends one rank rank 0 says too, once it has saved what there is.
constexpr double kHoldMessageSeconds = 3;
constexpr std::string_view kMessage = "concord: ";
constexpr std::size_t kLongestLine = 1 << 16;  // longer ones are cut

constexpr std::string_view kErase = "\033[K";  // a terminal's rest of a line

// As it would stand on a terminal in the end.
std::string plain(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  const std::size_t last = line.rfind('\r');
  if (last != std::string_view::npos) line.remove_prefix(last + 1);
  if (line.starts_with(kErase)) line.remove_prefix(kErase.size());
  if (line.ends_with(kErase)) line.remove_suffix(kErase.size());
  return std::string(line);
}

double hold_seconds(std::string_view line) {
  return line.starts_with(kMessage) ? kHoldMessageSeconds : kHoldSeconds;
}

}  // namespace

std::string list_of(const std::vector<int>& ranks) {
  std::string text;
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t j = i;
    while (j + 1 < ranks.size() && ranks[j + 1] == ranks[j] + 1) ++j;
    if (!text.empty()) text += ',';
    text += std::to_string(ranks[i]);
    if (j > i) text += "-" + std::to_string(ranks[j]);
    i = j + 1;
  }
  return text;
}

std::string named(const std::vector<int>& ranks) {
  return (ranks.size() == 1 ? "rank " : "ranks ") + list_of(ranks);
}

std::vector<std::string> LineSplitter::add(std::string_view bytes) {
  std::vector<std::string> lines;
  partial_.append(bytes);
  std::size_t end = 0;
  while ((end = partial_.find('\n')) != std::string::npos) {
    lines.push_back(plain(std::string_view(partial_).substr(0, end)));
    partial_.erase(0, end + 1);
  }
  // A live line goes on for hours: what was drawn over is gone.
  if (const std::size_t last = partial_.rfind('\r');
      last != std::string::npos && last + 1 < partial_.size()) {
    partial_.erase(0, last);
  }
  if (partial_.size() > kLongestLine) lines.push_back(rest());
  return lines;
}

std::string LineSplitter::rest() { return plain(std::exchange(partial_, "")); }

void Lines::add(int rank, const std::string& line) {
  const auto same = std::ranges::find_if(waiting_, [&](const Waiting& w) {
    return w.line == line && std::ranges::count(w.ranks, rank) == 0;
  });
  if (same == waiting_.end()) {
    waiting_.push_back({line, {rank}, Deadline::in(hold_seconds(line))});
  } else {
    same->ranks.insert(std::ranges::upper_bound(same->ranks, rank), rank);
  }
}

void Lines::first_said(const std::string& line) {
  std::erase_if(said_, [](const Said& said) { return said.until.has_passed(); });
  said_.push_back({line, Deadline::in(2 * hold_seconds(line))});
}

// Rank 0 says the same, or names one of the ranks in whose words it speaks.
bool Lines::is_said(const Waiting& waiting) const {
  if (waiting.line.empty()) return false;
  const bool is_message =
      waiting.line.starts_with(kMessage) && waiting.line.size() > kMessage.size();
  return std::ranges::any_of(said_, [&](const Said& said) {
    return said.line == waiting.line || std::ranges::any_of(waiting.ranks, [&](int rank) {
             return is_message && said.line.find(fmt::format(
                                      "rank {}: {}", rank, waiting.line.substr(kMessage.size()))) !=
                                      std::string::npos;
           });
  });
}

void Lines::take(bool everything, const std::function<void(const std::string&)>& print) {
  std::erase_if(waiting_, [&](const Waiting& waiting) {
    if (!everything && !waiting.until.has_passed()) return false;
    if (!is_said(waiting)) print(named(waiting.ranks) + ": " + waiting.line);
    return true;
  });
}

}  // namespace concord::net
