#include "concord/ops/attention.h"

#include <cmath>

#include "concord/ops/attention_placement.h"
#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

void expect_heads(const TensorType& type, std::string_view what) {
  expect_floating(type, what);
  if (type.shape.rank() != 4 || type.shape.elements() == 0) {
    fail("{} is {}; expected [samples, positions, heads, head size], none of them 0", what,
         to_string(type));
  }
}

AttentionSizes sizes_of_packed(const TensorType& qkv, std::int64_t groups) {
  expect_heads(qkv, "qkv");
  const std::int64_t stored = qkv.shape[2], heads = stored - 2 * groups;
  if (groups < 1 || heads < 1) {
    fail("qkv is {}; with {} groups it needs 2 x {} heads of keys and values, and those of queries",
         to_string(qkv), groups, groups);
  }
  const std::int64_t positions = qkv.shape[1];
  return {qkv.shape[0],
          positions,
          positions,
          heads,
          groups,
          qkv.shape[3],
          {{{0, 0, stored}, {0, heads, stored}, {0, heads + groups, stored}}}};
}

AttentionSizes sizes_of_separate(const TensorType& q, const TensorType& k, const TensorType& v) {
  expect_heads(q, "q");
  expect_heads(k, "k");
  const Shape &of_q = q.shape, &of_k = k.shape;
  if (k != v || k.dtype != q.dtype || of_k[0] != of_q[0] || of_k[3] != of_q[3]) {
    fail("q is {}, k {} and v {}; expected q [N, T, H, D] and k and v [N, S, G, D] of one type",
         to_string(q), to_string(k), to_string(v));
  }
  const std::int64_t heads = of_q[2], groups = of_k[2];
  return {of_q[0],
          of_q[1],
          of_k[1],
          heads,
          groups,
          of_q[3],
          {{{0, 0, heads}, {1, 0, groups}, {2, 0, groups}}}};
}

AttentionSizes sizes_of_cached(const TensorType& q, const TensorType& kv) {
  expect_heads(q, "q");
  expect_heads(kv, "kv");
  const Shape &of_q = q.shape, &of_kv = kv.shape;
  if (kv.dtype != q.dtype || of_kv[0] != of_q[0] || of_kv[2] % 2 != 0 || of_kv[3] != of_q[3]) {
    fail("q is {} and kv {}; expected q [N, T, H, D] and kv [N, S, 2 G, D] of one type",
         to_string(q), to_string(kv));
  }
  const std::int64_t heads = of_q[2], stored = of_kv[2], groups = stored / 2;
  return {of_q[0],
          of_q[1],
          of_kv[1],
          heads,
          groups,
          of_q[3],
          {{{0, 0, heads}, {1, 0, stored}, {1, groups, stored}}}};
}

// `products`: how many products of matrices there are for each head; the exponentials count little
// beside them and are left out.
Cost cost(const Node& node, std::span<const TensorType> operands, double products) {
  const AttentionSizes s = attention_sizes(node, operands);
  return {2 * products * static_cast<double>(s.head_size) *
          s.seen_pairs(node.attributes.integer("causal") != 0)};
}

// Attributes: causal, scale, groups. Inputs q, k, v, or all in one. Outputs o, logsumexp.
const RegisterOp attention_op{{
    .name = "attention",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      const AttentionSizes s = attention_sizes(node, inputs);
      return {{inputs[0].dtype, {s.samples, s.queries, s.heads, s.head_size}},
              {DType::kF32, {s.samples, s.heads, s.queries}}};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      if (context.output_gradient(1) != kNoValue) {
        fail("the logsumexp of attention cannot be differentiated");
      }
      std::vector<ValueId> inputs = {context.output_gradient(0), context.output(0),
                                     context.output(1)};
      inputs.insert(inputs.end(), context.node.inputs.begin(), context.node.inputs.end());
      return context.builder.node("attention_backward", std::move(inputs), context.node.attributes);
    },
    .cost = [](const Node& node, std::span<const TensorType> inputs,
               std::span<const TensorType>) { return cost(node, inputs, 2); },
    .bf16 = {.use = Bf16Form::Use::kAlways, .inputs = 0b111},
    .signatures = placed_attention,
    .localize = localize_attention,
}};

