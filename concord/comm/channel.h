// Channel: messages between ranks that are in the same operation, over a transport.
//
// Before anything else of an operation goes from one rank to another there goes a *greeting*: which
// operation it is, and what little the algorithm has to say (the nodes of a tree sum, the flags of
// an agreement). So ranks that are in different operations find out before they read each other's
// numbers.
//
// Used by one thread at a time.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "concord/base/deadline.h"
#include "concord/base/error.h"
#include "concord/comm/operation.h"
#include "concord/net/transport.h"

namespace concord::comm {

struct Greeting {
  static constexpr std::size_t kMostNodes = 64;  // more than twice the levels of any tree

  Call call;
  std::uint32_t flags = 0;
  std::uint32_t node_count = 0;
  std::array<Subtree, kMostNodes> nodes;

  std::span<const Subtree> known_nodes() const { return std::span(nodes).first(node_count); }
};

// What another rank said in its greeting does not fit.
class Disagreement : public Error {
 public:
  using Error::Error;
};

class Channel {
 public:
  Channel(net::Transport& transport, double timeout_seconds);

  int rank() const { return transport_.rank(); }
  int size() const { return transport_.size(); }

  // Begins an operation. `patient`: waits without using the core.
  void begin(const Call& call, bool patient);
  // Says so to another rank, before anything is sent to it. Only the first time counts.
  void greet(int to, std::span<const Subtree> nodes = {}, std::uint32_t flags = 0);
  // Its greeting, which is waited for. Throws Disagreement.
  const Greeting& meet(int from);
  // Begins to send to a rank that was greeted, or to receive from one that was met. Of any length.
  void send(int to, std::span<const std::byte> bytes);
  void receive(int from, std::span<std::byte> bytes);
  // For all that was begun. Throws as Transport::wait does.
  void wait_all();
  // Bytes of all that was sent so far, greetings apart. From any thread.
  std::uint64_t sent() const { return sent_.load(std::memory_order_relaxed); }

 private:
  struct Peer {
    Greeting out, in;
    bool is_greeted = false, is_met = false;  // in this operation
  };

  void add(net::Request request);
  void wait(net::Request request) { transport_.wait(request, deadline_, patient_); }

  net::Transport& transport_;
  double timeout_seconds_;
  Call call_{};
  bool patient_ = false;
  Deadline deadline_ = Deadline::never();
  std::vector<Peer> peers_;
  std::vector<net::Request> pending_;
  std::atomic<std::uint64_t> sent_ = 0;
};

}  // namespace concord::comm
