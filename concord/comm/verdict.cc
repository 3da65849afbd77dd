#include "concord/comm/verdict.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "concord/base/error.h"
#include "concord/base/host.h"
#include "concord/net/rendezvous.h"

// In the store: "alarms", a counter to which a call of the roll adds 1, and a line 2^32; "line";
// and, for each call and rank, a counter that says that it has answered, and the answer.

namespace concord::comm {
namespace {

constexpr std::int64_t kLine = std::int64_t{1} << 32;
constexpr auto kTick = std::chrono::milliseconds(150);
constexpr double kRollSeconds = 2;    // who is alive answers within a tick
constexpr double kLifeSeconds = 0.5;  // so does who is alive behind a broken connection

Deadline soon() { return Deadline::in(5); }  // for the store

std::string this_process() { return fmt::format("process {} on {}", getpid(), host_name()); }

}  // namespace

Verdict::Verdict(int rank, int size, net::StoreClient& store, Deadline deadline,
                 std::function<void(const std::string&)> heard)
    : rank_(rank),
      size_(size),
      store_(store),
      heard_(std::move(heard)),
      circles_{std::vector<int>(static_cast<std::size_t>(size), 0)} {
  net::Rendezvous rendezvous("verdict", rank, store, deadline);
  prefix_ = rendezvous.name();
  rendezvous.announce(this_process());
  for (int r = 0; r < size_; ++r) names_.push_back(rendezvous.of(r));
  watcher_ = std::thread([this] { watch(); });
}

Verdict::~Verdict() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  tick_.notify_one();
  watcher_.join();
}

std::string Verdict::key(std::string_view what) const {
  return fmt::format("{} {}", prefix_, what);
}

int Verdict::add_circle(std::vector<int> groups) {
  const std::lock_guard lock(mutex_);
  CONCORD_CHECK(circles_.size() < kMostCircles, "{} axes", circles_.size());
  circles_.push_back(std::move(groups));
  return static_cast<int>(circles_.size()) - 1;
}

void Verdict::enter(int circle, std::uint64_t number, const Call& call) {
  const std::lock_guard lock(mutex_);
  whereabouts_[static_cast<std::size_t>(circle)] = {number, ++entered_, true, call, -1, {}};
}

void Verdict::enter_message(int circle, int peer, const Call& call) {
  const std::lock_guard lock(mutex_);
  Place& place = whereabouts_[static_cast<std::size_t>(circle)];
  place.time = ++entered_;
  place.peer = peer;
  place.message = call;
}

void Verdict::leave(int circle) {
  const std::lock_guard lock(mutex_);
  Place& place = whereabouts_[static_cast<std::size_t>(circle)];
  place.is_inside = false;
  place.peer = -1;
}

Verdict::Whereabouts Verdict::whereabouts() const {
  const std::lock_guard lock(mutex_);
  return whereabouts_;
}

// A store that is gone is no news: whoever held it may have ended well.
void Verdict::watch() {
  std::int64_t answered = 0;
  try {
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        if (tick_.wait_for(lock, kTick, [this] { return is_ending_; })) return;
      }
      const std::int64_t alarms = store_.add(key("alarms"), 0, soon());
      if (alarms >= kLine) {
        const std::string line = store_.get(key("line"), soon());
        remember(line);
        return heard_(line);
      }
      while (answered < alarms) answer(++answered);
    }
  } catch (const Error&) {
  }
}

void Verdict::answer(std::int64_t roll) {
  const Whereabouts own = whereabouts();
  const std::string name = key(fmt::format("roll {} of rank {}", roll, rank_));
  store_.set(name, {reinterpret_cast<const char*>(&own), sizeof own}, soon());
  store_.add(name, 1, soon());
}

Verdict::Roll Verdict::call_roll() {
  std::vector<int> all(static_cast<std::size_t>(size_));
  std::iota(all.begin(), all.end(), 0);
  return call_roll(all, kRollSeconds);
}

Verdict::Roll Verdict::call_roll(std::span<const int> awaited, double seconds) {
  Roll answers(static_cast<std::size_t>(size_));
  const auto answer_of = [&](int r) -> auto& { return answers[static_cast<std::size_t>(r)]; };
  answer_of(rank_) = whereabouts();
  const std::int64_t roll = store_.add(key("alarms"), 1, soon()) % kLine;
  const Deadline deadline = Deadline::in(seconds);
  const auto is_missing = [&](int r) { return !answer_of(r); };
  while (std::ranges::any_of(awaited, is_missing) && !deadline.has_passed()) {
    std::this_thread::sleep_for(kTick / 4);
    for (const int r : awaited) {
      const std::string name = key(fmt::format("roll {} of rank {}", roll, r));
      if (answer_of(r) || store_.add(name, 0, soon()) == 0) continue;
      const std::string value = store_.get(name, soon());
      if (value.size() != sizeof(Whereabouts)) fail("rank {} has another version of Concord", r);
      std::memcpy(&answer_of(r).emplace(), value.data(), value.size());
    }
  }
  return answers;
}

std::string Verdict::name_of_rank(int r) const {
  return fmt::format("rank {} ({})", r, names_[static_cast<std::size_t>(r)]);
}

void Verdict::remember(const std::string& line) {
  const std::lock_guard lock(mutex_);
  line_ = line;
}

std::optional<std::string> Verdict::known() const {
  const std::lock_guard lock(mutex_);
  return line_;
}

