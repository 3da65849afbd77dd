#include "concord/train/config_contradiction.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "concord/base/error.h"
#include "concord/base/text.h"
#include "concord/nn/model.h"
#include "concord/optim/optimizer.h"
#include "concord/parallel/plan.h"
#include "concord/train/codecs.h"

namespace concord {
namespace {

constexpr double kMaximumSyntheticValues = 274877906944;  // 1 TiB of float
constexpr std::int64_t kMostRanks = 65536;

// Of all axes; more than kMostRanks where it would be more.
std::int64_t ranks_of(const std::map<std::string, std::int64_t>& mesh) {
  std::int64_t ranks = 1;
  for (const auto& [axis, extent] : mesh) {
    if (ranks <= kMostRanks) ranks *= std::max<std::int64_t>(1, extent);
  }
  return ranks;
}

// What is wrong with a wish for a placement, whatever the model.
std::optional<std::string> problem_of_places(const std::map<std::string, std::string>& place) {
  try {
    for (const auto& [pattern, text] : place) parallel::parse_pin(pattern, text);
  } catch (const Error& error) {
    return error.what();
  }
  return std::nullopt;
}

// The same of codecs, and with which other wishes they do not go.
std::optional<ConfigProblem> problem_of_codecs(const Config& config) {
  const ParallelConfig& parallel = config.parallel;
  if (!has_codecs(parallel)) {
    const std::string_view unused = parallel.encoders != 0         ? "parallel.encoders"
                                    : parallel.codec_way != "auto" ? "parallel.codec_way"
                                                                   : "";
    if (unused.empty()) return std::nullopt;
    return ConfigProblem{unused,
                         fmt::format("{} is set, and no parallel.codec: expected one, or it "
                                     "to be left out",
                                     unused)};
  }
  const std::string_view key = parallel.codec == "none" ? "parallel.codecs" : "parallel.codec";
  const auto problem = [&](const std::string& expected) {
    return ConfigProblem{key, fmt::format("{}: expected {}", key, expected)};
  };
  try {
    codec_rules(parallel, /*encoders=*/1);
  } catch (const Error& error) {
    return ConfigProblem{key, fmt::format("{}: {}", key, error.what())};
  }
  if ((parallel.encoders & (parallel.encoders - 1)) != 0) {
    return ConfigProblem{
        "parallel.encoders",
        fmt::format("parallel.encoders = {}: expected 0 or a power of two", parallel.encoders)};
  }
  if (parallel.sync != "all_reduce") {
    return problem(fmt::format("\"none\" with parallel.sync = {}: ranks do not send gradients",
                               quote(parallel.sync)));
  }
  if (parallel.zero > 1) {
    return problem(
        fmt::format("\"none\" with parallel.zero = {}, where each leaf is summed by "
                    "itself; or parallel.zero = 0 or 1",
                    parallel.zero));
  }
  if (config.train.nonfinite == "skip") {
    return problem(
        "\"none\" with train.nonfinite = \"skip\": what is sent in a step that is not "
        "taken is lost");
  }
  return std::nullopt;
}

}  // namespace

std::optional<ConfigProblem> find_contradiction(const Config& config) {
  const auto& [model, data, train, optimizer, schedule, parallel, output] = config;
  const auto problem = [](std::string_view key, const auto& value, std::string_view expected) {
    return ConfigProblem{key, fmt::format("{} = {}: expected {}", key,
                                          shortened(format_value(ConfigValue(value))), expected)};
  };

  for (const auto& [axis, extent] : parallel.mesh) {
    if (axis == "data" || axis == "pipe" || axis == "tensor") continue;
    return problem("parallel.mesh", parallel.mesh,
                   fmt::format("axes named data, pipe or tensor; there is no {}", quote(axis)));
  }
  if (const auto pipe = parallel.mesh.find("pipe");
      parallel.sync != "all_reduce" && pipe != parallel.mesh.end() && pipe->second > 1) {
    return problem("parallel.sync", parallel.sync,
                   "\"all_reduce\" where parallel.mesh has an axis pipe");
  }
  if (ranks_of(parallel.mesh) > kMostRanks) {
    return problem("parallel.mesh", parallel.mesh,
                   fmt::format("axes of at most {} ranks in all", kMostRanks));
  }
  if (const auto message = problem_of_places(parallel.place)) {
    return ConfigProblem{"parallel.place", *message};
  }
  if (auto codecs = problem_of_codecs(config)) return codecs;
  if (const auto tensor = parallel.mesh.find("tensor");
      parallel.sync != "all_reduce" && tensor != parallel.mesh.end() && tensor->second > 1) {
    return problem("parallel.sync", parallel.sync,
                   "\"all_reduce\" where parallel.mesh has an axis tensor");
  }
  if (parallel.sync != "all_reduce" && parallel.zero > 0) {
    return problem("parallel.sync", parallel.sync,
                   "\"all_reduce\" where parallel.zero divides states");
  }
  if (const bool has_momentum = optimizer.name == "sgd" || optimizer.name == "lars";
      (parallel.offload == "optimizer" || parallel.offload == "all") && has_momentum &&
      optimizer.momentum == 0) {
    return problem("parallel.offload", parallel.offload,
                   fmt::format("{}: {} without optimizer.momentum has no states",
                               quote(parallel.offload == "all" ? "activations" : "none"),
                               quote(optimizer.name)));
  }
  if (parallel.algorithm == "ring" && parallel.deterministic) {
    return problem("parallel.algorithm", parallel.algorithm,
                   "another one, or parallel.deterministic = false: a ring adds up in an order of "
                   "its own");
  }
  if (parallel::is_asynchronous(parallel::find_schedule(parallel.schedule).value())) {
    const std::string with = fmt::format(" with parallel.schedule = {}", quote(parallel.schedule));
    if (parallel.sync != "all_reduce") {
      return problem("parallel.sync", parallel.sync, "\"all_reduce\"" + with);
    }
    if (parallel.zero > 1) {
      return problem("parallel.zero", parallel.zero,
                     "at most 1" + with + ": a rank keeps older versions of whole weights");
    }
    if (train.nonfinite == "skip") {
      return problem("train.nonfinite", train.nonfinite,
                     "\"stop\"" + with + ": other steps go on from the step that would be skipped");
    }
  }
  if (model.name == "resnet_small" && model.blocks.empty()) {
    return problem("model.blocks", model.blocks, "at least one stage for resnet_small");
  }
  if (!data.mask_token.empty() && !nn::fills_masks(model.name)) {
    return problem("data.mask_token", data.mask_token,
                   fmt::format("it to be left out: {} fills no masks", model.name));
  }
  if (data.normalize == "given" && (data.kind == "text" || data.tokens)) {
    return problem("data.normalize", data.normalize,
                   "it, data.mean and data.std to be left out: tokens are not normalized");
  }
  if (data.normalize == "given" && data.mean.empty()) {
    return problem("data.normalize", data.normalize, "data.mean and data.std beside it");
  }
  if (data.normalize != "given" && !(data.mean.empty() && data.std.empty())) {
    return problem("data.normalize", data.normalize,
                   "\"given\", since data.mean or data.std is set");
  }
  if (data.std.size() != data.mean.size()) {
    return problem("data.std", data.std,
                   fmt::format("as many values as data.mean has ({})", data.mean.size()));
  }
  if (data.kind == "synthetic") {
    double values = static_cast<double>(data.samples);
    for (const std::int64_t extent : data.shape) values *= static_cast<double>(extent);
    if (data.shape.empty() || values > kMaximumSyntheticValues) {
      return problem("data.shape", data.shape,
                     fmt::format("at least one extent, and at most {} values over data.samples",
                                 kMaximumSyntheticValues));
    }
  }
  if (data.targets > 0 && model.loss == "cross_entropy") {
    return problem("data.targets", data.targets,
                   "0, or a model.loss that compares numbers, which \"cross_entropy\" does not");
  }
  if (data.classes != DataConfig().classes && model.loss != "cross_entropy" && !data.tokens) {
    return problem("data.classes", data.classes,
                   fmt::format("it to be left out: model.loss = {} compares numbers (data.targets)",
                               quote(model.loss)));
  }
  if ((train.leaves & (train.leaves - 1)) != 0) {
    return problem("train.leaves", train.leaves, "0 or a power of two");
  }
  if (train.leaves > train.batch) {
    return problem("train.leaves", train.leaves,
                   fmt::format("at most train.batch ({})", train.batch));
  }
  if (train.microbatch > train.batch) {
    return problem("train.microbatch", train.microbatch,
                   fmt::format("at most train.batch ({})", train.batch));
  }
  if (optimizer.name == "sgd" && optimizer.nesterov && optimizer.momentum == 0) {
    return problem("optimizer.nesterov", optimizer.nesterov,
                   "a positive optimizer.momentum with it");
  }
  for (const std::string& rate : optimizer.rates) {
    if (parse_rate_factor(rate)) continue;
    return problem("optimizer.rates", optimizer.rates,
                   fmt::format("the beginning of parameters' names, \"=\" and a factor of at least "
                               "0 in place of {}",
                               shortened(quote(rate))));
  }
  if (parallel.batch_norm == "batch" && parallel.sync != "all_reduce") {
    return problem("parallel.batch_norm", parallel.batch_norm,
                   fmt::format("\"leaf\" with parallel.sync = {}: ranks do not meet in each step",
                               quote(parallel.sync)));
  }
  if (schedule.name == "step" && schedule.milestones.empty()) {
    return problem("schedule.milestones", schedule.milestones, "at least one epoch for step");
  }
  if (std::ranges::adjacent_find(schedule.milestones, std::greater_equal()) !=
      schedule.milestones.end()) {
    return problem("schedule.milestones", schedule.milestones, "increasing epochs");
  }
  if (schedule.name == "one_cycle" && schedule.warmup_steps > 0) {
    return problem("schedule.warmup_steps", schedule.warmup_steps,
                   "0, since one_cycle has its own warm-up (schedule.peak_fraction)");
  }
  return std::nullopt;
}

}  // namespace concord
