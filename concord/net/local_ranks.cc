#include "concord/net/local_ranks.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "concord/base/error.h"

namespace concord::net {
namespace {

// The cores of one of `count` ranks.
cpu_set_t cores_of(int index, int count) {
  cpu_set_t all, own;
  CPU_ZERO(&all);
  CPU_ZERO(&own);
  if (sched_getaffinity(0, sizeof all, &all) != 0) {
    fail("sched_getaffinity failed: {}", std::strerror(errno));
  }
  const int cores = CPU_COUNT(&all), each = std::max(1, cores / count);
  const int first = index * each % cores;
  int number = 0;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &all)) continue;
    if (number >= first && number < first + each) CPU_SET(core, &own);
    ++number;
  }
  return own;
}

class LocalRanks final : public RankGroup {
 public:
  explicit LocalRanks(const LocalRanksOptions& options) : options_(options) {
    if (isatty(STDERR_FILENO) == 1) {
      terminal_ = Descriptor(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
    }
    try {
      for (int i = 0; i < options.count; ++i) start(i);
    } catch (const Error& error) {
      kill_all();
      fail("rank {} was not started: {}", options.first + static_cast<int>(ranks_.size()),
           error.what());
    }
  }
  ~LocalRanks() override { kill_all(); }
  LocalRanks(const LocalRanks&) = delete;
  LocalRanks& operator=(const LocalRanks&) = delete;

  void add_to(std::vector<pollfd>& entries) const override {
    for (const Rank& rank : ranks_) {
      for (const Descriptor* pipe : {&rank.process.errors, &rank.process.output}) {
        if (pipe->is_open()) entries.push_back({pipe->descriptor(), POLLIN, 0});
      }
    }
  }

  // What a rank has said before it has ended is told before its end.
  void collect(RankListener& listener) override {
    for (Rank& rank : ranks_) {
      int status = 0;
      const bool has_ended =
          rank.running && waitpid(rank.process.id, &status, WNOHANG) == rank.process.id;
      read_available(rank.process.errors,
                     [&](std::string_view bytes) { listener.said(rank.number, bytes); });
      read_available(rank.process.output, [&](std::string_view bytes) { listener.printed(bytes); });
      if (!has_ended) continue;
      rank.running = false;
      listener.ended(rank.number, status, name_of(rank.process.id));
    }
  }

  void send(int signal) override {
    for (const Rank& rank : ranks_) {
      if (rank.running) kill(rank.process.id, signal);
    }
  }

 private:
  struct Rank {
    int number = 0;
    Process process;
    bool running = true;
  };

  std::string name_of(pid_t process) const {
    return fmt::format("process {}{}{}", process, options_.host.empty() ? "" : " on ",
                       options_.host);
  }

  void start(int index) {
    const int number = options_.first + index;
    ProcessOptions process{.command = options_.command,
                           .environment = inherited_environment(),
                           .blocked = options_.blocked,
                           .cores = cores_of(index, options_.count),
                           .pipe_output = number == 0 && options_.collects_output,
                           .output_with_errors = number > 0,
                           .pipe_errors = true};
    const Member member{number, options_.size, options_.store, options_.secret};
    for (std::string& variable : member.to_environment(number == 0 ? terminal_.descriptor() : -1)) {
      process.environment.push_back(std::move(variable));
    }
    if (number == 0) process.hand_over = terminal_.descriptor();
    ranks_.push_back({number, start_process(process)});
  }

  void kill_all() {
    for (const Rank& rank : ranks_) {
      if (!rank.running) continue;
      kill(rank.process.id, SIGKILL);
      waitpid(rank.process.id, nullptr, 0);
    }
  }

  const LocalRanksOptions options_;
  Descriptor terminal_;  // handed to rank 0, whose standard error is a pipe
  std::vector<Rank> ranks_;
};

}  // namespace

std::unique_ptr<RankGroup> start_local_ranks(const LocalRanksOptions& options) {
  return std::make_unique<LocalRanks>(options);
}

}  // namespace concord::net
