// Rotary position embedding (Su et al. 2021).
#pragma once

#include "concord/graph/builder.h"

namespace concord::ops {

// x is [..., T, D], D even: T positions, counted from `first_position`, of each sequence and head.
// The D channels of position t are D / 2 points in the plane, of channels i and i + D / 2 (as in
// GPT-NeoX and Llama; the paper pairs neighbours), and each is turned by its angle:
//
//   y_i         = x_i cos a - x_(i + D / 2) sin a
//   y_(i + D/2) = x_i sin a + x_(i + D / 2) cos a      with a = t base^(-2 i / D)
//
// So the scalar product of a query and a key depends on the distance of their positions. The
// paper's base is 10000.
ValueId rotary_embedding(GraphBuilder& builder, ValueId x, double base,
                         std::int64_t first_position = 0);

}  // namespace concord::ops
