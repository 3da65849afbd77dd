// concord eval: a checkpoint's loss and accuracy on the test set.
#include <fmt/core.h>

#include "concord/cli/command.h"
#include "concord/cli/results.h"
#include "concord/train/trainer.h"

namespace concord::cli {
namespace {

struct EvalArguments {
  ConfigArguments config;
  std::string checkpoint;
  bool json = false;
};

}  // namespace

void add_eval(CLI::App& app) {
  CLI::App* command = app.add_subcommand("eval", "Evaluate a checkpoint on the test set");
  const auto arguments = std::make_shared<EvalArguments>();
  arguments->config.add_to(*command);
  command
      ->add_option("--checkpoint", arguments->checkpoint,
                   "A checkpoint's folder, or a run's: its newest intact checkpoint")
      ->required()
      ->type_name("DIR");
  add_json_flag(*command, arguments->json);
  command->footer(
      "Examples:\n"
      "  concord eval run.toml --checkpoint runs/run\n"
      "  concord eval run.toml --checkpoint runs/run --json");
  command->callback([arguments] {
    const train::Summary summary = train::evaluate(arguments->config.load(), arguments->checkpoint);
    if (arguments->json) {
      print_json(to_json(summary));
    } else {
      fmt::print("{}", format_summary(summary));
    }
  });
}

}  // namespace concord::cli
