// concord bench step: how fast a configuration trains here, and on which ops the time goes.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "concord/base/error.h"
#include "concord/base/parallel.h"
#include "concord/cli/command.h"
#include "concord/cli/ranks.h"
#include "concord/cli/units.h"
#include "concord/formats/trace_file.h"
#include "concord/kernels/cpu/peak.h"
#include "concord/train/job.h"
#include "concord/train/pipeline.h"
#include "concord/train/step_benchmark.h"

namespace concord::cli {
namespace {

constexpr int kMostTraced = 10;  // steps

struct BenchArguments {
  ConfigArguments config;
  RanksArguments ranks;
  int steps = 20;
  bool by_layer = false;
  int runs_alone = 0;
  double pretend_seconds = 0;
  std::string trace_file;
  bool json = false;
};

std::vector<std::string> words_of(const BenchArguments& arguments) {
  std::vector<std::string> words = {"bench", "step", "--steps", std::to_string(arguments.steps)};
  for (const std::string& word : arguments.config.words()) words.push_back(word);
  if (arguments.by_layer) words.emplace_back("--by-layer");
  if (arguments.runs_alone > 0) {
    words.insert(words.end(), {"--alone", std::to_string(arguments.runs_alone)});
  }
  if (arguments.pretend_seconds > 0) {
    words.insert(words.end(), {"--pretend", fmt::format("{}", arguments.pretend_seconds)});
  }
  if (!arguments.trace_file.empty()) {
    words.insert(words.end(), {"--trace", arguments.trace_file});
  }
  if (arguments.json) words.emplace_back("--json");
  return words;
}

// Of a pipeline, idle over busy time: the median of the steps traced; and where all stages take
// equally long, and messages no time.
struct Bubble {
  double measured = 0, of_equal_stages = 0;
};

std::optional<Bubble> bubble_of(const JobTrace& trace, const train::Engine& engine, int steps) {
  std::vector<double> bubbles;
  for (int step = 1; step <= steps; ++step) {
    if (const auto bubble = measured_bubble(trace, step)) bubbles.push_back(*bubble);
  }
  if (bubbles.empty()) return std::nullopt;
  std::ranges::nth_element(bubbles, bubbles.begin() + std::ssize(bubbles) / 2);
  const parallel::Pipeline pipeline =
      engine.plan().pipeline(static_cast<std::int64_t>(std::ceil(engine.microbatches_of_rank())));
  const std::vector<parallel::StageCosts> equal(static_cast<std::size_t>(pipeline.stages()));
  return Bubble{bubbles[bubbles.size() / 2], parallel::replay(pipeline, equal).bubble()};
}

nlohmann::json describe_times(const train::StepBenchmark& result, const train::Engine& engine,
                              const std::optional<Bubble>& bubble) {
  nlohmann::json json = {{"steps", result.steps},
                         {"ranks", engine.ranks().size()},
                         {"threads", compute_threads()},
                         {"step_seconds", result.step_seconds},
                         {"fastest_seconds", result.fastest_seconds},
                         {"slowest_seconds", result.slowest_seconds},
                         {"spread", result.spread}};
  if (bubble) {
    json["bubble"] = bubble->measured;
    json["bubble_of_equal_stages"] = bubble->of_equal_stages;
  }
  return json;
}

nlohmann::json to_json(const train::StepBenchmark& result, const train::Engine& engine, double peak,
                       const std::optional<Bubble>& bubble) {
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
  nlohmann::json json = describe_times(result, engine, bubble);
  json["precision"] = to_string(engine.precision());
  json["samples_per_second"] = result.samples_per_second;
  json["flops_per_second"] = result.flops_per_second;
  json["peak_flops_per_second"] = peak;
  json["share_of_peak"] = result.flops_per_second / peak;
  json["by_op"] = std::move(by_op);
  if (result.products_alone_seconds > 0) {
    json["products_alone_seconds"] = result.products_alone_seconds;
    json["efficiency"] = result.products_alone_seconds / result.step_seconds;
  }
  if (engine.ranks().size() > 1) {
    json["communication_seconds"] = result.communication_seconds;
    json["exposed_seconds"] = result.exposed_seconds;
    json["sent_bytes"] = result.sent_bytes;
    json["communication_bytes"] = engine.communication_bytes();
    json["gradient_bytes"] = engine.training_program().sums_bytes;
  }
  return json;
}

void print_times(const train::StepBenchmark& result, const std::optional<Bubble>& bubble) {
  fmt::print("step             {} (median of {}; {} to {}, quartiles {} apart)\n",
             format_duration(result.step_seconds), result.steps,
             format_duration(result.fastest_seconds), format_duration(result.slowest_seconds),
             format_percent(result.spread));
  if (!bubble) return;
  fmt::print("bubble           {:.3f}, idle over busy time; {:.3f} where all stages are equal\n",
             bubble->measured, bubble->of_equal_stages);
}

void print_text(const train::StepBenchmark& result, const train::Engine& engine, double peak,
                const std::optional<Bubble>& bubble) {
  const int ranks = engine.ranks().size();
  print_times(result, bubble);
  fmt::print(
      "samples          {}/s\n"
      "speed            {}FLOP/s in {}, {} of the measured f32 peak of {}FLOP/s ({}{})\n\n",
      format_count(result.samples_per_second), format_count(result.flops_per_second),
      to_string(engine.precision()), format_percent(result.flops_per_second / peak),
      format_count(peak),
      ranks == 1 ? "" : counted(ranks, "rank") + ", each as if alone on its cores, of ",
      counted(compute_threads(), "thread"));
  if (ranks > 1) {
    fmt::print(
        "communication    {} a step, of which rank 0 waits for {}; it sends {}\n"
        "buffers          {} of each rank, gradients of {} included\n\n",
        format_duration(result.communication_seconds), format_duration(result.exposed_seconds),
        format_bytes(static_cast<double>(result.sent_bytes)),
        format_bytes(static_cast<double>(engine.communication_bytes())),
        format_bytes(static_cast<double>(engine.training_program().sums_bytes)));
  }
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

// What it takes to compute is not known then.
void print_pretended(const train::StepBenchmark& result, const train::Engine& engine,
                     const BenchArguments& arguments, const std::optional<Bubble>& bubble) {
  if (!arguments.json) return print_times(result, bubble);
  nlohmann::json json = describe_times(result, engine, bubble);
  json["pretended_seconds"] = arguments.pretend_seconds;
  print_json(json);
}

// `ranks`: null for a process alone.
void measure_step(const BenchArguments& arguments, const Config& config,
                  comm::Communicator* ranks) {
  const train::Job job =
      arguments.config.naming_plan([&] { return train::open_job(config, {}, ranks); });
  const double seconds = arguments.pretend_seconds;
  if (seconds > 0) {
    job.engine->pretend([&engine = *job.engine, seconds](Program& program) {
      train::pretend_equal_stages(program, engine.plan(), seconds);
    });
  }
  const double peak = seconds > 0 ? 0 : cpu::measure_peak_flops() * job.engine->ranks().size();
  const auto loader = job.train_loader(0, std::numeric_limits<std::int64_t>::max());
  // Full batches alone: a shorter one, at an epoch's end, would be another measurement.
  const auto next_batch = [&] {
    for (int tries = 0; tries < 2; ++tries) {
      const data::Batch& batch = loader->next();
      if (batch.step_count == job.engine->batch()) return train::samples_of(batch);
    }
    fail("the training set holds {} samples; measuring needs a full batch of {} (train.batch)",
         job.train_set->size(), job.engine->batch());
  };
  const train::StepBenchmark result = train::benchmark_steps(*job.engine, next_batch,
                                                             {.steps = arguments.steps,
                                                              .by_op = seconds == 0,
                                                              .by_layer = arguments.by_layer,
                                                              .runs_alone = arguments.runs_alone});
  std::optional<Bubble> bubble;
  if (!arguments.trace_file.empty() || job.engine->plan().pipeline().ranks > 1) {
    const int steps = std::min(arguments.steps, kMostTraced);
    const JobTrace trace = train::trace_steps(*job.engine, next_batch, steps);
    bubble = bubble_of(trace, *job.engine, steps);
    const bool writes = job.engine->ranks().is_first() && !arguments.trace_file.empty();
    if (writes) formats::write_trace(arguments.trace_file, trace);
  }
  if (!job.engine->ranks().is_first()) return;
  if (seconds > 0) return print_pretended(result, *job.engine, arguments, bubble);
  if (arguments.json) {
    print_json(to_json(result, *job.engine, peak, bubble));
  } else {
    print_text(result, *job.engine, peak, bubble);
  }
}

void run_step(const BenchArguments& arguments) {
  const Config config = arguments.config.load();
  if (arguments.ranks.are_given()) return arguments.ranks.launch(words_of(arguments), "");
  const JoinedRanks ranks = join_ranks(config.parallel);
  if (ranks.communicator == nullptr) return measure_step(arguments, config, nullptr);
  ranks.run([&] {
    try {
      measure_step(arguments, config, ranks.communicator.get());
    } catch (const comm::RankError&) {
      throw;
    } catch (const Error& error) {
      ranks.communicator->abort(
          fmt::format("rank {}: {}", ranks.communicator->rank(), error.what()));
      throw;
    }
  });
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "Measure speed on this machine");
  bench->require_subcommand(1);
  bench->footer("Example:\n  concord bench step run.toml");
  add_bench_collective(*bench);
  add_bench_codec(*bench);
  CLI::App* command =
      bench->add_subcommand("step", "Time training steps, in all and by kind of op");
  const auto arguments = std::make_shared<BenchArguments>();
  arguments->config.add_to(*command);
  arguments->ranks.add_to(*command);
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
  command
      ->add_option("--pretend", arguments->pretend_seconds,
                   "Compute nothing: a forward pass of a microbatch through a stage sleeps for so "
                   "long, and so do the gradients of inputs and those of weights. So a few cores "
                   "show when many ranks would do what")
      ->type_name("SECONDS")
      ->check(CLI::Range(1e-6, 60.0));
  command
      ->add_option("--trace", arguments->trace_file,
                   "Write what all ranks do in up to 10 further steps, for concord trace")
      ->type_name("FILE");
  add_json_flag(*command, arguments->json);
  command->footer(
      "Reading data is not timed. Ops are timed in steps of their own, after the others.\n"
      "\n"
      "Examples:\n"
      "  concord bench step run.toml\n"
      "  concord bench step run.toml --set train.threads=1 --steps 50 --json\n"
      "  concord bench step run.toml --ranks 2");
  command->callback([arguments] { run_step(*arguments); });
}

}  // namespace concord::cli
