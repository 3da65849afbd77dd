#include "concord/cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string_view>
#include <vector>

#include "concord/base/clock.h"
#include "concord/cli/units.h"
#include "concord/net/lines.h"

namespace concord::cli {
namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr double kDataWaitShown = 0.01;  // less is noise
constexpr int kBarColumns = 16;

std::int64_t epochs(const train::RunStart& run) {
  const std::int64_t each = std::max<std::int64_t>(run.steps_per_epoch, 1);
  return (run.total_steps + each - 1) / each;
}

std::string bar(const train::Progress& progress) {
  const double share = progress.total_steps > 0 ? static_cast<double>(progress.step) /
                                                      static_cast<double>(progress.total_steps)
                                                : 0.0;
  const int full = static_cast<int>(std::clamp(share, 0.0, 1.0) * kBarColumns);
  std::string text = "[";
  text.append(static_cast<std::size_t>(full), '#');
  text.append(static_cast<std::size_t>(kBarColumns - full), '.');
  return text + "]";
}

// What is said about a step, the most important first.
std::vector<std::string> pieces(const train::Progress& progress, const train::RunStart& run) {
  std::vector<std::string> result;
  result.push_back(fmt::format("epoch {}/{} step {}/{}", progress.epoch, epochs(run), progress.step,
                               progress.total_steps));
  result.push_back(fmt::format("loss {:.4g}", progress.loss));
  if (progress.accuracy >= 0) {
    result.push_back(fmt::format("accuracy {}", format_percent(progress.accuracy)));
  }
  if (progress.step < progress.total_steps) {
    result.push_back(fmt::format("ETA {}", format_duration(progress.eta_seconds)));
  }
  result.push_back(fmt::format("{} samples/s", format_count(progress.samples_per_second)));
  if (progress.flops_per_second > 0) {
    std::string speed = fmt::format("{:.1f} GFLOP/s", progress.flops_per_second / 1e9);
    if (run.peak_flops_per_second > 0) {
      speed += fmt::format(" ({:.0f} % of peak)",
                           100 * progress.flops_per_second / run.peak_flops_per_second);
    }
    result.push_back(speed);
  }
  const double compute = 1 - progress.communication_fraction - progress.data_wait_fraction;
  if (run.ranks > 1) {
    result.push_back(fmt::format("compute {:.0f} %", 100 * std::max(0.0, compute)));
    result.push_back(fmt::format("communication {:.0f} % (hidden {:.0f} %)",
                                 100 * progress.communication_fraction,
                                 100 * progress.hidden_fraction));
  }
  if (run.ranks > 1 || progress.data_wait_fraction > kDataWaitShown) {
    result.push_back(fmt::format("data wait {:.0f} %", 100 * progress.data_wait_fraction));
  }
  return result;
}

// The same in few columns: all of it fits a terminal of 80.
std::vector<std::string> short_pieces(const train::Progress& progress, const train::RunStart& run) {
  std::vector<std::string> result;
  result.push_back(
      fmt::format("{}/{} {}/{}", progress.epoch, epochs(run), progress.step, progress.total_steps));
  result.push_back(fmt::format("loss {:.3g}", progress.loss));
  if (progress.accuracy >= 0) {
    result.push_back(fmt::format("acc {}", format_percent(progress.accuracy)));
  }
  if (progress.step < progress.total_steps) {
    result.push_back(fmt::format("ETA {}", format_duration(progress.eta_seconds)));
  }
  result.push_back(fmt::format("{}/s", format_count(progress.samples_per_second)));
  if (progress.flops_per_second > 0) {
    std::string speed = fmt::format("{:.0f} GFLOP/s", progress.flops_per_second / 1e9);
    if (run.peak_flops_per_second > 0) {
      speed +=
          fmt::format(" ({:.0f} %)", 100 * progress.flops_per_second / run.peak_flops_per_second);
    }
    result.push_back(speed);
  }
  return result;
}

std::string joined(const std::vector<std::string>& pieces, std::string_view separator) {
  return fmt::format("{}", fmt::join(pieces, separator));
}

}  // namespace

std::string format_progress(const train::Progress& progress, const train::RunStart& run,
                            int width) {
  const auto room = static_cast<std::size_t>(std::max(width, 0));
  std::string all = joined(pieces(progress, run), "  ");
  std::string with_bar = bar(progress) + "  " + all;
  if (with_bar.size() <= room) return with_bar;
  if (all.size() <= room) return all;
  std::vector<std::string> few = short_pieces(progress, run);
  while (few.size() > 1 && joined(few, " ").size() > room) few.pop_back();
  return joined(few, " ").substr(0, room);
}

std::string format_log_line(const train::Progress& progress, const train::RunStart& run) {
  return joined(pieces(progress, run), ", ");
}

