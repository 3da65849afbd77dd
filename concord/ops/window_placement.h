// Placement of what slides a window over images (ops/window.h): a rank that has a strip of the
// image computes the windows that begin there, with what they reach of its neighbours' strips.
#pragma once

#include <optional>

#include "concord/graph/op.h"
#include "concord/ops/window.h"

namespace concord::ops {

// What a strip of x needs of the strips before and after it, in indices of the dim.
struct Halo {
  std::int64_t before = 0, after = 0;
};

// Of x split along dim `dim` (2 or 3) and y alike, both whole. Nothing where the windows do not
// begin at equal distances in every strip, or reach beyond a neighbour's.
std::optional<Halo> halo_of(const Window2d& window, const Shape& x, const Shape& y, int dim,
                            int ranks);

// Bytes that a rank sends to give its neighbours these.
double halo_bytes(const TensorType& x, int dim, const Halo& halo);

// The attributes with one of the two extents of an attribute replaced: that of dim 2 or 3.
Attributes with_extent(Attributes attributes, std::string_view name, int dim, std::int64_t extent);

}  // namespace concord::ops
