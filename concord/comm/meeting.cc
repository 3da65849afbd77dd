#include "concord/comm/meeting.h"

#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>

#include "concord/base/error.h"
#include "concord/comm/communicator.h"

namespace concord::comm {
namespace {

using Counter = std::atomic<std::uint32_t>;

// Tickets wrap around.
bool reached(const Counter& counter, std::uint32_t ticket) {
  return static_cast<std::int32_t>(counter.load(std::memory_order_acquire) - ticket) >= 0;
}

void advance(Counter& counter, std::uint32_t ticket) {
  counter.store(ticket, std::memory_order_release);
  syscall(SYS_futex, &counter, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// Returns when the counter may have changed from `value`, at the latest after `seconds`.
void sleep_on(Counter& counter, std::uint32_t value, double seconds) {
  const timespec limit{0, static_cast<long>(seconds * 1e9)};
  syscall(SYS_futex, &counter, FUTEX_WAIT, value, &limit, nullptr, 0);
}

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// "the sum of fc.weight of step 12"
std::string described(const Message& message) {
  return fmt::format("the {} of step {}", name_of(message.kind, message.label), message.step);
}

}  // namespace

std::size_t Meeting::bytes(int size) {
  return offsetof(Control, ranks) + static_cast<std::size_t>(size) * sizeof(Rank);
}

Meeting::Meeting(int rank, int size, net::SharedMemory memory, double timeout_seconds)
    : rank_(rank), size_(size), timeout_seconds_(timeout_seconds), memory_(std::move(memory)) {
  Rank& own = this->rank(rank_);
  if (const std::int32_t other = own.process.exchange(getpid())) {
    fail("processes {} and {} both say that they are rank {}", other, getpid(), rank_);
  }
  sched_getaffinity(0, sizeof(cpu_set_t), &own.cores);
  next_message() = {.kind = Operation::Kind::kBarrier, .label = "ranks"};
  enter(/*patient=*/false);
  cpu_set_t cores = own.cores;
  for (int r = 0; r < size_; ++r) {
    CPU_OR(&cores, &cores, &this->rank(r).cores);
    const pid_t process = this->rank(r).process;
    watched_.emplace_back(
        process == getpid() ? -1 : static_cast<int>(syscall(SYS_pidfd_open, process, 0)));
  }
  // Some tens of microseconds, where nobody else needs the core meanwhile.
  constexpr int kSpins = 2000;
  spins_ = CPU_COUNT(&cores) >= size_ ? kSpins : 0;
}

Message& Meeting::next_message() { return rank(rank_).messages[(ticket_ + 1) % 2]; }

void Meeting::enter(bool patient) {
  ++ticket_;
  advance(rank(rank_).arrived, ticket_);
  wait_for_all(&Rank::arrived, patient);
  check_aborted();  // others may have come, and have left in an error
  check_same_operation();
}

void Meeting::check_same_operation() {
  const Message& own = message_of(rank_);
  for (int r = 0; r < size_; ++r) {
    const Message& other = message_of(r);
    if (other.kind != own.kind || other.step != own.step || other.peer != own.peer) {
      give_up(fmt::format("rank {} calls {} while rank {} calls {}", rank_, described(own), r,
                          described(other)));
    }
    if (other.bytes != own.bytes) {
      give_up(fmt::format("rank {} gives {} bytes to {}, and rank {} gives {} to {}", rank_,
                          own.bytes, described(own), r, other.bytes, described(other)));
    }
  }
}

void Meeting::leave(bool patient) {
  advance(rank(rank_).left, ticket_);
  wait_for_all(&Rank::left, patient);
}

void Meeting::wait_for_all(Counter Rank::*counter, bool patient) {
  const Deadline deadline = Deadline::in(timeout_seconds_);
  const int spins = patient ? 0 : spins_;
  for (int r = 0; r < size_; ++r) {
    Counter& other = rank(r).*counter;
    for (int spin = 0; spin < spins && !reached(other, ticket_); ++spin) relax();
    for (;;) {
      const std::uint32_t now = other.load(std::memory_order_acquire);
      if (reached(other, ticket_)) break;
      look_for_trouble(r, counter, deadline);
      constexpr double kLookAgain = 0.05;
      sleep_on(other, now, kLookAgain);
    }
  }
}

void Meeting::abort(std::string_view reason) {
  if (control().abort_begun.exchange(1) != 0) return;  // another was first
  auto& text = control().abort_reason;
  std::copy_n(reason.begin(), std::min(reason.size(), text.size() - 1), text.begin());
  control().aborted.store(1, std::memory_order_release);
}

void Meeting::check_aborted() const {
  if (control().aborted.load(std::memory_order_acquire) == 0) return;
  throw RankError(control().abort_reason.data());
}

void Meeting::give_up(const std::string& reason) {
  abort(reason);
  check_aborted();
  throw RankError(reason);  // another is just writing its own
}

// Where the system does not let it be watched, a process that nobody has waited for counts as
// running.
bool Meeting::has_ended(int r) const {
  if (watched_.empty()) return false;  // who has not come yet is unknown
  const pid_t process = rank(r).process;
  if (process == getpid()) return false;  // a rank that is a thread of this process
  const Descriptor& watched = watched_[static_cast<std::size_t>(r)];
  pollfd entry{watched.descriptor(), POLLIN, 0};
  if (watched.is_open()) return poll(&entry, 1, 0) == 1;
  return kill(process, 0) != 0 && errno == ESRCH;
}

// Throws where an operation cannot end well.
void Meeting::look_for_trouble(int missing, Counter Rank::*counter, const Deadline& deadline) {
  check_aborted();
  const std::string what = described(message_of(rank_));
  for (int r = 0; r < size_; ++r) {
    if (reached(rank(r).*counter, ticket_) || !has_ended(r) || reached(rank(r).*counter, ticket_)) {
      continue;
    }
    give_up(
        fmt::format("rank {} (process {}) has ended before {}", r, rank(r).process.load(), what));
  }
  if (!deadline.has_passed()) return;
  const Rank& other = rank(missing);
  const std::uint32_t arrived = other.arrived.load(std::memory_order_acquire);
  give_up(fmt::format("rank {} (process {}) did not {} {} within {:g} s; it was last seen in {}",
                      missing, other.process.load(),
                      counter == &Rank::arrived ? "come to" : "finish", what, timeout_seconds_,
                      arrived == 0 ? "nothing" : described(other.messages[arrived % 2])));
}

}  // namespace concord::comm
