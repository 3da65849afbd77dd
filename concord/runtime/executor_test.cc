#include "concord/runtime/executor.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "concord/autodiff/backpropagate.h"
#include "concord/graph/op.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/convolution.h"
#include "concord/ops/reduction.h"
#include "concord/ops/step.h"
#include "concord/runtime/test_step.h"

namespace concord {
namespace {

// An op that returns what it is given, and counts how often it runs.
int runs = 0;

class CountedCopy final : public Kernel {
 public:
  explicit CountedCopy(std::size_t bytes) : bytes_(bytes) {}
  void run(std::span<std::byte* const> operands) override {
    ++runs;
    std::copy_n(operands[0], bytes_, operands[1]);
  }

 private:
  std::size_t bytes_;
};

const RegisterOp counted_copy{
    {.name = "counted_copy",
     .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
       return {inputs[0]};
     }}};
const cpu::RegisterKernelRule counted_copy_rule{
    {.op = "counted_copy",
     .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
       return std::make_unique<CountedCopy>(s.outputs[0].type.bytes());
     }}};
const ref::RegisterKernel counted_copy_kernel{
    "counted_copy", [](const ref::Call& call) { call.out(0) = call.in(0); }};

// w becomes w + rate * the sum of w * x over the batch. The prologue copies w, and the rate where
// `copy_rate`.
Graph weighted_sum(std::int64_t samples, bool copy_rate = false) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {samples, 1000}});
  ValueId rate = b.input("rate", {DType::kF32, {}}, Input::Kind::kStep);
  const ValueId w = b.state("w", {DType::kF32, {1000}}, State::Role::kParameter, {});
  if (copy_rate) rate = b.node1("counted_copy", {rate});
  const ValueId product = ops::mul(b, x, b.node1("counted_copy", {w}));
  const ValueId sum = ops::leaf_sum(b, ops::reduce_sum(b, product, {0}));
  b.output("sum", sum);
  b.set_next(w, ops::add(b, w, ops::mul(b, rate, sum)));
  return graph;
}

// Rows [begin, end) of the batch, the state and the rate.
ref::Bindings numbers(std::int64_t begin, std::int64_t end) {
  ref::Bindings bindings{{"x", ref::Array({end - begin, 1000})},
                         {"w", ref::Array({1000})},
                         {"rate", ref::Array({}, {0.5})}};
  for (std::int64_t i = 0; i < (end - begin) * 1000; ++i) {
    bindings["x"][i] = 0.01 * static_cast<double>((begin * 1000 + i) % 77);
  }
  for (std::int64_t i = 0; i < 1000; ++i) bindings["w"][i] = 0.01 * static_cast<double>(i);
  return bindings;
}

TEST(Executor, RunsThePrologueOnceAStepForEachProgram) {
  TestStep whole(weighted_sum(4)), rest(weighted_sum(3), whole);
  ref::Bindings expected = numbers(0, 7);
  whole.set_states(expected);
  Executor& executor = whole.executor();
  for (int step = 0; step < 2; ++step) {
    runs = 0;
    executor.begin_step();
    for (int leaf = 0; leaf < 3; ++leaf) {
      whole.microbatch(numbers(0, 4), /*first_of_leaf=*/true, /*last_of_leaf=*/false);
      rest.microbatch(numbers(4, 7), /*first_of_leaf=*/false);
    }
    executor.reduce(whole.program());
    executor.update(whole.program());
    EXPECT_EQ(runs, 2);
    const auto result = ref::evaluate_step(weighted_sum(7), expected, {3, {expected}});
    expected["w"] = result.next_states.at("w");
    expect_near(whole.state("w"), expected["w"], "w");
  }
}

int runs_of_a_step(TestStep& step) {
  runs = 0;
  step.executor().begin_step();
  step.microbatch(numbers(0, 4));
  step.executor().reduce(step.program());
  return runs;
}

TEST(Executor, KeepsThePrologueUntilAStateChanges) {
  TestStep step(weighted_sum(4));
  step.set_states(numbers(0, 4));
  EXPECT_EQ(runs_of_a_step(step), 1);
  EXPECT_EQ(runs_of_a_step(step), 0);
  step.executor().update(step.program());
  EXPECT_EQ(runs_of_a_step(step), 1);
  EXPECT_EQ(runs_of_a_step(step), 0);
  step.set_states(numbers(0, 4));
  EXPECT_EQ(runs_of_a_step(step), 1);
}

