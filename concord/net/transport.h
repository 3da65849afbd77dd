// Transport: messages of bytes between two ranks of a job. What ranks do together is built on it
// (comm/transport_communicator.h).
//
//   const Request sent = transport.send(1, bytes), received = transport.receive(1, memory);
//   transport.wait(sent, deadline);
//   transport.wait(received, deadline);
//
// Messages from one rank to another arrive in the order in which they were sent, each where the
// receiver has said in turn; a receive must be as long as what was sent. Memory belongs to the
// transport until wait() returns. Messages move while a rank is in a call (shm, mpi) or at any time
// (gloo), so whoever expects one must not count on a rank that computes.
//
// Errors. wait() ends in a PeerError that names the rank at fault where one has ended, its
// connection broke, or the deadline passed without what was awaited of it. It ends in an Error
// where the two ranks do not agree on a message's length, and where the transport was interrupted.
// After any of these every later call ends in the same error; what is under way still belongs to
// the transport until close(), by which the other ranks find that this one has ended. So there is
// time to tell them why before. A destructor never waits for another rank for long.
//
// Used by one thread at a time, but for interrupt().
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "concord/base/deadline.h"
#include "concord/base/error.h"
#include "concord/net/axis_group.h"
#include "concord/net/store.h"

namespace concord::net {

class PeerError : public Error {
 public:
  enum class Kind { kLate, kEnded };

  PeerError(int rank, Kind kind, const std::string& message)
      : Error(message), rank_(rank), kind_(kind) {}
  // The rank at fault, by its number in the job.
  int rank() const { return rank_; }
  Kind kind() const { return kind_; }

 private:
  int rank_;
  Kind kind_;
};

// A message that was begun and has not been waited for.
struct Request {
  std::uint32_t slot = 0, serial = 0;
};

struct TransportOptions {
  int rank = 0;
  int size = 1;
  // The address of this machine at which others reach this rank, for gloo; "": the one by which
  // this rank reaches the store.
  std::string address;
  // Whose ranks these are, where they are not all of the job.
  AxisGroup group = {};
};

class Transport {
 public:
  static constexpr std::uint32_t kMostRequests = 1024;  // at a time
  static constexpr std::size_t kLongestMessage = std::size_t{1} << 30;

  virtual ~Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  // What people call one of its ranks.
  int in_job(int rank) const { return group_.in_job(rank); }
  virtual std::string_view name() const = 0;

  // Neither waits. The other rank is not this one. Throws Error for a rank that there is not, a
  // message that is too long, and one request too many.
  Request send(int to, std::span<const std::byte> message);
  Request receive(int from, std::span<std::byte> message);
  // Once for each request, in any order. `patient`: without using the core, where that is possible.
  void wait(Request request, Deadline deadline, bool patient = false);

  // From any thread: every wait, now and later, ends in an Error that says this. The first reason
  // counts.
  void interrupt(std::string_view reason);
  // Gives up what is under way; every later call is refused. The destructor alone leaves to the
  // others what was sent before.
  void close() noexcept;

 protected:
  // What a request asks for, as long as it is not waited for.
  struct Operation {
    int peer = 0;
    bool is_send = false;
    const std::byte* source = nullptr;  // of a send
    std::byte* target = nullptr;        // of a receive
    std::size_t bytes = 0;
  };

  explicit Transport(const TransportOptions& options);

  const AxisGroup& group() const { return group_; }

  // What a transport supplies. begin() starts what operation(slot) asks for; finish() waits for it,
  // and looks at check_interrupted() again whenever wake() was called, which may be at any time and
  // from any thread. stop(): nothing is written any more to what operations name.
  virtual void begin(std::uint32_t slot) = 0;
  virtual void finish(std::uint32_t slot, const Deadline& deadline, bool patient) = 0;
  virtual void wake() = 0;
  virtual void stop() noexcept = 0;

  const Operation& operation(std::uint32_t slot) const { return entries_[slot].operation; }
  bool has_failed() const { return failure_ != nullptr; }
  void check_interrupted() const {
    if (interrupted_) throw Error(reason_);
  }
  // "rank 2 sent 64 bytes where rank 0 expects 128"
  [[noreturn]] void fail_by_size(std::uint32_t slot, std::size_t sent) const;
  // "rank 2 (process 4711) has ended before it sent 64 bytes to rank 0": `what` it did
  [[noreturn]] void fail_by_peer(std::uint32_t slot, std::string_view what) const;
  void check_deadline(std::uint32_t slot, const Deadline& deadline) const;

 private:
  struct Entry {
    Operation operation;
    std::uint32_t serial = 0;  // counts its uses
  };

  Request add(const Operation& operation);
  // Remembers the error that is being handled, for all later calls.
  [[noreturn]] void end_by_current_error();

  int rank_, size_;
  AxisGroup group_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> free_;  // slots
  std::exception_ptr failure_;
  std::mutex interrupting_;
  std::string reason_;
  std::atomic<bool> interrupted_ = false;
};

// "shm": memory that the ranks of one machine share. "gloo": TCP. "mpi": whatever MPI chooses;
// for processes that mpirun has started. Collective: returns when all ranks have come. Throws Error
// for another name, or where one of the ranks does not come before the deadline.
std::unique_ptr<Transport> make_transport(std::string_view name, const TransportOptions& options,
                                          StoreClient& store, Deadline deadline);

}  // namespace concord::net
