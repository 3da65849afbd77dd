// libFuzzer entry: any bytes as a configuration file. The first line, where it starts with '#', is
// also given as an override.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "concord/base/error.h"
#include "concord/train/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> overrides;
  if (text.starts_with('#')) overrides.emplace_back(text.substr(1, text.find('\n') - 1));
  concord::Config config;
  try {
    config = concord::parse_config(text, "fuzz.toml", overrides);
  } catch (const concord::Error& error) {
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
    return 0;
  }
  // Whatever is accepted prints as TOML that reads back the same.
  if (concord::parse_config(concord::to_toml(config), "again.toml") != config) std::abort();
  return 0;
}
