#include "concord/comm/channel.h"

#include <algorithm>
#include <utility>

namespace concord::comm {
namespace {

// Enough for what an algorithm begins at once; some room is left for greetings.
constexpr std::size_t kMostPending = net::Transport::kMostRequests - 2;
constexpr std::size_t kPiece = std::size_t{256} << 20;  // of a message, in bytes
static_assert(kPiece <= net::Transport::kLongestMessage);

// Calls take(piece) for one after another.
template <typename Byte, typename Take>
void in_pieces(std::span<Byte> bytes, Take take) {
  while (!bytes.empty()) {
    const std::size_t size = std::min(bytes.size(), kPiece);
    take(bytes.first(size));
    bytes = bytes.subspan(size);
  }
}

}  // namespace

Channel::Channel(net::Transport& transport, double timeout_seconds)
    : transport_(transport),
      timeout_seconds_(timeout_seconds),
      peers_(static_cast<std::size_t>(transport.size())) {
  pending_.reserve(net::Transport::kMostRequests);
}

void Channel::begin(const Call& call, bool patient) {
  CONCORD_CHECK(pending_.empty(), "an operation has not waited for its messages");
  call_ = call;
  patient_ = patient;
  deadline_ = Deadline::in(timeout_seconds_);
  for (Peer& peer : peers_) peer.is_greeted = peer.is_met = false;
}

void Channel::greet(int to, std::span<const Subtree> nodes, std::uint32_t flags) {
  CONCORD_CHECK(nodes.size() <= Greeting::kMostNodes, "{} nodes of a tree sum", nodes.size());
  Peer& peer = peers_[static_cast<std::size_t>(to)];
  if (std::exchange(peer.is_greeted, true)) return;
  Greeting& out = peer.out;
  out.call = call_;
  out.flags = flags;
  out.node_count = static_cast<std::uint32_t>(nodes.size());
  std::ranges::copy(nodes, out.nodes.begin());
  add(transport_.send(to, std::as_bytes(std::span(&out, 1))));
}

const Greeting& Channel::meet(int from) {
  Peer& peer = peers_[static_cast<std::size_t>(from)];
  Greeting& in = peer.in;
  if (std::exchange(peer.is_met, true)) return in;
  wait(transport_.receive(from, std::as_writable_bytes(std::span(&in, 1))));
  const std::string why =
      disagreement(transport_.in_job(rank()), call_, transport_.in_job(from), in.call);
  if (!why.empty()) throw Disagreement(why);
  if (in.node_count > Greeting::kMostNodes) throw Disagreement("a greeting makes no sense");
  return in;
}

void Channel::send(int to, std::span<const std::byte> bytes) {
  sent_.fetch_add(bytes.size(), std::memory_order_relaxed);
  in_pieces(bytes, [&](auto piece) { add(transport_.send(to, piece)); });
}

void Channel::receive(int from, std::span<std::byte> bytes) {
  in_pieces(bytes, [&](auto piece) { add(transport_.receive(from, piece)); });
}

void Channel::add(net::Request request) {
  pending_.push_back(request);
  if (pending_.size() == kMostPending) wait_all();
}

void Channel::wait_all() {
  for (const net::Request& request : pending_) wait(request);
  pending_.clear();
}

}  // namespace concord::comm
