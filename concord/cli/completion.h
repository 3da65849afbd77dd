// Completion scripts for shells, printed from the tree of commands, so that they cannot fall
// behind it. Keys after --set come from the configuration's table.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace concord::cli {

std::string bash_completion(const CLI::App& app);
std::string zsh_completion(const CLI::App& app);
std::string fish_completion(const CLI::App& app);

}  // namespace concord::cli
