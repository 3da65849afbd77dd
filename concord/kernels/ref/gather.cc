#include <limits>

#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

// x seen as [outer, extent of the dim, inner], y as [outer, number of indices, inner].
struct Gather {
  std::int64_t outer = 1, extent = 0, inner = 1;
  std::int64_t first = 0, whole_extent = 0;  // of a part of the dim

  Gather(const Shape& x, const Attributes& attributes) {
    const std::int64_t dim = attributes.integer("dim");
    for (int d = 0; d < x.rank(); ++d) {
      if (d < dim) outer *= x[d];
      if (d == dim) extent = x[d];
      if (d > dim) inner *= x[d];
    }
    const bool is_part = attributes.has("first");
    first = is_part ? attributes.integer("first") : 0;
    whole_extent = is_part ? attributes.integer("whole_extent") : extent;
  }

  // Calls visit(element of y, element of x); in place of the latter -1 where the index is outside
  // of the whole dim, -2 where another part has it.
  template <typename Visit>
  void for_each(const Call& c, Visit visit) const {
    const Array& indices = c.in(1);
    const std::int64_t count = indices.shape.elements();
    const bool from_end = c.node.attributes.integer("negative_from_end") != 0;
    for (std::int64_t y = 0; y < outer * count * inner; ++y) {
      auto index = static_cast<std::int64_t>(indices[y / inner % count]);
      if (from_end && index < 0) index += whole_extent;
      const bool outside = index < 0 || index >= whole_extent;
      index -= first;
      const bool has = !outside && index >= 0 && index < extent;
      visit(y, has ? (y / inner / count * extent + index) * inner + y % inner : outside ? -1 : -2);
    }
  }
};

const RegisterKernel gather{
    "gather", [](const Call& c) {
      const Gather gather(c.in(0).shape, c.node.attributes);
      const double outside = gather.first == 0 ? std::numeric_limits<double>::quiet_NaN() : 0.0;
      gather.for_each(c, [&](auto y, auto x) {
        c.out(0)[y] = x >= 0 ? c.in(0)[x] : x == -1 ? outside : 0.0;
      });
    }};

const RegisterKernel gather_backward{
    "gather_backward", [](const Call& c) {
      Gather(c.out(0).shape, c.node.attributes).for_each(c, [&](auto y, auto x) {
        if (x >= 0) c.out(0)[x] += c.in(0)[y];
      });
    }};

}  // namespace
}  // namespace concord::ref
