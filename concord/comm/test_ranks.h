// Ranks as threads of this process: for tests of what they do together.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "concord/base/parallel.h"
#include "concord/comm/join.h"

namespace concord::comm {

// Calls body(ranks) on each of `size` ranks, which compute with one thread each. What one throws
// is a failure of the test.
inline void run_ranks(const std::string& transport, int size,
                      const std::function<void(Communicator&)>& body) {
  const net::Secret secret = net::Secret::random();
  const net::StoreServer server(secret, {"127.0.0.1", 0});
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([&, rank] {
      set_compute_threads(1);
      try {
        constexpr double kSeconds = 60;
        net::StoreClient store(secret, server.endpoint(), Deadline::in(kSeconds));
        const auto communicator =
            join({.rank = rank, .size = size, .timeout_seconds = kSeconds, .transport = transport},
                 store);
        try {
          body(*communicator);
        } catch (const Error& error) {
          communicator->abort(error.what());
          throw;
        }
      } catch (const Error& error) {
        ADD_FAILURE() << "rank " << rank << ": " << error.what();
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

}  // namespace concord::comm
