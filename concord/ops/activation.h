// Activation functions, element by element. Each names its function f; its backward op computes
// dL/dx = dL/dy * f'(x) from whatever is cheapest to keep (y where f' can be written with it).
#pragma once

#include "concord/graph/builder.h"

namespace concord::ops {

ValueId relu(GraphBuilder& builder, ValueId x);     // max(x, 0)
ValueId sigmoid(GraphBuilder& builder, ValueId x);  // 1 / (1 + e^-x)
ValueId tanh(GraphBuilder& builder, ValueId x);
ValueId silu(GraphBuilder& builder, ValueId x);  // x * sigmoid(x), also called swish

// x * P(Z <= x) for a standard normal Z (Hendrycks and Gimpel 2016): exact, or by the paper's
// approximation x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))).
enum class GeluForm { kExact, kTanh };
ValueId gelu(GraphBuilder& builder, ValueId x, GeluForm form = GeluForm::kExact);

}  // namespace concord::ops
