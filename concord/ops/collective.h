// Collectives: ops by which the ranks along an axis of the mesh change what they hold of a tensor
// (graph/placement.h), and their local counterparts, for which a rank needs no other. They are put
// into a graph by the partitioner (parallel/partition.h), after backpropagation: none has a
// gradient. Types in a rank's graph are those of what it holds.
//
//   from        to          op
//   Partial     Replicate   all_reduce
//   Partial     Split       reduce_scatter
//   Split       Replicate   all_gather
//   Split       Split       all_to_all
//   Replicate   Split       shard            local
//   Replicate   Partial     first_summand    local
//
// Attributes, where the op has them: axis, its name; ranks, how many there are along it; index,
// this rank's place among them (local ops and neighbours alone: collectives know it); dim and
// sections, the split; to_dim and to_sections, the one that all_to_all ends with.
#pragma once

#include <string_view>

#include "concord/graph/builder.h"
#include "concord/graph/mesh.h"
#include "concord/graph/placement.h"

namespace concord::ops {

// The sum over the ranks, along the canonical tree. Attribute "maximum": 1 for the largest instead,
// where NaN is larger than any.
inline constexpr std::string_view kAllReduce = "all_reduce";
inline constexpr std::string_view kReduceScatter = "reduce_scatter";
inline constexpr std::string_view kAllGather = "all_gather";
inline constexpr std::string_view kAllToAll = "all_to_all";
// This rank's part of what it holds all of.
inline constexpr std::string_view kShard = "shard";
// What it holds all of on the first rank, zeros on the others.
inline constexpr std::string_view kFirstSummand = "first_summand";
// Of x split along dim, a rank's part with the last `before` indices of the rank before it and the
// first `after` of the one behind it; zeros beyond the ends of the dim.
inline constexpr std::string_view kHaloExchange = "halo_exchange";
// The gradient of that: what a rank holds for its neighbours is added to their parts. Attributes
// before and after as there.
inline constexpr std::string_view kHaloSum = "halo_sum";
// The sum over all leaves of what a leaf_sum, its first input, sums; but the leaves are divided
// into as many runs as there are encoders, the sum of each run is encoded, and what comes out is
// the sum of what the encodings say (comm/encoded_sum.h). Other inputs are what encoders keep from
// step to step, and other outputs what that becomes. Attributes: axis and ranks; codec, as text;
// encoders; memories, how many of the inputs are of all encoders; way, 0 where every rank decodes
// all encodings and 1 where each decodes a share and encodes the sum again, which may have a memory
// of its own; rank, of the factors of a matrix that are sent (comm/low_rank_sum.h), or 0; bits, of
// a number on its way; and stream, of the random numbers.
inline constexpr std::string_view kEncodedSum = "encoded_sum";
// A message from one rank along the axis to another, of a value as it lies in memory. A send has no
// output. A receive reads none of its input, which says to which phase it belongs. Attributes:
// axis; peer, the other's place along it; stream, by which those messages go that arrive in the
// order of their numbers; number; and, of a receive, dtype and shape.
inline constexpr std::string_view kSend = "send";
inline constexpr std::string_view kReceive = "receive";

// x, which lies `from`, placed `to`: adds the nodes of the table above, none where both are the
// same. Broken invariant for what the table does not have.
ValueId place(GraphBuilder& builder, ValueId x, const AxisPlace& axis, const Placement& from,
              const Placement& to);
ValueId all_reduce(GraphBuilder& builder, ValueId x, const AxisPlace& axis, bool maximum = false);
ValueId halo_exchange(GraphBuilder& builder, ValueId x, const AxisPlace& axis, int dim,
                      std::int64_t before, std::int64_t after);
ValueId halo_sum(GraphBuilder& builder, ValueId x, const AxisPlace& axis, int dim,
                 std::int64_t before, std::int64_t after);

// Of Placement::kFlat: a reduce_scatter, an all_gather or a shard of numbers as they lie in memory.
// Attributes of such a node: dim, kFlat; part, the numbers of each rank; index; and, of an
// all_gather, shape. An all_gather may have a second input, which it does not read: it belongs to
// the phase of that one.
bool is_flat(const Node& node);
Node flat_node(std::string_view op, ValueId x, const FlatCut& cut);

// Whether the ranks along an axis meet in the op.
bool is_collective(std::string_view op);
// Of a collective: whether it ends a leaf_sum, over the ranks along "data". The others are of what
// the graph goes on with.
bool is_of_leaf_sum(const Graph& graph, const Node& node);
// Whether it is a send or a receive.
bool is_message(std::string_view op);
// The split of a node's attributes dim and sections.
Placement split_of(const Node& node);
// The one that all_to_all ends with.
Placement second_split_of(const Node& node);

// Bytes that a rank sends in it, by the least that any algorithm can: of N ranks and B bytes of the
// whole tensor, (N-1)/N B for reduce_scatter and all_gather, twice that for all_reduce, (N-1)/N^2 B
// for all_to_all (Chan et al. 2007, table 1); of a encoded_sum, what its encodings take; 0 for
// other ops.
double bytes_sent(const Graph& graph, const Node& node);

}  // namespace concord::ops
