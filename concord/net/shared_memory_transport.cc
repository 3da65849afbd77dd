#include "concord/net/shared_memory_transport.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "concord/net/futex.h"
#include "concord/net/neighbour.h"
#include "concord/net/rendezvous.h"
#include "concord/net/shared_memory.h"

// Vocabulary. Each rank has an *inbox*, memory that all see: in it is a *ring* for each other rank
// that sends to it. A *stream* is one end of a ring: what is to be written to it, or read from it,
// in order. A message in a ring is its length, in 8 bytes, and its bytes, filled up to a multiple
// of 8; so a length never wraps around.

namespace concord::net {
namespace {

constexpr std::uint32_t kUnit = 8;
constexpr int kMostRanks = 256;

std::uint32_t units(std::size_t bytes) {
  return static_cast<std::uint32_t>((bytes + kUnit - 1) / kUnit * kUnit);
}

// Enough that neither end waits for the other long, little beside what is trained.
std::uint32_t ring_bytes(int size) {
  constexpr std::uint32_t kMost = 256 << 10, kInbox = 2 << 20;
  const auto rings = static_cast<std::uint32_t>(std::max(1, size - 1));
  return std::bit_floor(std::min(kMost, kInbox / rings));
}

// Its counters are of bytes and wrap around, which the ring's length divides. Both ends also look
// at each other's `is_asleep` (Inbox); the default order of atomic operations, in which all threads
// see one sequence of them, makes sure that one of two sees what the other has done.
struct Ring {
  alignas(128) SharedCounter written;
  alignas(128) SharedCounter read;
  alignas(128) SharedCounter is_open;  // by the rank that writes
};
static_assert(sizeof(Ring) % kUnit == 0);

struct Inbox {
  Neighbour owner;
  alignas(128) SharedCounter is_asleep;
};

class RingView {
 public:
  RingView(std::byte* inbox, int owner, int writer, std::uint32_t bytes) : bytes_(bytes) {
    const auto index = static_cast<std::size_t>(writer < owner ? writer : writer - 1);
    start_ = inbox + sizeof(Inbox) + index * (sizeof(Ring) + bytes);
  }

  Ring& ring() const { return *reinterpret_cast<Ring*>(start_); }
  std::uint32_t bytes() const { return bytes_; }
  void put(std::uint32_t at, const void* from, std::size_t count) const {
    const std::size_t first = std::min<std::size_t>(count, bytes_ - at % bytes_);
    std::memcpy(data() + at % bytes_, from, first);
    std::memcpy(data(), static_cast<const std::byte*>(from) + first, count - first);
  }
  void take(std::uint32_t at, void* to, std::size_t count) const {
    const std::size_t first = std::min<std::size_t>(count, bytes_ - at % bytes_);
    std::memcpy(to, data() + at % bytes_, first);
    std::memcpy(static_cast<std::byte*>(to) + first, data(), count - first);
  }

 private:
  std::byte* data() const { return start_ + sizeof(Ring); }

  std::byte* start_;
  std::uint32_t bytes_;
};

class SharedMemoryTransport final : public Transport {
 public:
  SharedMemoryTransport(const TransportOptions& options, StoreClient& store, Deadline deadline)
      : Transport(options), ring_bytes_(ring_bytes(options.size)), states_(kMostRequests) {
    if (size() > kMostRanks) {
      fail("{} ranks on one machine: expected at most {}", size(), kMostRanks);
    }
    Rendezvous rendezvous(name(), rank(), store, deadline, group());
    SharedMemory own(inbox_bytes());
    reinterpret_cast<Inbox*>(own.data())->owner.introduce(in_job(rank()));
    rendezvous.announce(own.locator());
    for (int r = 0; r < rank(); ++r) memory_.push_back(open(r, rendezvous));
    memory_.push_back(std::move(own));
    for (int r = rank() + 1; r < size(); ++r) memory_.push_back(open(r, rendezvous));
    meet(deadline);
  }

  std::string_view name() const override { return "shm"; }

 private:
  static constexpr std::uint32_t kNone = ~0u;

