#include "concord/comm/meeting.h"

#include <algorithm>

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
    : rank_(rank), size_(size), timeout_seconds_(timeout_seconds), memory_(std::move(memory)) {
  this->rank(rank_).self.introduce(rank_);
  next_message() = {.call = call_of(barrier("ranks"), 0)};
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
    const std::string what = disagreement(rank_, message_of(rank_).call, r, message_of(r).call);
    if (!what.empty()) give_up(what);
  }
}

void Meeting::leave(bool patient) {
  advance(rank(rank_).left, ticket_, rank(rank_).sleepers);
  wait_for_all(&Rank::left, patient);
}

template <typename Check, typename Trouble>
void Meeting::wait_until(const Counter& counter, std::uint32_t value, Counter& sleepers,
                         bool patient, Check check, Trouble trouble) {
  net::Glances glances(patient ? net::Glances::Manner::kSleep : manner_);
  while (!reached(counter, value) && glances.another()) {
  }
  for (;;) {
    const std::uint32_t now = counter.load(std::memory_order_acquire);
    if (reached(counter, value)) return;
    check();
    constexpr double kLookAgain = 0.05;
    sleepers.fetch_add(1);
    net::sleep_on(counter, now, kLookAgain);
    sleepers.fetch_sub(1);
    if (counter.load(std::memory_order_acquire) == now) trouble();
  }
}

void Meeting::wait_for_all(Counter Rank::*counter, bool patient) {
  const Deadline deadline = Deadline::in(timeout_seconds_);
  const auto check = [&] { counter == &Rank::arrived ? check_entered() : check_aborted(); };
  for (int r = 0; r < size_; ++r) {
    wait_until(rank(r).*counter, ticket_, rank(r).sleepers, patient, check,
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
      counter, value, box.sleepers, patient, [&] { check_aborted(); },
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
  const std::string what = disagreement(rank_, expected, from, letter.call);
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
  if (control().abort_begun.exchange(1) != 0) return;  // another was first
  auto& text = control().abort_reason;
  std::copy_n(reason.begin(), std::min(reason.size(), text.size() - 1), text.begin());
  control().aborted_ticket = next_ticket_;
  control().aborted.store(1, std::memory_order_release);
}

void Meeting::check_aborted() const {
  if (control().aborted.load(std::memory_order_acquire) == 0) return;
  throw RankError(control().abort_reason.data());
}

// All have come, and some may have left in an error since. An operation that they were done with
// before succeeds on every rank, however late that finds out; one that they were not fails on all.
void Meeting::check_entered() const {
  if (control().aborted.load(std::memory_order_acquire) == 0) return;
  if (static_cast<std::int32_t>(control().aborted_ticket - ticket_) <= 0) check_aborted();
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

void Meeting::give_up_ended(int other, const std::string& what) {
  give_up(fmt::format("rank {} (process {} on {}) has ended before {}", other,
                      rank(other).self.process.load(), host_name(), what));
}

void Meeting::give_up_late(int other, std::string_view verb, const std::string& what) {
  const std::uint32_t arrived = rank(other).arrived.load(std::memory_order_acquire);
  give_up(
      fmt::format("rank {} (process {} on {}) did not {} {} within {:g} s; it was last seen in {}",
                  other, rank(other).self.process.load(), host_name(), verb, what, timeout_seconds_,
                  arrived == 0 ? "nothing" : described(rank(other).messages[arrived % 2].call)));
}

}  // namespace concord::comm
