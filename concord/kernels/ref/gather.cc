#include <limits>

#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

// x seen as [outer, extent of the dim, inner], y as [outer, number of indices, inner].
struct Gather {
  std::int64_t outer = 1, extent = 0, inner = 1;

  Gather(const Shape& x, std::int64_t dim) {
    for (int d = 0; d < x.rank(); ++d) {
      if (d < dim) outer *= x[d];
      if (d == dim) extent = x[d];
      if (d > dim) inner *= x[d];
    }
  }

  // Calls visit(element of y, element of x, or -1 where the index is outside of the dim).
  template <typename Visit>
  void for_each(const Call& c, Visit visit) const {
    const Array& indices = c.in(1);
    const std::int64_t count = indices.shape.elements();
    const bool from_end = c.node.attributes.integer("negative_from_end") != 0;
    for (std::int64_t y = 0; y < outer * count * inner; ++y) {
      auto index = static_cast<std::int64_t>(indices[y / inner % count]);
      if (from_end && index < 0) index += extent;
      const bool inside = index >= 0 && index < extent;
      visit(y, inside ? (y / inner / count * extent + index) * inner + y % inner : -1);
    }
  }
};

const RegisterKernel gather{
    "gather", [](const Call& c) {
      Gather(c.in(0).shape, c.node.attributes.integer("dim")).for_each(c, [&](auto y, auto x) {
        c.out(0)[y] = x == -1 ? std::numeric_limits<double>::quiet_NaN() : c.in(0)[x];
      });
    }};

const RegisterKernel gather_backward{
    "gather_backward", [](const Call& c) {
      Gather(c.out(0).shape, c.node.attributes.integer("dim")).for_each(c, [&](auto y, auto x) {
        if (x != -1) c.out(0)[x] += c.in(0)[y];
      });
    }};

}  // namespace
}  // namespace concord::ref
