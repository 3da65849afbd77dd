#include "concord/data/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <limits>

#include "concord/base/error.h"

namespace concord::data {
namespace {

struct Inflater {
  z_stream stream{};

  Inflater() {
    CONCORD_CHECK(inflateInit2(&stream, 16 + MAX_WBITS) == Z_OK);  // 16: a gzip header is expected
  }
  ~Inflater() { inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
};

}  // namespace

bool is_gzip(std::string_view bytes) { return bytes.starts_with("\x1f\x8b"); }

std::string gunzip(std::string_view bytes, std::size_t limit, std::string_view source) {
  Inflater inflater;
  z_stream& stream = inflater.stream;
  std::string result;
  char block[1 << 16];
  while (result.size() < limit) {
    // zlib counts in 32 bits, so a large input is handed over in pieces.
    const std::size_t piece = std::min<std::size_t>(bytes.size(), std::numeric_limits<uInt>::max());
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream.avail_in = static_cast<uInt>(piece);
    stream.next_out = reinterpret_cast<Bytef*>(block);
    stream.avail_out = static_cast<uInt>(std::min(sizeof(block), limit - result.size()));
    const int status = inflate(&stream, Z_NO_FLUSH);
    bytes.remove_prefix(piece - stream.avail_in);
    result.append(block, reinterpret_cast<char*>(stream.next_out));
    if (status == Z_STREAM_END) {
      if (bytes.empty()) return result;
      inflateReset(&stream);
    } else if (status == Z_BUF_ERROR) {
      fail("{}: the gzip data ends early, after {} decompressed bytes: fetch the file again",
           source, result.size());
    } else if (status != Z_OK) {
      fail("{}: corrupt gzip data after {} decompressed bytes ({}): fetch the file again", source,
           result.size(), stream.msg != nullptr ? stream.msg : "unknown reason");
    }
  }
  return result;
}

}  // namespace concord::data
