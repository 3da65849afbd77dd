#include "concord/net/process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <sstream>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/net/member.h"

extern char** environ;

namespace concord::net {
namespace {

struct Pipe {
  Descriptor read, write;
};

Pipe make_pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    fail("cannot make a pipe: {}{}", std::strerror(errno),
         errno == EMFILE ? "; each rank takes some of the files that a process may open: raise "
                           "that limit (ulimit -n), or start fewer"
                         : "");
  }
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

// What this process reads.
Pipe make_reading_pipe() {
  Pipe pipe = make_pipe();
  fcntl(pipe.read.descriptor(), F_SETFL, O_NONBLOCK);
  return pipe;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (const std::string& text : texts) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

// The fields of /proc/PROCESS/stat from the third on: the second is a name that may hold anything.
std::vector<std::string> status_of(pid_t process) {
  std::string text;
  try {
    text = read_file(fmt::format("/proc/{}/stat", process), 1 << 16);
  } catch (const Error&) {
    return {};
  }
  std::istringstream words(text.substr(text.rfind(')') + 1));
  return {std::istream_iterator<std::string>(words), {}};
}

}  // namespace

Process start_process(const ProcessOptions& options) {
  Pipe input, output, errors;
  if (options.pipe_input) input = make_pipe();
  if (options.pipe_output) output = make_reading_pipe();
  if (options.pipe_errors) errors = make_reading_pipe();
  // Between fork and exec only what is safe beside other threads: all memory is there before.
  const std::vector<char*> arguments = pointers(options.command);
  const std::vector<char*> environment = pointers(options.environment);
  const pid_t parent = getpid();
  const pid_t id = fork();
  if (id < 0) {
    fail("cannot start another process: {}{}", std::strerror(errno),
         errno == EAGAIN ? "; the limit of processes (ulimit -u, or the container's) is reached"
                         : "");
  }
  if (id > 0) return {id, std::move(input.write), std::move(output.read), std::move(errors.read)};

  setpgid(0, 0);  // the terminal's Ctrl-C comes through the parent alone
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  std::signal(SIGTTOU, SIG_IGN);  // it may write to a terminal that is not its own
  if (options.cores) sched_setaffinity(0, sizeof(cpu_set_t), &*options.cores);
  if (options.pipe_input) dup2(input.read.descriptor(), STDIN_FILENO);
  if (options.pipe_errors) dup2(errors.write.descriptor(), STDERR_FILENO);
  if (options.pipe_output) dup2(output.write.descriptor(), STDOUT_FILENO);
  if (options.output_with_errors) dup2(STDERR_FILENO, STDOUT_FILENO);
  if (options.hand_over >= 0) fcntl(options.hand_over, F_SETFD, 0);
  pthread_sigmask(SIG_SETMASK, &options.blocked, nullptr);
  execvpe(arguments[0], arguments.data(), environment.data());
  _exit(127);
}

void read_available(Descriptor& pipe, const std::function<void(std::string_view)>& take) {
  char bytes[1 << 16];
  while (pipe.is_open()) {
    const ssize_t count = read(pipe.descriptor(), bytes, sizeof bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return;  // it is empty
    if (count == 0) {
      pipe = Descriptor();
    } else {
      take(std::string_view(bytes, static_cast<std::size_t>(count)));
    }
  }
}

std::vector<std::string> inherited_environment() {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!Member::is_variable(*variable)) variables.emplace_back(*variable);
  }
  return variables;
}

std::string identity_of(pid_t process) {
  constexpr std::size_t kStartTime = 22 - 3;
  const std::vector<std::string> status = status_of(process);
  return status.size() > kStartTime ? fmt::format("{}-{}", process, status[kStartTime]) : "";
}

pid_t parent_of(pid_t process) {
  const std::vector<std::string> status = status_of(process);
  return status.size() > 1 ? static_cast<pid_t>(std::stol(status[1])) : 0;
}

std::string shell_word(const std::string& word) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=,:@%+";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string own_program() {
  constexpr const char* kSelf = "/proc/self/exe";
  std::error_code error;
  const std::filesystem::path path = std::filesystem::read_symlink(kSelf, error);
  const bool is_same = !error && std::filesystem::equivalent(path, kSelf, error) && !error;
  return is_same ? path.string() : kSelf;
}

}  // namespace concord::net
