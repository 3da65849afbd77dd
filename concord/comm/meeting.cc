#include "concord/comm/meeting.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "concord/base/error.h"
#include "concord/base/host.h"
#include "concord/comm/communicator.h"

namespace concord::comm {
namespace {

using Counter = net::SharedCounter;

// Tickets wrap around.
bool reached(const Counter& counter, std::uint32_t ticket) {
  return static_cast<std::int32_t>(counter.load(std::memory_order_acquire) - ticket) >= 0;
}

// A system call to wake others is only made where one sleeps. The counter is written before
// `sleepers` is read, and a sleeper does it the other way round, so one of them sees the other.
void advance(Counter& counter, std::uint32_t value, const Counter& sleepers) {
  counter.store(value);
  if (sleepers.load() != 0) net::wake_all(counter);
}

}  // namespace

std::size_t Meeting::bytes(int size) {
  const auto count = static_cast<std::size_t>(size);
  return offsetof(Control, ranks) + count * (sizeof(Rank) + count * sizeof(Mailbox));
}

Meeting::Meeting(int rank, int size, net::SharedMemory memory, double timeout_seconds)
    : Meeting(rank, size, {}, std::move(memory), timeout_seconds, nullptr) {}

Meeting::Meeting(int rank, const net::AxisGroup& group, net::SharedMemory memory,
                 double timeout_seconds, Meeting& job)
    : Meeting(rank, static_cast<int>(group.members.size()), group, std::move(memory),
              timeout_seconds, &job) {}

Meeting::Meeting(int rank, int size, const net::AxisGroup& group, net::SharedMemory memory,
                 double timeout_seconds, Meeting* job)
    : rank_(rank),
      size_(size),
      group_(group),
      job_(job),
      timeout_seconds_(timeout_seconds),
      memory_(std::move(memory)) {
  this->rank(rank_).self.introduce(in_job(rank_));
  if (job_ != nullptr) {
    const std::lock_guard lock(job_->groups_mutex_);
    number_ = ++job_->groups_made_;
    CONCORD_CHECK(number_ < kMostMeetings, "{} axes", number_);
    job_->groups_.push_back(this);
  }
  next_message() = {.call = call_of(barrier("ranks"), 0, Label(group_.axis))};
  enter(/*patient=*/false);
  cpu_set_t cores;
  CPU_ZERO(&cores);
  for (int r = 0; r < size_; ++r) {
    const net::Neighbour& neighbour = this->rank(r).self;
    CPU_OR(&cores, &cores, &neighbour.cores);
    watches_.emplace_back(neighbour);
  }
  manner_ = net::Glances::manner_for(cores, size_);
}

Meeting::~Meeting() {
  if (job_ == nullptr) return;
  const std::lock_guard lock(job_->groups_mutex_);
  std::erase(job_->groups_, this);
}

Message& Meeting::next_message() { return rank(rank_).messages[(ticket_ + 1) % 2]; }

void Meeting::enter(bool patient) {
  ++ticket_;
  advance(rank(rank_).arrived, ticket_, rank(rank_).sleepers);
  wait_for_all(&Rank::arrived, patient);
  check_entered();
  check_same_operation();
  next_ticket_ = ticket_ + 1;
}

void Meeting::check_same_operation() {
  for (int r = 0; r < size_; ++r) {
    const std::string what =
        disagreement(in_job(rank_), message_of(rank_).call, in_job(r), message_of(r).call);
    if (!what.empty()) give_up(what);
  }
}

void Meeting::leave(bool patient) {
  advance(rank(rank_).left, ticket_, rank(rank_).sleepers);
  wait_for_all(&Rank::left, patient);
}

template <typename Check, typename Trouble>
void Meeting::wait_until(const Counter& counter, std::uint32_t value, Counter& sleepers, int other,
                         bool patient, Check check, Trouble trouble) {
  net::Glances glances(patient ? net::Glances::Manner::kSleep : manner_);
  while (!reached(counter, value) && glances.another()) {
  }
  Waiting& own = waiting_of(in_job(rank_), number_);
  for (;;) {
    const std::uint32_t now = counter.load(std::memory_order_acquire);
    if (reached(counter, value)) {
      if (own.for_rank.load(std::memory_order_relaxed) != 0) own.for_rank.store(0);
      return;
    }
    check();
    constexpr double kLookAgain = 0.05;
    sleepers.fetch_add(1);
    net::sleep_on(counter, now, kLookAgain);
    sleepers.fetch_sub(1);
    if (counter.load(std::memory_order_acquire) != now) continue;
    own.for_rank.store(static_cast<std::uint32_t>(in_job(other)) + 1);
    own.looks.fetch_add(1);
    trouble();
  }
}

void Meeting::wait_for_all(Counter Rank::*counter, bool patient) {
  const Deadline deadline = Deadline::in(timeout_seconds_);
  const auto check = [&] { counter == &Rank::arrived ? check_awaited() : check_aborted(); };
  for (int r = 0; r < size_; ++r) {
    wait_until(rank(r).*counter, ticket_, rank(r).sleepers, r, patient, check,
               [&] { look_for_trouble(r, counter, deadline); });
  }
}

Meeting::Mailbox& Meeting::mailbox(int from, int to) const {
  auto* const boxes = reinterpret_cast<Mailbox*>(&control().ranks[0] + size_);
  return boxes[from * size_ + to];
}

void Meeting::wait_for_mail(const Counter& counter, std::uint32_t value, Mailbox& box, int other,
                            const Call& call, bool patient) {
  const Deadline deadline = Deadline::in(timeout_seconds_);
  wait_until(
      counter, value, box.sleepers, other, patient, [&] { check_aborted(); },
      [&] {
        const net::Watch& watch = watches_[static_cast<std::size_t>(other)];
        if (watch.has_ended() && !reached(counter, value)) give_up_ended(other, described(call));
        if (deadline.has_passed()) give_up_late(other, "come to", described(call));
      });
}

void Meeting::wait_until_read(int to, std::uint32_t unread, bool patient) {
  Mailbox& box = mailbox(rank_, to);
  const std::uint32_t posted = box.posted.load(std::memory_order_relaxed);
  wait_for_mail(box.read, posted - unread, box, to, box.letters[posted % 2].call, patient);
}

std::byte* Meeting::next_envelope(int to) {
  const std::uint32_t next = mailbox(rank_, to).posted.load(std::memory_order_relaxed) + 1;
  return rank(rank_).envelopes[next % 2].data();
}

void Meeting::post(int to, const Letter& letter) {
  Mailbox& box = mailbox(rank_, to);
  const std::uint32_t next = box.posted.load(std::memory_order_relaxed) + 1;
  box.letters[next % 2] = letter;
  advance(box.posted, next, box.sleepers);
}

const Letter& Meeting::next_letter(int from, const Call& expected, bool patient) {
  Mailbox& box = mailbox(from, rank_);
  const std::uint32_t next = box.read.load(std::memory_order_relaxed) + 1;
  wait_for_mail(box.posted, next, box, from, expected, patient);
  const Letter& letter = box.letters[next % 2];
  const std::string what = disagreement(in_job(rank_), expected, in_job(from), letter.call);
  if (!what.empty()) give_up(what);
  return letter;
}

const std::byte* Meeting::envelope_from(int from) {
  const std::uint32_t next = mailbox(from, rank_).read.load(std::memory_order_relaxed) + 1;
  return rank(from).envelopes[next % 2].data();
}

void Meeting::put_away(int from) {
  Mailbox& box = mailbox(from, rank_);
  advance(box.read, box.read.load(std::memory_order_relaxed) + 1, box.sleepers);
}

void Meeting::abort(std::string_view reason) {
  if (job_ != nullptr) return job_->abort(reason);
  if (control().abort_begun.exchange(1) != 0) return;  // another was first
  auto& text = control().abort_reason;
  std::copy_n(reason.begin(), std::min(reason.size(), text.size() - 1), text.begin());
  const auto end = [](const Meeting& meeting) {
    meeting.control().aborted_ticket = meeting.next_ticket_;
    meeting.control().aborted_by_own = 1;
  };
  const std::lock_guard lock(groups_mutex_);
  end(*this);
  for (const Meeting* const group : groups_) end(*group);
  control().aborted.store(1, std::memory_order_release);
}

void Meeting::check_aborted() const {
  if (is_aborted()) throw RankError(job().control().abort_reason.data());
}

// All have come, and some may have left in an error since. An operation that they were done with
// before succeeds on every rank, however late that finds out; one that they were not fails on all.
void Meeting::check_entered() const {
  if (is_aborted() && control().aborted_by_own != 0) check_awaited();
}

// Not all have come so far.
void Meeting::check_awaited() const {
  if (!is_aborted()) return;
  const auto done = static_cast<std::int32_t>(control().aborted_ticket - ticket_);
  if (control().aborted_by_own == 0 || done <= 0) check_aborted();
}

void Meeting::give_up(const std::string& reason) {
  abort(reason);
  check_aborted();
  throw RankError(reason);  // another is just writing its own
}

// Throws where an operation cannot end well.
void Meeting::look_for_trouble(int missing, Counter Rank::*counter, const Deadline& deadline) {
  const std::string what = described(message_of(rank_).call);
  for (std::size_t w = 0; w < watches_.size(); ++w) {  // none before the first meeting
    const auto r = static_cast<int>(w);
    const Counter& other = rank(r).*counter;
    if (reached(other, ticket_) || !watches_[w].has_ended() || reached(other, ticket_)) continue;
    give_up_ended(r, what);
  }
  if (deadline.has_passed()) {
    give_up_late(missing, counter == &Rank::arrived ? "come to" : "finish", what);
  }
}

std::string Meeting::name_of(int rank_of_job) const {
  return fmt::format("rank {} (process {} on {})", rank_of_job,
                     job().rank(rank_of_job).self.process.load(), host_name());
}

void Meeting::give_up_ended(int other, const std::string& what) {
  give_up(fmt::format("{} has ended before {}", name_of(in_job(other)), what));
}

void Meeting::give_up_late(int other, std::string_view verb, const std::string& what) {
  int last_kept = -1;
  const int culprit = who_keeps(in_job(other), last_kept);
  if (last_kept < 0) {
    const std::uint32_t arrived = rank(other).arrived.load(std::memory_order_acquire);
    give_up(
        fmt::format("{} did not {} {} within {:g} s; it was last seen in {}", name_of(culprit),
                    verb, what, timeout_seconds_,
                    arrived == 0 ? "nothing" : described(rank(other).messages[arrived % 2].call)));
  }
  give_up(
      fmt::format("{} did not come to an operation in which rank {} waits for it, so that rank "
                  "{} did not {} {} within {:g} s",
                  name_of(culprit), last_kept, in_job(other), verb, what, timeout_seconds_));
}

// One who is stopped may seem to wait for somebody, but does not look again.
int Meeting::who_keeps(int rank_of_job, int& last_kept) {
  constexpr int kLooks = 4;  // so many of this rank's while another does not look is enough
  constexpr auto kLookAgain = std::chrono::milliseconds(50);
  std::vector<bool> seen(static_cast<std::size_t>(job().size_), false);
  for (int at = rank_of_job;;) {
    seen[static_cast<std::size_t>(at)] = true;
    std::array<std::uint32_t, kMostMeetings> looks{};
    for (std::size_t m = 0; m < kMostMeetings; ++m) looks[m] = waiting_of(at, m).looks.load();
    for (int i = 0; i < kLooks; ++i) {
      std::this_thread::sleep_for(kLookAgain);
      waiting_of(in_job(rank_), number_).looks.fetch_add(1);  // others may ask the same of it
    }
    int next = -1;
    for (std::size_t m = 0; m < kMostMeetings && next < 0; ++m) {
      const Waiting& waiting = waiting_of(at, m);
      if (waiting.looks.load() == looks[m]) continue;
      next = static_cast<int>(waiting.for_rank.load()) - 1;
    }
    if (next < 0 || seen[static_cast<std::size_t>(next)]) return at;
    last_kept = at;
    at = next;
  }
}

}  // namespace concord::comm
