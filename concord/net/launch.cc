#include "concord/net/launch.h"

#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>

#include "concord/base/deadline.h"
#include "concord/base/error.h"
#include "concord/base/text.h"
#include "concord/net/console.h"
#include "concord/net/local_ranks.h"
#include "concord/net/remote_ranks.h"
#include "concord/net/signals.h"
#include "concord/net/store.h"

namespace concord::net {
namespace {

int rank_count(const LaunchOptions& options) {
  int ranks = options.hosts.empty() ? options.ranks : 0;
  for (const HostRanks& host : options.hosts) ranks += host.ranks;
  if (ranks < 1) fail("{} ranks were asked for; expected at least 1", ranks);
  return ranks;
}

// Each rank is a pipe and a connection to the store. Takes as many as the system allows.
int check_open_files(int ranks) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t needed = 3 * static_cast<rlim_t>(ranks) + 64;
  if (limit.rlim_cur < needed) {
    limit.rlim_cur = std::min(needed, limit.rlim_max);
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur < needed) {
    fail(
        "{} ranks need {} open files in the process that starts them, which may have {}: raise "
        "the limit (ulimit -n), or start fewer ranks",
        ranks, needed, limit.rlim_cur);
  }
  return ranks;
}

// Of the store. Agents find out which of this machine's addresses they reach.
std::vector<Endpoint> places_for_store(const LaunchOptions& options) {
  if (!options.address.empty()) return {{options.address, 0}};
  std::vector<Endpoint> places = {{"127.0.0.1", 0}};
  if (options.hosts.empty()) return places;
  for (const std::string& address : own_addresses()) places.push_back({address, 0});
  return places;
}

class Launch final : public RankListener {
 public:
  explicit Launch(const LaunchOptions& options)
      : options_(options),
        size_(check_open_files(rank_count(options))),
        secret_(Secret::random()),
        server_(secret_, places_for_store(options)),
        console_(size_),
        running_(static_cast<std::size_t>(size_), true) {}

  int run() {
    if (options_.hosts.empty()) {
      start_here();
    } else if (!start_on_hosts()) {
      return exit_code_;
    }
    while (std::ranges::count(running_, true) > 0) {
      wait();
      for (const int signal : signals_.take()) {
        if (signal == SIGTSTP) {
          rest();
        } else {
          send(signal);
        }
      }
      for (const auto& group : groups_) group->collect(*this);
      console_.print(false);
      if (patience_ && !lost_patience_ && patience_->has_passed()) lose_patience();
    }
    console_.print(true);
    if (exit_code_ != 0) console_.keep_logs(options_.directory);
    return exit_code_;
  }

 private:
  void start_here() {
    groups_.push_back(start_local_ranks({.count = size_,
                                         .size = size_,
                                         .command = options_.command,
                                         .store = {server_.endpoint()},
                                         .secret = secret_,
                                         .blocked = signals_.before()}));
  }

  // False where a signal has come meanwhile.
  bool start_on_hosts() {
    std::vector<RemoteRanks*> agents;
    int first = 0;
    for (const HostRanks& host : options_.hosts) {
      auto agent = start_remote_ranks({.job = {.directory = std::filesystem::current_path(),
                                               .command = options_.command,
                                               .first = first,
                                               .count = host.ranks,
                                               .size = size_,
                                               .secret = secret_,
                                               .store = server_.endpoints(),
                                               .host = host.host},
                                       .program = options_.program,
                                       .agent = options_.command[0],
                                       .version = options_.version,
                                       .blocked = signals_.before()});
      first += host.ranks;
      agents.push_back(agent.get());
      groups_.push_back(std::move(agent));
    }
    constexpr double kAnswerSeconds = 60;
    patience_ = Deadline::in(kAnswerSeconds);
    const auto is_silent = [](const RemoteRanks* agent) { return !agent->reached(); };
    while (std::ranges::any_of(agents, is_silent)) {
      if (patience_->has_passed()) {
        const auto silent = std::ranges::find_if(agents, is_silent);
        fail("host {} has not answered within {:g} s",
             options_.hosts[static_cast<std::size_t>(silent - agents.begin())].host,
             kAnswerSeconds);
      }
      wait();
      for (const int signal : signals_.take()) {
        if (signal != SIGTSTP) exit_code_ = 128 + signal;
      }
      if (exit_code_ != 0) return false;
      for (const auto& group : groups_) group->collect(*this);
    }
    patience_.reset();
    std::vector<std::string> used;
    for (std::size_t i = 0; i < agents.size(); ++i) used.push_back(place_for(agents, i));
    server_.listen_only_at(used);
    for (std::size_t i = 0; i < agents.size(); ++i) agents[i]->start(used[i]);
    return true;
  }

