// What a process that is one rank of a job has to know to find the others. It is handed over in the
// environment: CONCORD_RANK, CONCORD_RANKS, CONCORD_STORE ("host:port") and CONCORD_SECRET.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "concord/net/secret.h"
#include "concord/net/socket.h"

namespace concord::net {

struct Member {
  int rank = 0;
  int size = 1;
  Endpoint store;
  Secret secret;

  // What this process is; nullopt where the environment names no job. Throws Error for variables
  // that are missing or make no sense. Processes that this one starts do not inherit the secret.
  static std::optional<Member> from_environment();
  // As "NAME=value".
  std::vector<std::string> to_environment() const;
};

}  // namespace concord::net
