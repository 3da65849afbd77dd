#include "concord/formats/trace_drawing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <set>

#include "concord/base/error.h"

namespace concord::formats {
namespace {

// All in pixels.
constexpr double kWidth = 1400, kLeft = 70, kRight = 20, kTop = 64, kRow = 30, kGap = 6;
constexpr double kCommunicationRow = 8, kAxis = 46, kNarrowest = 0.5;
constexpr double kDigit = 7;  // of a number in a box
constexpr std::size_t kMostRanks = 256;

// Colours that most colour-blind people tell apart (Okabe and Ito 2008, "Color universal design").
struct Colour {
  int red, green, blue;
};
constexpr Colour kBlue{0, 114, 178}, kOrange{230, 159, 0}, kGreen{0, 158, 115},
    kGrey{110, 110, 110}, kPink{204, 121, 167};

Colour colour_of(const TraceEvent& event) {
  if (event.lane == Lane::kCommunication) return kPink;
  if (event.lane == Lane::kData) return kGrey;
  if (event.lane == Lane::kCompute) return kBlue;
  const std::string_view name = event.name.text();
  return name == "forward"    ? kBlue
         : name == "backward" ? kOrange
         : name == "weights"  ? kGreen
                              : kGrey;
}

// Chunks after the first are lighter.
Colour shade(Colour colour, int chunk, int chunks) {
  const double white = chunks < 2 ? 0 : 0.6 * chunk / (chunks - 1);
  const auto mixed = [&](int part) { return static_cast<int>(part + (255 - part) * white); };
  return {mixed(colour.red), mixed(colour.green), mixed(colour.blue)};
}

std::string hex(Colour colour) {
  return fmt::format("#{:02x}{:02x}{:02x}", colour.red, colour.green, colour.blue);
}

bool is_dark(Colour colour) {
  return 0.3 * colour.red + 0.6 * colour.green + 0.1 * colour.blue < 140;
}

// Of a text of the trace. What XML does not allow becomes "?", and so does what is not ASCII: a
// label may have been cut within a character.
std::string escaped(std::string_view text) {
  std::string result;
  for (const char letter : text) {
    if (letter == '&') {
      result += "&amp;";
    } else if (letter == '<') {
      result += "&lt;";
    } else if (letter == '>') {
      result += "&gt;";
    } else if (letter == '"') {
      result += "&quot;";
    } else {
      result += letter >= ' ' && letter <= '~' ? letter : '?';
    }
  }
  return result;
}

// Three digits: "12.3 ms".
std::string duration(double seconds) {
  if (seconds == 0) return "0";
  const double size = std::abs(seconds);
  if (size >= 1) return fmt::format("{:.3g} s", seconds);
  if (size >= 1e-3) return fmt::format("{:.3g} ms", seconds * 1e3);
  return fmt::format("{:.3g} µs", seconds * 1e6);
}

// Of "microbatch 12, chunk 0"; none where it says something else.
struct Part {
  int microbatch = -1, chunk = 0;
};
Part part_of(const TraceEvent& event) {
  Part part;
  const std::string about(event.about.text());
  if (std::sscanf(about.c_str(), "microbatch %9d, chunk %4d", &part.microbatch, &part.chunk) != 2 ||
      part.microbatch < 0 || part.chunk < 0) {
    return {};
  }
  return part;
}

using Events = std::vector<const TraceEvent*>;

struct Rows {
  bool is_pipeline = false;
  std::vector<Events> of_ranks;  // in the order in which they begin
  double begin = 0, end = 0;
};

Rows rows_of(const JobTrace& trace, std::int64_t step) {
  Rows rows;
  const auto is_of_step = [&](const TraceEvent& event) { return event.step == step; };
  for (const auto& events : trace) {
    rows.is_pipeline |= std::ranges::any_of(events, [&](const TraceEvent& event) {
      return is_of_step(event) && event.lane == Lane::kPipeline;
    });
  }
  rows.begin = std::numeric_limits<double>::infinity();
  rows.end = -rows.begin;
  for (const auto& events : trace) {
    Events& row = rows.of_ranks.emplace_back();
    for (const TraceEvent& event : events) {
      if (!is_of_step(event) || (event.lane == Lane::kPipeline) != rows.is_pipeline) continue;
      row.push_back(&event);
      rows.begin = std::min(rows.begin, event.begin);
      rows.end = std::max(rows.end, event.end);
    }
    std::ranges::stable_sort(row, {}, &TraceEvent::begin);
  }
  return rows;
}

// The last that all ranks have something of which have anything; of pipelines, where there are any.
std::int64_t last_whole_step(const JobTrace& trace) {
  for (const bool of_pipelines : {true, false}) {
    std::map<std::int64_t, std::size_t> ranks_of_steps;
    for (const auto& events : trace) {
      std::set<std::int64_t> steps;
      for (const TraceEvent& event : events) {
        if (!of_pipelines || event.lane == Lane::kPipeline) steps.insert(event.step);
      }
      for (const std::int64_t step : steps) ++ranks_of_steps[step];
    }
    std::size_t most = 0;
    std::int64_t last = 0;
    for (const auto& [step, ranks] : ranks_of_steps) {
      if (ranks < most) continue;
      most = ranks;
      last = step;
    }
    if (most > 0) return last;
  }
  fail("the trace has no events: expected one of at least a step (output.trace_steps)");
}

class Drawing {
 public:
  Drawing(const Rows& rows, const std::string& title) : rows_(rows) {
    pixels_ = (kWidth - kLeft - kRight) / std::max(rows.end - rows.begin, 1e-9);
    const double height = kTop + row_height() * static_cast<double>(rows.of_ranks.size()) + kAxis;
    svg_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
        "viewBox=\"0 0 {0:.0f} {1:.0f}\" font-family=\"sans-serif\" font-size=\"12\">\n"
        "<rect width=\"{0:.0f}\" height=\"{1:.0f}\" fill=\"#ffffff\"/>\n",
        kWidth, height);
    text(kLeft, 22, "start", title, 15);
    draw_legend();
    for (std::size_t rank = 0; rank < rows.of_ranks.size(); ++rank) draw_row(rank);
    draw_axis(height - kAxis);
    svg_ += "</svg>\n";
  }
  std::string take() { return std::move(svg_); }

