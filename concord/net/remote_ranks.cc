#include "concord/net/remote_ranks.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <utility>

#include "concord/base/error.h"
#include "concord/base/text.h"
#include "concord/net/frames.h"
#include "concord/net/lines.h"
#include "concord/net/process.h"

namespace concord::net {
namespace {

using Kind = Frame::Kind;

// Words between commas.
std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

class AgentOfHost final : public RemoteRanks {
 public:
  explicit AgentOfHost(RemoteRanksOptions options)
      : options_(std::move(options)), running_(static_cast<std::size_t>(options_.job.count), true) {
    std::vector<std::string> command = options_.program;
    command.push_back(options_.job.host);
    command.push_back("exec " + shell_word(options_.agent) + " launch-agent");
    process_ = start_process({.command = command,
                              .environment = inherited_environment(),
                              .blocked = options_.blocked,
                              .pipe_input = true,
                              .pipe_output = true,
                              .pipe_errors = true});
  }
  // The agent ends, and its ranks, when its standard input does.
  ~AgentOfHost() override {
    process_.input = Descriptor();
    if (process_.id == 0) return;
    kill(process_.id, SIGTERM);
    waitpid(process_.id, nullptr, 0);
  }
  AgentOfHost(const AgentOfHost&) = delete;
  AgentOfHost& operator=(const AgentOfHost&) = delete;

  const std::optional<std::vector<std::string>>& reached() const override { return reached_; }

  void start(const std::string& store) override {
    started_ = true;
    tell({Kind::kStart, 0, store});
  }

  void send(int signal) override {
    if (started_) tell({Kind::kSignal, signal, ""});
  }

  void add_to(std::vector<pollfd>& entries) const override {
    for (const Descriptor* pipe : {&process_.output, &process_.errors}) {
      if (pipe->is_open()) entries.push_back({pipe->descriptor(), POLLIN, 0});
    }
  }

  void collect(RankListener& listener) override {
    read_available(process_.errors,
                   [&](std::string_view bytes) { remark(errors_.add(bytes), listener); });
    try {
      read_available(process_.output, [&](std::string_view bytes) {
        reader_.add(bytes);
        take_frames(listener);
      });
    } catch (const Error& error) {
      lose(error.what(), listener);
    }
    if (!process_.output.is_open() && process_.id != 0) has_ended(listener);
  }

 private:
  const std::string& host() const { return options_.job.host; }

  // What the program that connects says, and the agent itself.
  void remark(const std::vector<std::string>& lines, RankListener& listener) {
    for (const std::string& line : lines) {
      if (line.empty()) continue;
      last_remark_ = line;
      if (started_) listener.remarked(fmt::format("{}: {}", host(), line));
    }
  }

  void tell(const Frame& frame) {
    try {
      write_frame(process_.input, frame);
    } catch (const Error&) {  // its end is found where it is read
    }
  }

  void take_frames(RankListener& listener) {
    if (!is_known_) {
      const std::string greeting = agent_greeting("");
      const auto version =
          reader_.take_line_after(std::string_view(greeting).substr(0, greeting.size() - 1));
      if (!version) return;
      if (*version != options_.version) {
        fail("it has Concord {}, and this is {}: all hosts need the same", *version,
             options_.version);
      }
      is_known_ = true;
      tell({Kind::kJob, 0, options_.job.to_json()});
    }
    while (const std::optional<Frame> frame = reader_.take()) take(*frame, listener);
  }

  void take(const Frame& frame, RankListener& listener) {
    if (frame.kind == Kind::kReached) {
      reached_ = split(frame.bytes);
    } else if (frame.kind == Kind::kFailed) {
      fail("{}", frame.bytes);
    } else if (frame.kind == Kind::kPrinted) {
      listener.printed(frame.bytes);
    } else if (is_running(frame.rank) && frame.kind == Kind::kSaid) {
      listener.said(frame.rank, frame.bytes);
    } else if (is_running(frame.rank) && frame.kind == Kind::kEnded) {
      running_[index_of(frame.rank)] = false;
      const std::size_t space = std::min(frame.bytes.find(' '), frame.bytes.size());
      listener.ended(frame.rank, std::atoi(frame.bytes.c_str()),
                     frame.bytes.substr(std::min(space + 1, frame.bytes.size())));
    }
  }

  std::size_t index_of(int rank) const {
    return static_cast<std::size_t>(rank - options_.job.first);
  }
  bool is_running(int rank) const {
    return rank >= options_.job.first && rank < options_.job.first + options_.job.count &&
           running_[index_of(rank)];
  }

  // The program that connects is about to end: it has closed its output.
  void has_ended(RankListener& listener) {
    int status = 0;
    waitpid(std::exchange(process_.id, 0), &status, 0);
    read_available(process_.errors,
                   [&](std::string_view bytes) { remark(errors_.add(bytes), listener); });
    remark({errors_.rest()}, listener);
    const std::string how = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                                                : fmt::format("exit code {}", WEXITSTATUS(status));
    if (std::ranges::count(running_, true) == 0) return;
    lose(fmt::format("{}{}{} ended with {}", last_remark_, last_remark_.empty() ? "" : "; ",
                     options_.program[0], how),
         listener);
  }

  // Before the ranks run, that ends the launch; then, the ranks.
  void lose(const std::string& why, RankListener& listener) {
    if (!started_) fail("host {}: {}", host(), why);
    process_.output = Descriptor();
    process_.input = Descriptor();
    if (process_.id != 0) kill(process_.id, SIGTERM);
    listener.remarked(fmt::format("host {} is lost: {}", host(), why));
    for (std::size_t i = 0; i < running_.size(); ++i) {
      if (!std::exchange(running_[i], false)) continue;
      constexpr int kLost = 255 << 8;  // a status of exit code 255
      listener.ended(options_.job.first + static_cast<int>(i), kLost, "on " + host());
    }
  }

  const RemoteRanksOptions options_;
  Process process_;
  FrameReader reader_;
  LineSplitter errors_;
  std::string last_remark_;
  bool is_known_ = false, started_ = false;
  std::optional<std::vector<std::string>> reached_;
  std::vector<char> running_;  // by rank
};

}  // namespace

std::unique_ptr<RemoteRanks> start_remote_ranks(RemoteRanksOptions options) {
  return std::make_unique<AgentOfHost>(std::move(options));
}

}  // namespace concord::net
