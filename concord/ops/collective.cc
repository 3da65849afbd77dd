#include "concord/ops/collective.h"

#include <algorithm>
#include <cmath>

#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

int ranks_of(const Node& node) { return static_cast<int>(node.attributes.integer("ranks")); }

void expect_divided(const Shape& shape, const Placement& split, int ranks) {
  if (ranks < 1 || !split.is_split() || split.dim < 0 || !divides(shape, split, ranks)) {
    fail("{} of {} does not fall into equal parts for {} ranks", to_string(split), to_string(shape),
         ranks);
  }
}

Cost moves_only(const Node&, std::span<const TensorType>, std::span<const TensorType>) {
  return {};
}

// Sums and maxima are of floating point numbers; everything else moves whatever there is.
using Infer = std::vector<TensorType> (*)(const Node&, std::span<const TensorType>);

std::vector<TensorType> infer_all_reduce(const Node& node, std::span<const TensorType> inputs) {
  expect_inputs(inputs, 1);
  if (inputs[0].dtype != DType::kI64) expect_floating(inputs[0], "a value summed over ranks");
  node.attributes.text("axis");
  return {inputs[0]};
}

// Flat parts may be longer than what is cut: its layout may have padding.
void expect_flat_parts(const Node& node, const Shape& whole) {
  const std::int64_t part = node.attributes.integer("part");
  if (part < 1 || part * ranks_of(node) < whole.elements()) {
    fail("{} numbers for each of {} ranks do not make up {}", part, ranks_of(node),
         to_string(whole));
  }
}

// From all of it to this rank's part: reduce_scatter and shard.
std::vector<TensorType> infer_part(const Node& node, std::span<const TensorType> inputs) {
  expect_inputs(inputs, 1);
  if (is_flat(node)) {
    expect_flat_parts(node, inputs[0].shape);
    return {{inputs[0].dtype, {node.attributes.integer("part")}}};
  }
  expect_divided(inputs[0].shape, split_of(node), ranks_of(node));
  return {{inputs[0].dtype, shard_shape(inputs[0].shape, split_of(node), ranks_of(node))}};
}

std::vector<TensorType> infer_all_gather(const Node& node, std::span<const TensorType> inputs) {
  if (!is_flat(node) || inputs.size() != 2) expect_inputs(inputs, 1);
  if (is_flat(node)) {
    const Shape whole(node.attributes.integers("shape"));
    expect_flat_parts(node, whole);
    if (inputs[0].shape != Shape({node.attributes.integer("part")})) {
      fail("expected a part of {} numbers, given {}", node.attributes.integer("part"),
           to_string(inputs[0]));
    }
    return {{inputs[0].dtype, whole}};
  }
  const Shape whole = whole_shape(inputs[0].shape, split_of(node), ranks_of(node));
  expect_divided(whole, split_of(node), ranks_of(node));
  return {{inputs[0].dtype, whole}};
}

std::vector<TensorType> infer_all_to_all(const Node& node, std::span<const TensorType> inputs) {
  const std::vector<TensorType> whole = infer_all_gather(node, inputs);
  const Placement to = second_split_of(node);
  expect_divided(whole[0].shape, to, ranks_of(node));
  return {{inputs[0].dtype, shard_shape(whole[0].shape, to, ranks_of(node))}};
}

// `sign`: 1 where the neighbours' parts are added to the extent, -1 where they are taken off.
template <int sign>
std::vector<TensorType> infer_halo(const Node& node, std::span<const TensorType> inputs) {
  expect_inputs(inputs, 1);
  expect_floating(inputs[0], "what neighbours exchange");
  const int dim = checked_dim(inputs[0].shape, node.attributes.integer("dim"));
  const std::int64_t before = node.attributes.integer("before");
  const std::int64_t after = node.attributes.integer("after");
  const std::int64_t extent = inputs[0].shape[dim];
  const std::int64_t own = sign > 0 ? extent : extent - before - after;
  if (before < 0 || after < 0 || own < std::max(before, after)) {
    fail("{} and {} indices of neighbours in dim {} of {}: expected at most a neighbour's part",
         before, after, dim, to_string(inputs[0].shape));
  }
  return {{inputs[0].dtype, inputs[0].shape.with(dim, extent + sign * (before + after))}};
}

