#include "concord/cli/results.h"

#include <fmt/core.h>

#include <cmath>

#include "concord/cli/command.h"
#include "concord/cli/units.h"

namespace concord::cli {

nlohmann::json to_json(const train::Summary& summary) {
  return {
      {"step", summary.step},
      {"epoch", summary.epoch},
      {"loss", number_or_null(summary.loss)},
      {"accuracy", accuracy_or_null(summary.accuracy)},
      {"train_loss", summary.train_loss ? number_or_null(*summary.train_loss) : nlohmann::json()},
      {"samples_per_second", number_or_null(summary.samples_per_second)},
      {"seconds", number_or_null(summary.seconds)},
      {"peak_rss_bytes", summary.peak_rss_bytes},
      {"predicted_peak_bytes", summary.predicted_peak_bytes},
      {"weights_hash", summary.weights_hash},
      {"skipped_steps", summary.skipped_steps},
      {"interrupted", summary.interrupted}};
}

std::string format_summary(const train::Summary& summary) {
  const std::string loss =
      std::isnan(summary.loss) ? "no step was done" : fmt::format("loss {:.4g}", summary.loss);
  std::string text =
      fmt::format("step {}, {}: {}", summary.step, counted(summary.epoch, "whole epoch"), loss);
  if (summary.accuracy >= 0) text += fmt::format(", accuracy {:.2f} %", 100 * summary.accuracy);
  text += fmt::format("\n{} samples/s, {} in all, at most {} of memory",
                      format_count(summary.samples_per_second), format_duration(summary.seconds),
                      format_bytes(static_cast<double>(summary.peak_rss_bytes)));
  if (summary.predicted_peak_bytes > 0) {
    text += fmt::format(" ({} foreseen)",
                        format_bytes(static_cast<double>(summary.predicted_peak_bytes)));
  }
  text += fmt::format("\nweights {}\n", summary.weights_hash);
  return text;
}

}  // namespace concord::cli
