// concord bench step: how fast a configuration trains here, and on which ops the time goes.
#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "concord/base/error.h"
#include "concord/base/parallel.h"
#include "concord/cli/command.h"
#include "concord/cli/units.h"
#include "concord/kernels/cpu/peak.h"
#include "concord/train/job.h"
#include "concord/train/step_benchmark.h"

namespace concord::cli {
namespace {

struct BenchArguments {
  ConfigArguments config;
  int steps = 20;
  bool by_layer = false;
  int runs_alone = 0;
  bool json = false;
};

nlohmann::json to_json(const train::StepBenchmark& result, DType precision, double peak) {
  nlohmann::json by_op = nlohmann::json::array();
  double all = 0;
  for (const train::OpTime& time : result.by_op) all += time.seconds;
  for (const train::OpTime& time : result.by_op) {
    by_op.push_back({{"op", time.op},
                     {"runs", time.runs},
                     {"seconds", time.seconds},
                     {"share", number_or_null(time.seconds / all)},
                     {"flops_per_second", number_or_null(time.flops / time.seconds)}});
    if (!time.layer.empty()) by_op.back()["layer"] = time.layer;
  }
  nlohmann::json json = {{"steps", result.steps},
                         {"threads", compute_threads()},
                         {"precision", to_string(precision)},
                         {"step_seconds", result.step_seconds},
                         {"fastest_seconds", result.fastest_seconds},
                         {"slowest_seconds", result.slowest_seconds},
                         {"spread", result.spread},
                         {"samples_per_second", result.samples_per_second},
                         {"flops_per_second", result.flops_per_second},
                         {"peak_flops_per_second", peak},
                         {"share_of_peak", result.flops_per_second / peak},
                         {"by_op", std::move(by_op)}};
  if (result.products_alone_seconds > 0) {
    json["products_alone_seconds"] = result.products_alone_seconds;
    json["efficiency"] = result.products_alone_seconds / result.step_seconds;
  }
  return json;
}

void print_text(const train::StepBenchmark& result, DType precision, double peak) {
  fmt::print(
      "step             {} (median of {}; {} to {}, quartiles {} apart)\n"
      "samples          {}/s\n"
      "speed            {}FLOP/s in {}, {} of the measured f32 peak of {}FLOP/s ({})\n\n",
      format_duration(result.step_seconds), result.steps, format_duration(result.fastest_seconds),
      format_duration(result.slowest_seconds), format_percent(result.spread),
      format_count(result.samples_per_second), format_count(result.flops_per_second),
      to_string(precision), format_percent(result.flops_per_second / peak), format_count(peak),
      counted(compute_threads(), "thread"));
  if (result.products_alone_seconds > 0) {
    fmt::print(
        "efficiency       {}: matrix products, convolutions and, whole, attention and linear\n"
        "                 cross-entropy take {} alone\n\n",
        format_percent(result.products_alone_seconds / result.step_seconds),
        format_duration(result.products_alone_seconds));
  }
  double all = 0;
  for (const train::OpTime& time : result.by_op) all += time.seconds;
  fmt::print("{:<32} {:>8} {:>12} {:>8} {:>10}\n", "op", "runs", "time a step", "share", "GFLOP/s");
  for (const train::OpTime& time : result.by_op) {
    fmt::print("{:<32} {:>8.0f} {:>12} {:>8} {:>10.2f}  {}\n", time.op, time.runs,
               format_duration(time.seconds), format_percent(time.seconds / all),
               time.flops / time.seconds / 1e9, time.layer);
  }
}

void run_step(const BenchArguments& arguments) {
  const train::Job job = train::open_job(arguments.config.load());
  const double peak = cpu::measure_peak_flops();
  const auto loader = job.train_loader(0, std::numeric_limits<std::int64_t>::max());
  // Full batches alone: a shorter one, at an epoch's end, would be another measurement.
  const auto next_batch = [&] {
    for (int tries = 0; tries < 2; ++tries) {
      const train::Samples samples = train::samples_of(loader->next());
      if (samples.count == job.engine->batch()) return samples;
    }
    fail("the training set holds {} samples; measuring needs a full batch of {} (train.batch)",
         job.train_set->size(), job.engine->batch());
  };
  const train::StepBenchmark result = train::benchmark_steps(*job.engine, next_batch,
                                                             {.steps = arguments.steps,
                                                              .by_layer = arguments.by_layer,
                                                              .runs_alone = arguments.runs_alone});
  if (arguments.json) {
    print_json(to_json(result, job.engine->precision(), peak));
  } else {
    print_text(result, job.engine->precision(), peak);
  }
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "Measure speed on this machine");
  bench->require_subcommand(1);
  bench->footer("Example:\n  concord bench step run.toml");
  CLI::App* command =
      bench->add_subcommand("step", "Time training steps, in all and by kind of op");
  const auto arguments = std::make_shared<BenchArguments>();
  arguments->config.add_to(*command);
  command->add_option("--steps", arguments->steps, "Steps that are timed")
      ->type_name("N")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command->add_flag("--by-layer", arguments->by_layer, "Tell the times of each layer apart");
  command
      ->add_option("--alone", arguments->runs_alone,
                   "Run each matrix product and convolution, attention and linear cross-entropy by "
                   "itself, this often; their sum over the step's time is its efficiency")
      ->type_name("N")
      ->check(CLI::Range(1, 1000000));
  add_json_flag(*command, arguments->json);
  command->footer(
      "Reading data is not timed. Ops are timed in steps of their own, after the others.\n"
      "\n"
      "Examples:\n"
      "  concord bench step run.toml\n"
      "  concord bench step run.toml --set train.threads=1 --steps 50 --json");
  command->callback([arguments] { run_step(*arguments); });
}

}  // namespace concord::cli
