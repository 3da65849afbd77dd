// Placement: what the ranks along one axis of a mesh hold of a tensor.
#pragma once

#include <string>

namespace concord {

struct Placement {
  enum class Kind {
    kReplicate,  // each of them all of it
    kSplit,      // each of them a part, cut along `dim`
    kPartial,    // each of them a summand: the tensor is their sum
  };
  // Tensors of a microbatch have the leaves of the batch as a dim before the first, which the graph
  // does not show: a rank computes some leaves.
  static constexpr int kLeaves = -1;

  Kind kind = Kind::kReplicate;
  int dim = 0;  // of kSplit

  static Placement replicate() { return {}; }
  static Placement split(int dim) { return {Kind::kSplit, dim}; }
  static Placement partial() { return {Kind::kPartial, 0}; }
  friend bool operator==(const Placement&, const Placement&) = default;
};

// "Replicate", "Split(leaves)", "Split(1)", "Partial(sum)"
inline std::string to_string(const Placement& placement) {
  switch (placement.kind) {
    case Placement::Kind::kReplicate:
      return "Replicate";
    case Placement::Kind::kPartial:
      return "Partial(sum)";
    case Placement::Kind::kSplit:
      break;
  }
  const bool leaves = placement.dim == Placement::kLeaves;
  return "Split(" + (leaves ? std::string("leaves") : std::to_string(placement.dim)) + ")";
}

}  // namespace concord
