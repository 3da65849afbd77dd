#include "concord/data/token_finder.h"

#include <algorithm>
#include <functional>

namespace concord::data {

void TokenFinder::add(std::string token, std::int32_t id) {
  std::vector<std::size_t>& sizes = sizes_[static_cast<std::uint8_t>(token.front())];
  const auto place = std::ranges::lower_bound(sizes, token.size(), std::greater<>());
  if (place == sizes.end() || *place != token.size()) sizes.insert(place, token.size());
  ids_[std::move(token)] = id;
}

TokenFinder::Match TokenFinder::find(std::string_view text, std::size_t from) const {
  if (ids_.empty()) return {text.size(), text.size(), -1};
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    for (const std::size_t size : sizes_[static_cast<std::uint8_t>(text[begin])]) {
      if (size > text.size() - begin) continue;
      const auto found = ids_.find(text.substr(begin, size));
      if (found != ids_.end()) return {begin, begin + size, found->second};
    }
  }
  return {text.size(), text.size(), -1};
}

}  // namespace concord::data
