#include "concord/ops/normalization_placement.h"

#include "concord/base/error.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/collective.h"
#include "concord/ops/step.h"

namespace concord::ops {
namespace {

using OperandDims = std::vector<std::pair<std::size_t, int>>;

// Rows are normalised one by one, so any dim of `x` but the last may be split, with the operands
// that have it too: those of its shape, and statistics. Gradients of parameters are sums over rows.
void add_row_splits(Signatures& found, const PlacementContext& context, std::size_t x,
                    const std::vector<std::size_t>& alike,
                    const std::vector<std::size_t>& summands) {
  for (int d = 0; d + 1 < context.input(x).rank(); ++d) {
    std::vector<std::pair<std::size_t, int>> cut = {{x, d}};
    for (const std::size_t operand : alike) cut.emplace_back(operand, d);
    add_splits(found, context, cut, summands);
  }
}

const Shape& shape_of(const PlacementContext& context, std::size_t operand) {
  return operand < context.inputs.size() ? context.input(operand)
                                         : context.output(operand - context.inputs.size());
}

std::size_t operand_count(const PlacementContext& context) {
  return context.inputs.size() + context.outputs.size();
}

// All operands by channel: those of x's shape along dim 1, vectors along their only dim.
OperandDims by_channel(const PlacementContext& context) {
  OperandDims cut;
  for (std::size_t operand = 0; operand < operand_count(context); ++operand) {
    const int rank = shape_of(context, operand).rank();
    if (rank > 0) cut.emplace_back(operand, rank == 1 ? 0 : 1);
  }
  return cut;
}

// The operands of x's shape along dim d.
OperandDims by_dim(const PlacementContext& context, int d) {
  OperandDims cut;
  for (std::size_t operand = 0; operand < operand_count(context); ++operand) {
    if (shape_of(context, operand).rank() > 1) cut.emplace_back(operand, d);
  }
  return cut;
}

// Splits of the dims that are not channels; `bytes_sent`: in statistics of channels.
void add_other_splits(Signatures& found, const PlacementContext& context,
                      const std::vector<std::size_t>& summands, double bytes_sent = 0) {
  for (int d = 0; d < context.input(0).rank(); ++d) {
    if (d == 1) continue;
    Signatures along;
    add_splits(along, context, by_dim(context, d), summands);
    for (PlacementSignature& signature : along) {
      signature.bytes_sent = bytes_sent;
      found.push_back(std::move(signature));
    }
  }
}

// Of two all_reduces of a number for each channel.
double bytes_of_statistics(const PlacementContext& context) {
  const auto bytes = static_cast<double>(context.input(0)[1]) * sizeof(float);
  return 2 * 2.0 * (context.ranks - 1) / context.ranks * bytes;
}

bool splits_channels(const LocalContext& context) {
  return context.signature.inputs[0].is_split(1);
}

std::vector<ValueId> same_node(LocalContext& context) {
  return context.builder.node(context.node.op, context.local_inputs, context.node.attributes);
}

// Of a sum over all elements of a channel, on all ranks, their mean.
class Means {
 public:
  Means(LocalContext& context, const Shape& x)
      : builder_(context.builder),
        axis_(context.axis),
        share_(static_cast<double>(x[1]) / static_cast<double>(x.elements())) {}
  ValueId sum(ValueId part) const { return all_reduce(builder_, part, axis_); }
  ValueId of_sum(ValueId sum) const { return scale(builder_, sum, share_); }

