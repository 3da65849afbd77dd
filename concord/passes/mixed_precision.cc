#include "concord/passes/mixed_precision.h"

#include <algorithm>
#include <vector>

#include "concord/graph/op.h"
#include "concord/passes/rewrite.h"

namespace concord {
namespace {

using Use = Bf16Form::Use;

class MixedPrecision {
 public:
  explicit MixedPrecision(const Graph& graph)
      : graph_(graph),
        phase_(phases(graph)),
        in_bf16_(graph.nodes.size(), false),
        types_(graph.values.size()),
        wanted_(graph.values.size(), false),
        rewriter_(graph),
        casts_(graph.values.size(), kNoValue) {
    for (std::size_t v = 0; v < types_.size(); ++v) types_[v] = graph.values[v].type;
  }

  Graph run() {
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) look_forward(n);
    for (std::size_t n = graph_.nodes.size(); n-- > 0;) look_back(n);
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) rewrite(n);
    for (const Output& output : graph_.outputs) {
      rewriter_.map(output.value, in_type(output.value, DType::kF32, output.name));
    }
    return rewriter_.finish();
  }

 private:
  static std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

  const Bf16Form& form(std::size_t n) const { return find_op(graph_.nodes[n].op).bf16; }
  bool is_in_microbatch(std::size_t n) const { return phase_[n] == Phase::kMicrobatch; }
  bool is_from_microbatch(ValueId id) const {
    const NodeId producer = graph_.value(id).producer;
    if (producer != kNoNode) return is_in_microbatch(static_cast<std::size_t>(producer));
    return std::ranges::any_of(graph_.inputs, [&](const Input& input) {
      return input.value == id && input.kind == Input::Kind::kBatch;
    });
  }
  // What the pass may cast.
  bool is_f32(ValueId id) const { return graph_.type(id).dtype == DType::kF32; }

  // Decides which nodes can compute in bf16, and what comes out then.
  void look_forward(std::size_t n) {
    if (!is_in_microbatch(n)) return;
    const Node& node = graph_.nodes[n];
    const Use use = form(n).use;
    in_bf16_[n] = use == Use::kAlways || (use == Use::kFollows && is_given_bf16(n));
    if (!in_bf16_[n]) return;
    std::vector<TensorType> inputs;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      inputs.push_back(graph_.type(node.inputs[i]));
      if (is_f32(node.inputs[i]) && form(n).takes(i)) inputs.back().dtype = DType::kBF16;
    }
    const std::vector<TensorType> outputs = find_op(node.op).infer(node, inputs);
    for (std::size_t o = 0; o < outputs.size(); ++o) types_[index(node.outputs[o])] = outputs[o];
  }

  // Whether what a node can take in bf16, and what comes from the microbatch, comes in bf16.
  bool is_given_bf16(std::size_t n) const {
    bool any = false;
    for (std::size_t i = 0; i < graph_.nodes[n].inputs.size(); ++i) {
      const ValueId input = graph_.nodes[n].inputs[i];
      if (!form(n).takes(i) || !is_f32(input) || !is_from_microbatch(input)) continue;
      if (types_[index(input)].dtype != DType::kBF16) return false;
      any = true;
    }
    return any;
  }

  // Takes nodes out of bf16 whose result nobody wants in bf16, and marks what the others want.
  void look_back(std::size_t n) {
    const Node& node = graph_.nodes[n];
    const auto is_bf16 = [&](ValueId id) { return types_[index(id)].dtype == DType::kBF16; };
    const auto is_wanted = [&](ValueId id) { return is_bf16(id) && wanted_[index(id)]; };
    if (form(n).use == Use::kFollows && std::ranges::any_of(node.outputs, is_bf16) &&
        std::ranges::none_of(node.outputs, is_wanted)) {
      in_bf16_[n] = false;
    }
    if (!in_bf16_[n]) return;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (form(n).takes(i)) wanted_[index(node.inputs[i])] = true;
    }
  }

  void rewrite(std::size_t n) {
    const Op& op = find_op(graph_.nodes[n].op);
    Node node = graph_.nodes[n];
    std::vector<TensorType> inputs;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      ValueId& input = node.inputs[i];
      const bool takes_bf16 = in_bf16_[n] && op.bf16.takes(i);
      input = in_type(input, takes_bf16 ? DType::kBF16 : DType::kF32, node.name);
      inputs.push_back(rewriter_.graph().type(input));
    }
    if (in_bf16_[n] && op.bf16.chooses_output && !wanted_[index(node.outputs[0])]) {
      node.attributes.set("output", std::string(to_string(DType::kF32)));
    }
    const std::vector<TensorType> types = op.infer(node, inputs);
    std::vector<Value> outputs;
    for (std::size_t o = 0; o < types.size(); ++o) {
      outputs.push_back(graph_.value(node.outputs[o]));
      outputs.back().type = types[o];
    }
    const std::vector<ValueId> old_outputs = node.outputs;
    const std::vector<ValueId> ids = rewriter_.add(std::move(node), outputs);
    for (std::size_t o = 0; o < ids.size(); ++o) rewriter_.map(old_outputs[o], ids[o]);
  }

  // The new value of an old one; cast, if it is another kind of float.
  ValueId in_type(ValueId old_value, DType dtype, const std::string& layer) {
    const ValueId id = rewriter_[old_value];
    TensorType type = rewriter_.graph().type(id);
    if (!is_f32(old_value) || type.dtype == dtype) return id;
    ValueId& cast = casts_[index(old_value)];
    if (cast == kNoValue) {
      type.dtype = dtype;
      cast = rewriter_.add({.op = "cast",
                            .inputs = {id},
                            .outputs = {},
                            .attributes = {{"dtype", std::string(to_string(dtype))}},
                            .name = layer},
                           {{.type = type}})[0];
    }
    return cast;
  }

  const Graph& graph_;
  const std::vector<Phase> phase_;  // by node
  std::vector<bool> in_bf16_;       // by node
  std::vector<TensorType> types_;   // by value, of nodes that compute in bf16 where they can
  std::vector<bool> wanted_;        // by value: whether anybody takes it in bf16
  Rewriter rewriter_;
  std::vector<ValueId> casts_;  // by old value: the new one of the other type
};

}  // namespace

Graph mixed_precision(const Graph& graph) { return MixedPrecision(graph).run(); }

}  // namespace concord
