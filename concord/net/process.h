// A process that this one starts: its streams may be pipes, and it is killed when the thread that
// started it ends.
#pragma once

#include <sched.h>
#include <signal.h>
#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "concord/base/descriptor.h"

namespace concord::net {

struct ProcessOptions {
  std::vector<std::string> command;      // the program, looked for in PATH, and its arguments
  std::vector<std::string> environment;  // all of it, as "NAME=value"
  sigset_t blocked{};                    // signals
  std::optional<cpu_set_t> cores;        // that it may run on; nullopt: those of this process
  bool pipe_input = false;               // else this process's
  bool pipe_output = false;              // else this process's, or that of errors:
  bool output_with_errors = false;
  bool pipe_errors = false;
  int hand_over = -1;  // a descriptor that it gets besides, under its number
};

struct Process {
  pid_t id = 0;
  Descriptor input;           // to write to; blocking
  Descriptor output, errors;  // to read from; not blocking
};

// Throws Error where the system has no room for another process or its pipes. A program that cannot
// be run ends with exit code 127.
Process start_process(const ProcessOptions& options);

// Hands over what a pipe holds now, piece by piece; at its end it is closed.
void read_available(Descriptor& pipe, const std::function<void(std::string_view)>& take);

// This process's environment but for variables that hold another's place in a job (member.h).
std::vector<std::string> inherited_environment();

// Tells a process of this machine from all others, also from a later one of the same number; "" for
// one that is not there.
std::string identity_of(pid_t process);
// 0 where there is none.
pid_t parent_of(pid_t process);

// As a word of a shell's command line.
std::string shell_word(const std::string& word);

// The path of this very program; where its file is gone, what runs it still.
std::string own_program();

}  // namespace concord::net