// Attributes: as above. Inputs do, o, logsumexp, then those of attention. Outputs their gradients.
const RegisterOp attention_backward_op{{
    .name = "attention_backward",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      if (inputs.size() < 4) fail("expected 4 or 6 inputs, given {}", inputs.size());
      const std::span<const TensorType> operands = inputs.subspan(3);
      const AttentionSizes s = attention_sizes(node, operands);
      const TensorType o{operands[0].dtype, {s.samples, s.queries, s.heads, s.head_size}};
      const TensorType logsumexp{DType::kF32, {s.samples, s.heads, s.queries}};
      if (inputs[0] != o || inputs[1] != o || inputs[2] != logsumexp) {
        fail("do is {}, o {} and logsumexp {}; expected {} twice and {}", to_string(inputs[0]),
             to_string(inputs[1]), to_string(inputs[2]), to_string(o), to_string(logsumexp));
      }
      return {operands.begin(), operands.end()};
    },
    .cost = [](const Node& node, std::span<const TensorType> inputs,
               std::span<const TensorType>) { return cost(node, inputs.subspan(3), 5); },
    .bf16 = {.use = Bf16Form::Use::kAlways, .inputs = 0b111011},
    .signatures = placed_attention_backward,
    .localize = localize_attention_backward,
}};

// Attributes: causal = 1, scale. Inputs q, kv, position. Output o. What it costs depends on the
// position: the cost is the most it can be.
const RegisterOp cached_attention_op{{
    .name = "cached_attention",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 3);
      expect_position(inputs[2], "position");
      attention_sizes(node, inputs.first(2));
      return {inputs[0]};
    },
    .cost = [](const Node& node, std::span<const TensorType> inputs,
               std::span<const TensorType>) { return cost(node, inputs.first(2), 2); },
}};

// 1 / sqrt(D) for heads of x [..., D].
double usual_scale(const Shape& x) {
  return x.rank() == 0 ? 1.0 : 1 / std::sqrt(static_cast<double>(x[-1]));
}

Attention add_attention(GraphBuilder& builder, std::vector<ValueId> inputs, std::int64_t groups,
                        const AttentionOptions& options) {
  const double scale = options.scale.value_or(usual_scale(builder.shape(inputs[0])));
  const std::vector<ValueId> outputs = builder.node(
      "attention", std::move(inputs),
      {{"causal", std::int64_t{options.causal}}, {"scale", scale}, {"groups", groups}});
  return {outputs[0], outputs[1]};
}

}  // namespace

AttentionSizes attention_sizes(const Node& node, std::span<const TensorType> operands) {
  if (operands.empty() || operands.size() > 3) expect_inputs(operands, 3);
  const AttentionSizes s =
      operands.size() == 1   ? sizes_of_packed(operands[0], node.attributes.integer("groups"))
      : operands.size() == 2 ? sizes_of_cached(operands[0], operands[1])
                             : sizes_of_separate(operands[0], operands[1], operands[2]);
  if (s.heads % s.groups != 0) {
    fail("{} heads of queries and {} of keys and values; expected the latter to divide the former",
         s.heads, s.groups);
  }
  if (node.attributes.integer("causal") != 0 && s.queries > s.keys) {
    fail("causal attention of {} queries to {} keys; expected at least as many keys as queries",
         s.queries, s.keys);
  }
  return s;
}

double AttentionSizes::seen_pairs(bool causal) const {
  const auto of_queries = static_cast<double>(queries), of_keys = static_cast<double>(keys);
  const double of_head =
      causal ? of_queries * (of_keys - (of_queries - 1) / 2) : of_queries * of_keys;
  return static_cast<double>(samples * heads) * of_head;
}

Attention attention(GraphBuilder& builder, ValueId q, ValueId k, ValueId v,
                    const AttentionOptions& options) {
  const Shape of_k = builder.shape(k);
  const std::int64_t groups = of_k.rank() == 4 ? of_k[2] : 0;
  return add_attention(builder, {q, k, v}, groups, options);
}

Attention packed_attention(GraphBuilder& builder, ValueId qkv, std::int64_t groups,
                           const AttentionOptions& options) {
  return add_attention(builder, {qkv}, groups, options);
}

ValueId cached_attention(GraphBuilder& builder, ValueId q, ValueId kv, ValueId position) {
  return builder.node1("cached_attention", {q, kv, position},
                       {{"causal", std::int64_t{1}}, {"scale", usual_scale(builder.shape(q))}});
}

}  // namespace concord::ops
