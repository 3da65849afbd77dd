// What a compiled program computes, against the reference: views, and states and outputs that are
// each other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/base/error.h"
#include "concord/base/philox.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/convolution.h"
#include "concord/ops/reduction.h"
#include "concord/ops/shape_ops.h"
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
    }
    if (sums) step.executor().reduce(step.program());
    step.executor().update(step.program());
    for (const auto& [name, array] : expected.outputs) expect_near(step.output(name), array, name);
    for (const auto& [name, array] : expected.next_states) {
      expect_near(step.state(name), array, name);
      bindings[name] = array;
    }
  }
  return step;
}

std::string refusal(const Sketch& sketch) {
  try {
    TestStep step(sketch.graph);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(View, ReshapeOfAnInputMovesNothing) {
  Sketch s;
  const ValueId x = s.input("x", {4, 2, 3});
  s.builder.output("y", ops::scale(s.builder, ops::reshape(s.builder, x, {4, 6}), 2));
  TestStep step = expect_reference(s);
  EXPECT_EQ(step.count("reshape"), 0);
  EXPECT_EQ(step.program().microbatch[0].operands[0], step.program().batch_inputs[0].address);
}

TEST(View, NeverLetsAnInputBeOverwritten) {
  for (const Input::Kind kind : {Input::Kind::kBatch, Input::Kind::kStep}) {
    Sketch s;
    const ValueId x = s.input("x", {4, 2, 3}, kind);
    const ValueId view = ops::reshape(s.builder, ops::reshape(s.builder, x, {24}), {4, 6});
    s.builder.output("read last through the view", ops::relu(s.builder, view));
    TestStep step = expect_reference(s);
    EXPECT_EQ(step.count("reshape"), 0);
    const Program& program = step.program();
    const Binding& input =
        kind == Input::Kind::kBatch ? program.batch_inputs[0] : program.step_inputs[0];
    for (std::size_t i = 0; i < 24; ++i) {
      EXPECT_EQ(step.executor().at<float>(program, input)[i], s.bindings["x"].data[i]);
    }
  }
}

TEST(View, SharesItsMemoryWithNothingThatIsWrittenBeforeItsLastReader) {
  for (const bool view_is_read_first : {true, false}) {
    Sketch s;
    const ValueId y = ops::scale(s.builder, s.input("x", {24}), 3);
    const ValueId view = ops::reshape(s.builder, y, {4, 6});
    s.builder.output("first", ops::relu(s.builder, view_is_read_first ? view : y));
    s.builder.output("last", ops::exp(s.builder, view_is_read_first ? y : view));
    EXPECT_EQ(expect_reference(s).count("reshape"), 0);
  }
}

TEST(View, LetsItsReaderComputeInPlaceWhereNothingElseReads) {
  Sketch s;
  const ValueId y = ops::scale(s.builder, s.input("x", {4, 6}), 3);
  s.builder.output("y", ops::relu(s.builder, ops::reshape(s.builder, y, {24})));
  TestStep step = expect_reference(s);
  const ProgramStep& relu = step.program().microbatch[1];
  EXPECT_EQ(relu.operands[0], relu.operands[1]);
}

TEST(View, OutlivesThePhaseOfWhatItViews) {
  Sketch s;
  const ValueId x = s.input("x", {4, 6});
  const ValueId rate = s.input("rate", {3, 2}, Input::Kind::kStep);
  const ValueId w = s.state("w", {2, 3});
  const ValueId factor = ops::mul(s.builder, ops::reshape(s.builder, ops::exp(s.builder, w), {6}),
                                  ops::reshape(s.builder, rate, {6}));
  const ValueId sum = ops::leaf_sum(
      s.builder,
      ops::reshape(s.builder, ops::reduce_sum(s.builder, ops::mul(s.builder, x, factor), {0}),
                   {2, 3}));
  s.builder.output("sum", ops::reshape(s.builder, sum, {6}));
  s.builder.set_next(w, ops::sub(s.builder, w, sum));
  expect_reference(s);
}

TEST(View, OfAStateThatChangesIsAnOutputOfItsOldValue) {
  Sketch s;
  const ValueId w = s.state("w", {2, 3});
  const ValueId next = ops::scale(s.builder, w, 2);
  s.builder.set_next(w, next);
  s.builder.output("old", ops::reshape(s.builder, w, {6}));
  s.builder.output("new", ops::reshape(s.builder, next, {6}));
  expect_reference(s);
}

TEST(LeafSum, OfOneValueTwice) {
  Sketch s;
  const ValueId x = ops::exp(s.builder, s.input("x", {5}));
  const ValueId a = s.state("a", {5}), b = s.state("b", {5});
  s.builder.set_next(a, ops::sub(s.builder, a, ops::leaf_sum(s.builder, x)));
  s.builder.set_next(b, ops::sub(s.builder, b, ops::leaf_sum(s.builder, x)));
  expect_reference(s);
}

TEST(LeafSum, OfAStateIsRefusedByName) {
  Sketch s;
  ops::leaf_sum(s.builder, s.state("w", {5}));
  EXPECT_THAT(refusal(s), testing::HasSubstr("leaf_sum reads \"w\""));
}

// The convolution's weights lie in blocks, `b` row by row.
TEST(NextState, OfTwoStatesInTwoLayoutsAndAnOutput) {
  Sketch s;
  const ValueId x = s.input("x", {2, 16, 5, 5});
  const ValueId a = s.state("a", {16, 16, 3, 3}), b = s.state("b", {16, 16, 3, 3});
  const ValueId y = ops::conv2d(s.builder, x, a);
  const ValueId sum = ops::leaf_sum(s.builder, ops::reduce_mean(s.builder, y, {}));
  const ValueId next = ops::mul(s.builder, a, sum);
  s.builder.set_next(a, next);
  s.builder.set_next(b, next);
  s.builder.output("next", next);
  TestStep step = expect_reference(s);
  EXPECT_NE(step.states().find("a")->layout, step.states().find("b")->layout);
}

TEST(NextState, StatesTradePlaces) {
  Sketch s;
  const ValueId a = s.state("a", {4}), b = s.state("b", {4}), c = s.state("c", {4});
  s.builder.set_next(a, b);
  s.builder.set_next(b, c);
  s.builder.set_next(c, a);
  s.builder.output("a", a);
  expect_reference(s);
}

TEST(NextState, IsTheOldValueOfAStateThatChanges) {
  for (const bool changes_first : {true, false}) {
    Sketch s;
    ValueId now = s.state(changes_first ? "a" : "z", {4});
    const ValueId before = s.state("m", {4});
    const ValueId sum = ops::leaf_sum(s.builder, ops::exp(s.builder, s.input("x", {4})));
    s.builder.set_next(now, ops::sub(s.builder, now, sum));
    s.builder.set_next(before, now);
    if (!changes_first) std::swap(s.graph.states[0], s.graph.states[1]);
    expect_reference(s);
  }
}

TEST(NextState, IsItselfOrAnInput) {
  Sketch s;
  const ValueId kept = s.state("kept", {4}), given = s.state("given", {4});
  const ValueId x = s.input("x", {4}, Input::Kind::kStep);
  s.builder.set_next(kept, kept);
  s.builder.set_next(given, x);
  s.builder.output("kept", kept);
  s.builder.output("given", given);
  const TestStep step = expect_reference(s);
  EXPECT_EQ(step.count("copy"), 1);
}

// A graph without batch inputs is run by its update alone, and again after each.
TEST(NextState, IsWrittenOverItsStateWhereThereAreNoLeaves) {
  Sketch s;
  const ValueId cache = s.state("cache", {8, 3});
  const ValueId row = s.input("row", {1, 3}, Input::Kind::kStep);
  const ValueId place = ops::cast(s.builder, s.input("place", {}, Input::Kind::kStep), DType::kI64);
  s.bindings["place"].data[0] = 5;
  const ValueId filled = ops::dynamic_update_slice(s.builder, cache, row, place, 0);
  s.builder.set_next(cache, filled);
  s.builder.output("sum", ops::reduce_sum(s.builder, filled, {0}));
  TestStep step = expect_reference(s);
  EXPECT_EQ(step.count("copy"), 0);
  EXPECT_TRUE(step.program().prologue.empty() && step.program().microbatch.empty());
}

TEST(NextState, OfABatchInputIsRefusedByName) {
  Sketch s;
  s.builder.set_next(s.state("w", {4}), s.input("x", {4}));
  EXPECT_THAT(refusal(s), testing::AllOf(testing::HasSubstr("next value of state \"w\" is \"x\""),
                                         testing::HasSubstr("put a leaf_sum before it")));
}

TEST(Output, IsAStateOrAnInput) {
  Sketch s;
  const ValueId x = s.input("x", {4}), rate = s.input("rate", {4}, Input::Kind::kStep);
  const ValueId weights = s.state("weights", {16, 16, 3, 3});
  ops::conv2d(s.builder, s.input("image", {1, 16, 5, 5}), weights);
  s.builder.output("state", weights);
  s.builder.output("batch input", x);
  s.builder.output("the same", x);
  s.builder.output("step input", rate);
  expect_reference(s);
}

TEST(Output, OfABatchInputBesideLeavesIsRefusedByName) {
  Sketch s;
  const ValueId x = s.input("x", {4});
  s.builder.output("sum", ops::leaf_sum(s.builder, ops::exp(s.builder, x)));
  s.builder.output("echo", x);
  EXPECT_THAT(refusal(s), testing::AllOf(testing::HasSubstr("output \"echo\" is \"x\""),
                                         testing::HasSubstr("put a leaf_sum before it")));
}

TEST(UnusedInput, HarmsNothing) {
  Sketch s;
  s.input("unused", {1000});
  s.input("unused too", {1000}, Input::Kind::kStep);
  const ValueId w = s.state("w", {1000});
  const ValueId y = ops::mul(s.builder, s.input("x", {1000}), ops::exp(s.builder, w));
  s.builder.set_next(w, ops::leaf_sum(s.builder, y));
  expect_reference(s);
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
