#include "concord/nn/initialize.h"

#include <algorithm>

#include "concord/base/error.h"
#include "concord/base/parallel.h"
#include "concord/base/philox.h"

namespace concord::nn {
namespace {

constexpr std::int64_t kBlocksPerTask = 4096;

// Calls fill(block of random bits, the block's part of `values`) for every block; a block serves
// `per_block` elements.
template <typename Fill>
void fill_blocks(const RandomStream& stream, std::span<float> values, std::size_t per_block,
                 Fill fill) {
  const std::size_t blocks = (values.size() + per_block - 1) / per_block;
  parallel_for(static_cast<std::int64_t>(blocks), kBlocksPerTask,
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t block = begin; block < end; ++block) {
                   const std::size_t first = static_cast<std::size_t>(block) * per_block;
                   fill(stream.block(static_cast<std::uint64_t>(block)),
                        values.subspan(first, std::min(per_block, values.size() - first)));
                 }
               });
}

}  // namespace

void initialize(const Graph& graph, const State& state, std::uint64_t seed,
                std::span<float> values) {
  const Value& value = graph.value(state.value);
  const std::int64_t elements = whole_type(graph, state).shape.elements();
  CONCORD_CHECK(static_cast<std::int64_t>(values.size()) == elements, "state \"{}\": {} values",
                value.name, values.size());
  const RandomStream stream{seed, random_stream(value.name), 0};
  const double size = state.initializer.value;
  switch (state.initializer.kind) {
    case Initializer::Kind::kConstant:
      std::ranges::fill(values, static_cast<float>(size));
      return;
    case Initializer::Kind::kUniform:
      fill_blocks(stream, values, 4, [size](const PhiloxBlock& bits, std::span<float> part) {
        for (std::size_t i = 0; i < part.size(); ++i) {
          part[i] = static_cast<float>((2.0 * double{uniform01(bits[i])} - 1.0) * size);
        }
      });
      return;
    case Initializer::Kind::kNormal:
      fill_blocks(stream, values, 2, [size](const PhiloxBlock& bits, std::span<float> part) {
        for (std::size_t i = 0; i < part.size(); ++i) {
          part[i] = static_cast<float>(double{normal01(bits[2 * i], bits[2 * i + 1])} * size);
        }
      });
      return;
  }
}

}  // namespace concord::nn
