#include "concord/graph/mesh.h"

#include <fmt/core.h>

#include <algorithm>

namespace concord {

int Mesh::ranks() const {
  int product = 1;
  for (const MeshAxis& axis : axes) product *= axis.extent;
  return product;
}

int Mesh::extent(std::string_view axis) const {
  const auto found = std::ranges::find(axes, axis, &MeshAxis::name);
  return found == axes.end() ? 1 : found->extent;
}

int Mesh::coordinate(int rank, std::string_view axis) const {
  int stride = 1;  // of ranks between neighbours
  for (auto a = axes.rbegin(); a != axes.rend(); ++a) {
    if (a->name == axis) return rank / stride % a->extent;
    stride *= a->extent;
  }
  return 0;
}

std::vector<int> Mesh::ranks_along(int rank, std::string_view axis) const {
  int stride = 1;  // of ranks between neighbours
  for (auto a = axes.rbegin(); a != axes.rend() && a->name != axis; ++a) stride *= a->extent;
  std::vector<int> ranks;
  const int first = rank - coordinate(rank, axis) * stride;
  for (int i = 0; i < extent(axis); ++i) ranks.push_back(first + i * stride);
  return ranks;
}

std::string to_string(const Mesh& mesh) {
  std::string text;
  for (const MeshAxis& axis : mesh.axes) {
    text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", axis.name, axis.extent);
  }
  return "{" + text + "}";
}

}  // namespace concord
