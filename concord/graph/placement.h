// Placement: what the ranks along one axis of the mesh hold of a tensor (docs/placement.md). The
// same idea as OneFlow's SBP (Yuan et al. 2021), GSPMD's shardings (Xu et al. 2021) and DTensor's.
//
// A split cuts a dim into as many equal parts as there are ranks, and rank r has the r-th. Where
// the dim holds several things side by side, it is made of *sections*, and each of them is cut so:
// the heads of queries, keys and values that one projection gives, of which each rank needs some of
// each; or the positions of several samples in one dim of rows.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "concord/tensor/shape.h"

namespace concord {

struct Placement {
  enum class Kind : std::uint8_t {
    kReplicate,  // each of them all of it
    kSplit,      // each of them a part, cut along `dim`
    kPartial,    // each of them a summand: the tensor is their sum
  };
  // A dim before the first, which the graph does not show: each rank has a tensor of its own. Those
  // of a microbatch have it along the axis "data", where a rank computes some leaves of the batch.
  static constexpr int kLeaves = -1;
  // All dims as one: the numbers of a tensor in the order in which they lie in memory, whatever its
  // layout. Rank r has the r-th `flat_part` of them; where they end before, zeros.
  static constexpr int kFlat = -2;

  Kind kind = Kind::kReplicate;
  int dim = 0;  // of kSplit
  // Of kSplit: one number says how many sections there are, of equal size; several, how large each
  // is beside the others.
  std::vector<std::int64_t> sections = {1};

  static Placement replicate() { return {}; }
  static Placement split(int dim, std::vector<std::int64_t> sections = {1});
  static Placement partial() { return {Kind::kPartial}; }
  bool is_replicate() const { return kind == Kind::kReplicate; }
  bool is_partial() const { return kind == Kind::kPartial; }
  bool is_split() const { return kind == Kind::kSplit; }
  bool is_split(int d) const { return kind == Kind::kSplit && dim == d; }
  friend bool operator==(const Placement&, const Placement&) = default;
};

// "Replicate", "Partial(sum)", "Split(1)", "Split(1, 3 sections)", "Split(0, 4:1:1)",
// "Split(leaves)", "Split(flat)".
std::string to_string(const Placement& placement);

// Whether each section of a dim of this extent falls into so many equal parts.
bool divides(std::int64_t extent, const Placement& split, int ranks);
// The same of a tensor's dim; true of placements that cut nothing.
bool divides(const Shape& shape, const Placement& placement, int ranks);

// What one of so many ranks holds of a tensor of this shape. The placement divides it.
Shape shard_shape(const Shape& shape, const Placement& placement, int ranks);
// The other way round.
Shape whole_shape(const Shape& shard, const Placement& placement, int ranks);

// How many of so many numbers each rank has of them where they are split flat: a whole number of
// runs, so that whoever adds up something run by run finds the same runs.
inline constexpr std::int64_t kFlatRun = 256;
std::int64_t flat_part(std::int64_t stored_elements, int ranks);

// Indices [begin, end) of a dim.
struct Range {
  std::int64_t begin = 0, end = 0;
  friend bool operator==(const Range&, const Range&) = default;
};

// What rank `index` of so many holds of a dim of this extent, in order: one range of each section.
std::vector<Range> ranges_of(std::int64_t extent, const Placement& split, int ranks, int index);

}  // namespace concord