std::string format_evaluation(const train::Progress& progress,
                              const train::Evaluation& evaluation) {
  std::string text = fmt::format("epoch {}, step {}: test loss {:.4g}", progress.epoch,
                                 progress.step, evaluation.loss);
  if (evaluation.accuracy >= 0) {
    text += fmt::format(", accuracy {:.2f} %", 100 * evaluation.accuracy);
  }
  return text + fmt::format(", {} in {}", counted(evaluation.samples, "sample"),
                            format_duration(evaluation.seconds));
}

std::string format_leaves(const std::vector<std::int64_t>& leaves_of_ranks, int ranks) {
  const bool share = leaves_of_ranks.size() < static_cast<std::size_t>(ranks);
  std::int64_t all = 0;
  std::map<std::int64_t, std::vector<int>, std::greater<>> ranks_by_leaves;
  for (std::size_t rank = 0; rank < leaves_of_ranks.size(); ++rank) {
    all += leaves_of_ranks[rank];
    ranks_by_leaves[leaves_of_ranks[rank]].push_back(static_cast<int>(rank));
  }
  std::vector<std::string> pieces;
  for (const auto& [each, list] : ranks_by_leaves) {
    pieces.push_back(fmt::format("{}{} {} {}{}", net::named(list), share ? " along data" : "",
                                 list.size() == 1 ? "has" : "have", each,
                                 list.size() == 1 ? "" : " each"));
  }
  return fmt::format("leaves {}: {}", all, joined(pieces, ", "));
}

std::string format_division(const train::RunStart& run) {
  std::vector<std::string> pieces;
  if (run.mesh.axes.size() > 1) pieces.push_back("mesh " + to_string(run.mesh));
  if (run.zero > 0) pieces.push_back(fmt::format("zero {}", run.zero));
  if (run.offload != "none") pieces.push_back("offload " + run.offload);
  return joined(pieces, ", ");
}

void ProgressObserver::started(const train::RunStart& run) {
  run_ = run;
  if (!options_.job.empty()) {
    print_line(options_.job + "; " + format_leaves(run.leaves_of_ranks, run.ranks));
  }
  if (const std::string division = format_division(run); !division.empty()) print_line(division);
  print_line(fmt::format("{}: {} parameters, {} training and {} test samples", run.model,
                         run.parameters, run.train_samples, run.test_samples));
  const std::string ranks = run.ranks == 1 ? "" : fmt::format("ranks {} of ", run.ranks);
  print_line(fmt::format(
      "batch {}, leaves {}, microbatch {}, {}threads {}, {}, workspace {}, into {}", run.batch,
      run.leaves, run.microbatch, ranks, run.threads, to_string(run.precision),
      format_bytes(static_cast<double>(run.workspace_bytes)), run.output_dir));
  print_line(fmt::format("{} FLOP a step; measured peak {}FLOP/s", format_count(run.flops_per_step),
                         format_count(run.peak_flops_per_second)));
  if (run.first_step > 0) print_line(fmt::format("continuing after step {}", run.first_step));
}

void ProgressObserver::stepped(const train::Progress& progress) {
  if (options_.terminal >= 0) {
    redraw(progress);
  } else if (options_.log_every > 0 && progress.step % options_.log_every == 0) {
    print_line(format_log_line(progress, run_));
  }
}

void ProgressObserver::evaluated(const train::Progress& progress,
                                 const train::Evaluation& evaluation) {
  print_line(format_evaluation(progress, evaluation));
}

void ProgressObserver::erase() {
  if (!drawn_) return;
  std::fputs("\r\033[K", options_.stream);
  std::fflush(options_.stream);
  drawn_ = false;
}

void ProgressObserver::print_line(const std::string& text) {
  erase();
  fmt::print(options_.stream, "{}\n", text);
  std::fflush(options_.stream);
  drawn_at_ = 0;  // draw the live line again at the next step
}

void ProgressObserver::redraw(const train::Progress& progress) {
  const double now = now_seconds();
  if (now - drawn_at_ < kRedrawSeconds && progress.step < progress.total_steps) return;
  if (is_held_up()) return;
  drawn_at_ = now;
  drawn_ = true;
  fmt::print(options_.stream, "\r{}\033[K", format_progress(progress, run_, width()));
  std::fflush(options_.stream);
}

// Whoever passes the stream on to the terminal is stopped: the pipe between is left for plain
// lines.
bool ProgressObserver::is_held_up() const {
  const int stream = fileno(options_.stream);
  int unread = 0;
  return stream != options_.terminal && ioctl(stream, FIONREAD, &unread) == 0 && unread > 0;
}

// Asked each time, so that a resized window is followed. The last column stays free: a character
// there may wrap the line.
int ProgressObserver::width() const {
  constexpr int kUsual = 80;
  winsize size{};
  const bool known = ioctl(options_.terminal, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return (known ? size.ws_col : kUsual) - 1;
}

}  // namespace concord::cli
