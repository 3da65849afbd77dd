#include "concord/net/join.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <thread>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/host.h"
#include "concord/net/environment.h"
#include "concord/net/job_file.h"
#include "concord/net/lines.h"
#include "concord/net/member.h"

namespace concord::net {
namespace {

// What a rank tells the others of itself, as lines.
struct Introduction {
  std::string host, machine,
      store;  // name, what tells it from others of that name, where it found the store

  static Introduction own(const std::string& store) {
    return {host_name(), read_file("/proc/sys/kernel/random/boot_id", 1 << 10), store};
  }
  std::string text() const { return fmt::format("{}\n{}\n{}\n", host, store, machine); }
  static Introduction of(const std::string& text) {
    const std::size_t first = text.find('\n'), second = text.find('\n', first + 1);
    if (second == std::string::npos) fail("a rank introduces itself as nothing: \"{}\"", text);
    return {text.substr(0, first), text.substr(second + 1),
            text.substr(first + 1, second - first - 1)};
  }
};

std::string key_of(int rank) { return fmt::format("rank {}", rank); }
std::string arrival_of(int rank) { return fmt::format("arrival of rank {}", rank); }
constexpr std::string_view kAll = "all ranks";

// Where the ranks meet, and what they prove there.
struct Meeting {
  Placement placement;
  JobEntry entry;
  std::unique_ptr<StoreServer> server;
  std::unique_ptr<JobFile> file;
  std::unique_ptr<StoreClient> client;
};

// The launcher has told everything.
Meeting meet_launched(const Placement& placement, const Member& member, Deadline deadline) {
  Meeting meeting{.placement = placement, .entry = {member.secret, member.store}};
  meeting.client = std::make_unique<StoreClient>(member.secret, member.store, deadline);
  return meeting;
}

std::unique_ptr<StoreClient> find_store(Meeting& meeting, const std::filesystem::path& file,
                                        Deadline deadline) {
  std::string why = "it has not written " + file.string();
  while (!deadline.has_passed()) {
    if (const std::optional<JobEntry> entry = read_job_file(file)) {
      // The file may be that of a job before, until rank 0 comes.
      constexpr double kTrySeconds = 2;
      const double seconds = std::min(kTrySeconds, deadline.seconds_left());
      try {
        meeting.entry = *entry;
        return std::make_unique<StoreClient>(entry->secret, entry->store, Deadline::in(seconds));
      } catch (const Error& error) {
        why = error.what();
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  fail("rank 0 of {} was not found within {:g} s: {}{}", meeting.placement.size,
       deadline.seconds_given(), why,
       meeting.placement.one_host
           ? ""
           : ". That file lies in a folder that all hosts must see; where they do not, set "
             "CONCORD_STORE (host:port of rank 0) and CONCORD_SECRET (64 hexadecimal digits) for "
             "all ranks");
}

std::vector<Endpoint> places_for_store(const Placement& placement,
                                       const std::optional<std::vector<Endpoint>>& given) {
  if (given) return *given;
  if (placement.one_host) return {{"127.0.0.1", 0}};
  std::vector<Endpoint> places;
  for (const std::string& address : own_addresses()) places.push_back({address, 0});
  if (places.empty()) fail("this machine has no network address by which other hosts reach it");
  return places;
}

// By what CONCORD_STORE and CONCORD_SECRET say, and else by a file.
Meeting meet_placed(const Placement& placement, Deadline deadline) {
  Meeting meeting{.placement = placement};
  std::optional<std::vector<Endpoint>> given;
  if (placement.store) given = {*placement.store};
  if (const auto store = environment_variable("CONCORD_STORE")) {
    given = parse_endpoints(*store, "CONCORD_STORE in the environment");
  }
  const std::optional<std::string> secret = environment_variable("CONCORD_SECRET");
  unsetenv("CONCORD_SECRET");  // processes that this one starts do not inherit it
  const bool by_file = !given || !secret;
  if (by_file && placement.job.empty()) {
    fail(
        "{} on several hosts does not tell ranks of one job from others: set CONCORD_STORE "
        "(host:port of rank 0) and CONCORD_SECRET (64 hexadecimal digits) for all ranks",
        placement.launcher);
  }
  const std::filesystem::path path =
      by_file ? job_file_path(placement.job, placement.one_host) : "";
  if (secret) meeting.entry.secret = Secret::from_hex(*secret);
  if (placement.rank == 0) {
    if (!secret) meeting.entry.secret = Secret::random();
    meeting.server =
        std::make_unique<StoreServer>(meeting.entry.secret, places_for_store(placement, given));
    meeting.entry.store = meeting.server->endpoints();
    if (by_file) meeting.file = std::make_unique<JobFile>(path, meeting.entry);
  } else if (by_file) {
    meeting.client = find_store(meeting, path, deadline);
    return meeting;
  } else {
    meeting.entry.store = *given;
  }
  meeting.client =
      std::make_unique<StoreClient>(meeting.entry.secret, meeting.entry.store, deadline);
  return meeting;
}

// Throws the error again where nobody is missing.
[[noreturn]] void say_who_is_missing(const Meeting& meeting, const Error& error,
                                     Deadline deadline) {
  std::vector<int> missing;
  try {
    const Deadline soon = Deadline::in(5);
    StoreClient client(meeting.entry.secret, meeting.entry.store, soon);
    for (int rank = 0; rank < meeting.placement.size; ++rank) {
      if (client.add(arrival_of(rank), 0, soon) == 0) missing.push_back(rank);
    }
  } catch (const Error&) {
  }
  if (missing.empty()) throw error;
  fail("{} of {} {} not come within {:g} s (parallel.timeout_seconds)", named(missing),
       meeting.placement.size, missing.size() == 1 ? "has" : "have", deadline.seconds_given());
}

// Returns what all ranks have told, in order.
std::vector<Introduction> introduce(const Meeting& meeting, Deadline deadline) {
  const Placement& placement = meeting.placement;
  StoreClient& client = *meeting.client;
  if (client.add(arrival_of(placement.rank), 1, deadline) > 1) {
    fail("another process says too that it is rank {} of {}", placement.rank, placement.size);
  }
  client.set(key_of(placement.rank), Introduction::own(client.server()).text(), deadline);
  std::string all;
  try {
    if (placement.rank == 0) {
      for (int rank = 0; rank < placement.size; ++rank) {
        all += client.get(key_of(rank), deadline) + '\0';
      }
      client.set(kAll, all, deadline);
    } else {
      all = client.get(kAll, deadline);
    }
  } catch (const Error& error) {
    say_who_is_missing(meeting, error, deadline);
  }
  std::vector<Introduction> ranks;
  for (std::size_t begin = 0; begin < all.size(); begin = all.find('\0', begin) + 1) {
    ranks.push_back(Introduction::of(all.substr(begin, all.find('\0', begin) - begin)));
  }
  if (std::ssize(ranks) != placement.size) {
    fail("rank 0 believes in {} ranks, and this one in {}", ranks.size(), placement.size);
  }
  return ranks;
}

}  // namespace

int Membership::host_count() const {
  return host_numbers.empty() ? 1 : 1 + *std::ranges::max_element(host_numbers);
}

std::string Membership::description() const {
  const int hosts = host_count();
  return fmt::format("{} {} by {} on {} {}", size, size == 1 ? "rank" : "ranks", launcher, hosts,
                     hosts == 1 ? "host" : "hosts");
}

std::optional<Membership> join_job(double timeout_seconds) {
  const Deadline deadline = Deadline::in(timeout_seconds);
  std::optional<Placement> placement = find_placement();
  const std::optional<Member> member = Member::from_environment();
  if (member) placement = {.launcher = kOwnLauncher, .rank = member->rank, .size = member->size};
  if (!placement) return std::nullopt;
  Meeting meeting =
      member ? meet_launched(*placement, *member, deadline) : meet_placed(*placement, deadline);
  const std::vector<Introduction> ranks = introduce(meeting, deadline);

  Membership membership{.rank = placement->rank,
                        .size = placement->size,
                        .launcher = placement->launcher,
                        .secret = meeting.entry.secret};
  std::map<std::string, int> machines;
  std::vector<std::string> used;
  for (const Introduction& rank : ranks) {
    membership.hosts.push_back(rank.host);
    const auto number = static_cast<int>(machines.size());
    membership.host_numbers.push_back(
        machines.try_emplace(rank.host + rank.machine, number).first->second);
    used.push_back(rank.store);
  }
  if (meeting.server) meeting.server->listen_only_at(used);
  membership.server = std::move(meeting.server);
  membership.store = std::move(meeting.client);
  return membership;
}

}  // namespace concord::net
