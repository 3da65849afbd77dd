// Decompression of gzip data (RFC 1952) with a bound on its size.
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace concord::data {

bool is_gzip(std::string_view bytes);

// The decompressed bytes, all members in turn, or their first `limit` bytes where there are more.
// Throws Error naming `source` when the data is corrupt or ends early.
std::string gunzip(std::string_view bytes, std::size_t limit, std::string_view source);

}  // namespace concord::data
