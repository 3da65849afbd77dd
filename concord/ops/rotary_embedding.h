// Rotary position embedding (Su et al. 2021).
#pragma once

#include "concord/graph/builder.h"

namespace concord::ops {

struct RotaryOptions {
  double base = 10000;              // the paper's
  std::int64_t first_position = 0;  // of each sequence
  std::int64_t heads = 0;           // turned; those after them stay as they are. 0: all
  // i64 []: added to first_position, where that is known only when the graph runs.
  ValueId position = kNoValue;
};

// x is [N, T, H, D], D even: H heads at each of T positions, counted from `first_position`, of N
// sequences. The D channels of a head at position t are D / 2 points in the plane, of channels i
// and i + D / 2 (as in GPT-NeoX and Llama; the paper pairs neighbours), and each is turned by its
// angle:
//
//   y_i         = x_i cos a - x_(i + D / 2) sin a
//   y_(i + D/2) = x_i sin a + x_(i + D / 2) cos a      with a = t base^(-2 i / D)
//
// So the scalar product of a query and a key depends on the distance of their positions. Of what
// packed_attention takes, the heads of q and k are turned and those of v are not.
ValueId rotary_embedding(GraphBuilder& builder, ValueId x, const RotaryOptions& options = {});

}  // namespace concord::ops
