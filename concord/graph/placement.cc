#include "concord/graph/placement.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "concord/base/error.h"

namespace concord {
namespace {

// The sections of a dim of this extent, in order; empty where they do not fit it.
std::vector<Range> sections_of(std::int64_t extent, const std::vector<std::int64_t>& sections) {
  const bool equal = sections.size() == 1;
  const std::int64_t units =
      equal ? sections[0] : std::reduce(sections.begin(), sections.end(), std::int64_t{0});
  if (units < 1 || extent % units != 0) return {};
  std::vector<Range> result;
  std::int64_t begin = 0;
  for (std::int64_t i = 0; i < (equal ? units : std::ssize(sections)); ++i) {
    const std::int64_t size =
        (equal ? 1 : sections[static_cast<std::size_t>(i)]) * (extent / units);
    result.push_back({begin, begin + size});
    begin += size;
  }
  return result;
}

}  // namespace

// Equal sections are counted, and sizes have no common divisor: so one split has one form.
Placement Placement::split(int dim, std::vector<std::int64_t> sections) {
  for (const std::int64_t section : sections) CONCORD_CHECK(section >= 1);
  CONCORD_CHECK(!sections.empty());
  if (sections.size() > 1) {
    std::int64_t divisor = 0;
    for (const std::int64_t section : sections) divisor = std::gcd(divisor, section);
    for (std::int64_t& section : sections) section /= divisor;
    const bool equal = std::ranges::all_of(sections, [](std::int64_t s) { return s == 1; });
    if (equal) sections = {std::ssize(sections)};
  }
  return {Kind::kSplit, dim, std::move(sections)};
}

std::string to_string(const Placement& placement) {
  if (placement.is_replicate()) return "Replicate";
  if (placement.is_partial()) return "Partial(sum)";
  if (placement.dim == Placement::kLeaves) return "Split(leaves)";
  if (placement.dim == Placement::kFlat) return "Split(flat)";
  const std::vector<std::int64_t>& sections = placement.sections;
  if (sections.size() > 1) {
    return fmt::format("Split({}, {})", placement.dim, fmt::join(sections, ":"));
  }
  if (sections[0] == 1) return fmt::format("Split({})", placement.dim);
  return fmt::format("Split({}, {} sections)", placement.dim, sections[0]);
}

bool divides(std::int64_t extent, const Placement& split, int ranks) {
  const std::vector<std::int64_t>& sections = split.sections;
  const std::int64_t units = std::reduce(sections.begin(), sections.end(), std::int64_t{0});
  if (extent % units != 0 || extent == 0) return false;
  if (sections.size() == 1) return extent / units % ranks == 0;
  return std::ranges::all_of(
      sections, [&](std::int64_t section) { return extent / units * section % ranks == 0; });
}

bool divides(const Shape& shape, const Placement& placement, int ranks) {
  if (!placement.is_split() || placement.dim == Placement::kLeaves) return true;
  return placement.dim < shape.rank() && divides(shape[placement.dim], placement, ranks);
}

Shape shard_shape(const Shape& shape, const Placement& placement, int ranks) {
  if (!placement.is_split() || placement.dim == Placement::kLeaves) return shape;
  CONCORD_CHECK(divides(shape, placement, ranks), "{} of {} over {} ranks", to_string(placement),
                to_string(shape), ranks);
  return shape.with(placement.dim, shape[placement.dim] / ranks);
}

Shape whole_shape(const Shape& shard, const Placement& placement, int ranks) {
  if (!placement.is_split() || placement.dim == Placement::kLeaves) return shard;
  return shard.with(placement.dim, shard[placement.dim] * ranks);
}

std::int64_t flat_part(std::int64_t stored_elements, int ranks) {
  const std::int64_t runs = (stored_elements + kFlatRun - 1) / kFlatRun;
  return (runs + ranks - 1) / ranks * kFlatRun;
}

std::vector<Range> ranges_of(std::int64_t extent, const Placement& split, int ranks, int index) {
  CONCORD_CHECK(divides(extent, split, ranks), "{} of {} over {} ranks", to_string(split), extent,
                ranks);
  std::vector<Range> ranges = sections_of(extent, split.sections);
  for (Range& range : ranges) {
    const std::int64_t part = (range.end - range.begin) / ranks;
    range = {range.begin + index * part, range.begin + (index + 1) * part};
  }
  return ranges;
}

}  // namespace concord
