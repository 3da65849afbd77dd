// The gradient rule of attention against central differences (kernels/ref/gradient_check.h).
#include <gtest/gtest.h>

#include "concord/kernels/ref/gradient_check.h"
#include "concord/ops/attention.h"

namespace concord::ref {
namespace {

using Inputs = std::vector<ValueId>;

TEST(Gradient, Attention) {
  const struct {
    Shape q, k;
    ops::AttentionOptions options;
  } cases[] = {
      {{2, 3, 2, 4}, {2, 5, 2, 4}, {}},
      {{1, 4, 2, 3}, {1, 4, 2, 3}, {.causal = true}},
      {{1, 2, 4, 2}, {1, 5, 2, 2}, {.causal = true, .scale = 0.7}},
      {{2, 1, 3, 1}, {2, 3, 1, 1}, {}},
  };
  for (const auto& c : cases) {
    EXPECT_EQ("", check_gradients(
                      {.shapes = {c.q, c.k, c.k}, .build = [&](GraphBuilder& b, const Inputs& x) {
                         return ops::attention(b, x[0], x[1], x[2], c.options).o;
                       }}));
  }
}

TEST(Gradient, PackedAttention) {
  for (const bool causal : {false, true}) {
    EXPECT_EQ("", check_gradients({.shapes = {{2, 3, 4 + 2 * 2, 2}},
                                   .build = [&](GraphBuilder& b, const Inputs& x) {
                                     return ops::packed_attention(b, x[0], 2, {.causal = causal}).o;
                                   }}));
  }
}

}  // namespace
}  // namespace concord::ref
