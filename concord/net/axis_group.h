// Some of the ranks of a job, which have numbers of their own among them: those along an axis of
// the mesh. People are told of ranks by their numbers in the job.
#pragma once

#include <string>
#include <vector>

namespace concord::net {

struct AxisGroup {
  std::string axis = {};          // "" of all ranks
  std::vector<int> members = {};  // by number in the group, that in the job; empty: the same

  int in_job(int rank) const {
    return members.empty() ? rank : members[static_cast<std::size_t>(rank)];
  }
  // Before its keys in the store: "tensor.0/".
  std::string key() const {
    return axis.empty() ? "" : axis + "." + std::to_string(members.front()) + "/";
  }
};

}  // namespace concord::net
