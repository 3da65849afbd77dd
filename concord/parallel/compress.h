// Compression: gradients that are summed over "data" are encoded on their way.
//
// The leaves of a step are divided into runs of equal length, an encoder for each; it encodes the
// sum over its leaves, with what it has kept of those before. So what is sent, and what comes out,
// depends on the leaves, the encoders and the codec, and not on which rank has which encoder: two
// ranks of two encoders each compute the bits of four ranks of one, and of one rank of four.
//
// What encoders keep are states of the graph, "residual.<parameter>" of shape [encoders, ...], of
// which each rank has the part that belongs to its encoders; and, where the sum is encoded again,
// "residual.<parameter>.sum". So checkpoints have them whatever the mesh is.
#pragma once

#include <string_view>

#include "concord/graph/graph.h"
#include "concord/parallel/plan.h"

namespace concord::parallel {

// The numbers of a tensor that are encoded together: shares of ranks are whole ones.
inline constexpr std::int64_t kCodecChunk = 32768;
// Smaller tensors, such as biases, are not encoded: their numbers count most and weigh least.
inline constexpr std::int64_t kFewestEncoded = 1024;

// The graph of one rank, which was divided over "data" before: all_reduce and reduce_scatter of the
// gradients of parameters, or where there is one rank what it sums by itself, become encoded_sum
// (ops/collective.h) where a rule of the plan fits. Expects layouts to be assigned.
Graph compress_sums(const Graph& graph, const Plan& plan, int rank);

// Whether a state of this name is what encoders keep; and whether it is the factor of a matrix,
// which has another shape where ranks along "tensor" have other parts of the matrix, and can be
// found anew.
bool is_kept_by_encoders(std::string_view state);
bool is_kept_factor(std::string_view state);

}  // namespace concord::parallel
