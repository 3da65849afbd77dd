// Fuzzes what peers and users send to codecs: any frame gives numbers or an Error, whatever the
// codec, the length and the frame; any text gives a spec that is read the same again, or an Error.
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "concord/base/error.h"
#include "concord/comm/codec.h"

namespace {

using concord::comm::Codec;

const std::vector<std::unique_ptr<Codec>>& all_codecs() {
  static const auto all = [] {
    std::vector<std::unique_ptr<Codec>> made;
    for (const concord::comm::CodecInfo& info : concord::comm::codecs()) {
      made.push_back(concord::comm::make_codec({.name = std::string(info.name)}));
    }
    return made;
  }();
  return all;
}

void parse(std::string_view text) {
  try {
    const concord::comm::CodecSpec spec = concord::comm::parse_codec(text);
    CONCORD_CHECK(concord::comm::parse_codec(to_string(spec)) == spec);
    (void)concord::comm::make_codec(spec);
  } catch (const concord::Error&) {
  }
}

}  // namespace

// Two bytes say which codec and how many numbers; the rest is the frame.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  parse({reinterpret_cast<const char*>(data), size});
  if (size < 2) return 0;
  const Codec& codec = *all_codecs()[data[0] % all_codecs().size()];
  std::vector<float> numbers(data[1]);
  // Frames begin at a multiple of 4 bytes, as those of a caller do.
  std::vector<std::byte> frame(size - 2);
  if (!frame.empty()) std::memcpy(frame.data(), data + 2, frame.size());
  for (const bool adds : {false, true}) {
    try {
      codec.decode(frame, adds, numbers);
    } catch (const concord::Error&) {
    }
  }
  return 0;
}
