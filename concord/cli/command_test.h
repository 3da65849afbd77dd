// Runs the command in a folder of its own, as a user does, for tests.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "concord/base/file.h"

namespace concord::cli {

struct Outcome {
  int code = -1;  // -1 where a signal ended it
  std::string out, err;

  nlohmann::json last_line() const {
    std::string line, last;
    for (std::istringstream lines(out); std::getline(lines, line);) last = line;
    return nlohmann::json::parse(last);
  }
};

// The processes that `parent` has started, in the order in which it has.
inline std::vector<pid_t> children_of(pid_t parent) {
  // Read of each process: the list of children that /proc has may lack some while others begin or
  // end (proc(5)).
  constexpr int kParent = 4, kStart = 22;  // fields of stat
  std::vector<std::pair<std::uint64_t, pid_t>> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const pid_t process = std::atoi(entry.path().filename().c_str());
    std::ifstream file(entry.path() / "stat");
    std::string text;
    if (process <= 0 || !std::getline(file, text)) continue;
    std::istringstream fields(text.substr(text.rfind(')') + 1));
    std::string field;
    pid_t its_parent = 0;
    for (int number = 3; number <= kStart && fields >> field; ++number) {
      if (number == kParent) its_parent = std::atoi(field.c_str());
    }
    if (its_parent == parent) found.emplace_back(std::stoull(field), process);
  }
  std::ranges::sort(found);
  std::vector<pid_t> children;
  for (const auto& [start, process] : found) children.push_back(process);
  return children;
}

// Whether it ends within a few seconds.
inline bool comes_to_an_end(pid_t process) {
  for (int waited = 0; waited < 500 && kill(process, 0) == 0; ++waited) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return kill(process, 0) != 0;
}

// A configuration of a few steps on data made in memory, with further lines for [train].
inline std::string few_steps(const std::string& train) {
  return R"(
[model]
hidden = [8]
[data]
kind = "synthetic"
shape = [4, 4, 1]
samples = 128
classes = 3
[output]
dir = "run"
[train]
batch = 32
threads = 1
)" + train +
         "\n";
}

// The folder holds `small.toml`.
class CommandTest : public testing::Test {
 protected:
  explicit CommandTest(const std::string& small_toml)
      : folder_(std::filesystem::path(testing::TempDir()) / "concord_command_XXXXXX") {
    std::string name = folder_.string();
    folder_ = mkdtemp(name.data());
    write_file_atomically(folder_ / "small.toml", small_toml);
  }
  ~CommandTest() override { std::filesystem::remove_all(folder_); }

  std::string shell(const std::string& words) const {
    const std::string folder = "'" + folder_.string() + "'";
    return "cd " + folder + " && TMPDIR=" + folder + " exec '" CONCORD_COMMAND "' " + words +
           " >out 2>err </dev/null";
  }

  Outcome outcome(int status) const {
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(folder_ / "out"),
            read_file(folder_ / "err")};
  }

  Outcome run(const std::string& words) const { return outcome(std::system(shell(words).c_str())); }

  // A shell's script, in which "$concord" is the command.
  Outcome run_script(const std::string& script) const {
    const std::filesystem::path path = folder_ / "script";
    write_file_atomically(path, "concord='" CONCORD_COMMAND "'\n" + script);
    return outcome(std::system(("cd '" + folder_.string() + "' && TMPDIR='" + folder_.string() +
                                "' exec sh script >out 2>err </dev/null")
                                   .c_str()));
  }

  // Starts the command and waits until it has said `word` on standard error; it must not end
  // before.
  pid_t start(const std::string& words, const std::string& word) const {
    return start_shell(shell(words), word);
  }
  pid_t start_shell(const std::string& script, const std::string& word) const {
    const pid_t child = fork();
    if (child == 0) {
      execl("/bin/sh", "sh", "-c", script.c_str(), nullptr);
      _exit(127);
    }
    siginfo_t end{};
    for (int waited = 0; waited < 6000 && end.si_pid == 0; ++waited) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      if (std::filesystem::exists(folder_ / "err") &&
          read_file(folder_ / "err").find(word) != std::string::npos) {
        return child;
      }
      waitid(P_PID, static_cast<id_t>(child), &end, WEXITED | WNOHANG | WNOWAIT);
    }
    ADD_FAILURE() << "never said: " << word;
    return child;
  }

  Outcome end_of(pid_t child) const {
    int status = 0;
    waitpid(child, &status, 0);
    return outcome(status);
  }

  Outcome run_and_signal(const std::string& words, const std::string& word, int signal) const {
    const pid_t child = start(words, word);
    kill(child, signal);
    return end_of(child);
  }

  std::filesystem::path folder_;
};

}  // namespace concord::cli
