#include "concord/cli/completion.h"

#include <fmt/core.h>

#include "concord/cli/command.h"
#include "concord/train/config_schema.h"

namespace concord::cli {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += text.empty() ? word : " " + word;
  return text;
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : shown_commands(app)) names.push_back(command->get_name());
  return names;
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

// Words after which the next one is a command: "concord", "concord bench".
struct Place {
  std::string path;  // "", "bench", "bench step"
  const CLI::App* command;
};

std::vector<Place> places(const CLI::App& app, const std::string& path = "") {
  std::vector<Place> result = {{path, &app}};
  for (const CLI::App* command : shown_commands(app)) {
    const std::string below = path.empty() ? command->get_name() : path + " " + command->get_name();
    for (Place& place : places(*command, below)) result.push_back(std::move(place));
  }
  return result;
}

// The shells that the command "completion" knows.
std::vector<std::string> positional_words(const Place& place) {
  if (place.path == "completion") return {"bash", "zsh", "fish"};
  return {};
}

std::string keys_with_equals() {
  std::vector<std::string> words;
  for (const ConfigKey& key : config_keys()) words.push_back(std::string(key.name) + "=");
  return joined(words);
}

// For single quotes in fish.
std::string description(const std::string& text) {
  std::string plain;
  for (const char c : text) plain += c == '\'' ? std::string("\\'") : std::string(1, c);
  return plain;
}

// True in fish where the words so far name the place.
std::string fish_condition(const std::string& path) {
  if (path.empty()) return "__fish_use_subcommand";
  std::string condition = "__fish_seen_subcommand_from ";
  for (const char c : path) {
    condition += c == ' ' ? std::string("; and __fish_seen_subcommand_from ") : std::string(1, c);
  }
  return condition;
}

// The function that bash and zsh share: zsh runs it through bashcompinit.
std::string completion_function(const CLI::App& app) {
  std::string cases;
  std::string known_paths;
  for (const Place& place : places(app)) {
    if (!place.path.empty()) {
      known_paths += fmt::format("{}\"{}\"", known_paths.empty() ? "" : "|", place.path);
    }
    std::vector<std::string> words = command_names(*place.command);
    for (const std::string& word : positional_words(place)) words.push_back(word);
    for (const std::string& option : option_names(*place.command)) words.push_back(option);
    // Files are offered where no command is expected.
    const bool files = shown_commands(*place.command).empty() && positional_words(place).empty();
    cases += fmt::format("    \"{}\") words=\"{}\"{} ;;\n", place.path, joined(words),
                         files ? " files=yes" : "");
  }
  return fmt::format(R"(_concord() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" path="" words="" files="" i
  # Bash may split words at "=": a value of --set is left to the user.
  if [ "$previous" = "--set" ]; then
    COMPREPLY=($(compgen -W "{}" -- "$current"))
    type compopt >/dev/null 2>&1 && compopt -o nospace
    return
  fi
  if [ "$previous" = "--checkpoint" ]; then
    COMPREPLY=($(compgen -d -- "$current"))
    return
  fi
  for ((i = 1; i < COMP_CWORD; ++i)); do
    case "${{path:+$path }}${{COMP_WORDS[i]}}" in
      {}) path="${{path:+$path }}${{COMP_WORDS[i]}}" ;;
    esac
  done
  case "$path" in
{}  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ -z "$files" ] || COMPREPLY+=($(compgen -f -- "$current"))
}}
complete -o filenames -F _concord concord
)",
                     keys_with_equals(), known_paths, cases);
}

}  // namespace

std::string bash_completion(const CLI::App& app) {
  return "# bash completion for concord: source <(concord completion bash)\n" +
         completion_function(app);
}

std::string zsh_completion(const CLI::App& app) {
  return "#compdef concord\n"
         "# zsh completion for concord: source <(concord completion zsh)\n"
         "autoload -U +X bashcompinit && bashcompinit\n" +
         completion_function(app);
}

std::string fish_completion(const CLI::App& app) {
  std::string text =
      "# fish completion for concord: concord completion fish | source\n"
      "complete -c concord -f\n";
  for (const Place& place : places(app)) {
    const std::string condition = fish_condition(place.path);
    for (const CLI::App* command : shown_commands(*place.command)) {
      text += fmt::format("complete -c concord -n '{}' -a {} -d '{}'\n", condition,
                          command->get_name(), description(command->get_description()));
    }
    for (const std::string& word : positional_words(place)) {
      text += fmt::format("complete -c concord -n '{}' -a {}\n", condition, word);
    }
    for (const CLI::Option* option : place.command->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        const bool takes_value = option->get_items_expected_max() > 0;
        text += fmt::format("complete -c concord -n '{}' -l {}{} -d '{}'\n", condition, name,
                            takes_value ? " -r" : "", description(option->get_description()));
      }
    }
  }
  text += fmt::format("complete -c concord -n 'not __fish_use_subcommand' -l set -x -a '{}'\n",
                      keys_with_equals());
  return text + "complete -c concord -n 'not __fish_use_subcommand' -F\n";
}

void add_completion(CLI::App& app) {
  CLI::App* command = app.add_subcommand("completion", "Print a shell's completion script");
  const auto shell = std::make_shared<std::string>();
  command->add_option("shell", *shell, "bash, zsh or fish")
      ->required()
      ->type_name("SHELL")
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->footer(
      "Examples:\n"
      "  source <(concord completion bash)\n"
      "  concord completion fish > ~/.config/fish/completions/concord.fish");
  command->callback([&app, shell] {
    if (*shell == "bash") fmt::print("{}", bash_completion(app));
    if (*shell == "zsh") fmt::print("{}", zsh_completion(app));
    if (*shell == "fish") fmt::print("{}", fish_completion(app));
  });
}

}  // namespace concord::cli
