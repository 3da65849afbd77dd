// Fuzzes the manifest's reader: any bytes, sealed or not, give a manifest that can be written
// again, or an Error.
#include <cstdint>
#include <string>

#include "concord/base/error.h"
#include "concord/train/manifest.h"

namespace {

void parse_and_render(std::string_view text) {
  try {
    (void)to_text(concord::train::parse_manifest(text, "fuzz"));
  } catch (const concord::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  parse_and_render(bytes);
  parse_and_render(concord::train::seal(bytes));
  return 0;
}
