// Mesh: the ranks of a job, named by axes. {data: 4, tensor: 2} has 8 ranks, of which number 5 has
// the coordinates data = 2, tensor = 1: the last axis runs fastest.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace concord {

struct MeshAxis {
  std::string name;
  int extent = 1;
  friend bool operator==(const MeshAxis&, const MeshAxis&) = default;
};

struct Mesh {
  std::vector<MeshAxis> axes;

  int ranks() const;
  // Of the axis of this name; 1 where there is none.
  int extent(std::string_view axis) const;
  // The rank's place along the axis; 0 where there is none.
  int coordinate(int rank, std::string_view axis) const;
  // The rank that has 0 there, and all other coordinates of this one.
  int first_along(int rank, std::string_view axis) const;
  // The ranks that differ from this one along the axis alone, in the order of their coordinates.
  std::vector<int> ranks_along(int rank, std::string_view axis) const;

  friend bool operator==(const Mesh&, const Mesh&) = default;
};

// "{data: 4, tensor: 2}"
std::string to_string(const Mesh& mesh);

// One axis, seen by one of its ranks.
struct AxisPlace {
  std::string name;
  int ranks = 1;
  int index = 0;  // its place along the axis
};

}  // namespace concord
