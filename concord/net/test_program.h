// Other programs, for tests: above all tests/test_rank.cc, a rank as a process.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "concord/base/file.h"
#include "concord/net/process.h"

namespace concord::net {

// A program that ends with its owner.
class Program {
 public:
  Program(const std::vector<std::string>& command, std::vector<std::string> variables = {}) {
    std::ranges::copy(inherited_environment(), std::back_inserter(variables));
    process_ = start_process({.command = command, .environment = variables});
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    if (process_.id > 0) end(SIGKILL);
  }

  void signal(int number) const { kill(process_.id, number); }
  // Returns its exit code, or 128 and the number of the signal that ended it.
  int wait() {
    int status = 0;
    waitpid(std::exchange(process_.id, 0), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  int end(int number) {
    signal(number);
    return wait();
  }

 private:
  Process process_;
};

struct Outcome {
  int code;
  std::string said;  // on standard output and error
};

inline Outcome run_shell(const std::string& command,
                         const std::vector<std::string>& variables = {}) {
  const std::filesystem::path log = testing::TempDir() + fmt::format("shell_{}", getpid());
  Program shell({"/bin/sh", "-c", fmt::format("exec {} >{} 2>&1", command, log.string())},
                variables);
  const int code = shell.wait();
  const Outcome outcome{code, read_file(log)};
  std::filesystem::remove(log);
  return outcome;
}

// MPI leaves memory behind, which the sanitizer of processes that use it would complain of.
inline Outcome run_under_mpirun(int size, const std::string& transport, const std::string& what) {
  return run_shell(fmt::format("{} --allow-run-as-root --oversubscribe -np {} {} {} {}",
                               CONCORD_MPIRUN, size, CONCORD_TEST_RANK, transport, what),
                   {"ASAN_OPTIONS=detect_leaks=0"});
}

}  // namespace concord::net
