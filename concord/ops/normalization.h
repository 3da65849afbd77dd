// Batch normalization (Ioffe, Szegedy 2015) of [N, C, H, W] or [N, C], channel by channel:
//
//   y = gamma (x - mean) / sqrt(variance + epsilon) + beta
//
// With `relu`, y is max(that, 0): one op in place of two, which a fusion pass makes.
#pragma once

#include "concord/graph/builder.h"

namespace concord::ops {

struct BatchNorm {
  ValueId y;
  ValueId mean;      // [C], of this microbatch
  ValueId variance;  // [C], of this microbatch: the mean squared deviation (divided by N H W)
};

// Training: statistics of the microbatch itself (equations 1-4). gamma and beta are [C]. The loss
// must depend on mean and variance through y alone: they are for running statistics.
BatchNorm batch_norm(GraphBuilder& builder, ValueId x, ValueId gamma, ValueId beta, double epsilon,
                     bool relu = false);

// Evaluation: given statistics, each [C]. Not differentiable.
ValueId batch_norm_inference(GraphBuilder& builder, ValueId x, ValueId gamma, ValueId beta,
                             ValueId mean, ValueId variance, double epsilon, bool relu = false);

}  // namespace concord::ops