TEST(Executor, RunsAPrologueOfStepInputsInEachStep) {
  TestStep step(weighted_sum(4, /*copy_rate=*/true));
  step.set_states(numbers(0, 4));
  EXPECT_EQ(runs_of_a_step(step), 2);
  EXPECT_EQ(runs_of_a_step(step), 2);
}

// The copied rate is read by the update, the copied weights by the microbatch alone.
TEST(Executor, ASingleMicrobatchKeepsNothingOfStates) {
  TestStep several(weighted_sum(4, /*copy_rate=*/true));
  TestStep single(weighted_sum(4, /*copy_rate=*/true), DType::kF32, /*single_microbatch=*/true);
  EXPECT_EQ(several.program().prologue.size(), 2);
  ASSERT_EQ(single.program().prologue.size(), 1);
  EXPECT_EQ(single.program().prologue[0].operands[0], single.program().step_inputs[0].address);
  EXPECT_EQ(several.program().prologue_bytes - single.program().prologue_bytes, 4032);
  ref::Bindings bindings = numbers(0, 4);
  single.set_states(bindings);
  for (int step = 0; step < 2; ++step) {
    EXPECT_EQ(runs_of_a_step(single), 2);
    single.executor().update(single.program());
    bindings["w"] =
        ref::evaluate_step(weighted_sum(4), bindings, {1, {bindings}}).next_states.at("w");
    expect_near(single.state("w"), bindings["w"], "w");
  }
}

// An evaluation between the steps of a training may use its memory. What the training has kept is
// then lost: its next step runs the prologue again, though no state has changed.
TEST(Executor, ExecutorsOfOneWorkspaceTakeTurns) {
  TestStep step(weighted_sum(4));
  Program& program = step.program();
  step.set_states(numbers(0, 4));  // the last weight is 9.99
  const auto workspace = std::make_shared<Workspace>();
  Executor one(step.states(), workspace), other(step.states(), workspace);
  one.prepare(program);
  const std::byte* memory = workspace->data();
  other.prepare(program);
  EXPECT_EQ(workspace->data(), memory);
  EXPECT_EQ(one.workspace_bytes(), workspace->bytes());
  const auto last_sum = [&](Executor& executor, float x) {
    runs = 0;
    executor.begin_step();
    std::fill_n(executor.at<float>(program, *find_binding(program.batch_inputs, "x")), 4000, x);
    executor.microbatch(program, {.last_of_step = true});
    executor.reduce(program);
    return executor.at<float>(program, *find_binding(program.outputs, "sum"))[999];
  };
  EXPECT_FLOAT_EQ(last_sum(one, 1), 4 * 9.99f);
  EXPECT_FLOAT_EQ(last_sum(one, 1), 4 * 9.99f);
  EXPECT_EQ(runs, 0);
  std::memset(workspace->data(), 1, workspace->bytes());
  EXPECT_FLOAT_EQ(last_sum(other, 2), 8 * 9.99f);
  EXPECT_FLOAT_EQ(last_sum(one, 3), 12 * 9.99f);
  EXPECT_EQ(runs, 1);
}

// The weights lie in blocks of channels that three channels do not fill.
TEST(Executor, SeesASumThatIsNotFiniteWhateverItsLayout) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {1, 3, 4, 4}});
  const ValueId w = b.state("w", {DType::kF32, {3, 3, 3, 3}}, State::Role::kParameter, {});
  const ValueId loss = ops::reduce_sum(b, ops::conv2d(b, x, w), {});
  b.output("gradient", ops::leaf_sum(b, backpropagate(b, loss, std::vector{w})[0]));
  TestStep step(graph);
  const auto finite_with = [&](double element) {
    ref::Bindings bindings{{"x", ref::Array({1, 3, 4, 4})}};
    bindings["x"][47] = element;
    step.executor().begin_step();
    step.microbatch(bindings);
    step.executor().reduce(step.program());
    return step.executor().sums_are_finite(step.program(), 1000);
  };
  EXPECT_TRUE(step.program().sums_layouts[0].has_padding({3, 3, 3, 3}));
  EXPECT_TRUE(finite_with(1));
  EXPECT_FALSE(finite_with(std::numeric_limits<double>::infinity()));
}

}  // namespace
}  // namespace concord
