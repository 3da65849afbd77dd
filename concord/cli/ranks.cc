#include "concord/cli/ranks.h"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <iterator>
#include <sstream>
#include <string_view>
#include <thread>

#include "concord/base/clock.h"
#include "concord/base/log.h"
#include "concord/comm/flight_record.h"
#include "concord/net/environment.h"
#include "concord/net/launch.h"
#include "concord/net/lines.h"
#include "concord/net/process.h"

namespace concord::cli {
namespace {

// Without a terminal nobody is asked for a password; and a host that is gone is noticed in a
// minute.
constexpr const char* kRemoteCommand = "ssh -o BatchMode=yes -o ServerAliveInterval=15";

constexpr std::string_view kTold = "told";  // in the store: 1 when rank 0 has told how a job failed

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream words(text);
  return {std::istream_iterator<std::string>(words), {}};
}

}  // namespace

void RanksArguments::add_to(CLI::App& command) {
  CLI::Option* number = command
                            .add_option("-n,--ranks", ranks,
                                        "So many processes of this machine, each with its share "
                                        "of the cores")
                            ->type_name("N")
                            ->check(CLI::Range(1, 256));
  CLI::Option* list =
      command.add_option("--hosts", hosts, "Hosts, and how many ranks each has: a:2,b:2")
          ->type_name("LIST")
          ->excludes(number);
  command
      .add_option("--address", address,
                  "The address of this machine that the hosts connect to; else one that all reach")
      ->type_name("ADDRESS")
      ->needs(list);
  command
      .add_option("--remote-command", remote_command,
                  "What runs a command on a host, called with the host's name and the command; "
                  "else ssh")
      ->type_name("WORDS")
      ->needs(list);
}

void RanksArguments::launch(const std::vector<std::string>& words,
                            const std::string& directory) const {
  net::check_alone();
  net::LaunchOptions options{.ranks = ranks,
                             .address = address,
                             .program = words_of(remote_command),
                             .version = CONCORD_VERSION,
                             .command = {net::own_program()},
                             .directory = directory};
  if (!hosts.empty()) options.hosts = net::parse_hosts(hosts);
  if (options.program.empty()) options.program = words_of(kRemoteCommand);
  options.command.insert(options.command.end(), words.begin(), words.end());
  std::signal(SIGPIPE, SIG_IGN);  // whoever read the progress is gone; the ranks go on
  if (const int code = net::launch(options)) throw Exit(code);
}

void JoinedRanks::log_last_operations() const {
  if (job->launcher != net::kOwnLauncher) return;
  const auto lines = comm::described(communicator->flight_record(), now_seconds());
  std::string text = fmt::format("{}the last operations of rank {} ({}), oldest first:\n",
                                 net::kForLogAlone, job->rank, description);
  for (const std::string& line : lines) text += fmt::format("{}  {}\n", net::kForLogAlone, line);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

// Rank 0 tells what has happened to all, when it has saved what it can. Launchers of others end all
// ranks as soon as one has ended, so there the others wait for that.
void JoinedRanks::tell(const Error& error) const {
  const bool is_launched = job->launcher == net::kOwnLauncher;
  const bool is_of_all = dynamic_cast<const comm::RankError*>(&error) != nullptr;
  const std::string_view line = error.what();
  if (communicator->is_first() || !is_of_all) log("{}", line);
  if (communicator->is_first()) {
    if (!is_launched) {
      try {
        job->store->add(kTold, 1, Deadline::in(how.timeout_seconds));
      } catch (const Error&) {  // this rank's store; nobody waits any more
      }
    }
    throw Exit(1);
  }
  // So begins the line about a rank that has ended or does not come; of an error of its own, rank 0
  // tells itself.
  if (is_of_all && line.starts_with("rank 0 (process ")) {
    log("{}", line);
    throw Exit(is_launched ? net::kFirstIsLost : 1);
  }
  if (!is_launched && !is_told_by_first() && is_of_all) log("{}", line);
  throw Exit(1);
}

// False where it hangs.
bool JoinedRanks::is_told_by_first() const {
  constexpr auto kTick = std::chrono::milliseconds(20);
  const Deadline deadline = Deadline::in(how.timeout_seconds);
  try {
    while (job->store->add(kTold, 0, deadline) == 0) {
      if (deadline.has_passed()) return false;
      std::this_thread::sleep_for(kTick);
    }
  } catch (const Error&) {  // rank 0 holds the store, and has ended
    return !deadline.has_passed();
  }
  return true;
}

JoinedRanks join_ranks(const ParallelConfig& how) {
  JoinedRanks ranks{.job = net::join_job(how.timeout_seconds)};
  if (!ranks.job) return ranks;
  ranks.how = {.rank = ranks.job->rank,
               .size = ranks.job->size,
               .hosts = ranks.job->host_numbers,
               .timeout_seconds = how.timeout_seconds,
               .transport = how.transport,
               .algorithm = how.algorithm,
               .any_order = !how.deterministic};
  ranks.communicator = comm::join(ranks.how, *ranks.job->store);
  ranks.description =
      fmt::format("{}, {}{}", ranks.job->description(), comm::chosen_transport(ranks.how),
                  how.deterministic ? "" : ", sums in any order (bits depend on the ranks)");
  return ranks;
}

}  // namespace concord::cli