 private:
  GraphBuilder& builder_;
  AxisPlace axis_;
  double share_;
};

}  // namespace

// Of the forward ops: x before the parameters, y before the statistics.
Signatures placed_row_norm(const PlacementContext& context) {
  std::vector<std::size_t> alike;
  for (std::size_t o = 0; o < context.outputs.size(); ++o) alike.push_back(context.of_output(o));
  Signatures found;
  add_row_splits(found, context, 0, alike, {});
  return found;
}

// Of the backward ops: dy, x, gamma, the statistics; dx, then the gradients of parameters.
Signatures placed_row_norm_backward(const PlacementContext& context) {
  std::vector<std::size_t> alike = {0, context.of_output(0)};
  for (std::size_t i = 3; i < context.inputs.size(); ++i) alike.push_back(i);
  std::vector<std::size_t> summands;
  for (std::size_t o = 1; o < context.outputs.size(); ++o) summands.push_back(context.of_output(o));
  Signatures found;
  add_row_splits(found, context, 1, alike, summands);
  return found;
}

// Channels of a rank are whole groups, with the statistics of these.
Signatures placed_group_norm(const PlacementContext& context) {
  const std::size_t y = context.of_output(0);
  Signatures found;
  add_splits(found, context, {{0, 0}, {y, 0}, {y + 1, 0}, {y + 2, 0}});
  if (context.node.attributes.integer("groups") % context.ranks != 0) return found;
  const Placement channels = Placement::split(1), parameters = Placement::split(0);
  found.push_back({{channels, parameters, parameters}, {channels, channels, channels}});
  return found;
}

Signatures placed_group_norm_backward(const PlacementContext& context) {
  const std::size_t dx = context.of_output(0);
  Signatures found;
  add_splits(found, context, {{0, 0}, {1, 0}, {3, 0}, {4, 0}, {dx, 0}}, {dx + 1, dx + 2});
  if (context.node.attributes.integer("groups") % context.ranks != 0) return found;
  const Placement channels = Placement::split(1), parameters = Placement::split(0);
  found.push_back(
      {{channels, channels, parameters, channels, channels}, {channels, parameters, parameters}});
  return found;
}

std::vector<ValueId> localize_group_norm(LocalContext& context) {
  Attributes attributes = context.node.attributes;
  if (splits_channels(context)) {
    attributes.set("groups", attributes.integer("groups") / context.axis.ranks);
  }
  return context.builder.node(context.node.op, context.local_inputs, std::move(attributes));
}

Signatures placed_by_channel(const PlacementContext& context) {
  Signatures found;
  add_splits(found, context, by_channel(context));
  add_other_splits(found, context, {});
  return found;
}

Signatures placed_channel_sums(const PlacementContext& context) {
  Signatures found;
  add_splits(found, context, by_channel(context));
  std::vector<std::size_t> sums;
  for (std::size_t o = 0; o < context.outputs.size(); ++o) sums.push_back(context.of_output(o));
  add_other_splits(found, context, sums);
  return found;
}

Signatures placed_batch_norm(const PlacementContext& context) {
  Signatures found;
  add_splits(found, context, by_channel(context));
  add_other_splits(found, context, {}, bytes_of_statistics(context));
  return found;
}

Signatures placed_batch_norm_backward(const PlacementContext& context) {
  return placed_batch_norm(context);
}

// The mean of all elements first, then that of their squared distances from it.
std::vector<ValueId> localize_batch_norm(LocalContext& context) {
  if (splits_channels(context)) return same_node(context);
  GraphBuilder& b = context.builder;
  const Means means(context, context.inputs[0].shape);
  const ValueId x = context.local_inputs[0];
  const ValueId mean = means.of_sum(means.sum(b.node1("channel_sum", {x})));
  const ValueId variance = means.of_sum(means.sum(b.node1("channel_sum", {x, mean})));
  // One element's share of the batch matters for gradients alone, which are there already.
  const ValueId share = constant(b, {DType::kF32, {}}, 1);
  ValueId y = b.node1("batch_norm_over_leaves",
                      {x, context.local_inputs[1], context.local_inputs[2], mean, variance, share},
                      {{"epsilon", context.node.attributes.real("epsilon")}});
  if (context.local_inputs.size() == 4) y = add(b, y, context.local_inputs[3]);
  if (context.node.attributes.integer("relu") != 0) y = relu(b, y);
  return {y, mean, variance};
}

std::vector<ValueId> localize_batch_norm_backward(LocalContext& context) {
  if (splits_channels(context)) return same_node(context);
  GraphBuilder& b = context.builder;
  const Attributes& attributes = context.node.attributes;
  const Attributes epsilon = {{"epsilon", attributes.real("epsilon")}};
  const Means means(context, context.inputs[1].shape);
  ValueId dy = context.local_inputs[0];
  if (attributes.integer("relu") != 0) {
    dy = b.node1("relu_backward", {dy, context.local_inputs[5]});
  }
  const ValueId x = context.local_inputs[1], gamma = context.local_inputs[2];
  const ValueId mean = context.local_inputs[3], variance = context.local_inputs[4];
  const std::vector<ValueId> sums =
      b.node("batch_norm_over_leaves_sums", {dy, x, mean, variance}, epsilon);
  const ValueId dgamma = means.sum(sums[0]), dbeta = means.sum(sums[1]);
  const ValueId dx =
      b.node1("batch_norm_over_leaves_backward",
              {dy, x, gamma, mean, variance, means.of_sum(dgamma), means.of_sum(dbeta)}, epsilon);
  std::vector<ValueId> outputs = {dx, dgamma, dbeta};
  if (attributes.integer("adds") != 0) outputs.push_back(dy);
  return outputs;
}

}  // namespace concord::ops
