#include "concord/net/transport.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "concord/base/text.h"
#include "concord/net/gloo_transport.h"
#include "concord/net/mpi_transport.h"
#include "concord/net/shared_memory_transport.h"

namespace concord::net {

Transport::Transport(const TransportOptions& options)
    : rank_(options.rank), size_(options.size), group_(options.group), entries_(kMostRequests) {
  for (std::uint32_t slot = kMostRequests; slot-- > 0;) free_.push_back(slot);
}

Request Transport::send(int to, std::span<const std::byte> message) {
  return add({.peer = to, .is_send = true, .source = message.data(), .bytes = message.size()});
}

Request Transport::receive(int from, std::span<std::byte> message) {
  return add({.peer = from, .target = message.data(), .bytes = message.size()});
}

Request Transport::add(const Operation& operation) {
  if (failure_) std::rethrow_exception(failure_);
  if (operation.peer < 0 || operation.peer >= size_ || operation.peer == rank_) {
    fail("rank {} has no message for rank {}: expected another of ranks 0 to {}", rank_,
         operation.peer, size_ - 1);
  }
  if (operation.bytes > kLongestMessage) {
    fail("a message of {} bytes: expected at most {}", operation.bytes, kLongestMessage);
  }
  if (free_.empty()) {
    fail("{} messages are under way: expected some to be waited for before the next",
         kMostRequests);
  }
  const std::uint32_t slot = free_.back();
  entries_[slot].operation = operation;
  try {
    check_interrupted();
    begin(slot);
  } catch (...) {
    end_by_current_error();
  }
  free_.pop_back();
  return {slot, ++entries_[slot].serial};
}

void Transport::wait(Request request, Deadline deadline, bool patient) {
  if (failure_) std::rethrow_exception(failure_);
  Entry& entry = entries_[request.slot];
  CONCORD_CHECK(entry.serial == request.serial, "a request that was waited for");
  try {
    check_interrupted();
    finish(request.slot, deadline, patient);
  } catch (...) {
    end_by_current_error();
  }
  ++entry.serial;
  free_.push_back(request.slot);
}

void Transport::end_by_current_error() {
  // An interruption may show itself in other errors first.
  failure_ = interrupted_ ? std::make_exception_ptr(Error(reason_)) : std::current_exception();
  std::rethrow_exception(failure_);
}

void Transport::interrupt(std::string_view reason) {
  {
    const std::lock_guard lock(interrupting_);
    if (interrupted_) return;
    reason_ = reason;
    interrupted_ = true;
  }
  wake();
}

void Transport::close() noexcept {
  if (!failure_) failure_ = std::make_exception_ptr(Error("the transport is closed"));
  stop();
}

void Transport::fail_by_size(std::uint32_t slot, std::size_t sent) const {
  const Operation& asked = operation(slot);
  fail("rank {} sent {} bytes where rank {} expects {}", in_job(asked.peer), sent, in_job(rank_),
       asked.bytes);
}

void Transport::fail_by_peer(std::uint32_t slot, std::string_view what) const {
  const Operation& asked = operation(slot);
  throw PeerError(in_job(asked.peer), PeerError::Kind::kEnded,
                  fmt::format("rank {} {} before it {} {} bytes {} rank {}", in_job(asked.peer),
                              what, asked.is_send ? "took" : "sent", asked.bytes,
                              asked.is_send ? "from" : "to", in_job(rank_)));
}

void Transport::check_deadline(std::uint32_t slot, const Deadline& deadline) const {
  if (!deadline.has_passed()) return;
  const Operation& asked = operation(slot);
  throw PeerError(
      in_job(asked.peer), PeerError::Kind::kLate,
      fmt::format("rank {} did not {} {} bytes {} rank {} within {:.3g} s", in_job(asked.peer),
                  asked.is_send ? "take" : "send", asked.bytes, asked.is_send ? "from" : "to",
                  in_job(rank_), deadline.seconds_given()));
}

std::unique_ptr<Transport> make_transport(std::string_view name, const TransportOptions& options,
                                          StoreClient& store, Deadline deadline) {
  if (options.size < 1 || options.rank < 0 || options.rank >= options.size) {
    fail("rank {} of {}: expected a rank from 0 on, and at least 1", options.rank, options.size);
  }
  using Make = std::unique_ptr<Transport> (*)(const TransportOptions&, StoreClient&, Deadline);
  constexpr struct {
    std::string_view name;
    Make make;
  } kKnown[] = {{"shm", make_shared_memory_transport},
                {"gloo", make_gloo_transport},
                {"mpi", make_mpi_transport}};
  std::vector<std::string_view> names;
  for (const auto& known : kKnown) {
    if (known.name == name) return known.make(options, store, deadline);
    names.push_back(known.name);
  }
  fail("{} is no transport: expected one of {}", quote(name), fmt::join(names, ", "));
}

}  // namespace concord::net
