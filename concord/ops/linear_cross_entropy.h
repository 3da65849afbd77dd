// The softmax cross-entropy of a linear layer, as one op: of many classes (the words of a language)
// the logits are by far the largest tensor of a model, and as one op they need not be kept (Hsu et
// al. 2024, "Liger Kernel"; Wijmans et al. 2024, "Cut Your Losses in Large-Vocabulary Language
// Models").
#pragma once

#include <cstdint>
#include <optional>

#include "concord/graph/builder.h"

namespace concord::ops {

// logits = x w^T + bias, with x [rows, features], w [classes, features] and, perhaps, bias
// [classes].
struct LinearLayer {
  ValueId x, w, bias = kNoValue;
};

// The layer that made these logits, or the matrix that they are reshaped from; nullopt where
// another op did.
std::optional<LinearLayer> linear_layer_of(const Graph& graph, ValueId logits);

struct LossAndCount {
  ValueId loss, correct;  // f32 scalars
};

// softmax_cross_entropy and count_correct (ops/softmax.h) of the layer's logits; labels are i32,
// one for each row, of any shape. A row whose logits are not all finite is never correct. `correct`
// is not differentiable.
LossAndCount linear_cross_entropy(GraphBuilder& builder, const LinearLayer& layer, ValueId labels,
                                  ValueId weight, double label_smoothing = 0,
                                  std::optional<std::int32_t> ignore_label = std::nullopt);

}  // namespace concord::ops
