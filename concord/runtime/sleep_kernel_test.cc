#include "concord/runtime/sleep_kernel.h"

#include <gtest/gtest.h>

#include "concord/base/clock.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/step.h"
#include "concord/runtime/test_step.h"

namespace concord {
namespace {

constexpr int kMicrobatches = 50;

// Adds up x + x + x + x.
Graph small_step() {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {1}});
  const ValueId twice = ops::add(b, x, x);
  const ValueId sum = ops::leaf_sum(b, ops::mul(b, twice, twice));
  b.output("sum", sum);
  return graph;
}

double seconds_of_microbatches(TestStep& step) {
  ref::Bindings bindings;
  bindings["x"] = ref::Array(Shape{1});
  step.executor().begin_step();
  const double start = now_seconds();
  for (int m = 0; m < kMicrobatches; ++m) step.microbatch(bindings, m == 0, m + 1 == kMicrobatches);
  return now_seconds() - start;
}

// That it takes no longer is not for a test to say: others may use the machine.
TEST(SleepKernel, ManyShortSleepsTakeAsLongAsTheyAreAskedFor) {
  TestStep step(small_step());
  int kernels = 0;
  pretend(step.program(), [&](const ProgramStep& one) {
    EXPECT_NE(one.kernel, nullptr);
    ++kernels;
    return 0.0005;
  });
  ASSERT_GE(kernels, 1);
  EXPECT_GE(seconds_of_microbatches(step), 0.0005 * kernels * (kMicrobatches - 1));
}

TEST(SleepKernel, AHalfTakesWhatIsSaidHoweverManyKernelsItHas) {
  TestStep step(small_step());
  const double whole[] = {0.001, 100};
  pretend_halves(step.program(), whole);
  const double seconds = seconds_of_microbatches(step);
  EXPECT_GE(seconds, 0.001 * (kMicrobatches - 1));
  EXPECT_LT(seconds, 50);
}

TEST(SleepKernel, NothingIsComputed) {
  TestStep step(small_step());
  pretend(step.program(), [](const ProgramStep&) { return 0.0; });
  ref::Bindings bindings;
  bindings["x"] = ref::Array(Shape{1});
  bindings["x"].data = {3};
  step.executor().begin_step();
  step.microbatch(bindings);
  step.executor().reduce(step.program());
  EXPECT_NE(step.output("sum").data[0], 36);
}

}  // namespace
}  // namespace concord
