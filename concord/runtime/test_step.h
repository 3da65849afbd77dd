// Runs steps of small graphs as a run does, for tests: lowered, compiled, executed.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "concord/graph/builder.h"
#include "concord/kernels/ref/reference.h"
#include "concord/runtime/executor.h"
#include "concord/runtime/state_store.h"

namespace concord {

// One program over its states.
class TestStep {
 public:
  explicit TestStep(const Graph& graph, DType precision = DType::kF32,
                    bool single_microbatch = false)
      : TestStep(lower(graph, policy(), {.precision = precision}), nullptr, single_microbatch) {}
  // A second program over the states of `first`, which outlives it: the graph for another number
  // of samples.
  TestStep(const Graph& graph, TestStep& first)
      : TestStep(lower(graph, policy(), {.layouts = first.layouts()}), &first) {}

  Program& program() { return program_; }
  StateStore& states() { return *states_; }
  Executor& executor() { return *executor_; }

  void set_states(const ref::Bindings& bindings) {
    for (const StateStore::Entry& entry : states().entries()) {
      OwnedTensor tensor(entry.type);
      std::ranges::copy(bindings.at(entry.name).data, tensor.as<float>().begin());
      states().write(entry, tensor.view().data);
    }
  }
  void set(const std::vector<Binding>& inputs, const ref::Bindings& bindings) {
    for (const Binding& input : inputs) {
      std::ranges::copy(bindings.at(input.name).data, executor().at<float>(program_, input));
    }
  }
  void microbatch(const ref::Bindings& bindings, bool first_of_leaf = true,
                  bool last_of_leaf = true) {
    set(program_.step_inputs, bindings);
    set(program_.batch_inputs, bindings);
    executor().microbatch(program_, {.first_of_leaf = first_of_leaf, .last_of_leaf = last_of_leaf});
  }
  ref::Array output(std::string_view name) {
    const Binding& binding = *find_binding(program_.outputs, name);
    ref::Array array(binding.type.shape);
    std::copy_n(executor().at<float>(program_, binding), array.data.size(), array.data.begin());
    return array;
  }
  ref::Array state(std::string_view name) {
    const OwnedTensor tensor = states().read(*states().find(name));
    return {tensor.type().shape, {tensor.as<float>().begin(), tensor.as<float>().end()}};
  }
  // How many steps of any phase run this op.
  int count(std::string_view op) const {
    int count = 0;
    for (const auto* steps : {&program_.prologue, &program_.microbatch, &program_.update}) {
      count += static_cast<int>(std::ranges::count(*steps, op, &ProgramStep::op));
    }
    return count;
  }

 private:
  TestStep(Graph lowered, TestStep* first, bool single_microbatch = false)
      : states_(first == nullptr ? std::make_shared<StateStore>(lowered) : first->states_),
        executor_(first == nullptr ? std::make_shared<Executor>(*states_) : first->executor_) {
    KernelPolicy policy = TestStep::policy();
    program_ = compile(std::move(lowered), policy, *states_,
                       {.single_microbatch = single_microbatch,
                        .like = first == nullptr ? nullptr : &first->program_});
    executor_->prepare(program_);
  }

  static KernelPolicy& policy() {
    static KernelPolicy policy{.measure = false};
    return policy;
  }
  LayoutOptions layouts() const {
    return {.states = states_->layouts(), .leaf_sums = program_.sums_layouts};
  }

  std::shared_ptr<StateStore> states_;
  std::shared_ptr<Executor> executor_;
  Program program_;
};

inline void expect_near(const ref::Array& given, const ref::Array& expected,
                        const std::string& name) {
  ASSERT_EQ(given.data.size(), expected.data.size()) << name;
  for (std::size_t i = 0; i < given.data.size(); ++i) {
    ASSERT_NEAR(given.data[i], expected.data[i], 1e-4 * std::max(1.0, std::abs(expected.data[i])))
        << name << " at " << i;
  }
}

}  // namespace concord
