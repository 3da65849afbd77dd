// Softmax, its cross-entropy and the count of correct predictions. Logits are [..., C]: one row of
// C class scores for each sample (or position); labels are i32 [...], one class index for each row.
#pragma once

#include <cstdint>
#include <optional>

#include "concord/graph/builder.h"

namespace concord::ops {

// e^x_j / sum_k e^x_k over the last dim.
ValueId softmax(GraphBuilder& builder, ValueId x);

// weight * sum over rows i of CE_i, a scalar, with CE_i = -sum_j t_ij * ln softmax(logits_i)_j and
// t_ij = (1 - label_smoothing) * [j = label_i] + label_smoothing / C (Szegedy et al. 2016).
// `weight` is an f32 scalar, 1 / batch for a mean over the batch; it counts as a constant: no
// gradient flows to it. A label outside [0, C) makes the loss NaN. Rows whose label is
// `ignore_label` add nothing to the loss and have no gradient, whatever their logits.
ValueId softmax_cross_entropy(GraphBuilder& builder, ValueId logits, ValueId labels, ValueId weight,
                              double label_smoothing = 0,
                              std::optional<std::int32_t> ignore_label = std::nullopt);

// How many rows have their largest logit at the label, as an f32 scalar. The first of equal logits
// wins; a row with NaN, and a label outside [0, C), is never correct, nor is a row whose label is
// `ignore_label`. Not differentiable.
ValueId count_correct(GraphBuilder& builder, ValueId logits, ValueId labels,
                      std::optional<std::int32_t> ignore_label = std::nullopt);

// The attributes of the cross-entropy ops. Throws Error unless label_smoothing lies in [0, 1).
Attributes cross_entropy_attributes(double label_smoothing,
                                    std::optional<std::int32_t> ignore_label);
// The label whose rows count for nothing, where a node of this family names one.
std::optional<std::int64_t> ignored_label(const Node& node);

}  // namespace concord::ops
