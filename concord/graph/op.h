// What an op means: its shape rule, its gradient rule and its cost, declared once in ops/ and found
// by name. How it runs is in kernels/. Definitions register themselves before main() and never
// change after, so lookups need no lock.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "concord/graph/graph.h"

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
