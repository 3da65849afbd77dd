// The name of this machine, as it is known on its network.
#pragma once

#include <unistd.h>

#include <string>

namespace concord {

inline std::string host_name() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return name;
}

}  // namespace concord
