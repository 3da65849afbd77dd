// The reference: every op computed naively in double precision, and a whole step evaluated with
// them. Slow and obvious on purpose; it is the truth that fast kernels and passes are tested
// against. Layouts are ignored: every reference tensor is row-major. Values of type bf16 are
// rounded to it, those of other types keep the precision of double.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "concord/graph/graph.h"
#include "concord/graph/mesh.h"

namespace concord::ref {

// All element types are held as double (integers up to 2^53 are exact).
struct Array {
  Shape shape;
  std::vector<double> data;

  Array() = default;
  explicit Array(Shape s) : shape(std::move(s)), data(static_cast<std::size_t>(shape.elements())) {}
  Array(Shape s, std::vector<double> d) : shape(std::move(s)), data(std::move(d)) {}
  double& operator[](std::int64_t i) { return data[static_cast<std::size_t>(i)]; }
  double operator[](std::int64_t i) const { return data[static_cast<std::size_t>(i)]; }
};

// One call of an op: outputs are sized by the shape rule and zero.
struct Call {
  const Node& node;
  std::span<const Array* const> inputs;
  std::span<Array> outputs;

  const Array& in(std::size_t i) const { return *inputs[i]; }
  Array& out(std::size_t i) const { return outputs[i]; }
};

using Kernel = void (*)(const Call& call);

// At namespace scope in kernels/ref/x.cc: const RegisterKernel relu{"relu", [](const Call& c)
// {...}};
struct RegisterKernel {
  RegisterKernel(std::string op, Kernel kernel);
};

// Throws Error naming the op when it has no reference kernel.
Kernel find_kernel(std::string_view op);

// The elements rounded to bf16, where that is their type.
Array rounded(Array array, DType dtype);

// Values by input or state name.
using Bindings = std::map<std::string, Array>;

struct StepResult {
  std::map<std::string, Array> outputs;  // by output name
  Bindings next_states;                  // every state after the step
};

// Evaluates one step. `leaves[i][j]` binds the batch inputs of microbatch j of leaf i; the number
// of leaves need not be a power of two (missing ones add nothing). `bindings` binds states and step
// inputs. Throws Error when a binding is missing or has another shape, or where a leaf_total needs
// one leaf alone.
StepResult evaluate_step(const Graph& graph, const Bindings& bindings,
                         const std::vector<std::vector<Bindings>>& leaves);

// The same of all ranks of a mesh: `graphs`, `bindings` and `leaves` are those of each, in order.
// The graphs are parts of one (parallel/partition.h): they have the same nodes, and the ranks meet
// at collectives. Returns what each has in the end.
std::vector<StepResult> evaluate_ranks(const Mesh& mesh, std::span<const Graph> graphs,
                                       std::span<const Bindings> bindings,
                                       std::span<const std::vector<std::vector<Bindings>>> leaves);

// What a collective (ops/collective.h) gives each rank of one axis, of what each has.
std::vector<Array> run_collective(const Node& node, std::span<const Array* const> inputs);

// What a rank holds of a whole state.
Array part_of(Array whole, const State& state);

// Evaluates a graph without leaf_sum on one set of bindings and returns every value, by id.
std::vector<Array> evaluate(const Graph& graph, const Bindings& bindings);

}  // namespace concord::ref
