#include "concord/comm/shared_memory_communicator.h"

#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <optional>

#include "concord/base/deadline.h"
#include "concord/base/error.h"
#include "concord/comm/tile_sum.h"
#include "concord/net/shared_memory.h"

// Vocabulary. A collective call has a number, its ticket: 1, 2, ... Each rank keeps two counters
// where all see them: `arrived`, the ticket of the last call that it has entered, and `left`, that
// of the last call in which it has done its part. What a rank brings to a call is in its message,
// of which there are two, used by turns: nobody can be two calls ahead of a rank that still reads.

namespace concord::comm {
namespace {

constexpr int kMostRanks = 256;
constexpr std::size_t kMostParts = 64;  // of one rank; more than twice the levels of any tree

using Counter = std::atomic<std::uint32_t>;
static_assert(Counter::is_always_lock_free, "processes share it");

enum class Call : std::uint32_t { kNone, kShare, kTreeSum, kAnyOf };

constexpr std::string_view name_of(Call call) {
  constexpr std::string_view kNames[] = {"nothing", "sharing of memory", "sum", "agreement"};
  return kNames[static_cast<std::size_t>(call)];
}

// Where a part lies: in which of its rank's regions, in order of share().
struct PlacedPart {
  Subtree node;
  std::uint64_t region, offset;
};

struct Message {
  Call call;
  std::uint32_t flags;
  std::int64_t step;
  std::uint64_t bytes;
  std::array<char, 64> locator;
  std::uint64_t part_count;
  std::array<PlacedPart, kMostParts> parts;
};

struct alignas(128) RankState {
  Counter arrived, left;
  std::atomic<std::int32_t> process;
  cpu_set_t cores;  // that it may run on
  std::array<Message, 2> messages;
};

// What all ranks see; it begins as zeros.
struct Control {
  Counter abort_begun, aborted;
  std::array<char, 1024> abort_reason;
  std::array<RankState, kMostRanks> ranks;  // of which the first `size` are there
};

std::size_t control_bytes(int size) {
  return offsetof(Control, ranks) + static_cast<std::size_t>(size) * sizeof(RankState);
}

// Tickets wrap around.
bool reached(std::uint32_t counter, std::uint32_t ticket) {
  return static_cast<std::int32_t>(counter - ticket) >= 0;
}

void wake_all(Counter& counter) {
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

class SharedMemoryCommunicator final : public Communicator {
 public:
  SharedMemoryCommunicator(const SharedMemoryOptions& options, net::SharedMemory control)
      : Communicator(options.rank, options.size),
        timeout_seconds_(options.timeout_seconds),
        memory_(std::move(control)),
        control_(*reinterpret_cast<Control*>(memory_.data())) {
    if (const std::int32_t other = state(rank()).process.exchange(getpid())) {
      fail("processes {} and {} both say that they are rank {}", other, getpid(), rank());
    }
    sched_getaffinity(0, sizeof(cpu_set_t), &state(rank()).cores);
    any_of(0);  // now each rank knows the others' processes and cores
    cpu_set_t cores = state(0).cores;
    for (int r = 0; r < size(); ++r) {
      CPU_OR(&cores, &cores, &state(r).cores);
      const pid_t process = state(r).process;
      watched_.emplace_back(
          process == getpid() ? -1 : static_cast<int>(syscall(SYS_pidfd_open, process, 0)));
    }
    // Some tens of microseconds, where nobody else needs the core meanwhile.
    constexpr int kSpins = 2000;
    spins_ = CPU_COUNT(&cores) >= size() ? kSpins : 0;
  }

  std::byte* share(std::size_t bytes) override {
    net::SharedMemory own(std::max<std::size_t>(bytes, 1));
    const std::string locator = own.locator();
    enter(Call::kShare, [&](Message& message) {
      CONCORD_CHECK(locator.size() < message.locator.size());
      std::ranges::copy(locator, message.locator.begin());
      message.locator[locator.size()] = '\0';
    });
    Region region;
    for (int r = 0; r < size(); ++r) {
      region.push_back(r == rank() ? std::move(own) : memory_of(r));
    }
    leave();
    return regions_.emplace_back(std::move(region))[static_cast<std::size_t>(rank())].data();
  }

  const std::byte* tree_sum(std::span<const Part> parts, std::size_t bytes) override {
    CONCORD_CHECK(parts.size() <= kMostParts, "{} parts", parts.size());
    std::byte* const sum = memory_for_sum(bytes);
    enter(Call::kTreeSum, [&](Message& message) {
      message.bytes = bytes;
      message.part_count = parts.size();
      std::ranges::transform(parts, message.parts.begin(), [&](const Part& p) { return place(p); });
    });
    nodes_.clear();
    sources_.clear();
    for (int r = 0; r < size(); ++r) {
      const Message& message = message_of(r);
      if (message.bytes != bytes) {
        give_up(fmt::format("rank {} gives {} bytes to the tree sum of step {}, rank {} gives {}",
                            rank(), bytes, step(), r, message.bytes));
      }
      for (std::size_t p = 0; p < message.part_count; ++p) {
        const PlacedPart& part = message.parts[p];
        nodes_.push_back(part.node);
        sources_.push_back(reinterpret_cast<const float*>(
            regions_[part.region][static_cast<std::size_t>(r)].data() + part.offset));
      }
    }
    const auto [begin, end] = piece_of(rank(), static_cast<std::int64_t>(bytes / sizeof(float)));
    CONCORD_CHECK(!sources_.empty(), "a sum of nothing");
    tiles_.plan(joins_.of(nodes_), sources_.size());
    tiles_.run(sources_, reinterpret_cast<float*>(sum), begin, end);
    leave();
    return sum;
  }

  std::uint32_t any_of(std::uint32_t flags) override {
    enter(Call::kAnyOf, [&](Message& message) { message.flags = flags; });
    std::uint32_t all = 0;
    for (int r = 0; r < size(); ++r) all |= message_of(r).flags;
    return all;
  }

  std::string broadcast(const std::string& value) override {
    std::uint64_t bytes = value.size();
    std::byte* const own = share(is_first() ? sizeof bytes + bytes : 0);
    if (is_first()) {
      std::memcpy(own, &bytes, sizeof bytes);
      std::memcpy(own + sizeof bytes, value.data(), bytes);
    }
    any_of(0);  // it is written
    const std::byte* const first = regions_.back()[0].data();
    std::memcpy(&bytes, first, sizeof bytes);
    std::string received(reinterpret_cast<const char*>(first) + sizeof bytes, bytes);
    any_of(0);  // it is read
    regions_.pop_back();
    return received;
  }

  void abort(std::string_view reason) override {
    if (control_.abort_begun.exchange(1) != 0) return;  // another was first
    const std::size_t count = std::min(reason.size(), control_.abort_reason.size() - 1);
    std::copy_n(reason.begin(), count, control_.abort_reason.begin());
    control_.aborted.store(1, std::memory_order_release);
  }

 private:
  using Region = std::vector<net::SharedMemory>;  // by rank

  RankState& state(int r) { return control_.ranks[static_cast<std::size_t>(r)]; }
  const Message& message_of(int r) { return state(r).messages[ticket_ % 2]; }

  template <typename Write>
  void enter(Call call, Write write) {
    ++ticket_;
    Message& message = state(rank()).messages[ticket_ % 2];
    message.call = call;
    message.step = step();
    write(message);
    state(rank()).arrived.store(ticket_, std::memory_order_release);
    wake_all(state(rank()).arrived);
    wait_for_all(&RankState::arrived);
    check_aborted();  // others may have come, and have left in an error
    for (int r = 0; r < size(); ++r) {
      const Message& other = message_of(r);
      if (other.call == call && other.step == step()) continue;
      give_up(fmt::format("rank {} calls {} in step {} while rank {} calls {} in step {}", rank(),
                          name_of(call), step(), r, name_of(other.call), other.step));
    }
  }

  // Until all others have done their part too.
  void leave() {
    state(rank()).left.store(ticket_, std::memory_order_release);
    wake_all(state(rank()).left);
    wait_for_all(&RankState::left);
  }

  void wait_for_all(Counter RankState::*counter) {
    const Deadline deadline = Deadline::in(timeout_seconds_);
    for (int r = 0; r < size(); ++r) {
      Counter& other = state(r).*counter;
      for (int spin = 0; spin < spins_ && !reached(other.load(std::memory_order_acquire), ticket_);
           ++spin) {
        relax();
      }
      for (;;) {
        const std::uint32_t now = other.load(std::memory_order_acquire);
        if (reached(now, ticket_)) break;
        look_for_trouble(r, counter, deadline);
        constexpr double kLookAgain = 0.05;
        sleep_on(other, now, kLookAgain);
      }
    }
  }

  void check_aborted() const {
    if (control_.aborted.load(std::memory_order_acquire) == 0) return;
    throw RankError(control_.abort_reason.data());
  }

  // What another rank shares in this call.
  net::SharedMemory memory_of(int r) {
    try {
      return net::SharedMemory::open(message_of(r).locator.data());
    } catch (const Error&) {
      check_aborted();  // it may have left in an error
      throw;
    }
  }

  // Where the system does not let it be watched, a process that nobody has waited for counts as
  // running.
  static bool has_ended(pid_t process, const Descriptor& watched) {
    if (process == getpid()) return false;  // a rank that is a thread of this process
    pollfd entry{watched.descriptor(), POLLIN, 0};
    if (watched.is_open()) return poll(&entry, 1, 0) == 1;
    return kill(process, 0) != 0 && errno == ESRCH;
  }

  // Throws where a call cannot end well.
  void look_for_trouble(int missing, Counter RankState::*counter, const Deadline& deadline) {
    check_aborted();
    const Call call = state(rank()).messages[ticket_ % 2].call;
    for (std::size_t r = 0; r < watched_.size(); ++r) {
      const RankState& other = state(static_cast<int>(r));
      if (!has_ended(other.process, watched_[r]) ||
          reached((other.*counter).load(std::memory_order_acquire), ticket_))
        continue;
      give_up(fmt::format("rank {} (process {}) has ended before the {} of step {}", r,
                          other.process, name_of(call), step()));
    }
    if (!deadline.has_passed()) return;
    const RankState& other = state(missing);
    const std::uint32_t arrived = other.arrived.load(std::memory_order_acquire);
    const Message& last = other.messages[arrived % 2];
    give_up(
        fmt::format("rank {} (process {}) did not {} the {} of step {} within {:g} s; it was "
                    "last seen in the {} of step {}",
                    missing, other.process, counter == &RankState::arrived ? "come to" : "finish",
                    name_of(call), step(), timeout_seconds_,
                    name_of(arrived == 0 ? Call::kNone : last.call), last.step));
  }

  [[noreturn]] void give_up(const std::string& reason) {
    abort(reason);
    check_aborted();
    throw RankError(reason);  // another is just writing its own
  }

  PlacedPart place(const Part& part) const {
    for (std::size_t i = 0; i < regions_.size(); ++i) {
      const net::SharedMemory& own = regions_[i][static_cast<std::size_t>(rank())];
      if (part.data >= own.data() && part.data < own.data() + own.bytes()) {
        return {part.node, i, static_cast<std::uint64_t>(part.data - own.data())};
      }
    }
    CONCORD_CHECK(false, "a part outside of share()'s memory");
    return {};
  }

  // In the memory of rank 0; where it has grown, the same on every rank.
  std::byte* memory_for_sum(std::size_t bytes) {
    if (bytes > sum_bytes_) {
      share(is_first() ? bytes : 0);
      sum_region_ = regions_.size() - 1;
      sum_bytes_ = bytes;
    }
    return regions_[sum_region_][0].data();
  }

  // Pieces begin at cache lines.
  std::pair<std::int64_t, std::int64_t> piece_of(int r, std::int64_t count) const {
    constexpr std::int64_t kLine = 16;
    const std::int64_t lines = (count + kLine - 1) / kLine;
    const auto begin = [&](std::int64_t i) { return std::min(count, lines * i / size() * kLine); };
    return {begin(r), begin(r + 1)};
  }

  double timeout_seconds_;
  int spins_ = 0;
  net::SharedMemory memory_;
  Control& control_;
  std::vector<Descriptor> watched_;  // the other ranks' processes
  std::uint32_t ticket_ = 0;
  std::vector<Region> regions_;
  std::size_t sum_bytes_ = 0, sum_region_ = 0;
  std::vector<Subtree> nodes_;
  std::vector<const float*> sources_;
  Joins joins_;
  TileSum tiles_;
};

}  // namespace

std::unique_ptr<Communicator> join_by_shared_memory(const SharedMemoryOptions& options,
                                                    net::StoreClient& store) {
  if (options.size < 1 || options.size > kMostRanks || options.rank < 0 ||
      options.rank >= options.size) {
    fail("rank {} of {}: expected a rank from 0 on, of 1 to {}", options.rank, options.size,
         kMostRanks);
  }
  constexpr std::string_view kKey = "shared memory";
  const Deadline deadline = Deadline::in(options.timeout_seconds);
  const auto control = [&] {
    if (options.rank > 0) {
      net::SharedMemory opened = net::SharedMemory::open(store.get(kKey, deadline));
      if (opened.bytes() != control_bytes(options.size)) {
        fail("rank {} believes in {} ranks, and rank 0 in another number", options.rank,
             options.size);
      }
      return opened;
    }
    net::SharedMemory created(control_bytes(options.size));
    store.set(kKey, created.locator(), deadline);
    return created;
  };
  return std::make_unique<SharedMemoryCommunicator>(options, control());
}

}  // namespace concord::comm
