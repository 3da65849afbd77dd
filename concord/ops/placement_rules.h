// Placement rules that ops share (graph/op.h, PlacementSignature), and the parts to write others
// with.
#pragma once

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "concord/graph/builder.h"
#include "concord/graph/op.h"

namespace concord::ops {

using Signatures = std::vector<PlacementSignature>;

// Everything replicated: to start others from.
PlacementSignature replicated(const PlacementContext& context);
// Of an operand, inputs counted before outputs.
Placement& placement_of(PlacementSignature& signature, std::size_t operand);

// Adds a signature for each way to cut these dims of these operands alike, as (operand, dim),
// inputs counted before outputs; all other operands are replicated. `partial`: operands that are
// Partial then.
void add_splits(Signatures& signatures, const PlacementContext& context,
                const std::vector<std::pair<std::size_t, int>>& cut,
                const std::vector<std::size_t>& partial = {});

// Each output element depends on the input elements at its own place, where shapes are stretched as
// numpy does: any dim may be split.
Signatures elementwise(const PlacementContext& context);
// The same of an op that is linear in all of its inputs together: they may also be summands.
Signatures elementwise_linear(const PlacementContext& context);
// Linear in one input, while the others are replicated: that one may be a summand.
Signatures elementwise_linear_in_first(const PlacementContext& context);

// All operands Partial.
PlacementSignature all_partial(const PlacementContext& context);

// Attribute "shape" of a node that gives its output's shape: the local op's is that of its part.
std::vector<ValueId> localize_shape(LocalContext& context);

// What a rank has of output `o`.
Shape local_output_shape(const LocalContext& context, std::size_t o = 0);

// What a split of `from` is after a reshape to `to`; nothing where no dim of `to` is cut in these
// places.
std::optional<Placement> reshaped_split(const Shape& from, const Placement& split, const Shape& to);

// The outputs of the node with this op, these inputs and attributes: of one that is there already,
// or of a new one. For what the local forms of several nodes have in common, such as those of an op
// and of its gradient. All ranks must find the same: of attributes that differ between ranks, equal
// ones on one rank must be equal on all.
std::vector<ValueId> node_once(GraphBuilder& builder, std::string_view op,
                               std::vector<ValueId> inputs, Attributes attributes = {});

}  // namespace concord::ops
