// The first values of states. A draw is keyed by (seed, state name, element index), so a state has
// the same first value on any rank, alone or in any model that gives it the same name and shape.
// Thread safety: pure functions; initialize uses the compute threads (base/parallel.h).
#pragma once

#include <cstdint>
#include <span>

#include "concord/base/philox.h"
#include "concord/graph/graph.h"

namespace concord::nn {

// Fills `values` with the first value of `state`, a state of `graph`, in row-major order; their
// number is that of all the state's elements, of which the graph's rank may have a part. With
// RandomStream{seed, random_stream(name), step 0}, element i is
//   kConstant  value
//   kUniform   value * (2 u - 1), u the uniform01 of bits(i)
//   kNormal    value * normal01(bits(2 i), bits(2 i + 1))
// computed in double precision and rounded once more to float.
void initialize(const Graph& graph, const State& state, std::uint64_t seed,
                std::span<float> values);

}  // namespace concord::nn
