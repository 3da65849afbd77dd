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

namespace {

// Ranks between neighbours along an axis; 0 where there is none.
int stride_of(const Mesh& mesh, std::string_view axis) {
  int stride = 1;
  for (auto a = mesh.axes.rbegin(); a != mesh.axes.rend(); ++a) {
    if (a->name == axis) return stride;
    stride *= a->extent;
  }
  return 0;
}

}  // namespace

int Mesh::coordinate(int rank, std::string_view axis) const {
  const int stride = stride_of(*this, axis);
  return stride == 0 ? 0 : rank / stride % extent(axis);
}

int Mesh::first_along(int rank, std::string_view axis) const {
  return rank - coordinate(rank, axis) * stride_of(*this, axis);
}

std::vector<int> Mesh::ranks_along(int rank, std::string_view axis) const {
  std::vector<int> ranks;
  for (int i = 0; i < extent(axis); ++i) {
    ranks.push_back(first_along(rank, axis) + i * stride_of(*this, axis));
  }
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