  struct State {
    bool is_done = false;
    std::uint32_t next = kNone;  // in its stream
  };
  struct Stream {
    RingView ring;
    std::uint32_t first = kNone, last = kNone;  // slots
    bool is_inside = false;                     // the first one's length is through
    std::size_t done = 0;                       // bytes of it
  };
  // Another rank.
  struct Peer {
    Stream out, in;
    Watch watch;
  };

  std::size_t inbox_bytes() const {
    return sizeof(Inbox) + static_cast<std::size_t>(size() - 1) * (sizeof(Ring) + ring_bytes_);
  }
  std::byte* memory(int r) const { return memory_[static_cast<std::size_t>(r)].data(); }
  Inbox& inbox(int r) const { return *reinterpret_cast<Inbox*>(memory(r)); }
  Peer& peer(int r) { return *peers_[static_cast<std::size_t>(r)]; }

  SharedMemory open(int r, Rendezvous& rendezvous) const {
    SharedMemory opened = SharedMemory::open(rendezvous.of(r));
    if (opened.bytes() != inbox_bytes()) {
      fail("rank {} believes in {} ranks, and rank {} in another number", in_job(rank()), size(),
           in_job(r));
    }
    return opened;
  }

  // Until every other rank has opened this one's memory: from here on it may end at any time.
  void meet(const Deadline& deadline) {
    cpu_set_t cores = inbox(rank()).owner.cores;
    for (int r = 0; r < size(); ++r) {
      if (r == rank()) {
        peers_.emplace_back();
        continue;
      }
      CPU_OR(&cores, &cores, &inbox(r).owner.cores);
      peers_.emplace_back(Peer{.out = {{memory(r), r, rank(), ring_bytes_}},
                               .in = {{memory(rank()), rank(), r, ring_bytes_}},
                               .watch = Watch(inbox(r).owner)});
      SharedCounter& is_open = peer(r).out.ring.ring().is_open;
      is_open.store(1);
      wake_all(is_open);
    }
    manner_ = Glances::manner_for(cores, size());
    for (int r = 0; r < size(); ++r) {
      if (r == rank()) continue;
      SharedCounter& is_open = peer(r).in.ring.ring().is_open;
      while (is_open.load() == 0) {
        if (peer(r).watch.has_ended() && is_open.load() == 0) {
          throw PeerError(in_job(r), PeerError::Kind::kEnded,
                          fmt::format("rank {} (process {}) has ended before all ranks had met",
                                      in_job(r), peer(r).watch.process()));
        }
        if (deadline.has_passed()) {
          throw PeerError(in_job(r), PeerError::Kind::kLate,
                          fmt::format("rank {} did not come within {:.3g} s", in_job(r),
                                      deadline.seconds_given()));
        }
        sleep_on(is_open, 0, kLookAgain);
      }
    }
  }

  void begin(std::uint32_t slot) override {
    const Operation& asked = operation(slot);
    Stream& stream = asked.is_send ? peer(asked.peer).out : peer(asked.peer).in;
    states_[slot] = {};
    (stream.first == kNone ? stream.first : states_[stream.last].next) = slot;
    stream.last = slot;
    if (asked.is_send) write(asked.peer);
  }

  void finish(std::uint32_t slot, const Deadline& deadline, bool patient) override {
    const State& state = states_[slot];
    const Glances fresh(patient ? Glances::Manner::kSleep : manner_);
    Glances glances = fresh;
    while (!state.is_done) {
      if (wrong_ != kNone) fail_by_size(wrong_, wrong_length_);
      check_interrupted();
      if (move_all()) {
        glances = fresh;
        if (!state.is_done) check_deadline(slot, deadline);
      } else if (!glances.another()) {
        sleep(slot, deadline);
      }
    }
  }

