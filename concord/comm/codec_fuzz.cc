// Fuzzes what decodes frames: any bytes for any number of numbers give numbers, or an Error.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "concord/base/error.h"
#include "concord/comm/codec.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace concord::comm;
  static const std::vector<std::unique_ptr<Codec>> kCodecs = [] {
    std::vector<std::unique_ptr<Codec>> made;
    for (const CodecInfo& info : codecs()) {
      made.push_back(make_codec({std::string(info.name)}));
    }
    return made;
  }();
  std::uint16_t count = 0;
  if (size < 3) return 0;
  std::memcpy(&count, data + 1, sizeof count);
  const Codec& codec = *kCodecs[data[0] % kCodecs.size()];
  std::vector<float> out(std::min<std::size_t>(count, kCodecChunk));
  // As in a message, frames begin at a multiple of 4 bytes.
  std::vector<std::uint32_t> frame((size - 3 + 3) / 4);
  std::memcpy(frame.data(), data + 3, size - 3);
  for (const bool adds : {false, true}) {
    try {
      codec.decode(std::as_bytes(std::span(frame)).first(size - 3), adds, out);
    } catch (const concord::Error&) {
    }
  }
  return 0;
}