 private:
  double row_height() const { return kRow + kGap + (rows_.is_pipeline ? 0 : kCommunicationRow); }
  double at(double seconds) const { return kLeft + (seconds - rows_.begin) * pixels_; }

  void text(double x, double y, const char* anchor, std::string_view what, int size,
            const char* colour = "#000000") {
    svg_ += fmt::format(
        "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" font-size=\"{}\" fill=\"{}\">{}"
        "</text>\n",
        x, y, anchor, size, colour, what);
  }

  void rectangle(double x, double y, double width, double height, const std::string& colour,
                 const std::string& tip = {}) {
    svg_ += fmt::format(
        "<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.0f}\" fill=\"{}\"", x, y,
        width, height, colour);
    svg_ += tip.empty() ? "/>\n" : fmt::format("><title>{}</title></rect>\n", tip);
  }

  int chunks() const {
    int most = 1;
    for (const Events& row : rows_.of_ranks) {
      for (const TraceEvent* event : row) {
        if (rows_.is_pipeline) most = std::max(most, part_of(*event).chunk + 1);
      }
    }
    return most;
  }

  bool has(Lane lane, std::string_view name = {}) const {
    return std::ranges::any_of(rows_.of_ranks, [&](const Events& row) {
      return std::ranges::any_of(row, [&](const TraceEvent* event) {
        return event->lane == lane && (name.empty() || event->name.text() == name);
      });
    });
  }

  void draw_legend() {
    double x = kLeft;
    const auto entry = [&](const std::string& colour, std::string_view what) {
      rectangle(x, 36, 14, 14, colour);
      text(x + 19, 48, "start", what, 12);
      x += 36 + kDigit * static_cast<double>(what.size());
    };
    if (has(Lane::kPipeline, "forward")) entry(hex(kBlue), "forward");
    if (has(Lane::kPipeline, "backward")) entry(hex(kOrange), "backward");
    if (has(Lane::kPipeline, "weights")) entry(hex(kGreen), "gradients of weights");
    if (chunks_ > 1) entry(hex(shade(kBlue, 1, 2)), "later chunks lighter");
    if (has(Lane::kCompute)) entry(hex(kBlue), "ops");
    if (has(Lane::kData)) entry(hex(kGrey), "waits for data");
    if (has(Lane::kCommunication)) entry(hex(kPink), "communication");
    entry(kIdle, "idle");
  }

