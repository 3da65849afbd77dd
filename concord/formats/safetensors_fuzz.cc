// Fuzzes the safetensors reader: any bytes give a file whose every tensor can be read, or an Error.
#include <cstdint>
#include <string>

#include "concord/formats/safetensors.h"

namespace {

using concord::formats::SafetensorsFile;

void parse_and_touch(std::string contents) {
  try {
    const SafetensorsFile file = SafetensorsFile::parse(std::move(contents), "fuzz");
    for (const std::string& name : file.names()) {
      try {
        const concord::TensorType& type = file.type(name);
        const auto bytes = file.bytes(name);
        CONCORD_CHECK(bytes.size() == type.bytes());
        std::uint8_t sum = 0;
        for (const std::byte byte : bytes) sum ^= static_cast<std::uint8_t>(byte);
        [[maybe_unused]] volatile std::uint8_t keep = sum;
        (void)type.shape.row_major_strides();
      } catch (const concord::Error&) {
      }
    }
  } catch (const concord::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  parse_and_touch(bytes);
  // Again as a header before some data: chance would rarely find the length that goes before it.
  const std::uint64_t length = size;
  parse_and_touch(std::string(reinterpret_cast<const char*>(&length), 8) + bytes +
                  std::string(24, '\1'));
  return 0;
}
