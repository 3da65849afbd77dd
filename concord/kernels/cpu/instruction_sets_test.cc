// The vectorised kernels on every instruction set this processor has, not only the best one.
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include "concord/kernels/kernel_check.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/convolution.h"
#include "concord/ops/dropout.h"
#include "concord/ops/linear_cross_entropy.h"
#include "concord/ops/loss.h"
#include "concord/ops/normalization.h"
#include "concord/ops/optimizer.h"
#include "concord/ops/pooling.h"
#include "concord/ops/reduction.h"
#include "concord/ops/rotary_embedding.h"
#include "concord/ops/shape_ops.h"
#include "concord/ops/softmax.h"
#include "concord/ops/step.h"

namespace concord::cpu {
namespace {

using Inputs = std::vector<ValueId>;

std::string check_families() {
  const ref::Bindings fixed = {{"x2", ref::Array({5}, {0, 1, 2, 36, 4})},
                               {"x3", ref::Array({2}, {3, 7})}};
  return check_kernels(
      {.inputs =
           {{DType::kF32, {5, 37}}, {DType::kF32, {5, 37}}, {DType::kI32, {5}}, {DType::kI64, {2}}},
       .build =
           [](GraphBuilder& b, const Inputs& x) {
             const ValueId one = ops::constant(b, {DType::kF32, {}}, 1);
             const ValueId positive = ops::exp(b, x[0]);
             ops::adam_update(b, one, one, one, {x[0]}, {x[1]}, {x[1]}, {positive}, {});
             ops::sgd_update(b, one, one, {x[0]}, {x[1]}, {x[1]}, {.momentum = 0.9});
             ops::lion_update(b, one, one, {x[0]}, {x[1]}, {x[1]}, {});
             ops::rmsprop_update(b, one, one, {x[0]}, {x[1]}, {positive}, {x[1]},
                                 {.momentum = 0.9});
             ops::adagrad_update(b, one, one, {x[0]}, {x[1]}, {positive}, {});
             ops::lars_update(b, one, one, one, {x[0]}, {x[1]}, {x[1]}, {.weight_decay = 0.1});
             ops::lamb_direction(b, one, one, {x[0]}, {x[1]}, {x[1]}, {positive}, {});
             ops::momentum(b, one, x[0], x[1], 0.9, true);
             ops::sum_of_squares(b, {x[0], x[1]});
             ops::sums_of_squares(b, {x[0], x[1]});
             ops::rotary_embedding(b,
                                   ops::reshape(b, ops::concat(b, {x[0], x[1]}, 1), {1, 5, 1, 74}));
             ops::binary_cross_entropy_with_logits(b, ops::abs(b, x[0]), x[1], one);
             const ValueId y = ops::add(b, ops::gelu(b, x[0]), ops::tanh(b, ops::log(b, positive)));
             const ValueId row = ops::reduce_max(b, x[1], {0});
             const ValueId z = ops::add(b, ops::silu(b, y), row);
             const ValueId by_row =
                 ops::layer_norm(b, ops::rms_norm(b, z, row, 1e-5), row, row, 1e-5);
             const ValueId normal = ops::group_norm(b, by_row, 1, row, row, 1e-5);
             const ValueId dropped = ops::dropout(b, ops::softmax(b, normal), x[3], {.rate = 0.4});
             ops::softmax_cross_entropy(b, dropped, x[2], one, 0.1);
           },
       .fixed = fixed,
       .tolerance = 5e-6});
}

std::string check_images() {
  const TensorType channels{DType::kF32, {16}};
  return check_kernels(
      {.inputs = {{DType::kF32, {16, 3, 8, 9}}, {DType::kF32, {16, 3, 3, 5}}, channels, channels},
       .build =
           [](GraphBuilder& b, const Inputs& x) {
             const ValueId y = ops::conv2d(b, x[0], x[1], {.padding = {1, 2}}, x[2]);
             const ValueId pooled =
                 ops::max_pool2d(b, y, {.kernel = {3, 2}, .stride = {2, 2}, .padding = {1, 0}});
             ops::batch_norm(b, pooled, x[2], x[3], 1e-5, /*relu=*/true);
           },
       .tolerance = 2e-5});
}

std::string check_linear_cross_entropy() {
  return check_kernels(
      {.inputs = {{DType::kF32, {5, 7}}, {DType::kF32, {37, 7}}, {DType::kI32, {5}}},
       .build =
           [](GraphBuilder& b, const Inputs& x) {
             const ValueId one = ops::constant(b, {DType::kF32, {}}, 1);
             ops::linear_cross_entropy(b, {x[0], x[1]}, x[2], one, 0.1);
           },
       .fixed = {{"x2", ref::Array({5}, {0, 1, 2, 36, 4})}},
       .bf16_tolerance = 4e-3});
}

TEST(CpuKernel, EveryInstructionSet) {
  const std::int64_t all = hwy::SupportedTargets();
  for (std::int64_t targets = all; targets != 0; targets &= targets - 1) {
    const std::int64_t target = targets & -targets;
    hwy::SetSupportedTargetsForTest(target);
    EXPECT_EQ("", check_families()) << hwy::TargetName(target);
    EXPECT_EQ("", check_images()) << hwy::TargetName(target);
    EXPECT_EQ("", check_linear_cross_entropy()) << hwy::TargetName(target);
  }
  hwy::SetSupportedTargetsForTest(0);
}

}  // namespace
}  // namespace concord::cpu
