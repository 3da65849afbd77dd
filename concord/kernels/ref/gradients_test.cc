// Every gradient rule against central differences (kernels/ref/gradient_check.h).
#include <gtest/gtest.h>

#include "concord/kernels/ref/gradient_check.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/matmul.h"

namespace concord::ref {
namespace {

using Inputs = std::vector<ValueId>;

TEST(Gradient, AddAndMulWithBroadcasting) {
  EXPECT_EQ(
      "", check_gradients({.shapes = {{2, 3}, {3}}, .build = [](GraphBuilder& b, const Inputs& x) {
                             return ops::add(b, x[0], x[1]);
                           }}));
  EXPECT_EQ("", check_gradients(
                    {.shapes = {{2, 1, 3}, {4, 1}}, .build = [](GraphBuilder& b, const Inputs& x) {
                       return ops::mul(b, x[0], x[1]);
                     }}));
}

TEST(Gradient, ValueUsedSeveralTimesSumsItsContributions) {
  EXPECT_EQ("", check_gradients({.shapes = {{3}}, .build = [](GraphBuilder& b, const Inputs& x) {
                                   return ops::add(b, ops::mul(b, x[0], x[0]),
                                                   ops::scale(b, x[0], 3.0));
                                 }}));
}

TEST(Gradient, MatmulInEveryOrientation) {
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      const Shape a = ta ? Shape{2, 4, 3} : Shape{2, 3, 4};
      const Shape b = tb ? Shape{2, 5, 4} : Shape{2, 4, 5};
      EXPECT_EQ("", check_gradients(
                        {.shapes = {a, b, {5}}, .build = [&](GraphBuilder& g, const Inputs& x) {
                           return ops::matmul(g, x[0], x[1], {.transpose_a = ta, .transpose_b = tb},
                                              x[2]);
                         }}));
    }
  }
}

TEST(Gradient, Relu) {
  EXPECT_EQ("", check_gradients(
                    {.shapes = {{4, 5}},
                     .build = [](GraphBuilder& b, const Inputs& x) { return ops::relu(b, x[0]); },
                     .seed = 2}));  // no draw within a step of the kink at 0
}

// x^3 with a step so large that the difference quotient is off by step^2 = 1.
TEST(GradientCheck, NoticesADifference) {
  EXPECT_NE("", check_gradients({.shapes = {{3}},
                                 .build =
                                     [](GraphBuilder& b, const Inputs& x) {
                                       return ops::mul(b, x[0], ops::mul(b, x[0], x[0]));
                                     },
                                 .step = 1.0}));
}

}  // namespace
}  // namespace concord::ref
