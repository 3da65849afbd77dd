// What an op means: its shape rule, its gradient rule and its cost, declared once in ops/ and found
// by name. How it runs is in kernels/. Definitions register themselves before main() and never
// change after, so lookups need no lock.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "concord/graph/graph.h"
#include "concord/graph/mesh.h"
#include "concord/graph/placement.h"

namespace concord {

class GraphBuilder;

// What a gradient rule sees. Equations in docs/backpropagation.md.
struct GradientContext {
  GraphBuilder& builder;
  const Node& node;  // the node being differentiated
  std::span<const ValueId>
      output_gradients;  // dL/d(output), kNoValue where L does not depend on it

  ValueId input(std::size_t i) const { return node.inputs[i]; }
  ValueId output(std::size_t i) const { return node.outputs[i]; }
  ValueId output_gradient(std::size_t i) const { return output_gradients[i]; }
};

struct Cost {
  double flops = 0;  // additions and multiplications counted separately, as the literature does
};

// How an op takes part in a step that is computed in bf16 (passes/mixed_precision.h).
struct Bf16Form {
  enum class Use : std::uint8_t {
    kNever,    // it computes in f32
    kAlways,   // its inputs are cast to bf16
    kFollows,  // it computes in bf16 where its inputs come in bf16
  };
  Use use = Use::kNever;
  std::uint32_t inputs = 0;     // bit i: whether input i is bf16 then, bit 31 for all from 31 on
  bool chooses_output = false;  // attribute "output" = "f32" keeps the result of bf16 inputs in f32

  bool takes(std::size_t input) const {
    return (inputs >> std::min<std::size_t>(input, 31) & 1) != 0;
  }
};

// One way in which the ranks along an axis compute an op together: where the inputs are so placed,
// and each rank computes the op of what it holds, the outputs are so placed. Where an output is
// Partial, the ranks' results are its summands. An input may be asked to be Partial where the op is
// linear in it. That every rank computes everything of whole inputs goes without saying.
struct PlacementSignature {
  std::vector<Placement> inputs, outputs;
  double bytes_sent = 0;  // by each rank, in what Op::localize adds
  double imbalance = 1;   // operations of the rank with the most, beside the mean of all
  friend bool operator==(const PlacementSignature&, const PlacementSignature&) = default;
};

// What an op's placement rule is asked about: a node of the whole graph, and how many ranks there
// are. A rule offers the splits of one operand for which there is a reason: those that its
// neighbours know of, beside the plain ones.
struct PlacementContext {
  const Node& node;
  std::span<const TensorType> inputs, outputs;
  int ranks = 1;
  // By operand, inputs before outputs.
  std::span<const std::vector<Placement>> known_splits = {};

  const Shape& input(std::size_t i) const { return inputs[i].shape; }
  const Shape& output(std::size_t i) const { return outputs[i].shape; }
  // The sections in which dim `dim` of an operand may be split, plainly or as a neighbour would.
  // Operands are counted as above.
  std::vector<std::vector<std::int64_t>> sections(std::size_t operand, int dim) const;
  // Those of several operands together: pairs of operand and dim that are cut alike.
  std::vector<std::vector<std::int64_t>> sections(
      const std::vector<std::pair<std::size_t, int>>& operands) const;
  std::size_t of_output(std::size_t o) const { return inputs.size() + o; }
};

// For the op's own form on one rank, where it is not the same node with smaller operands.
struct LocalContext {
  GraphBuilder& builder;
  const Node& node;  // of the whole graph; inputs and outputs are its ids
  const PlacementSignature& signature;
  AxisPlace axis;
  std::span<const TensorType> inputs, outputs;  // whole
  std::vector<ValueId> local_inputs;  // what this rank holds, placed as the signature says
};

struct Op {
  std::string name;

  // Types of the outputs for these attributes and input types. Throws Error that states the given
  // and the expected shapes; the builder puts the layer's name before it.
  std::vector<TensorType> (*infer)(const Node& node, std::span<const TensorType> inputs) = nullptr;

  // dL/d(input) for each input, kNoValue where there is none, expressed as more nodes. Never called
  // with all output gradients absent. Null: the op cannot be differentiated.
  std::vector<ValueId> (*gradient)(GradientContext& context) = nullptr;

  // Null: one operation for each output element.
  Cost (*cost)(const Node& node, std::span<const TensorType> inputs,
               std::span<const TensorType> outputs) = nullptr;

  Bf16Form bf16 = {};

  // Each number of an output is computed from those at its place in the inputs that are no scalars,
  // so that any part of them can be computed alone, in whatever order they lie in memory.
  bool by_number = false;

  // The ways to compute it on several ranks, each of which divides what it splits. Null: none but
  // that every rank computes everything.
  std::vector<PlacementSignature> (*signatures)(const PlacementContext& context) = nullptr;

  // Adds the node as several, whose operands can be placed each for itself, and returns its
  // outputs. Null: it is one already. Of a node that computes many things side by side.
  std::vector<ValueId> (*separate)(GraphBuilder& builder, const Node& node) = nullptr;

  // Adds what one rank computes and returns its outputs. Null: the node itself, of what it holds.
  std::vector<ValueId> (*localize)(LocalContext& context) = nullptr;
};

// Throws Error naming the op when it is unknown.
const Op& find_op(std::string_view name);
// Every op, by name.
std::vector<const Op*> all_ops();
// Cost of a node of a graph.
Cost cost_of(const Graph& graph, const Node& node);

// At namespace scope in ops/x.cc: const RegisterOp relu{{.name = "relu", .infer = ..., ...}};
struct RegisterOp {
  explicit RegisterOp(Op op);
};

}  // namespace concord
