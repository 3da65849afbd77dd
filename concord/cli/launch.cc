// concord launch: runs a command as several ranks; and what it runs on other hosts for that.
#include <memory>
#include <string>
#include <vector>

#include "concord/base/error.h"
#include "concord/cli/command.h"
#include "concord/cli/ranks.h"
#include "concord/net/agent.h"

namespace concord::cli {
namespace {

struct LaunchArguments {
  RanksArguments ranks;
  std::vector<std::string> words;
};

// Thrown where words are understood, before the command that they name is run.
struct Understood {};

// Where the logs of a job may be kept; "" for none. A mistake in its words is told here, once.
std::string directory_of(const std::vector<std::string>& words) {
  const std::unique_ptr<CLI::App> app = make_app();
  app->parse_complete_callback([] { throw Understood(); });
  try {
    parse(*app, words);
  } catch (const Understood&) {
  }
  const CLI::App& command = *app->get_subcommands().front();
  const CLI::App* last = &command;
  while (!last->get_subcommands().empty()) last = last->get_subcommands().front();
  for (const char* option : {"--ranks", "--hosts"}) {
    const CLI::Option* given = last->get_option_no_throw(option);
    if (given == nullptr || given->count() == 0) continue;
    fail("ranks and hosts are given to concord launch: leave out {} after {}", option,
         last->get_name());
  }
  if (command.get_name() == "preflight" || command.get_name() == "bench") return "";
  if (command.get_name() != "train") {
    fail("concord {} is nothing that several ranks do; expected train, bench or preflight",
         command.get_name());
  }
  ConfigArguments config{.file = command["CONFIG.toml"]->as<std::string>()};
  if (command.count("--plan") > 0) config.plan = command["--plan"]->as<std::string>();
  if (command.count("--set") > 0) config.overrides = command["--set"]->results();
  return config.load().output.dir;
}

void add_agent(CLI::App& app) {
  CLI::App* command = app.add_subcommand("launch-agent", "Run the ranks of this host")->group("");
  command->callback([] {
    if (const int code = net::run_agent(CONCORD_VERSION)) throw Exit(code);
  });
}

}  // namespace

void add_launch(CLI::App& app) {
  CLI::App* command = app.add_subcommand("launch", "Run a command as several ranks");
  const auto arguments = std::make_shared<LaunchArguments>();
  arguments->ranks.add_to(*command);
  command->add_option("COMMAND", arguments->words, "train, bench or preflight, and its arguments")
      ->required()
      ->type_name("");
  command->footer(
      "Where the command has options, \"--\" stands before it.\n"
      "\n"
      "Examples:\n"
      "  concord launch -n 4 -- train run.toml --resume\n"
      "  concord launch --hosts a:2,b:2 -- train run.toml");
  command->callback([arguments] {
    const std::string directory = directory_of(arguments->words);
    if (!arguments->ranks.are_given()) {
      fail("how many ranks, and where? give --ranks N or --hosts a:2,b:2");
    }
    arguments->ranks.launch(arguments->words, directory);
  });
  add_agent(app);
}

}  // namespace concord::cli