  void sleep(std::uint32_t slot, const Deadline& deadline) {
    SharedCounter& is_asleep = inbox(rank()).is_asleep;
    is_asleep.store(1);
    check_interrupted();
    if (!move_all()) {
      const Watch& watch = peer(operation(slot).peer).watch;
      if (watch.has_ended() && !move_all()) {
        fail_by_peer(slot, fmt::format("(process {}) has ended", watch.process()));
      }
      check_deadline(slot, deadline);
      sleep_on(is_asleep, 1, std::min(kLookAgain, deadline.seconds_left()));
    }
    is_asleep.store(0);
  }

  void wake() override { wake(inbox(rank())); }
  static void wake(Inbox& inbox) {
    if (inbox.is_asleep.load() != 0 && inbox.is_asleep.exchange(0) != 0) wake_all(inbox.is_asleep);
  }
  void stop() noexcept override {}  // memory is touched in calls alone

  // Whether any byte moved.
  bool move_all() {
    bool moved = false;
    for (int r = 0; r < size(); ++r) {
      if (r == rank()) continue;
      moved |= write(r);
      moved |= read(r);
    }
    return moved;
  }

  void end_first(Stream& stream) {
    State& state = states_[stream.first];
    state.is_done = true;
    stream.first = state.next;
    stream.is_inside = false;
  }

  bool write(int to) {
    Stream& stream = peer(to).out;
    Ring& ring = stream.ring.ring();
    bool moved = false;
    while (stream.first != kNone) {
      const Operation& asked = operation(stream.first);
      std::uint32_t at = ring.written.load(std::memory_order_relaxed);
      const std::uint32_t end = ring.read.load() + stream.ring.bytes();
      if (at == end) break;
      if (!stream.is_inside) {
        const std::uint64_t length = asked.bytes;
        stream.ring.put(at, &length, kUnit);
        at += kUnit;
        stream.is_inside = true;
        stream.done = 0;
      }
      const std::size_t count =
          std::min<std::size_t>({asked.bytes - stream.done, end - at, chunk()});
      if (count > 0) stream.ring.put(at, asked.source + stream.done, count);
      stream.done += count;
      ring.written.store(at + units(count));
      wake(inbox(to));
      if (stream.done == asked.bytes) end_first(stream);
      moved = true;
    }
    return moved;
  }

  bool read(int from) {
    Stream& stream = peer(from).in;
    Ring& ring = stream.ring.ring();
    bool moved = false;
    while (stream.first != kNone && stream.first != wrong_) {
      const Operation& asked = operation(stream.first);
      std::uint32_t at = ring.read.load(std::memory_order_relaxed);
      const std::uint32_t end = ring.written.load();
      if (at == end) break;
      if (!stream.is_inside) {
        std::uint64_t length = 0;
        stream.ring.take(at, &length, kUnit);
        at += kUnit;
        if (length != asked.bytes) {
          wrong_ = stream.first;
          wrong_length_ = length;
          break;
        }
        stream.is_inside = true;
        stream.done = 0;
      }
      const std::size_t count =
          std::min<std::size_t>({asked.bytes - stream.done, end - at, chunk()});
      if (count > 0) stream.ring.take(at, asked.target + stream.done, count);
      stream.done += count;
      ring.read.store(at + units(count));
      wake(inbox(from));
      if (stream.done == asked.bytes) end_first(stream);
      moved = true;
    }
    return moved;
  }

  // What is written or read before the other end is told.
  std::uint32_t chunk() const { return ring_bytes_ / 8; }

  static constexpr double kLookAgain = 0.05;  // seconds

  std::uint32_t ring_bytes_;
  std::vector<SharedMemory> memory_;        // by rank
  std::vector<std::optional<Peer>> peers_;  // none for this one
  std::vector<State> states_;               // by slot
  std::uint32_t wrong_ = kNone;             // the slot of a receive of another length than was sent
  std::size_t wrong_length_ = 0;
  Glances::Manner manner_ = Glances::Manner::kSleep;
};

}  // namespace

std::unique_ptr<Transport> make_shared_memory_transport(const TransportOptions& options,
                                                        StoreClient& store, Deadline deadline) {
  return std::make_unique<SharedMemoryTransport>(options, store, deadline);
}

}  // namespace concord::net
