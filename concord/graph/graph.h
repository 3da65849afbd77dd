// The graph: one training (or evaluation) step as plain data.
//
// Vocabulary. A *value* is a typed tensor with exactly one origin: an input, a state, or an output
// of a node. A *node* applies an op to values. A *state* is a value that lives from step to step (a
// parameter, a running statistic, an optimizer moment, the keys and values of tokens read); `next`
// is what it becomes after the step.
// Nodes stand in topological order, so one forward walk evaluates the graph and one backward walk
// differentiates it.
//
// A step is computed as leaves of the batch, each as one or several microbatches. The graph is
// written for one microbatch; the op `leaf_sum` stands where the values of all leaves are summed.
// So every node belongs to one of three phases, which follow from the edges alone (see phases()):
//   prologue    depends on states and step inputs only: once per step, before the leaves
//   microbatch  depends on a batch input: once per microbatch
//   update      depends on a leaf_sum: once per step, after the leaves
// A graph without batch inputs has no leaves: all of it is update.
//
// Ownership: Graph owns everything by value. Thread safety: none added; const access may be shared.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "concord/graph/attributes.h"
#include "concord/graph/placement.h"
#include "concord/tensor/buffer.h"
#include "concord/tensor/layout.h"

namespace concord {

using ValueId = std::int32_t;
using NodeId = std::int32_t;
inline constexpr ValueId kNoValue = -1;
inline constexpr NodeId kNoNode = -1;

struct Value {
  TensorType type;
  Layout layout;     // row-major until the layout pass decides otherwise
  std::string name;  // of inputs and states; empty for most intermediate values
  NodeId producer = kNoNode;
};

struct Node {
  std::string op;
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  Attributes attributes;
  std::string name;  // the layer it belongs to, for messages: "layer1.0.conv1"
  int half = 0;      // of a microbatch: a rank may compute it in several (parallel/stages.h)
};

struct Input {
  enum class Kind {
    kBatch,  // dim 0 is the sample; a new value for each microbatch
    kStep,   // the same for all microbatches of a step: a learning rate
  };
  ValueId value = kNoValue;
  Kind kind = Kind::kBatch;
};

// How a state is filled before the first step. Draws are keyed by (seed, state name, element
// index).
struct Initializer {
  enum class Kind { kConstant, kUniform, kNormal };
  Kind kind = Kind::kConstant;
  double value = 0;  // the constant, half the width of the uniform interval, or the deviation
};

// How a rank's part of a tensor was cut out of the whole: one of them for each axis that splits it,
// in the order in which they were made.
struct Cut {
  std::string axis;
  Placement split;
  int ranks = 1;
  int index = 0;
  friend bool operator==(const Cut&, const Cut&) = default;
};

// The shape of the tensor of which these cuts leave one of this shape.
Shape whole_shape(const Shape& part, const std::vector<Cut>& cuts);

// How the ranks along an axis share the numbers of a state (Placement::kFlat). The state's value is
// this rank's part, f32[part]; or all of it, of which the rank computes its part in an update, and
// has the others' from them.
struct FlatCut {
  std::string axis;
  TensorType type;  // of all of it
  Layout layout;
  int ranks = 1;
  int index = 0;
  std::int64_t part = 0;  // numbers of each rank
  bool is_held_whole = false;
  std::int64_t elements() const { return part * ranks; }  // stored, with zeros behind the last
  friend bool operator==(const FlatCut&, const FlatCut&) = default;
};

// Which of the ranks along an axis have a state.
struct Holders {
  std::string axis;
  std::vector<int> ranks;  // the one that updates it first
  int index = 0;           // this rank's place along the axis
  bool has(int rank) const { return std::ranges::count(ranks, rank) > 0; }
  bool here() const { return has(index); }
  friend bool operator==(const Holders&, const Holders&) = default;
};

struct State {
  enum class Role { kParameter, kStatistic, kOptimizer, kCache };
  ValueId value = kNoValue;
  ValueId next = kNoValue;  // kNoValue: the step leaves it as it is
  Role role = Role::kParameter;
  Initializer initializer;
  bool decay = true;           // parameters: whether weight decay applies (not to norms and biases)
  std::vector<Cut> cuts = {};  // none: the rank has all of it
  std::optional<FlatCut> flat = {};     // after those
  std::optional<Holders> holders = {};  // none: all have it
  bool is_here() const { return !holders || holders->here(); }
};

struct Output {
  std::string name;
  ValueId value = kNoValue;
};

struct Graph;
// Of all of a state, before any axis cut it.
TensorType whole_type(const Graph& graph, const State& state);

struct Graph {
  std::vector<Value> values;
  std::vector<Node> nodes;
  std::vector<Input> inputs;
  std::vector<State> states;
  std::vector<Output> outputs;

  const Value& value(ValueId id) const { return values[static_cast<std::size_t>(id)]; }
  Value& value(ValueId id) { return values[static_cast<std::size_t>(id)]; }
  const Node& node(NodeId id) const { return nodes[static_cast<std::size_t>(id)]; }
  const TensorType& type(ValueId id) const { return value(id).type; }

  // The id of the input, state or output of this name, or kNoValue.
  ValueId find_input(std::string_view name) const;
  ValueId find_state(std::string_view name) const;
  ValueId find_output(std::string_view name) const;
};

enum class Phase : std::uint8_t { kPrologue, kMicrobatch, kUpdate };

// The phase of each node, in order.
std::vector<Phase> phases(const Graph& graph);

}  // namespace concord
