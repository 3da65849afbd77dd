// concord bench codec: how fast one core encodes gradients, and what is lost by it.
#include <fmt/core.h>

#include "concord/base/philox.h"
#include "concord/cli/command.h"
#include "concord/cli/units.h"
#include "concord/comm/codec_benchmark.h"
#include "concord/train/job.h"

namespace concord::cli {
namespace {

struct CodecArguments {
  std::string file;  // a configuration; empty: none
  std::vector<std::string> overrides;
  std::vector<std::string> specs;
  std::int64_t numbers = 4 << 20;
  double seconds = 0.5;
  bool json = false;
};

std::vector<float> normal_numbers(std::int64_t count) {
  const RandomStream random{.seed = 1};
  std::vector<float> numbers(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const PhiloxBlock bits = random.block(i);
    numbers[i] = normal01(bits[0], bits[1]);
  }
  return numbers;
}

// Those of the first step that the configuration takes, by one rank.
std::vector<float> gradients(const CodecArguments& arguments) {
  Config config = load_config(arguments.file, arguments.overrides);
  config.parallel = {};
  const train::Job job = train::open_job(config);
  const auto loader = job.train_loader(0, 1);
  return job.engine->gradients(train::samples_of(loader->next()));
}

// Those named, or all with their usual parameters.
std::vector<comm::CodecSpec> specs_of(const CodecArguments& arguments) {
  std::vector<comm::CodecSpec> specs;
  for (const std::string& text : arguments.specs) specs.push_back(comm::parse_codec(text));
  if (!specs.empty()) return specs;
  for (const comm::CodecInfo& info : comm::codecs()) specs.push_back({std::string(info.name)});
  return specs;
}

nlohmann::json to_json(const comm::CodecSpec& spec, const comm::CodecBenchmark& result) {
  return {{"codec", to_string(spec)},
          {"repetitions", result.repetitions},
          {"encode_bytes_per_second", result.encode_bytes_per_second},
          {"decode_bytes_per_second", result.decode_bytes_per_second},
          {"frame_bytes", result.frame_bytes},
          {"ratio", result.ratio},
          {"relative_error", result.relative_error}};
}

void run_codecs(const CodecArguments& arguments) {
  const std::vector<comm::CodecSpec> specs = specs_of(arguments);
  const std::vector<float> numbers =
      arguments.file.empty() ? normal_numbers(arguments.numbers) : gradients(arguments);
  nlohmann::json json = {{"numbers", numbers.size()}, {"codecs", nlohmann::json::array()}};
  if (!arguments.json) {
    fmt::print("{} {}, f32, by one thread\n{:<32} {:>10} {:>10} {:>8} {:>8}\n", numbers.size(),
               arguments.file.empty() ? "normal numbers" : "gradients", "codec", "encode", "decode",
               "ratio", "error");
  }
  for (const comm::CodecSpec& spec : specs) {
    const comm::CodecBenchmark result =
        comm::benchmark_codec(*comm::make_codec(spec), numbers, arguments.seconds);
    if (arguments.json) {
      json["codecs"].push_back(to_json(spec, result));
      continue;
    }
    fmt::print("{:<32} {:>5.2f} GB/s {:>5.2f} GB/s {:>8.2f} {:>8.5f}\n", to_string(spec),
               result.encode_bytes_per_second / 1e9, result.decode_bytes_per_second / 1e9,
               result.ratio, result.relative_error);
  }
  if (arguments.json) print_json(json);
}

}  // namespace

void add_bench_codec(CLI::App& bench) {
  CLI::App* command =
      bench.add_subcommand("codec", "Time how one core encodes gradients, and what is lost");
  const auto arguments = std::make_shared<CodecArguments>();
  command
      ->add_option(
          "CONFIG.toml", arguments->file,
          "A configuration: the gradients of its first step are encoded, else normal numbers")
      ->type_name("");
  command
      ->add_option("--set", arguments->overrides,
                   "Override a key of the configuration; may be given several times")
      ->type_name("SECTION.KEY=VALUE")
      ->expected(1)
      ->take_all();
  command
      ->add_option("--codec", arguments->specs,
                   "A codec, such as topk:density=0.01; may be given again. Else all")
      ->type_name("SPEC")
      ->take_all()
      ->expected(1);
  command->add_option("--numbers", arguments->numbers, "How many normal numbers are encoded")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 28))
      ->capture_default_str();
  command->add_option("--seconds", arguments->seconds, "How long each codec is timed, each way")
      ->type_name("S")
      ->check(CLI::Range(0.0, 60.0))
      ->capture_default_str();
  add_json_flag(*command, arguments->json);
  command->footer(
      "Examples:\n"
      "  concord bench codec\n"
      "  concord bench codec run.toml\n"
      "  concord bench codec --codec sign --codec topk:density=0.01 --json");
  command->callback([arguments] { run_codecs(*arguments); });
}

}  // namespace concord::cli
