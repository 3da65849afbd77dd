#include "concord/net/launch.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <map>
#include <optional>

#include "concord/base/deadline.h"
#include "concord/base/error.h"
#include "concord/base/log.h"
#include "concord/net/member.h"
#include "concord/net/store.h"

extern char** environ;

namespace concord::net {
namespace {

// "1", "1-3", "1,3-5"
std::string list_of(const std::vector<int>& ranks) {
  std::string text;
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t j = i;
    while (j + 1 < ranks.size() && ranks[j + 1] == ranks[j] + 1) ++j;
    if (!text.empty()) text += ',';
    text += std::to_string(ranks[i]);
    if (j > i) text += "-" + std::to_string(ranks[j]);
    i = j + 1;
  }
  return text;
}

// Lines of the ranks, held back a moment, so that equal ones are printed once.
class Lines {
 public:
  void add(int rank, const std::string& line) {
    const auto same = std::ranges::find_if(waiting_, [&](const Waiting& w) {
      return w.line == line && std::ranges::count(w.ranks, rank) == 0;
    });
    if (same == waiting_.end()) {
      waiting_.push_back({line, {rank}, Deadline::in(kHold)});
    } else {
      same->ranks.push_back(rank);
    }
  }
  void print(bool all) {
    const auto due = [&](const Waiting& w) { return all || w.until.has_passed(); };
    while (!waiting_.empty() && due(waiting_.front())) {
      Waiting& first = waiting_.front();
      std::ranges::sort(first.ranks);
      const std::string text =
          fmt::format("{} {}: {}\n", first.ranks.size() == 1 ? "rank" : "ranks",
                      list_of(first.ranks), first.line);
      std::fwrite(text.data(), 1, text.size(), stderr);
      waiting_.erase(waiting_.begin());
    }
  }
  bool empty() const { return waiting_.empty(); }

 private:
  static constexpr double kHold = 0.3;  // seconds
  struct Waiting {
    std::string line;
    std::vector<int> ranks;
    Deadline until;
  };
  std::vector<Waiting> waiting_;
};

struct Process {
  int rank = 0;
  pid_t id = 0;
  Descriptor output;    // the end of a pipe that is read here; not of rank 0
  std::string partial;  // a line that has not ended
  bool running = true;
};

// Signals are read from a descriptor while this lives.
class Signals {
 public:
  Signals() {
    std::signal(SIGCHLD, SIG_DFL);  // a parent may have had it ignored: nobody could be waited for
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGINT, SIGTERM, SIGCHLD}) sigaddset(&set, signal);
    pthread_sigmask(SIG_BLOCK, &set, &before_);
    descriptor_ = Descriptor(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!descriptor_.is_open()) fail("signalfd failed: {}", std::strerror(errno));
  }
  ~Signals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  int descriptor() const { return descriptor_.descriptor(); }
  const sigset_t& before() const { return before_; }
  // Those that have come, but for SIGCHLD.
  std::vector<int> take() const {
    std::vector<int> signals;
    signalfd_siginfo info;
    while (read(descriptor(), &info, sizeof info) == sizeof info) {
      if (info.ssi_signo != SIGCHLD) signals.push_back(static_cast<int>(info.ssi_signo));
    }
    return signals;
  }

 private:
  sigset_t before_{};
  Descriptor descriptor_;
};

// The cores of a rank, of those that this process may use: equally many for each, since the number
// of threads may change bits. Where there are fewer cores than ranks, some share one.
cpu_set_t cores_of(int rank, int ranks) {
  cpu_set_t all, own;
  CPU_ZERO(&all);
  CPU_ZERO(&own);
  if (sched_getaffinity(0, sizeof all, &all) != 0) {
    fail("sched_getaffinity failed: {}", std::strerror(errno));
  }
  const int cores = CPU_COUNT(&all), each = std::max(1, cores / ranks);
  const int first = rank * each % cores;
  int index = 0;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &all)) continue;
    if (index >= first && index < first + each) CPU_SET(core, &own);
    ++index;
  }
  return own;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

class Launch {
 public:
  explicit Launch(const LaunchOptions& options)
      : options_(options), secret_(Secret::random()), server_(secret_, {"127.0.0.1", 0}) {}
  // Only where starting or watching has failed are there processes left.
  ~Launch() {
    for (const Process& process : processes_) {
      if (!process.running) continue;
      kill(process.id, SIGKILL);
      waitpid(process.id, nullptr, 0);
    }
  }
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  int run() {
    for (int rank = 0; rank < options_.ranks; ++rank) start(rank);
    while (running() > 0) {
      wait();
      for (const int signal : signals_.take()) pass_on(signal);
      for (Process& process : processes_) reap(process);
      for (Process& process : processes_) read_output(process);
      lines_.print(false);
      if (patience_ && !lost_patience_ && patience_->has_passed()) lose_patience();
    }
    lines_.print(true);
    return exit_code_;
  }