std::string Verdict::pronounce(const std::string& line) {
  if (const auto earlier = known()) return *earlier;
  std::string counts = line;
  try {
    if (store_.add(key("alarms"), kLine, soon()) < 2 * kLine) {
      store_.set(key("line"), line, soon());
    } else {
      counts = store_.get(key("line"), soon());
    }
  } catch (const Error&) {
  }
  remember(counts);
  return counts;
}

std::string Verdict::of_peer(int circle, const net::PeerError& error, double seconds) {
  if (const auto earlier = known()) return *earlier;
  if (error.kind() == net::PeerError::Kind::kEnded) return pronounce(of_lost(circle, error.rank()));
  std::string line =
      fmt::format("{}, in {}, between {} and {}", error.what(), described(place(circle).current()),
                  name_of_rank(rank_), name_of_rank(error.rank()));
  try {
    const Roll roll = call_roll();
    const std::string better = behind_or_silent(roll, circle, error.rank(), seconds);
    if (!better.empty()) {
      line = better;
    } else if (const std::string other = disagreement_in(roll, circle); !other.empty()) {
      line = other;
    }
  } catch (const Error& store) {
    line += fmt::format(" ({})", store.what());
  }
  return pronounce(line);
}

// Whoever still answers has not ended: what has is the connection.
std::string Verdict::of_lost(int circle, int other) {
  const std::string operation = described(place(circle).current());
  try {
    if (call_roll(std::span(&other, 1), kLifeSeconds)[static_cast<std::size_t>(other)]) {
      return fmt::format("the connection of {} with {} has broken in {}", name_of_rank(rank_),
                         name_of_rank(other), operation);
    }
  } catch (const Error&) {  // of the store, which may have gone with it
  }
  return fmt::format("{} has ended before {}", name_of_rank(other), operation);
}

std::string Verdict::of_misunderstanding(int circle, const std::string& line) {
  if (const auto earlier = known()) return *earlier;
  try {
    const std::string other = disagreement_in(call_roll(), circle);
    if (!other.empty()) return pronounce(other);
  } catch (const Error&) {
  }
  return pronounce(fmt::format("{}, in {}, says {}", line, described(place(circle).current()),
                               name_of_rank(rank_)));
}

int Verdict::missing_in(const Roll& roll, int circle, int r) const {
  const auto c = static_cast<std::size_t>(circle);
  const std::vector<int>& groups = circles_[c];
  const auto place_of = [&](int other) -> const Place& {
    return (*roll[static_cast<std::size_t>(other)])[c];
  };
  if (place_of(r).peer >= 0) return place_of(r).peer;
  int missing = -1;
  for (int other = 0; other < size_; ++other) {
    if (groups[static_cast<std::size_t>(other)] != groups[static_cast<std::size_t>(r)]) continue;
    if (!roll[static_cast<std::size_t>(other)]) return other;
    const Place& place = place_of(other);
    if (place.number < place_of(missing < 0 ? r : missing).number) missing = other;
  }
  return missing;
}

// From one who waits to whom it waits for, and so on.
std::string Verdict::behind_or_silent(const Roll& roll, int circle, int awaited,
                                      double seconds) const {
  const auto is_silent = [&](int r) { return !roll[static_cast<std::size_t>(r)]; };
  const auto place_of = [&](int r, int c) -> const Place& {
    return (*roll[static_cast<std::size_t>(r)])[static_cast<std::size_t>(c)];
  };
  const auto circles = static_cast<int>(circles_.size());
  int culprit = is_silent(awaited) ? awaited : missing_in(roll, circle, rank_);
  std::string operation = described(place_of(rank_, circle).current());
  std::vector<bool> seen(static_cast<std::size_t>(size_), false);
  while (culprit >= 0 && !is_silent(culprit) && !seen[static_cast<std::size_t>(culprit)]) {
    seen[static_cast<std::size_t>(culprit)] = true;
    int next = -1;
    for (int c = 0; c < circles && next < 0; ++c) {
      const Place& place = place_of(culprit, c);
      if (!place.is_inside && place.peer < 0) continue;
      next = missing_in(roll, c, culprit);
      if (next >= 0) operation = described(place.current());
    }
    if (next < 0) break;
    culprit = next;
  }
  const auto did_not_come = [&](int r) {
    return fmt::format("{} did not come to {} within {:g} s", name_of_rank(r), operation, seconds);
  };
  for (int r = 0; r < size_ && (culprit < 0 || !is_silent(culprit)); ++r) {
    if (is_silent(r)) culprit = r;
  }
  if (culprit < 0) return "";
  if (is_silent(culprit)) return did_not_come(culprit) + "; it does not answer";
  const Whereabouts& where = *roll[static_cast<std::size_t>(culprit)];
  const Place& last = *std::ranges::max_element(where, {}, &Place::time);
  return fmt::format("{}; it was last seen in {}", did_not_come(culprit),
                     last.time == 0 ? "nothing" : described(last.current()));
}

std::string Verdict::disagreement_in(const Roll& roll, int circle) const {
  const auto c = static_cast<std::size_t>(circle);
  const Place own = place(circle);
  const std::vector<int>& groups = circles_[c];
  for (int r = 0; r < size_; ++r) {
    const std::optional<Whereabouts>& other = roll[static_cast<std::size_t>(r)];
    if (!other || groups[static_cast<std::size_t>(r)] != groups[static_cast<std::size_t>(rank_)] ||
        (*other)[c].number != own.number) {
      continue;
    }
    std::string line = disagreement(rank_, own.last, r, (*other)[c].last);
    if (!line.empty()) return line;
  }
  return "";
}

}  // namespace concord::comm
