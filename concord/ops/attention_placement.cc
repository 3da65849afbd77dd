#include "concord/ops/attention_placement.h"

#include "concord/ops/attention.h"
#include "concord/ops/collective.h"
#include "concord/ops/shape_ops.h"

namespace concord::ops {
namespace {

// Where the operands of attention, or of its gradient, stand: q, k and v, or one that holds them
// all, from input `first` on; those of o's shape; and logsumexp.
struct Operands {
  std::size_t first;
  std::vector<std::size_t> alike;
  std::size_t logsumexp;
  bool is_packed;

  bool is_backward() const { return first > 0; }
};

Operands forward_operands(std::size_t inputs) { return {0, {inputs}, inputs + 1, inputs == 1}; }
Operands backward_operands(std::size_t inputs) { return {3, {0, 1}, 2, inputs == 4}; }

// q, k and v, or the one operand, and the gradients of these.
std::vector<std::size_t> heads_of(const PlacementContext& context, const Operands& at) {
  std::vector<std::size_t> operands;
  for (std::size_t i = at.first; i < context.inputs.size(); ++i) {
    operands.push_back(i);
    if (at.is_backward()) operands.push_back(context.of_output(i - at.first));
  }
  return operands;
}

void add_samples(Signatures& found, const PlacementContext& context, const Operands& at) {
  std::vector<std::pair<std::size_t, int>> cut = {{at.logsumexp, 0}};
  for (const std::size_t operand : at.alike) cut.emplace_back(operand, 0);
  for (const std::size_t operand : heads_of(context, at)) cut.emplace_back(operand, 0);
  add_splits(found, context, cut);
}

void add_heads(Signatures& found, const PlacementContext& context, const Operands& at,
               const AttentionSizes& s) {
  std::vector<std::pair<std::size_t, int>> cut = {{at.logsumexp, 1}};
  for (const std::size_t operand : at.alike) cut.emplace_back(operand, 2);
  if (!at.is_packed) {
    for (const std::size_t operand : heads_of(context, at)) cut.emplace_back(operand, 2);
    return add_splits(found, context, cut);
  }
  if (s.groups % context.ranks != 0) return;
  PlacementSignature signature = replicated(context);
  for (const auto& [operand, dim] : cut) placement_of(signature, operand) = Placement::split(dim);
  for (const std::size_t operand : heads_of(context, at)) {
    placement_of(signature, operand) = Placement::split(2, {s.heads, s.groups, s.groups});
  }
  found.push_back(std::move(signature));
}

// The last keys that the queries of a rank see, and all before.
std::int64_t seen_keys(const AttentionSizes& s, bool causal, int ranks, int index) {
  const std::int64_t queries = s.queries / ranks;
  return causal ? s.keys - s.queries + (index + 1) * queries : s.keys;
}

// Of the queries that the last of the ranks has: the pairs with what they see, beside the mean of
// all ranks.
double imbalance(const AttentionSizes& s, bool causal, int ranks) {
  AttentionSizes last = s;
  last.queries = s.queries / ranks;
  last.keys = seen_keys(s, causal, ranks, ranks - 1);
  return last.seen_pairs(causal) * ranks / s.seen_pairs(causal);
}

// Where keys and values are operands of their own, the plan gathers them, and sums up their
// gradients; where they are not, the local form does.
void add_sequence(Signatures& found, const PlacementContext& context, const Operands& at,
                  const AttentionSizes& s) {
  if (s.queries % context.ranks != 0) return;
  const std::size_t queries = at.first;
  PlacementSignature signature = replicated(context);
  placement_of(signature, at.logsumexp) = Placement::split(2);
  for (const std::size_t operand : at.alike) placement_of(signature, operand) = Placement::split(1);
  placement_of(signature, queries) = Placement::split(1);
  if (at.is_backward()) {
    signature.outputs[0] = Placement::split(1);
    for (std::size_t o = 1; o < context.outputs.size(); ++o) {
      signature.outputs[o] = Placement::partial();
    }
  }
  if (at.is_packed) {
    // Gathered forward, and scattered backward, which finds what was gathered.
    const auto bytes = static_cast<double>(context.inputs[queries].bytes());
    const double of_kv =
        2.0 * static_cast<double>(s.groups) / static_cast<double>(s.heads + 2 * s.groups);
    signature.bytes_sent = (context.ranks - 1.0) / context.ranks * of_kv * bytes;
  }
  signature.imbalance = imbalance(s, context.node.attributes.integer("causal") != 0, context.ranks);
  found.push_back(std::move(signature));
}

Signatures signatures(const PlacementContext& context, const Operands& at) {
  const AttentionSizes s = attention_sizes(context.node, context.inputs.subspan(at.first));
  Signatures found;
  add_samples(found, context, at);
  add_heads(found, context, at, s);
  add_sequence(found, context, at, s);
  return found;
}

// The node on a rank's heads.
std::vector<ValueId> some_heads(LocalContext& context) {
  Attributes attributes = context.node.attributes;
  if (context.signature.inputs.back().is_split(2)) {
    attributes.set("groups", attributes.integer("groups") / context.axis.ranks);
  }
  return context.builder.node(context.node.op, context.local_inputs, std::move(attributes));
}

// What a rank's queries are attended with.
struct Sequence {
  ValueId q, k, v;
};

class SequencePart {
 public:
  SequencePart(LocalContext& context, std::size_t first)
      : builder_(context.builder),
        axis_(context.axis),
        inputs_(context.local_inputs.begin() + static_cast<std::ptrdiff_t>(first),
                context.local_inputs.end()),
        sizes_(attention_sizes(context.node, context.inputs.subspan(first))),
        causal_(context.node.attributes.integer("causal") != 0),
        seen_(seen_keys(sizes_, causal_, axis_.ranks, axis_.index)) {}

