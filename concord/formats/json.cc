#include "concord/formats/json.h"

#include <set>
#include <string>
#include <vector>

#include "concord/base/error.h"

namespace concord::formats {

nlohmann::json parse_json(std::string_view text, std::string_view source) {
  using Event = nlohmann::json::parse_event_t;
  constexpr int kMaxDepth = 64;
  std::vector<std::set<std::string>> keys;  // of each object that is open
  const auto watch = [&](int depth, Event event, nlohmann::json& value) {
    if (depth > kMaxDepth) fail("{}: JSON nested more than {} deep", source, kMaxDepth);
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(value.get<std::string>()).second) {
      fail("{}: the key {} appears twice in one JSON object", source, value.dump());
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, watch);
  } catch (const nlohmann::json::parse_error& error) {
    fail("{}: not valid JSON from byte {} of {} on", source, error.byte, text.size());
  } catch (const nlohmann::json::out_of_range&) {
    fail("{}: not valid JSON: it holds a number that is too large", source);
  }
}

}  // namespace concord::formats
