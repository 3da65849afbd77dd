// What a process that is one rank of a job has to know to find the others. `concord launch` hands
// it over in the environment: CONCORD_RANK, CONCORD_RANKS, CONCORD_STORE ("host:port", or several
// with commas between, of which one answers) and CONCORD_SECRET. Rank 0 may get CONCORD_TERMINAL, a
// descriptor of the terminal on which its standard error is shown.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "concord/net/secret.h"
#include "concord/net/socket.h"

namespace concord::net {

struct Member {
  int rank = 0;
  int size = 1;
  std::vector<Endpoint> store;
  Secret secret;

  // What this process is; nullopt where the environment has no CONCORD_RANK. Throws Error for
  // variables that are missing or make no sense. Processes that this one starts do not inherit the
  // secret.
  static std::optional<Member> from_environment();
  // As "NAME=value". `terminal`: a descriptor, -1 for none.
  std::vector<std::string> to_environment(int terminal = -1) const;
  // Whether a "NAME=value" is one of these variables.
  static bool is_variable(std::string_view variable);
};

// "host:port", or several with commas between. Throws Error that names `source`.
std::vector<Endpoint> parse_endpoints(const std::string& text, std::string_view source);
std::string to_string(const std::vector<Endpoint>& endpoints);

// The terminal that shows what this process writes to standard error: a descriptor, -1 for none.
int shown_on_terminal();

}  // namespace concord::net
