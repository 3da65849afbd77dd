// Recomputation: activations are computed again in the backward pass in place of being kept since
// the forward pass. Less memory for more work and the same bits: a copy of a node computes from the
// same values, laid out alike, what the node computed. Dropout draws by position, so a copy drops
// the same elements; and a copy of a batch norm updates no running statistics, since states change
// by the nodes that they name alone.
//
// Vocabulary. The *backward pass* begins with the node that makes the loss, more exactly with the
// first node of a microbatch from which single numbers alone lead to an output of the graph; the
// *forward pass* is what comes before. An *activation* is a value that a node of the forward pass
// makes. A *segment* is a run of nodes of the forward pass, and the *boundary* behind it what later
// nodes of the forward pass read of it or of those before.
//
// Boundaries are kept. What else the backward pass reads of a segment is computed again when the
// backward pass first comes to it; of the last segment, whose backward pass follows at once, only
// where that saves memory (Chen, Xu, Zhang, Guestrin 2016, "Training deep nets with sublinear
// memory cost", section 4). Those boundaries are chosen that take the fewest bytes where no segment
// computes more than so many bytes again; how many, is chosen so that the planned memory is least
// (their algorithm 3 searches likewise, with other boundaries). So segments follow from sizes
// alone, and fit any network.
#pragma once

#include <cstdint>
#include <span>

#include "concord/graph/graph.h"

namespace concord {

enum class Recompute : std::uint8_t {
  kNone,
  // What takes at most 8 FLOPs for each byte of its outputs, about as long as reading them:
  // element-wise ops, normalizations, pooling, moved data. What is dearer, such as matrix products,
  // convolutions and attention, is kept (Korthikanti et al. 2022, "Reducing activation
  // recomputation in large transformer models", section 5).
  kSelective,
  kFull,  // everything
};

// Expects layouts to be assigned: memory is counted in them. The result may be the graph as it was,
// where nothing takes less. `borders`: activations that are kept in any case, such as those that
// one rank sends another.
Graph recompute_activations(const Graph& graph, Recompute what,
                            std::span<const ValueId> borders = {});

}  // namespace concord
