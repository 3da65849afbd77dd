// What the optimizers' kernels share: lists of tensors as one sequence of elements, the constants
// of a step, and where a run of elements stands in each list.
#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"

namespace concord::cpu {

// Several tensors, seen as one sequence of elements.
class Sequence {
 public:
  explicit Sequence(std::span<const Operand> operands) {
    for (const Operand& operand : operands) ends_.push_back(total() + stored_elements(operand));
  }
  std::size_t tensors() const { return ends_.size(); }
  std::int64_t total() const { return ends_.empty() ? 0 : ends_.back(); }

  // Calls f(tensor, begin, end) for the runs of elements of tensors that make up [begin, end) of
  // the sequence.
  template <typename F>
  void for_each_piece(std::int64_t begin, std::int64_t end, F f) const {
    auto tensor = static_cast<std::size_t>(std::upper_bound(ends_.begin(), ends_.end(), begin) -
                                           ends_.begin());
    for (; begin < end; ++tensor) {
      const std::int64_t start = tensor == 0 ? 0 : ends_[tensor - 1];
      const std::int64_t stop = std::min(end, ends_[tensor]);
      if (begin < stop) f(tensor, begin - start, stop - start);
      begin = std::max(begin, stop);
    }
  }

 private:
  std::vector<std::int64_t> ends_;  // of each tensor's, in the sequence
};

// A run of elements of one parameter. Outputs may lie over the inputs they replace. What the
// optimizer remembers, its momenta or moments, stands in `memory`; null is what it does not keep.
struct UpdateRun {
  const float *parameter, *gradient;
  std::array<const float*, 2> memory;
  float* next_parameter;
  std::array<float*, 2> next_memory;
};

// The operands of an update (ops/optimizer.h): scalars, then lists of `tensors` tensors, namely
// parameters, gradients and `memories` more. Outputs: all lists but the gradients.
struct UpdateOperands {
  std::span<std::byte* const> operands;
  std::size_t scalars, tensors, memories;

  double scalar(std::size_t i) const { return *as<float>(operands[i]); }
  UpdateRun run(std::size_t tensor, std::int64_t from) const {
    UpdateRun run{at(0, tensor, from), at(1, tensor, from), {}, at(memories + 2, tensor, from), {}};
    for (std::size_t m = 0; m < memories; ++m) {
      run.memory[m] = at(2 + m, tensor, from);
      run.next_memory[m] = at(memories + 3 + m, tensor, from);
    }
    return run;
  }

 private:
  float* at(std::size_t list, std::size_t tensor, std::int64_t from) const {
    return as<float>(operands[scalars + list * tensors + tensor]) + from;
  }
};

// Parameters of an update: one of its input lists, the gradients, has no output.
inline std::size_t updated_tensors(const Signature& s, std::size_t scalars) {
  return s.inputs.size() - scalars - s.outputs.size();
}

// Every tensor of a parameter's tuple in the parameter's layout, so that one walk over memory meets
// the same element in all of them.
template <std::size_t scalars>
LayoutWish update_layouts(const Signature& s, std::span<const std::optional<Layout>> inputs,
                          KernelPolicy&) {
  const std::size_t count = updated_tensors(s, scalars);
  LayoutWish wish{std::vector<Layout>(s.inputs.size()), std::vector<Layout>(s.outputs.size())};
  const auto layout_of = [&](std::size_t tensor) {
    for (std::size_t i = scalars + tensor; i < inputs.size(); i += count) {
      if (inputs[i].has_value()) return *inputs[i];
    }
    return Layout();
  };
  for (std::size_t tensor = 0; tensor < count; ++tensor) {
    const Layout layout = layout_of(tensor);
    for (std::size_t i = scalars + tensor; i < s.inputs.size(); i += count) wish.inputs[i] = layout;
    for (std::size_t o = tensor; o < s.outputs.size(); o += count) wish.outputs[o] = layout;
  }
  return wish;
}

// Output list 0 over the parameters, further lists over the memories.
template <std::size_t scalars>
bool update_in_place(const Signature& s, std::size_t o, std::size_t i) {
  const std::size_t count = updated_tensors(s, scalars);
  const std::size_t list = o / count;
  return i == scalars + (list == 0 ? 0 : list + 1) * count + o % count;
}

// The rule of an update whose kernel takes `kScalars` scalars, and is made from its parameters as a
// sequence, the number of its memories, and the node's attributes.
template <typename UpdateKernel>
KernelRule update_rule(std::string op) {
  constexpr std::size_t kScalars = UpdateKernel::kScalars;
  return {.op = std::move(op),
          .layouts = update_layouts<kScalars>,
          .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
            expect_f32(s);
            const std::size_t count = updated_tensors(s, kScalars);
            return std::make_unique<UpdateKernel>(
                Sequence(std::span(s.inputs).subspan(kScalars, count)),
                s.outputs.size() / count - 1, s.node.attributes);
          },
          .in_place = update_in_place<kScalars>};
}

// Weight decay, coupled or decoupled. Coupled it is a term of the gradient, decoupled a factor of
// the parameter; the other one is 0, or 1.
class Decay {
 public:
  explicit Decay(const Attributes& attributes)
      : weight_decay_(attributes.real("weight_decay")),
        decoupled_(attributes.integer("decoupled") != 0) {}
  float coupled() const { return static_cast<float>(decoupled_ ? 0 : weight_decay_); }
  float parameter_factor(double learning_rate) const {
    return static_cast<float>(decoupled_ ? 1 - learning_rate * weight_decay_ : 1);
  }

 private:
  double weight_decay_;
  bool decoupled_;
};

}  // namespace concord::cpu
