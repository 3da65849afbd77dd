// What a compiled program computes, against the reference.
#include <gtest/gtest.h>

#include "concord/base/philox.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/reduction.h"
#include "concord/ops/step.h"
#include "concord/runtime/test_step.h"

namespace concord {
namespace {

// A graph being written, and the numbers it is tried on.
struct Sketch {
  Graph graph;
  GraphBuilder builder{graph};
  ref::Bindings bindings;

  ValueId input(const std::string& name, Shape shape, Input::Kind kind = Input::Kind::kBatch) {
    draw(name, shape);
    return builder.input(name, {DType::kF32, std::move(shape)}, kind);
  }
  ValueId state(const std::string& name, Shape shape) {
    draw(name, shape);
    return builder.state(name, {DType::kF32, std::move(shape)}, State::Role::kParameter, {});
  }

 private:
  void draw(const std::string& name, const Shape& shape) {
    const RandomStream random{.seed = 5, .stream = static_cast<std::uint32_t>(bindings.size())};
    ref::Array& array = bindings[name] = ref::Array(shape);
    for (std::size_t i = 0; i < array.data.size(); ++i) {
      array.data[i] = static_cast<float>(normal01(random.bits(2 * i), random.bits(2 * i + 1)));
    }
  }
};

// Two steps of two leaves (of one where nothing is summed) compute what the reference says. Returns
// the program for a closer look.
TestStep expect_reference(Sketch& sketch) {
  TestStep step(sketch.graph);
  step.set_states(sketch.bindings);
  ref::Bindings bindings = sketch.bindings;
  const bool sums = step.program().sums_bytes > 0;
  for (int i = 0; i < 2; ++i) {
    using Leaf = std::vector<ref::Bindings>;
    const ref::StepResult expected =
        ref::evaluate_step(sketch.graph, bindings, std::vector<Leaf>(sums ? 2 : 1, {bindings}));
    step.executor().begin_step();
    for (int leaf = 0; leaf < (sums ? 2 : 1); ++leaf) {
      step.microbatch(bindings);
      step.executor().finish_leaf();
    }
    if (sums) step.executor().reduce();
    step.executor().update(step.program());
    for (const auto& [name, array] : expected.outputs) expect_near(step.output(name), array, name);
    for (const auto& [name, array] : expected.next_states) {
      expect_near(step.state(name), array, name);
      bindings[name] = array;
    }
  }
  return step;
}

// The prologue's intermediate values do not lie where batch inputs are written before it runs.
TEST(BatchInput, SurvivesThePrologue) {
  Sketch s;
  const ValueId w = s.state("w", {4000});
  const ValueId mean = ops::reduce_mean(s.builder, ops::exp(s.builder, w), {});
  const ValueId y = ops::mul(s.builder, s.input("x", {1000}), mean);
  s.builder.output("y", ops::leaf_sum(s.builder, y));
  expect_reference(s);
}

}  // namespace
}  // namespace concord
