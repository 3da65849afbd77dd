// What every transport must do, as the part of one rank in it: for tests, which run the ranks as
// threads and as processes. What is not as it should be throws Error.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "concord/base/error.h"
#include "concord/net/transport.h"

namespace concord::net {

using Bytes = std::vector<std::byte>;

// The message number `index` from one rank to another: all are different.
inline Bytes test_message(int from, int to, int index, std::size_t bytes) {
  Bytes message(bytes);
  auto state = static_cast<std::uint32_t>((from * 131 + to) * 8191 + index);
  for (std::byte& byte : message) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<std::byte>(state >> 24);
  }
  return message;
}

// This rank and each of `others` send each other messages of these lengths, all at once; what comes
// is waited for from the last on.
inline void exchange(Transport& transport, const std::vector<int>& others,
                     const std::vector<std::size_t>& lengths) {
  const Deadline deadline = Deadline::in(60);
  struct Letter {
    int peer, index;
    Bytes bytes;
    Request request;
  };
  std::vector<Letter> sent, received;
  for (const int other : others) {
    for (int index = 0; index < static_cast<int>(lengths.size()); ++index) {
      const std::size_t length = lengths[static_cast<std::size_t>(index)];
      Letter& out = sent.emplace_back(
          Letter{other, index, test_message(transport.rank(), other, index, length), {}});
      out.request = transport.send(other, out.bytes);
      Letter& in = received.emplace_back(Letter{other, index, Bytes(length), {}});
      in.request = transport.receive(other, in.bytes);
    }
  }
  std::ranges::reverse(received);
  for (Letter& letter : received) {
    transport.wait(letter.request, deadline);
    const Bytes expected =
        test_message(letter.peer, transport.rank(), letter.index, letter.bytes.size());
    if (letter.bytes != expected) {
      fail("message {} from rank {} to rank {}, of {} bytes, is another", letter.index, letter.peer,
           transport.rank(), letter.bytes.size());
    }
  }
  for (const Letter& letter : sent) transport.wait(letter.request, deadline);
}

inline std::vector<int> all_others(const Transport& transport) {
  std::vector<int> others;
  for (int r = 0; r < transport.size(); ++r) {
    if (r != transport.rank()) others.push_back(r);
  }
  return others;
}

inline void exchange_many_lengths(Transport& transport) {
  for (int round = 0; round < 3; ++round) {
    exchange(transport, all_others(transport), {0, 1, 4096, 3, 70'001, 0, 8, 300'000, 4095});
  }
}

inline void exchange_long_messages(Transport& transport) {
  const int size = transport.size(), rank = transport.rank();
  std::vector<int> beside = {(rank + 1) % size, (rank + size - 1) % size};
  if (size == 2) beside.pop_back();
  if (size > 1) exchange(transport, beside, {3 * 1024 * 1024 + 3});
}

// As many as can be under way, and one more.
inline void exchange_as_many_as_allowed(Transport& transport) {
  const std::vector<int> others = all_others(transport);
  if (others.empty()) return;
  const std::size_t each = Transport::kMostRequests / 2 / others.size();
  exchange(transport, others, std::vector<std::size_t>(each, 11));
}

// A token goes round.
inline void pass_round(Transport& transport) {
  const int size = transport.size(), rank = transport.rank();
  if (size == 1) return;
  Bytes token(8);
  for (int round = 0; round < 50; ++round) {
    const Deadline deadline = Deadline::in(60);
    if (rank > 0) transport.wait(transport.receive(rank - 1, token), deadline);
    token[0] = static_cast<std::byte>(static_cast<int>(token[0]) + 1);
    transport.wait(transport.send((rank + 1) % size, token), deadline);
    if (rank == 0) transport.wait(transport.receive(size - 1, token), deadline);
  }
  if (rank == 0 && token[0] != static_cast<std::byte>(50 * size)) fail("the token was lost");
}

inline const std::map<std::string, void (*)(Transport&)>& conformance() {
  static const std::map<std::string, void (*)(Transport&)> all = {
      {"many lengths", exchange_many_lengths},
      {"long messages", exchange_long_messages},
      {"as many as allowed", exchange_as_many_as_allowed},
      {"a token goes round", pass_round}};
  return all;
}

}  // namespace concord::net
