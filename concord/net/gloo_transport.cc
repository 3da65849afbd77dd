#include "concord/net/gloo_transport.h"

#include <gloo/transport/context.h>
#include <gloo/transport/device.h>
#include <gloo/transport/tcp/device.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstddef>
#include <limits>
#include <thread>

#include "concord/net/rendezvous.h"
#include "concord/net/secret.h"
#include "concord/net/socket.h"

// How Gloo is used, and what of it has to be known.
//
// Gloo matches sends and receives by number, its "slot", and ends the process where more bytes come
// than were expected. So there goes a *label* before a message's bytes, with their number, and the
// bytes go under a slot that contains it: where the two ends disagree, the labels meet and the
// bytes do not. What is short lies in the label itself.
//
// Where a wait runs into a time limit of Gloo's, Gloo closes the connections with all ranks; and
// where a connection breaks in the middle of a message, Gloo does not tell who waits for that
// message. So Gloo is given no limits here: every wait is interrupted now and then, by a thread
// that does nothing else, to look at the deadline and at the connection. The latter is known by its
// *canary*: a receive that nobody answers, which ends in an error with the connection.
//
// What is not mended: where a connection is reset in the instant in which it is made, or by a
// stranger who speaks like Gloo before a rank does, Gloo ends the process.

namespace concord::net {
namespace {

using gloo::transport::UnboundBuffer;
using Slot = std::uint64_t;

constexpr std::chrono::milliseconds kForever = std::chrono::hours(24 * 365);
constexpr Slot kCanary = Slot{1} << 62;

Slot slot_of_label(std::uint64_t number) { return number % kCanary; }
Slot slot_of_bytes(std::uint64_t number, std::size_t bytes) {
  static_assert(Transport::kLongestMessage < Slot{1} << 31);
  return Slot{1} << 63 | (number & 0xffffffff) << 31 | bytes;
}

// As long as it lives, signals wait: all of them, for threads that are made meanwhile, or SIGPIPE,
// which a write to a closed connection raises here and which is forgotten.
class HeldSignals {
 public:
  static HeldSignals all() {
    sigset_t set;
    sigfillset(&set);
    return HeldSignals(set);
  }
  static HeldSignals broken_pipes() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    return HeldSignals(set);
  }
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;
  ~HeldSignals() {
    sigset_t pending;
    sigpending(&pending);
    if (sigismember(&pending, SIGPIPE) == 1 && sigismember(&before_, SIGPIPE) == 0) {
      sigset_t broken_pipe;
      sigemptyset(&broken_pipe);
      sigaddset(&broken_pipe, SIGPIPE);
      const timespec now{};
      sigtimedwait(&broken_pipe, nullptr, &now);
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  explicit HeldSignals(const sigset_t& set) { pthread_sigmask(SIG_BLOCK, &set, &before_); }
  sigset_t before_;
};

// Without the place in Gloo's sources with which its messages begin.
std::string reason(const std::exception& error) {
  const std::string_view text = error.what();
  const std::size_t end = text.find("] ");
  return std::string(text.starts_with('[') && end != text.npos ? text.substr(end + 2) : text);
}

// What a rank tells another: where to connect, and what to say there.
struct Invitation {
  std::vector<char> address;
  Challenge::Nonce password{};

  void append_to(std::string& text) const {
    text += static_cast<char>(address.size());
    text.append(address.begin(), address.end());
    text.append(reinterpret_cast<const char*>(password.data()), password.size());
  }
  // Takes it off the beginning of `text`.
  static Invitation take_from(std::string_view& text, int rank) {
    Invitation invitation;
    const std::size_t size = text.empty() ? 0 : static_cast<unsigned char>(text[0]);
    if (text.size() < 1 + size + invitation.password.size()) {
      fail("rank {} has another version of Concord, or believes in another number of ranks", rank);
    }
    invitation.address.assign(text.begin() + 1, text.begin() + 1 + static_cast<long>(size));
    std::copy_n(reinterpret_cast<const std::byte*>(text.data()) + 1 + size,
                invitation.password.size(), invitation.password.begin());
    text.remove_prefix(1 + size + invitation.password.size());
    return invitation;
  }
};
static_assert(gloo::transport::Address::kMaxByteSize < 256);

class GlooTransport final : public Transport {
 public:
  GlooTransport(const TransportOptions& options, StoreClient& store, Deadline deadline)
      : Transport(options), parcels_(kMostRequests), peers_(count_of_peers()) {
    if (size() == 1) return;
    // Throws Error where the machine has no such address.
    const Socket probe =
        listen_on({options.address.empty() ? store.own_address() : options.address, 0});
    start(local_endpoint(probe).host, deadline);
    try {
      Rendezvous rendezvous(name(), rank(), store, deadline, group());
      connect(rendezvous, deadline);
    } catch (...) {
      end_ticker();
      throw;
    }
  }
  ~GlooTransport() override {
    if (ticker_.joinable()) end_ticker();
  }

  std::string_view name() const override { return "gloo"; }

 private:
  using Buffer = std::unique_ptr<UnboundBuffer>;

  struct Label {
    static constexpr std::size_t kMost = 2048;
    std::uint64_t length;
    std::array<std::byte, kMost> bytes;  // where there are no more
  };
  // What belongs to a slot of the transport.
  struct Parcel {
    std::unique_ptr<Label> label;
    Buffer label_buffer, bytes_buffer;
  };
  struct Peer {
    std::uint64_t sent = 0, received = 0;  // messages
    Buffer canary;
  };
  enum class Direction : bool { kSend, kReceive };
  struct Waiting {
    UnboundBuffer* buffer = nullptr;
    Direction direction = Direction::kSend;
  };

  // Gloo's thread and the ticker; signals are for the program's own threads.
  void start(const std::string& address, const Deadline& deadline) {
    const HeldSignals held = HeldSignals::all();
    try {
      device_ = gloo::transport::tcp::CreateDevice(address.c_str());
      context_ = device_->createContext(rank(), size());
      const int limit = deadline.milliseconds_left();
      context_->setTimeout(limit < 0 ? kForever : std::chrono::milliseconds(limit));
      for (int r = 0; r < size(); ++r) {
        if (r != rank()) context_->createPair(r);
      }
    } catch (const std::exception& error) {
      fail("Gloo could not be started at {}: {}", address, reason(error));
    }
    ticker_ = std::thread([this] { interrupt_waits(); });
  }

  std::size_t count_of_peers() const { return static_cast<std::size_t>(size()); }
  Peer& peer(int r) { return peers_[static_cast<std::size_t>(r)]; }

  void connect(Rendezvous& rendezvous, Deadline deadline) {
    std::vector<Invitation> own(count_of_peers()), given(count_of_peers());
    std::string announcement;
    for (int r = 0; r < size(); ++r) {
      Invitation& invitation = own[static_cast<std::size_t>(r)];
      if (r != rank()) {
        invitation.address = context_->getPair(r)->address().bytes();
        invitation.password = Challenge::random_nonce();
      }
      invitation.append_to(announcement);
    }
    rendezvous.announce(announcement);
    // In the order of ranks: so there is always a pair of ranks of which none waits for a third.
    for (int r = 0; r < size(); ++r) {
      if (r == rank()) continue;
      const std::string text = rendezvous.of(r);
      std::string_view rest = text;
      Invitation& invitation = given[static_cast<std::size_t>(r)];
      for (int i = 0; i <= rank(); ++i) invitation = Invitation::take_from(rest, in_job(r));
      connect_to(r, invitation);
    }
    for (int r = 0; r < size(); ++r) {
      if (r == rank()) continue;
      Challenge::Nonce said;
      const Request sent = send(r, given[static_cast<std::size_t>(r)].password);
      wait(receive(r, said), deadline);
      wait(sent, deadline);
      if (said != own[static_cast<std::size_t>(r)].password) {
        fail("what connected to rank {} in the place of rank {} does not belong to this job",
             in_job(rank()), in_job(r));
      }
    }
  }

  void connect_to(int r, const Invitation& invitation) {
    try {
      context_->getPair(r)->connect(invitation.address);
      peer(r).canary = new_buffer();
      peer(r).canary->recv(r, kCanary, 0, 0);
    } catch (const std::exception& error) {
      throw PeerError(in_job(r), PeerError::Kind::kEnded,
                      fmt::format("rank {} could not be connected with rank {}: {}", in_job(rank()),
                                  in_job(r), reason(error)));
    }
  }

  // For any memory: an offset from nowhere is an address. So none has to be made for each message.
  Buffer new_buffer() {
    return context_->createUnboundBuffer(nullptr, std::numeric_limits<std::size_t>::max());
  }

  void begin(std::uint32_t slot) override {
    const Operation& asked = operation(slot);
    Parcel& parcel = parcels_[slot];
    if (!parcel.label) {
      parcel.label = std::make_unique<Label>();
      parcel.label_buffer = new_buffer();
      parcel.bytes_buffer = new_buffer();
    }
    Peer& other = peer(asked.peer);
    const std::uint64_t number = asked.is_send ? other.sent++ : other.received++;
    std::size_t label_bytes = sizeof(Label);
    if (asked.is_send) {
      parcel.label->length = asked.bytes;
      const std::size_t inside = is_short(asked) ? asked.bytes : 0;
      std::copy_n(asked.source, inside, parcel.label->bytes.begin());
      label_bytes = offsetof(Label, bytes) + inside;
    }
    post(slot, *parcel.label_buffer, slot_of_label(number), parcel.label.get(), label_bytes);
    if (is_short(asked)) return;
    const void* const bytes = asked.is_send ? asked.source : asked.target;
    post(slot, *parcel.bytes_buffer, slot_of_bytes(number, asked.bytes), bytes, asked.bytes);
  }
  static bool is_short(const Operation& asked) { return asked.bytes <= Label::kMost; }

  void post(std::uint32_t slot, UnboundBuffer& buffer, Slot gloo_slot, const void* memory,
            std::size_t bytes) {
    const HeldSignals held = HeldSignals::broken_pipes();
    const Operation& asked = operation(slot);
    const auto offset = reinterpret_cast<std::size_t>(memory);
    try {
      if (asked.is_send) {
        buffer.send(asked.peer, gloo_slot, offset, bytes);
      } else {
        buffer.recv(asked.peer, gloo_slot, offset, bytes);
      }
    } catch (const std::exception& error) {
      fail_by_connection(slot, error);
    }
  }

  void finish(std::uint32_t slot, const Deadline& deadline, bool) override {
    const Operation& asked = operation(slot);
    Parcel& parcel = parcels_[slot];
    await(slot, *parcel.label_buffer, deadline);
    if (parcel.label->length != asked.bytes) fail_by_size(slot, parcel.label->length);
    if (!is_short(asked)) return await(slot, *parcel.bytes_buffer, deadline);
    if (!asked.is_send) std::copy_n(parcel.label->bytes.begin(), asked.bytes, asked.target);
  }

  void await(std::uint32_t slot, UnboundBuffer& buffer, const Deadline& deadline) {
    const Operation& asked = operation(slot);
    const Waiting wait{&buffer, asked.is_send ? Direction::kSend : Direction::kReceive};
    try {
      for (;;) {
        set_wait(wait);
        const bool is_done = wait_for(wait, kForever);
        set_wait({});  // from here on it is not interrupted
        if (is_done) return;
        check_interrupted();
        check_deadline(slot, deadline);
        // What came last may have come since.
        if (has_failed(asked.peer) && wait_for(wait, std::chrono::milliseconds(0))) return;
      }
    } catch (const Error&) {
      throw;
    } catch (const std::exception& error) {
      fail_by_connection(slot, error);
    }
  }

  // False: it was interrupted. Throws where the time is over, or the connection has ended.
  static bool wait_for(const Waiting& wait, std::chrono::milliseconds limit) {
    return wait.direction == Direction::kSend ? wait.buffer->waitSend(limit)
                                              : wait.buffer->waitRecv(limit);
  }

  // Does not wait: it is interrupted beforehand.
  bool has_failed(int r) {
    peer(r).canary->abortWaitRecv();
    try {
      peer(r).canary->waitRecv(kForever);
      return false;
    } catch (const std::exception&) {
      return true;
    }
  }

  [[noreturn]] void fail_by_connection(std::uint32_t slot, const std::exception& error) const {
    fail_by_peer(slot, fmt::format("closed its connection ({})", reason(error)));
  }

  void set_wait(const Waiting& wait) {
    const std::lock_guard lock(waiting_);
    wait_ = wait;
  }
  // With waiting_ locked.
  void interrupt_wait() {
    if (wait_.buffer == nullptr) return;
    if (wait_.direction == Direction::kSend) {
      wait_.buffer->abortWaitSend();
    } else {
      wait_.buffer->abortWaitRecv();
    }
  }
  void interrupt_waits() {
    constexpr auto kLookAgain = std::chrono::milliseconds(50);
    std::unique_lock lock(waiting_);
    while (!tick_.wait_for(lock, kLookAgain, [this] { return is_ending_; })) interrupt_wait();
  }
  void end_ticker() {
    {
      const std::lock_guard lock(waiting_);
      is_ending_ = true;
    }
    tick_.notify_one();
    ticker_.join();
  }

  void wake() override {
    const std::lock_guard lock(waiting_);
    interrupt_wait();
  }

  void stop() noexcept override {
    for (int r = 0; r < size(); ++r) {
      if (r != rank()) context_->getPair(r)->close();
    }
  }

  // In the order in which they are made; buffers end before their context.
  std::shared_ptr<gloo::transport::Device> device_;
  std::shared_ptr<gloo::transport::Context> context_;
  std::vector<Parcel> parcels_;  // by slot
  std::vector<Peer> peers_;      // by rank
  std::mutex waiting_;
  Waiting wait_;  // that is under way
  bool is_ending_ = false;
  std::condition_variable tick_;
  std::thread ticker_;
};

}  // namespace

std::unique_ptr<Transport> make_gloo_transport(const TransportOptions& options, StoreClient& store,
                                               Deadline deadline) {
  return std::make_unique<GlooTransport>(options, store, deadline);
}

}  // namespace concord::net
