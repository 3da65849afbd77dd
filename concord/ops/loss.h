// Losses that compare a prediction with a target, element by element. Both are f32 [N, ...] of one
// shape, `weight` is an f32 scalar (1 / batch for a mean over the batch), and the loss is a scalar:
//
//   weight * sum_i mean_k loss(prediction_ik, target_ik)
//
// where i counts dim 0 and k everything else. Class labels: ops/softmax.h.
#pragma once

#include "concord/graph/builder.h"

namespace concord::ops {

// (prediction - target)^2
ValueId mean_squared_error(GraphBuilder& builder, ValueId prediction, ValueId target,
                           ValueId weight);

// |prediction - target|
ValueId l1_loss(GraphBuilder& builder, ValueId prediction, ValueId target, ValueId weight);

// With d = prediction - target: d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2) (Huber
// 1964).
ValueId huber_loss(GraphBuilder& builder, ValueId prediction, ValueId target, ValueId weight,
                   double delta = 1);

// -target ln p - (1 - target) ln (1 - p) with p = sigmoid(logit), for a target in [0, 1]; no
// overflow for any logit.
ValueId binary_cross_entropy_with_logits(GraphBuilder& builder, ValueId logits, ValueId targets,
                                         ValueId weight);

// The accuracy that goes with it, times the samples: sum_i mean_k of 1 where sigmoid(logit_ik) and
// target_ik lie on the same side of 1/2, else 0; 1/2 itself counts as below. Not differentiable.
ValueId count_correct_binary(GraphBuilder& builder, ValueId logits, ValueId targets);

}  // namespace concord::ops
