// Reads JSON that is not trusted.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace concord::formats {

// The JSON value in `text`. Throws Error beginning with `source` when the text is not JSON, when an
// object holds a key twice (two readers could then see two different files), or when values nest
// more than 64 deep (the value's users recurse).
nlohmann::json parse_json(std::string_view text, std::string_view source);

}  // namespace concord::formats