std::vector<TensorType> infer_encoded_sum(const Node& node, std::span<const TensorType> inputs) {
  if (inputs.empty() || inputs[0].dtype != DType::kF32) fail("encoders take f32 numbers");
  if (node.attributes.integer("encoders") % ranks_of(node) != 0) {
    fail("{} encoders are not equally many for each of {} ranks",
         node.attributes.integer("encoders"), ranks_of(node));
  }
  return {inputs.begin(), inputs.end()};
}

Op moving(std::string_view name, Infer infer) {
  return {.name = std::string(name), .infer = infer, .cost = moves_only, .bf16 = follows_bf16()};
}

const RegisterOp all_reduce_op{
    {.name = std::string(kAllReduce), .infer = infer_all_reduce, .bf16 = follows_bf16()}};
const RegisterOp reduce_scatter_op{
    {.name = std::string(kReduceScatter), .infer = infer_part, .bf16 = follows_bf16()}};
const RegisterOp all_gather_op{moving(kAllGather, infer_all_gather)};
const RegisterOp all_to_all_op{moving(kAllToAll, infer_all_to_all)};
const RegisterOp shard_op{moving(kShard, infer_part)};
const RegisterOp halo_exchange_op{moving(kHaloExchange, infer_halo<1>)};
const RegisterOp halo_sum_op{moving(kHaloSum, infer_halo<-1>)};
const RegisterOp encoded_sum_op{moving(kEncodedSum, infer_encoded_sum)};
const RegisterOp send_op{{
    .name = std::string(kSend),
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      return {};
    },
    .cost = moves_only,
}};
const RegisterOp receive_op{{
    .name = std::string(kReceive),
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      return {
          {dtype_named(node.attributes.text("dtype")), Shape(node.attributes.integers("shape"))}};
    },
    .cost = moves_only,
}};
const RegisterOp first_summand_op{{
    .name = std::string(kFirstSummand),
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      expect_floating(inputs[0], "a summand");
      node.attributes.integer("index");
      return {inputs[0]};
    },
    .cost = moves_only,
    .bf16 = follows_bf16(),
}};

Attributes attributes_of(const AxisPlace& axis, const Placement& split) {
  return {{"axis", axis.name},
          {"ranks", std::int64_t{axis.ranks}},
          {"dim", std::int64_t{split.dim}},
          {"sections", split.sections}};
}

Attributes neighbours(const AxisPlace& axis, int dim, std::int64_t before, std::int64_t after) {
  return {{"axis", axis.name},
          {"ranks", std::int64_t{axis.ranks}},
          {"index", std::int64_t{axis.index}},
          {"dim", std::int64_t{dim}},
          {"before", before},
          {"after", after}};
}

}  // namespace

ValueId place(GraphBuilder& builder, ValueId x, const AxisPlace& axis, const Placement& from,
              const Placement& to) {
  if (from == to) return x;
  if (from.is_partial() && to.is_replicate()) return all_reduce(builder, x, axis);
  if (from.is_replicate() && to.is_partial()) {
    return builder.node1(kFirstSummand, {x}, {{"index", std::int64_t{axis.index}}});
  }
  if (from.is_partial() && to.is_split()) {
    return builder.node1(kReduceScatter, {x}, attributes_of(axis, to));
  }
  if (from.is_split() && to.is_replicate()) {
    return builder.node1(kAllGather, {x}, attributes_of(axis, from));
  }
  if (from.is_replicate() && to.is_split()) {
    Attributes attributes = attributes_of(axis, to);
    attributes.set("index", std::int64_t{axis.index});
    return builder.node1(kShard, {x}, std::move(attributes));
  }
  CONCORD_CHECK(from.is_split() && to.is_split(), "from {} to {}", to_string(from), to_string(to));
  Attributes attributes = attributes_of(axis, from);
  attributes.set("to_dim", std::int64_t{to.dim});
  attributes.set("to_sections", to.sections);
  return builder.node1(kAllToAll, {x}, std::move(attributes));
}

