#include "concord/net/agent.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "concord/base/error.h"
#include "concord/net/frames.h"
#include "concord/net/local_ranks.h"
#include "concord/net/member.h"
#include "concord/net/signals.h"
#include "concord/net/store.h"

namespace concord::net {
namespace {

using Kind = Frame::Kind;

constexpr int kMostRanks = 1 << 20;

// Those of the places at which the job's store answers, and not another's.
std::vector<Endpoint> reached(const AgentJob& job) {
  constexpr double kTrySeconds = 3;
  std::vector<char> answers(job.store.size(), 0);
  std::vector<std::thread> tries;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    tries.emplace_back([&, i] {
      answers[i] = StoreClient::is_answered(job.secret, job.store[i], Deadline::in(kTrySeconds));
    });
  }
  std::vector<Endpoint> result;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    tries[i].join();
    if (answers[i] != 0) result.push_back(job.store[i]);
  }
  return result;
}

class Agent final : public RankListener {
 public:
  // Takes the standard streams for itself; the ranks get /dev/null.
  explicit Agent(std::string_view version)
      : from_launcher_(fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)),
        to_launcher_(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)) {
    const Descriptor nothing(open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!from_launcher_.is_open() || !to_launcher_.is_open() || !nothing.is_open()) {
      fail("cannot take over the standard streams: {}", std::strerror(errno));
    }
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO}) dup2(nothing.descriptor(), stream);
    write_all(to_launcher_, agent_greeting(version));
  }

  int run() {
    try {
      while (!is_over()) {
        wait();
        for (const int signal : signals_.take()) {
          if (signal != SIGTSTP) return 1;
        }
        if (!read_frames()) return 1;  // the launcher is gone
        if (ranks_) ranks_->collect(*this);
      }
      return 0;
    } catch (const Error& error) {
      write_frame(to_launcher_, {Kind::kFailed, 0, error.what()});
      return 1;
    }
  }

 private:
  bool is_over() const { return ranks_ && left_ == 0; }

  void wait() const {
    std::vector<pollfd> entries = {{signals_.descriptor(), POLLIN, 0},
                                   {from_launcher_.descriptor(), POLLIN, 0}};
    if (ranks_) ranks_->add_to(entries);
    poll(entries.data(), entries.size(), -1);
  }

  // False at the end of what the launcher says.
  bool read_frames() {
    pollfd entry{from_launcher_.descriptor(), POLLIN, 0};
    if (poll(&entry, 1, 0) == 0) return true;
    char bytes[1 << 14];
    const ssize_t count = read(from_launcher_.descriptor(), bytes, sizeof bytes);
    if (count < 0 && errno == EINTR) return true;
    if (count <= 0) return false;
    reader_.add({bytes, static_cast<std::size_t>(count)});
    while (const std::optional<Frame> frame = reader_.take()) take(*frame);
    return true;
  }

  void take(const Frame& frame) {
    if (frame.kind == Kind::kJob) {
      prepare(AgentJob::from_json(frame.bytes));
    } else if (frame.kind == Kind::kStart) {
      start(frame.bytes);
    } else if (frame.kind == Kind::kSignal && ranks_) {
      ranks_->send(frame.rank);
    }
  }

  void prepare(AgentJob job) {
    job_ = std::move(job);
    if (chdir(job_.directory.c_str()) != 0) {
      fail("cannot work in {}: {}", job_.directory, std::strerror(errno));
    }
    write_frame(to_launcher_, {Kind::kReached, 0, to_string(reached(job_))});
  }

  void start(const std::string& store) {
    ranks_ = start_local_ranks({.first = job_.first,
                                .count = job_.count,
                                .size = job_.size,
                                .command = job_.command,
                                .store = parse_endpoints(store, "the launcher's store"),
                                .secret = job_.secret,
                                .blocked = signals_.before(),
                                .collects_output = true,
                                .host = job_.host});
    left_ = job_.count;
  }

  void said(int rank, std::string_view bytes) override {
    write_frame(to_launcher_, {Kind::kSaid, rank, std::string(bytes)});
  }
  void printed(std::string_view bytes) override {
    write_frame(to_launcher_, {Kind::kPrinted, 0, std::string(bytes)});
  }
  void ended(int rank, int status, const std::string& process) override {
    --left_;
    write_frame(to_launcher_, {Kind::kEnded, rank, fmt::format("{} {}", status, process)});
  }
  void remarked(const std::string&) override {}

  Descriptor from_launcher_, to_launcher_;
  Signals signals_;
  FrameReader reader_;
  AgentJob job_;
  std::unique_ptr<RankGroup> ranks_;
  int left_ = 0;
};

}  // namespace

std::string AgentJob::to_json() const {
  const nlohmann::json object = {{"directory", directory},
                                 {"command", command},
                                 {"first", first},
                                 {"count", count},
                                 {"size", size},
                                 {"secret", secret.to_hex()},
                                 {"store", to_string(store)},
                                 {"host", host}};
  return object.dump();
}

AgentJob AgentJob::from_json(std::string_view text) {
  try {
    const nlohmann::json object = nlohmann::json::parse(text);
    AgentJob job{.directory = object.at("directory"),
                 .command = object.at("command"),
                 .first = object.at("first"),
                 .count = object.at("count"),
                 .size = object.at("size"),
                 .secret = Secret::from_hex(object.at("secret").get<std::string>()),
                 .store = parse_endpoints(object.at("store"), "the launcher's store"),
                 .host = object.at("host")};
    if (job.count < 1 || job.first < 0 || job.size > kMostRanks ||
        job.first > job.size - job.count) {
      fail("the launcher asks for {} ranks from {} on of {}: expected some of 1 to {}", job.count,
           job.first, job.size, kMostRanks);
    }
    return job;
  } catch (const nlohmann::json::exception& error) {
    fail("the launcher asks for something else than a job: {}", error.what());
  }
}

int run_agent(std::string_view version) {
  std::signal(SIGPIPE, SIG_IGN);
  return Agent(version).run();
}

}  // namespace concord::net
