#include "concord/formats/trace_file.h"

#include <cmath>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/formats/json.h"

namespace concord::formats {
namespace {

constexpr double kMicroseconds = 1e6;
constexpr Lane kLanes[] = {Lane::kCompute, Lane::kCommunication, Lane::kData, Lane::kPipeline};
constexpr std::size_t kMostRanks = 1 << 16;
constexpr std::size_t kLargestFile = std::size_t{1} << 30;  // bytes

nlohmann::ordered_json named(const char* what, std::size_t rank, int lane, std::string_view name) {
  return {{"ph", "M"}, {"name", what}, {"pid", rank}, {"tid", lane}, {"args", {{"name", name}}}};
}

Lane lane_named(const std::string& name) {
  for (const Lane lane : kLanes) {
    if (name == name_of(lane)) return lane;
  }
  fail("\"{}\" is no lane", name);
}

}  // namespace

void write_trace(const std::filesystem::path& path, const JobTrace& trace) {
  std::string text = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  const auto add = [&](const nlohmann::ordered_json& event) {
    if (!text.ends_with("[\n")) text += ",\n";
    // A label may have been cut within a character.
    text += event.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  };
  for (std::size_t rank = 0; rank < trace.size(); ++rank) {
    add(named("process_name", rank, 0, fmt::format("rank {}", rank)));
    for (const Lane lane : kLanes) {
      add(named("thread_name", rank, static_cast<int>(lane), name_of(lane)));
    }
    for (const TraceEvent& event : trace[rank]) {
      add({{"ph", "X"},
           {"name", event.name.text()},
           {"cat", name_of(event.lane)},
           {"pid", rank},
           {"tid", static_cast<int>(event.lane)},
           {"ts", event.begin * kMicroseconds},
           {"dur", (event.end - event.begin) * kMicroseconds},
           {"args", {{"about", event.about.text()}, {"step", event.step}}}});
    }
  }
  write_file_atomically(path, text + "\n]}\n");
}

JobTrace read_trace(const std::filesystem::path& path) {
  const std::string source = path.string();
  const nlohmann::json json = parse_json(read_file(path, kLargestFile), source);
  JobTrace trace;
  try {
    for (const nlohmann::json& event : json.at("traceEvents")) {
      if (event.at("ph") != "X") continue;
      if (!event.at("pid").is_number_unsigned())
        fail("an event of rank {}", event.at("pid").dump());
      const auto rank = event.at("pid").get<std::size_t>();
      const double begin = event.at("ts").get<double>(), length = event.at("dur").get<double>();
      if (rank >= kMostRanks || !std::isfinite(begin + length) || !(length >= 0)) {
        fail("an event of rank {} at {} of {} microseconds", rank, begin, length);
      }
      if (rank >= trace.size()) trace.resize(rank + 1);
      const nlohmann::json& arguments = event.at("args");
      trace[rank].push_back({.name = comm::Label(event.at("name").get<std::string>()),
                             .about = comm::Label(arguments.at("about").get<std::string>()),
                             .lane = lane_named(event.at("cat").get<std::string>()),
                             .step = arguments.at("step").get<std::int64_t>(),
                             .begin = begin / kMicroseconds,
                             .end = (begin + length) / kMicroseconds});
    }
  } catch (const std::exception& error) {
    fail("{} is not a trace that concord train has written: {}", source, error.what());
  }
  return trace;
}

}  // namespace concord::formats