  Sequence operands() const {
    if (inputs_.size() == 3) return {inputs_[0], seen(inputs_[1]), seen(inputs_[2])};
    const std::int64_t heads = sizes_.heads, groups = sizes_.groups;
    const ValueId kv = part(inputs_[0], 2, heads, heads + 2 * groups);
    const ValueId all = node_once(builder_, kAllGather, {kv},
                                  {{"axis", axis_.name},
                                   {"ranks", std::int64_t{axis_.ranks}},
                                   {"dim", std::int64_t{1}},
                                   {"sections", std::vector<std::int64_t>{1}}})[0];
    const ValueId some = seen(all);
    return {part(inputs_[0], 2, 0, heads), part(some, 2, 0, groups),
            part(some, 2, groups, 2 * groups)};
  }

  // Of the gradients of these, those of the node's inputs.
  std::vector<ValueId> gradients(const std::vector<ValueId>& of_operands) const {
    if (inputs_.size() == 3) {
      return {of_operands[0], unseen(of_operands[1]), unseen(of_operands[2])};
    }
    const ValueId dkv = unseen(concat(builder_, {of_operands[1], of_operands[2]}, 2));
    const ValueId own = place(builder_, dkv, axis_, Placement::partial(), Placement::split(1));
    return {concat(builder_, {of_operands[0], own}, 2)};
  }

 private:
  ValueId part(ValueId x, std::int64_t dim, std::int64_t begin, std::int64_t end) const {
    return node_once(builder_, "slice", {x}, {{"dim", dim}, {"begin", begin}, {"end", end}})[0];
  }
  ValueId seen(ValueId x) const { return causal_ ? part(x, 1, 0, seen_) : x; }
  // Zeros for the keys that are not seen.
  ValueId unseen(ValueId x) const {
    return causal_ ? pad_slice(builder_, x, 1, 0, sizes_.keys) : x;
  }

  GraphBuilder& builder_;
  AxisPlace axis_;
  std::vector<ValueId> inputs_;
  AttentionSizes sizes_;
  bool causal_;
  std::int64_t seen_;  // keys
};

bool splits_sequence(const LocalContext& context, std::size_t first) {
  return context.signature.inputs[first].is_split(1);
}

}  // namespace

Signatures placed_attention(const PlacementContext& context) {
  return signatures(context, forward_operands(context.inputs.size()));
}

Signatures placed_attention_backward(const PlacementContext& context) {
  return signatures(context, backward_operands(context.inputs.size()));
}

std::vector<ValueId> localize_attention(LocalContext& context) {
  if (!splits_sequence(context, 0)) return some_heads(context);
  const Sequence s = SequencePart(context, 0).operands();
  return context.builder.node("attention", {s.q, s.k, s.v}, context.node.attributes);
}

std::vector<ValueId> localize_attention_backward(LocalContext& context) {
  if (!splits_sequence(context, 3)) return some_heads(context);
  const SequencePart part(context, 3);
  const Sequence s = part.operands();
  const std::vector<ValueId>& in = context.local_inputs;
  return part.gradients(context.builder.node(
      "attention_backward", {in[0], in[1], in[2], s.q, s.k, s.v}, context.node.attributes));
}

}  // namespace concord::ops
