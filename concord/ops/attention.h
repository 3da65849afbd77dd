// Scaled dot-product attention (Vaswani et al. 2017, section 3.2) of H heads of size D:
//
//   s_tu = scale * q_t . k_u,   p_t = softmax(s_t),   o_t = sum_u p_tu v_u
//
// for T queries q [N, T, H, D] and S keys and values k, v [N, S, G, D], giving o [N, T, H, D]. G
// divides H, and each G-th part of the heads, in order, shares one head of keys and values
// (grouped-query attention, Ainslie et al. 2023). Heads stand behind positions, so that what a
// projection gives, [N, T, H D], is an operand after a reshape alone.
#pragma once

#include <array>
#include <optional>
#include <span>

#include "concord/graph/builder.h"

namespace concord::ops {

struct AttentionOptions {
  // The queries are the last T positions: query t sees the keys up to S - T + t. Needs T <= S.
  bool causal = false;
  std::optional<double> scale = std::nullopt;  // 1 / sqrt(D) where it is not given
};

struct Attention {
  ValueId o;
  ValueId logsumexp;  // ln sum_u e^s_tu, f32 [N, H, T]; kept for the gradient, has none itself
};

Attention attention(GraphBuilder& builder, ValueId q, ValueId k, ValueId v,
                    const AttentionOptions& options = {});

// The same, of one operand [N, T, H + 2 G, D] that holds the heads of q, of k and of v one after
// the other, as a single projection gives them; so has its gradient, and nothing is copied.
Attention packed_attention(GraphBuilder& builder, ValueId qkv, std::int64_t groups,
                           const AttentionOptions& options = {});

// Causal attention of a text's next queries q [N, T, H, D], the first of which stands at `position`
// (i64 [], known when the graph runs), to the keys and values of the positions so far, their own
// among them: query t sees the positions up to position + t. kv [N, S, 2 G, D] holds at each
// position the heads of keys, then those of values; what it holds after the last query's position
// is not read. Returns o [N, T, H, D]. Has no gradient.
ValueId cached_attention(GraphBuilder& builder, ValueId q, ValueId kv, ValueId position);

// For kernels: the sizes of an attention or attention_backward node, and where q, k and v are.
struct AttentionSizes {
  // Heads [first_head, first_head + H or G) of operand `index` [N, T or S, stored_heads, D].
  struct Heads {
    std::size_t index;
    std::int64_t first_head, stored_heads;
  };
  std::int64_t samples, queries, keys, heads, groups, head_size;  // N, T, S, H, G, D
  std::array<Heads, 3> qkv;

  std::int64_t group_of(std::int64_t head) const { return head / (heads / groups); }
  // How many pairs of a query and a key that it sees there are.
  double seen_pairs(bool causal) const;
};

// `operands`: the types of q, k and v, of q and kv, or of the one that holds them all. Throws Error
// where they do not fit together.
AttentionSizes attention_sizes(const Node& node, std::span<const TensorType> operands);

}  // namespace concord::ops
