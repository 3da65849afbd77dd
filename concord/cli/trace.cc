// concord trace: where the time of a traced run went, in numbers or as a picture.
#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>

#include "concord/base/file.h"
#include "concord/cli/command.h"
#include "concord/cli/results.h"
#include "concord/cli/units.h"
#include "concord/formats/trace_drawing.h"
#include "concord/formats/trace_file.h"

namespace concord::cli {
namespace {

struct TraceArguments {
  std::string file;
  std::string out;
  std::int64_t step = 0;  // 0: not given
  bool json = false;
};

struct OpTime {
  Lane lane;
  std::string name;
  int runs = 0;
  double seconds = 0;
};

// Over all ranks, slowest first.
std::vector<OpTime> times_by_name(const JobTrace& trace) {
  std::map<std::pair<Lane, std::string>, OpTime> times;
  for (const auto& events : trace) {
    for (const TraceEvent& event : events) {
      if (event.lane == Lane::kPipeline) continue;  // the sum of its ops
      const std::string name(event.name.text());
      OpTime& time = times.try_emplace({event.lane, name}, OpTime{event.lane, name}).first->second;
      ++time.runs;
      time.seconds += event.end - event.begin;
    }
  }
  std::vector<OpTime> sorted;
  for (const auto& [key, time] : times) sorted.push_back(time);
  std::ranges::sort(sorted, std::greater(), &OpTime::seconds);
  return sorted;
}

double hidden_share(const TraceSummary& summary) {
  return summary.communication > 0 ? 1 - summary.exposed / summary.communication : 0;
}

void print_as_json(const JobTrace& trace) {
  nlohmann::json ranks = nlohmann::json::array(), ops = nlohmann::json::array();
  const double seconds = seconds_of(trace);
  for (const auto& events : trace) {
    const TraceSummary summary = summarize(events, seconds);
    ranks.push_back({{"compute_seconds", summary.compute},
                     {"communication_seconds", summary.communication},
                     {"exposed_seconds", summary.exposed},
                     {"hidden_share", hidden_share(summary)},
                     {"data_wait_seconds", summary.data_wait}});
  }
  for (const OpTime& time : times_by_name(trace)) {
    ops.push_back({{"lane", name_of(time.lane)},
                   {"name", time.name},
                   {"runs", time.runs},
                   {"seconds", time.seconds}});
  }
  print_json(nlohmann::json{{"seconds", seconds}, {"ranks", ranks}, {"ops", ops}});
}

void print_text(const JobTrace& trace) {
  const double seconds = seconds_of(trace);
  fmt::print("{:<8} {:>10} {:>14} {:>8} {:>10} {:>8}   of {}\n", "rank", "compute", "communication",
             "hidden", "data wait", "other", format_duration(seconds));
  const auto share = [&](double part) {
    return seconds > 0 ? format_percent(std::max(0.0, part / seconds)) : "";
  };
  for (std::size_t rank = 0; rank < trace.size(); ++rank) {
    const TraceSummary summary = summarize(trace[rank], seconds);
    const double other = seconds - summary.compute - summary.exposed - summary.data_wait;
    fmt::print("{:<8} {:>10} {:>14} {:>8} {:>10} {:>8}\n", rank, share(summary.compute),
               share(summary.exposed), format_percent(hidden_share(summary)),
               share(summary.data_wait), share(other));
  }
  fmt::print("\n{:<32} {:>8} {:>12} {:>8}\n", "op", "runs", "time", "share");
  double all = 0;
  const std::vector<OpTime> times = times_by_name(trace);
  for (const OpTime& time : times) all += time.seconds;
  for (const OpTime& time : times) {
    fmt::print("{:<32} {:>8} {:>12} {:>8}  {}\n", time.name, time.runs,
               format_duration(time.seconds), format_percent(time.seconds / all),
               time.lane == Lane::kCompute ? "" : name_of(time.lane));
  }
}

void draw(const TraceArguments& arguments) {
  const JobTrace trace = formats::read_trace(arguments.file);
  const formats::TraceDrawing drawing =
      formats::draw_trace(trace, arguments.step > 0 ? std::optional(arguments.step) : std::nullopt);
  write_file_atomically(arguments.out, drawing.svg);
  if (arguments.json) {
    nlohmann::json json = {{"step", drawing.step},
                           {"ranks", trace.size()},
                           {"seconds", drawing.seconds},
                           {"file", arguments.out}};
    if (drawing.bubble) json["bubble"] = *drawing.bubble;
    return print_json(json);
  }
  const std::string bubble =
      drawing.bubble ? fmt::format(", bubble {:.3f}", *drawing.bubble) : std::string();
  fmt::print("step {} of {}, {}{}, in {}\n", drawing.step,
             counted(static_cast<std::int64_t>(trace.size()), "rank"),
             format_duration(drawing.seconds), bubble, arguments.out);
}

void add_file(CLI::App& command, TraceArguments& arguments) {
  command.add_option("TRACE.json", arguments.file, "What output.trace_steps has written")
      ->required()
      ->type_name("");
}

void add_draw(CLI::App& trace) {
  CLI::App* command = trace.add_subcommand("draw", "Draw a step, rank by rank, in SVG");
  const auto arguments = std::make_shared<TraceArguments>();
  add_file(*command, *arguments);
  command->add_option("--out", arguments->out, "Where the picture is written")
      ->required()
      ->type_name("FILE.svg");
  command
      ->add_option("--step", arguments->step,
                   "Which one, as the trace counts them; the last one that all ranks have unless "
                   "said otherwise")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{1}, std::numeric_limits<std::int64_t>::max()));
  add_json_flag(*command, arguments->json);
  command->footer(
      "Of a pipeline (parallel.mesh.pipe) a box is a microbatch's forward pass through a stage, "
      "or\n"
      "its backward pass, or the gradients of the weights; else boxes are ops, and communication\n"
      "lies below them. The bubble is idle over busy time.\n"
      "\n"
      "Examples:\n"
      "  concord train run.toml --ranks 4 --set parallel.mesh.pipe=4 --set output.trace_steps=5\n"
      "  concord trace draw runs/run/trace.json --out pipeline.svg");
  command->callback([arguments] { draw(*arguments); });
}

}  // namespace

void add_trace(CLI::App& app) {
  CLI::App* trace = app.add_subcommand("trace", "Look at the trace of a run");
  trace->require_subcommand(1);
  trace->footer(
      "Examples:\n"
      "  concord trace summary runs/run/trace.json\n"
      "  concord trace draw runs/run/trace.json --out pipeline.svg");
  add_draw(*trace);
  CLI::App* command =
      trace->add_subcommand("summary", "Tell where the time went, by rank and by op");
  const auto arguments = std::make_shared<TraceArguments>();
  add_file(*command, *arguments);
  add_json_flag(*command, arguments->json);
  command->footer(
      "Of the time from the first event to the last: \"communication\" is what a rank waited for\n"
      "collectives while it computed nothing, \"hidden\" the share of all collectives' time in "
      "which\n"
      "it did compute.\n"
      "\n"
      "Examples:\n"
      "  concord train run.toml --ranks 2 --set output.trace_steps=5\n"
      "  concord trace summary runs/run/trace.json");
  command->callback([arguments] {
    const JobTrace trace = formats::read_trace(arguments->file);
    if (arguments->json) {
      print_as_json(trace);
    } else {
      print_text(trace);
    }
  });
}

}  // namespace concord::cli
