// Checks CPU kernels against the reference, node by node.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "concord/graph/builder.h"
#include "concord/kernels/kernel.h"
#include "concord/kernels/ref/reference.h"

namespace concord {

struct KernelCheck {
  // Inputs of the graph under test: f32 filled with normal draws, unless bound in `fixed`.
  std::vector<TensorType> inputs;
  // Builds the nodes under test from those inputs.
  std::function<void(GraphBuilder&, const std::vector<ValueId>&)> build;
  // Values for inputs "x0", "x1", ... that are not to be random (labels, positive numbers).
  ref::Bindings fixed = {};
  // Largest |cpu - reference| / max(1, |reference|) that is accepted.
  double tolerance = 1e-5;
  // The same for forms in bf16, where their kernels round to bf16 on the way; 0: `tolerance`.
  double bf16_tolerance = 0;
  // Also differentiates the sum of the last value, weighted by normal draws, with respect to the
  // f32 inputs, so that backward kernels are checked too.
  bool backward = true;
  // One more layout in which inputs are offered: those of the first input's shape; others
  // row-major.
  std::optional<Layout> offered = std::nullopt;
  // Whether the bits must be the same with one thread and with several.
  bool any_threads = false;
  KernelPolicy policy = {};
  std::uint64_t seed = 1;
};

// Every node but the loss runs in the layouts its kernel rule wishes for, first with the layouts of
// its inputs left free, then with all of them row-major, then as `offered`, on the reference's
// inputs rounded to the operand's element type. Where its op has a form in bf16 (Bf16Form in
// graph/op.h) and the processor has bf16, it then runs so too, against the reference of the same
// rounded inputs; an output in bf16 may differ by one more unit in the last place. Returns a
// description of the worst element of the first node beyond the tolerance, or of what else is wrong
// (padding that is not zero, bits that depend on the number of threads or on an output lying over
// an input where the rule permits it), or "".
std::string check_kernels(const KernelCheck& check);

}  // namespace concord
