// Finds added tokens in text.
// Thread safety: const methods may be called by several threads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace concord::data {

class TokenFinder {
 public:
  struct Match {
    std::size_t begin = 0;  // the text's size where no token is found
    std::size_t end = 0;
    std::int32_t id = -1;
  };

  // `token` is not empty.
  void add(std::string token, std::int32_t id);
  // The leftmost token at or after `from`, the longest of those that begin there.
  Match find(std::string_view text, std::size_t from) const;

 private:
  std::map<std::string, std::int32_t, std::less<>> ids_;
  // The sizes of tokens by their first byte, descending.
  std::array<std::vector<std::size_t>, 256> sizes_;
};

}  // namespace concord::data