ValueId all_reduce(GraphBuilder& builder, ValueId x, const AxisPlace& axis, bool maximum) {
  Attributes attributes = {{"axis", axis.name}, {"ranks", std::int64_t{axis.ranks}}};
  if (maximum) attributes.set("maximum", std::int64_t{1});
  return builder.node1(kAllReduce, {x}, std::move(attributes));
}

ValueId halo_exchange(GraphBuilder& builder, ValueId x, const AxisPlace& axis, int dim,
                      std::int64_t before, std::int64_t after) {
  if (before == 0 && after == 0) return x;
  return builder.node1(kHaloExchange, {x}, neighbours(axis, dim, before, after));
}

ValueId halo_sum(GraphBuilder& builder, ValueId x, const AxisPlace& axis, int dim,
                 std::int64_t before, std::int64_t after) {
  if (before == 0 && after == 0) return x;
  return builder.node1(kHaloSum, {x}, neighbours(axis, dim, before, after));
}

bool is_collective(std::string_view op) {
  constexpr std::string_view kCollectives[] = {kAllReduce,    kReduceScatter, kAllGather, kAllToAll,
                                               kHaloExchange, kHaloSum,       kEncodedSum};
  return std::ranges::count(kCollectives, op) > 0;
}

bool is_of_leaf_sum(const Graph& graph, const Node& node) {
  if (node.op != kAllReduce && node.op != kReduceScatter && node.op != kEncodedSum) return false;
  if (node.attributes.text("axis") != "data") return false;
  const NodeId producer = graph.value(node.inputs[0]).producer;
  return producer != kNoNode && graph.node(producer).op == "leaf_sum";
}

bool is_message(std::string_view op) { return op == kSend || op == kReceive; }

Placement split_of(const Node& node) {
  return Placement::split(static_cast<int>(node.attributes.integer("dim")),
                          node.attributes.integers("sections"));
}

Placement second_split_of(const Node& node) {
  return Placement::split(static_cast<int>(node.attributes.integer("to_dim")),
                          node.attributes.integers("to_sections"));
}

bool is_flat(const Node& node) {
  return node.attributes.has("dim") && node.attributes.integer("dim") == Placement::kFlat;
}

Node flat_node(std::string_view op, ValueId x, const FlatCut& cut) {
  Attributes attributes = {{"axis", cut.axis},
                           {"ranks", std::int64_t{cut.ranks}},
                           {"index", std::int64_t{cut.index}},
                           {"dim", std::int64_t{Placement::kFlat}},
                           {"part", cut.part}};
  if (op == kAllGather) attributes.set("shape", cut.type.shape.dims());
  return {.op = std::string(op), .inputs = {x}, .outputs = {}, .attributes = attributes};
}

double bytes_sent(const Graph& graph, const Node& node) {
  if (node.op == kSend) return static_cast<double>(graph.type(node.inputs[0]).bytes());
  if (!is_collective(node.op) || !node.attributes.has("ranks")) return 0;
  const double ranks = ranks_of(node);
  const auto bytes = [&](ValueId id) { return static_cast<double>(graph.type(id).bytes()); };
  const double in = bytes(node.inputs[0]), out = bytes(node.outputs[0]);
  if (node.op == kEncodedSum) {
    const double encoding = in / 32 * node.attributes.real("bits");
    if (node.attributes.integer("rank") > 0) return 2 * (ranks - 1) / ranks * encoding;
    const double encoders = static_cast<double>(node.attributes.integer("encoders")) / ranks;
    const bool encodes_sum = node.attributes.integer("way") == 1;
    return encodes_sum ? (ranks - 1) / ranks * (encoders + 1) * encoding
                       : (ranks - 1) * encoders * encoding;
  }
  if (node.op == kAllReduce) return 2 * (ranks - 1) / ranks * in;
  if (node.op == kReduceScatter) return (ranks - 1) / ranks * in;
  if (node.op == kAllGather) return (ranks - 1) * in;
  if (node.op == kAllToAll) return (ranks - 1) / ranks * in;
  return std::abs(in - out);  // what neighbours give each other
}

}  // namespace concord::ops
