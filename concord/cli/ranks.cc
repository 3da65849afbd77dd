#include "concord/cli/ranks.h"

#include <csignal>
#include <cstdio>
#include <iterator>
#include <sstream>

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
  if (!job || job->launcher != net::kOwnLauncher) return;
  const auto lines = comm::described(communicator->flight_record(), now_seconds());
  std::string text = fmt::format("{}the last operations of rank {} ({}), oldest first:\n",
                                 net::kForLogAlone, job->rank, description);
  for (const std::string& line : lines) text += fmt::format("{}  {}\n", net::kForLogAlone, line);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

void JoinedRanks::speak_for_lost_first(const comm::RankError& error) const {
  // So begins the line about a rank that has ended or does not come; of an error of its own, rank 0
  // tells itself.
  constexpr std::string_view kLost = "rank 0 (process ";
  if (communicator->is_first() || !std::string_view(error.what()).starts_with(kLost)) return;
  log("{}", error.what());
  throw Exit(job->launcher == net::kOwnLauncher ? net::kFirstIsLost : 1);
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