  void draw_row(std::size_t rank) {
    const double y = kTop + row_height() * static_cast<double>(rank);
    text(kLeft - 8, y + kRow / 2 + 4, "end", fmt::format("rank {}", rank), 12);
    rectangle(kLeft, y, kWidth - kLeft - kRight, row_height() - kGap, kIdle);
    const Events& row = rows_.of_ranks[rank];
    draw_boxes(row, y, kRow, /*of_communication=*/false);
    if (!rows_.is_pipeline) draw_boxes(row, y + kRow, kCommunicationRow, true);
  }

  // Of boxes that begin where another has just begun, the longest is drawn.
  void draw_boxes(const Events& row, double y, double height, bool of_communication) {
    const TraceEvent* next = nullptr;
    for (const TraceEvent* event : row) {
      if ((event->lane == Lane::kCommunication) != of_communication) continue;
      if (next != nullptr && at(event->begin) - at(next->begin) < kNarrowest) {
        if (event->end - event->begin > next->end - next->begin) next = event;
        continue;
      }
      if (next != nullptr) draw_box(*next, y, height);
      next = event;
    }
    if (next != nullptr) draw_box(*next, y, height);
  }

  void draw_box(const TraceEvent& event, double y, double height) {
    const double x = at(event.begin);
    const double width = std::max(kNarrowest, at(event.end) - x);
    const Part part = rows_.is_pipeline ? part_of(event) : Part{};
    const Colour colour = shade(colour_of(event), part.chunk, chunks_);
    const std::string about = escaped(event.about.text());
    // A line of background is left between boxes.
    rectangle(x, y, width > 4 ? width - 0.6 : width, height, hex(colour),
              fmt::format("{}{}{}: {} from {} on", escaped(event.name.text()),
                          about.empty() ? "" : " of ", about, duration(event.end - event.begin),
                          duration(event.begin - rows_.begin)));
    if (part.microbatch < 0) return;
    const std::string number = std::to_string(part.microbatch);
    if (width < kDigit * static_cast<double>(number.size()) + 2) return;
    text(x + width / 2, y + height / 2 + 4, "middle", number, 12,
         is_dark(colour) ? "#ffffff" : "#000000");
  }

  void draw_axis(double y) {
    const double seconds = rows_.end - rows_.begin;
    // 1, 2 or 5 times a power of ten, about ten of them.
    double distance = std::pow(10, std::floor(std::log10(std::max(seconds, 1e-9) / 10)));
    for (const double factor : {2.0, 2.5, 2.0}) {
      if (seconds / distance > 14) distance *= factor;
    }
    for (int tick = 0; tick * distance <= seconds && tick <= 20; ++tick) {
      const double x = at(rows_.begin + tick * distance);
      rectangle(x, y, 1, 6, "#000000");
      text(x, y + 20, "middle", duration(tick * distance), 12);
    }
    text(kLeft, y + 38, "start", "time since the first box began", 12);
  }

  static constexpr const char* kIdle = "#e8e8e8";
  const Rows& rows_;
  int chunks_ = chunks();
  double pixels_ = 0;  // a second
  std::string svg_;
};

}  // namespace

TraceDrawing draw_trace(const JobTrace& trace, std::optional<std::int64_t> step) {
  if (trace.size() > kMostRanks) {
    fail("the trace has {} ranks: expected at most {} to draw", trace.size(), kMostRanks);
  }
  TraceDrawing drawing{.svg = {}, .step = step ? *step : last_whole_step(trace), .bubble = {}};
  const Rows rows = rows_of(trace, drawing.step);
  if (!(rows.end >= rows.begin)) {
    fail("the trace has nothing of step {}: expected one like {}", drawing.step,
         last_whole_step(trace));
  }
  drawing.seconds = rows.end - rows.begin;
  if (!std::isfinite(drawing.seconds)) {
    fail("the trace has times from {} to {} seconds", rows.begin, rows.end);
  }
  drawing.bubble = measured_bubble(trace, drawing.step);
  std::string title = fmt::format("step {}, {} rank{}, {}", drawing.step, trace.size(),
                                  trace.size() == 1 ? "" : "s", duration(drawing.seconds));
  if (drawing.bubble) {
    title += fmt::format(", bubble {:.3g} (idle over busy time)", *drawing.bubble);
  }
  drawing.svg = Drawing(rows, title).take();
  return drawing;
}

}  // namespace concord::formats