  // Where all agents reach the store, or else the one does.
  std::string place_for(const std::vector<RemoteRanks*>& agents, std::size_t index) const {
    const std::vector<std::string>& reached = *agents[index]->reached();
    if (reached.empty()) {
      fail("host {} reaches this machine at none of its addresses {}; give one with --address",
           options_.hosts[index].host, to_string(server_.endpoints()));
    }
    const auto by_all = std::ranges::find_if(reached, [&](const std::string& place) {
      return std::ranges::all_of(agents, [&](const RemoteRanks* agent) {
        return std::ranges::count(*agent->reached(), place) > 0;
      });
    });
    return by_all == reached.end() ? reached.back() : *by_all;
  }

  void wait() const {
    std::vector<pollfd> entries = {{signals_.descriptor(), POLLIN, 0}};
    for (const auto& group : groups_) group->add_to(entries);
    int limit = console_.milliseconds_left();
    if (patience_ && !lost_patience_) {
      const int left = patience_->milliseconds_left();
      limit = limit < 0 ? left : std::min(limit, left);
    }
    poll(entries.data(), entries.size(), limit);
  }

  void send(int signal) const {
    for (const auto& group : groups_) group->send(signal);
  }

  // Ctrl-Z: the ranks, which are in process groups of their own, stop and go on as this process
  // does.
  void rest() const {
    send(SIGSTOP);
    raise(SIGSTOP);
    send(SIGCONT);
  }

  void said(int rank, std::string_view bytes) override { console_.said(rank, bytes); }

  void printed(std::string_view bytes) override {
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    std::fflush(stdout);
  }

  void remarked(const std::string& line) override { console_.say(line); }

  void ended(int rank, int status, const std::string& process) override {
    running_[static_cast<std::size_t>(rank)] = false;
    console_.closed(rank);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    const bool first_is_lost = code == kFirstIsLost;
    if (first_is_lost) code = 1;
    // Of several that are found at once: others end in errors where one was ended by a signal.
    const bool is_cause = WIFSIGNALED(status) && !lost_patience_ && exit_code_ < 128;
    if (exit_code_ == 0 || is_cause) exit_code_ = code;
    // Rank 0 may have much to save, when the others have ended long before.
    if (exit_code_ != 0 && (!patience_ || rank == 0 || first_is_lost)) {
      patience_ = Deadline::in(running_[0] && !first_is_lost ? options_.first_grace_seconds
                                                             : options_.grace_seconds);
    }
    if (code == 127) {
      console_.say(fmt::format("rank {} cannot run {}", rank, options_.command[0]));
    } else if (WIFSIGNALED(status)) {
      console_.say(fmt::format("rank {} ({}) was ended by signal {} ({})", rank, process,
                               WTERMSIG(status), strsignal(WTERMSIG(status))));
    }
  }

  void lose_patience() {
    lost_patience_ = true;
    std::vector<int> left;
    for (std::size_t rank = 0; rank < running_.size(); ++rank) {
      if (running_[rank]) left.push_back(static_cast<int>(rank));
    }
    console_.say(fmt::format("{} {} not end and {} killed", named(left),
                             left.size() == 1 ? "does" : "do", left.size() == 1 ? "is" : "are"));
    send(SIGKILL);
  }

  const LaunchOptions& options_;
  const int size_;
  Signals signals_;  // before threads are started, which inherit what is blocked
  Secret secret_;
  StoreServer server_;
  Console console_;
  std::vector<std::unique_ptr<RankGroup>> groups_;
  std::vector<bool> running_;         // by rank
  std::optional<Deadline> patience_;  // with the others, once a rank has failed
  bool lost_patience_ = false;
  int exit_code_ = 0;
};

}  // namespace

std::vector<HostRanks> parse_hosts(const std::string& text) {
  std::vector<HostRanks> hosts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    std::string name = text.substr(begin, end - begin);
    begin = end + 1;
    int ranks = 1;
    const std::size_t colon = name.rfind(':');
    if (colon != std::string::npos && !name.ends_with(']')) {
      const char* const last = name.data() + name.size();
      const auto [stop, error] = std::from_chars(name.data() + colon + 1, last, ranks);
      if (error != std::errc() || stop != last) ranks = 0;
      name.resize(colon);
    }
    if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
    // A name is a word on the command line of what connects: no option of it.
    if (name.empty() || name.starts_with('-') || ranks < 1 || ranks > 256) {
      fail("hosts {}: expected names and numbers of ranks, 1 to 256, as in a:2,b:2", quote(text));
    }
    if (std::ranges::count(hosts, name, &HostRanks::host) > 0) {
      fail("hosts {}: {} stands there twice; add its ranks up", quote(text), name);
    }
    hosts.push_back({name, ranks});
  }
  return hosts;
}

int launch(const LaunchOptions& options) { return Launch(options).run(); }

}  // namespace concord::net
