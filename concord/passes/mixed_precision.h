// Rewrites a step so that its microbatches are computed in bf16 (Micikevicius et al. 2018, with
// bf16 in place of fp16, whose range makes the scaling of the loss needless): activations and their
// gradients are bf16. States (the weights are f32 masters), statistics, sums over leaves, gradients
// of parameters and the update stay f32. What an op computes in, it declares (Bf16Form in
// graph/op.h).
//
//   products    take bf16: what they multiply is cast, once for each value. The cast of a weight
//               depends on a state alone, and so runs once a step, in the prologue. Attention and
//               the cross-entropy of a linear layer are products too.
//   followers   element-wise ops, norms, pooling: compute in bf16 where what comes from the
//               microbatch is bf16; parameters among their operands are cast. One f32 operand, such
//               as the target of a regression, keeps them in f32. So rows of a table of embeddings
//               are f32, and all that blocks add to them.
//   the others  losses and counts: compute in f32. A product whose result nobody takes in bf16
//               writes it in f32, and a follower between the two stays in f32, so that logits and
//               gradients of parameters, those of tied ones added up, are never rounded to bf16.
//
// A graph without microbatches, such as the one that continues a text, stays as it is: it would
// cast every weight in each run.
#pragma once

#include "concord/graph/graph.h"

namespace concord {

Graph mixed_precision(const Graph& graph);

}  // namespace concord
