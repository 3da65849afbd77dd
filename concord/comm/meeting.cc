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

}  // namespace

std::size_t Meeting::bytes(int size) {
  return offsetof(Control, ranks) + static_cast<std::size_t>(size) * sizeof(Rank);
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
  advance(&Rank::arrived);
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
  advance(&Rank::left);
  wait_for_all(&Rank::left, patient);
}

// A system call to wake others is only made where one sleeps. The counter is written before
// `sleepers` is read, and a sleeper does it the other way round, so one of them sees the other.
void Meeting::advance(Counter Rank::*counter) {
  Rank& own = rank(rank_);
  (own.*counter).store(ticket_);
  if (own.sleepers.load() != 0) net::wake_all(own.*counter);
}

void Meeting::wait_for_all(Counter Rank::*counter, bool patient) {
  const Deadline deadline = Deadline::in(timeout_seconds_);
  const net::Glances fresh(patient ? net::Glances::Manner::kSleep : manner_);
  for (int r = 0; r < size_; ++r) {
    Counter& other = rank(r).*counter;
    net::Glances glances = fresh;
    while (!reached(other, ticket_) && glances.another()) {
    }
    for (;;) {
      const std::uint32_t now = other.load(std::memory_order_acquire);
      if (reached(other, ticket_)) break;
      counter == &Rank::arrived ? check_entered() : check_aborted();
      constexpr double kLookAgain = 0.05;
      Counter& sleepers = rank(r).sleepers;
      sleepers.fetch_add(1);
      net::sleep_on(other, now, kLookAgain);
      sleepers.fetch_sub(1);
      if (other.load(std::memory_order_acquire) == now) look_for_trouble(r, counter, deadline);
    }
  }
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
  for (std::size_t r = 0; r < watches_.size(); ++r) {
    const Counter& other = rank(static_cast<int>(r)).*counter;
    if (reached(other, ticket_) || !watches_[r].has_ended() || reached(other, ticket_)) continue;
    give_up(fmt::format("rank {} (process {} on {}) has ended before {}", r, watches_[r].process(),
                        host_name(), what));
  }
  if (!deadline.has_passed()) return;
  const Rank& other = rank(missing);
  const std::uint32_t arrived = other.arrived.load(std::memory_order_acquire);
  give_up(
      fmt::format("rank {} (process {} on {}) did not {} {} within {:g} s; it was last seen in {}",
                  missing, other.self.process.load(), host_name(),
                  counter == &Rank::arrived ? "come to" : "finish", what, timeout_seconds_,
                  arrived == 0 ? "nothing" : described(other.messages[arrived % 2].call)));
}

}  // namespace concord::comm
