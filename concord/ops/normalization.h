// Normalization: over the batch, and of each sample on its own.
#pragma once

#include "concord/graph/builder.h"

namespace concord::ops {

// Batch normalization (Ioffe, Szegedy 2015) of [N, C, H, W] or [N, C], channel by channel:
//
//   y = gamma (x - mean) / sqrt(variance + epsilon) + beta
//
// With `relu`, y is max(that, 0), with an addend of x's type max(that + addend, 0): one op in place
// of two or three, which a fusion pass makes.
struct BatchNorm {
  ValueId y;
  ValueId mean;      // [C], of this microbatch
  ValueId variance;  // [C], of this microbatch: the mean squared deviation (divided by N H W)
};

// Training: statistics of the microbatch itself (equations 1-4). gamma and beta are [C]. The loss
// must depend on mean and variance through y alone: they are for running statistics.
BatchNorm batch_norm(GraphBuilder& builder, ValueId x, ValueId gamma, ValueId beta, double epsilon,
                     bool relu = false, ValueId addend = kNoValue);

// Evaluation: given statistics, each [C]. Not differentiable.
ValueId batch_norm_inference(GraphBuilder& builder, ValueId x, ValueId gamma, ValueId beta,
                             ValueId mean, ValueId variance, double epsilon, bool relu = false);

// Training with the statistics of the whole batch, whoever computes its samples (as PyTorch's
// SyncBatchNorm): the leaves of a step meet in totals (ops/step.h), forward and backward.
//   mean     = total of sum x / M
//   variance = total of sum (x - mean)^2 / M
// where M, the elements of a channel in the batch, is 1 / `share`, f32 [].
struct BatchNormOverLeaves {
  ValueId y;
  // [C], of this leaf: for running statistics, which are their leaf_sum.
  ValueId sum;             // of x
  ValueId squared_errors;  // sum of (x - mean)^2
};
BatchNormOverLeaves batch_norm_over_leaves(GraphBuilder& builder, ValueId x, ValueId gamma,
                                           ValueId beta, ValueId share, double epsilon);

// Layer normalization (Ba, Kiros, Hinton 2016): the formula above for each row of [..., C], with
// the row's own mean and variance. gamma and beta are [C].
ValueId layer_norm(GraphBuilder& builder, ValueId x, ValueId gamma, ValueId beta, double epsilon);

// Root mean square normalization (Zhang, Sennrich 2019) of each row of [..., C]:
//
//   y = gamma x / sqrt(mean of x^2 + epsilon)
ValueId rms_norm(GraphBuilder& builder, ValueId x, ValueId gamma, double epsilon);

// Group normalization (Wu, He 2018) of [N, C, ...]: the formula of batch norm, with mean and
// variance over the channels of one of `groups` equal groups and all positions of one sample. gamma
// and beta are [C]. One group is the layer normalization of images, C groups instance
// normalization.
ValueId group_norm(GraphBuilder& builder, ValueId x, std::int64_t groups, ValueId gamma,
                   ValueId beta, double epsilon);

}  // namespace concord::ops