 private:
  void start(int rank) {
    Process process{.rank = rank};
    Descriptor write_end;
    if (rank > 0) {
      int ends[2];
      if (pipe2(ends, O_CLOEXEC) != 0) fail("pipe failed: {}", std::strerror(errno));
      process.output = Descriptor(ends[0]);
      write_end = Descriptor(ends[1]);
      fcntl(ends[0], F_SETFL, O_NONBLOCK);
    }
    // Between fork and exec only what is safe beside other threads: all memory is there before.
    std::vector<std::string> command = options_.command, variables;
    for (char** variable = environ; *variable != nullptr; ++variable) {
      if (!std::string_view(*variable).starts_with("CONCORD_")) variables.emplace_back(*variable);
    }
    const Member member{rank, options_.ranks, server_.endpoint(), secret_};
    for (std::string& variable : member.to_environment()) variables.push_back(std::move(variable));
    const std::vector<char*> arguments = pointers(command), environment = pointers(variables);
    const cpu_set_t cores = cores_of(rank, options_.ranks);
    const pid_t parent = getpid();
    process.id = fork();
    if (process.id < 0) fail("cannot start rank {}: {}", rank, std::strerror(errno));
    if (process.id == 0) {
      setpgid(0, 0);  // the terminal's Ctrl-C comes through the parent alone
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(1);
      std::signal(SIGTTOU, SIG_IGN);  // rank 0 writes to a terminal that is not its own
      sched_setaffinity(0, sizeof cores, &cores);
      if (rank > 0) {
        dup2(write_end.descriptor(), STDOUT_FILENO);
        dup2(write_end.descriptor(), STDERR_FILENO);
      }
      pthread_sigmask(SIG_SETMASK, &signals_.before(), nullptr);
      execve(arguments[0], arguments.data(), environment.data());
      _exit(127);
    }
    processes_.push_back(std::move(process));
  }

  std::ptrdiff_t running() const { return std::ranges::count(processes_, true, &Process::running); }

  void wait() {
    std::vector<pollfd> entries = {{signals_.descriptor(), POLLIN, 0}};
    for (const Process& process : processes_) {
      if (process.output.is_open()) entries.push_back({process.output.descriptor(), POLLIN, 0});
    }
    int limit = lines_.empty() ? -1 : 100;  // milliseconds
    if (patience_ && !lost_patience_) {
      const int left = patience_->milliseconds_left();
      limit = limit < 0 ? left : std::min(limit, left);
    }
    poll(entries.data(), entries.size(), limit);
  }

  void pass_on(int signal) const {
    for (const Process& process : processes_) {
      if (process.running) kill(process.id, signal);
    }
  }

  void read_output(Process& process) {
    char bytes[4096];
    while (process.output.is_open()) {
      const ssize_t count = read(process.output.descriptor(), bytes, sizeof bytes);
      if (count < 0) return;  // all that it has written is read
      if (count == 0) {
        process.output = Descriptor();
        if (!process.partial.empty()) lines_.add(process.rank, std::exchange(process.partial, ""));
        return;
      }
      process.partial.append(bytes, static_cast<std::size_t>(count));
      std::size_t end = 0;
      while ((end = process.partial.find('\n')) != std::string::npos) {
        lines_.add(process.rank, process.partial.substr(0, end));
        process.partial.erase(0, end + 1);
      }
    }
  }

  void lose_patience() {
    lost_patience_ = true;
    for (const Process& process : processes_) {
      if (process.running)
        log("rank {} (process {}) does not end and is killed", process.rank, process.id);
    }
    pass_on(SIGKILL);
  }

  void reap(Process& process) {
    int status = 0;
    if (!process.running || waitpid(process.id, &status, WNOHANG) != process.id) return;
    process.running = false;
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    // Of several that are found at once: others end in errors where one was ended by a signal.
    const bool is_cause = WIFSIGNALED(status) && !lost_patience_ && exit_code_ < 128;
    if (exit_code_ == 0 || is_cause) exit_code_ = code;
    // Rank 0 may have much to save, when the others have ended long before.
    if (exit_code_ != 0 && (!patience_ || process.rank == 0)) {
      patience_ = Deadline::in(processes_[0].running ? options_.first_grace_seconds
                                                     : options_.grace_seconds);
    }
    if (code == 127) log("rank {} cannot run {}", process.rank, options_.command[0]);
    if (WIFSIGNALED(status)) {
      log("rank {} (process {}) was ended by signal {} ({})", process.rank, process.id,
          WTERMSIG(status), strsignal(WTERMSIG(status)));
    }
  }

  const LaunchOptions& options_;
  Signals signals_;  // before threads are started, which inherit what is blocked
  Secret secret_;
  StoreServer server_;
  std::vector<Process> processes_;
  Lines lines_;
  std::optional<Deadline> patience_;  // with the others, once a rank has failed
  bool lost_patience_ = false;
  int exit_code_ = 0;
};

}  // namespace

int launch(const LaunchOptions& options) {
  if (options.ranks < 1) fail("{} ranks were asked for; expected at least 1", options.ranks);
  return Launch(options).run();
}

}  // namespace concord::net
