// Collectives of ops/collective.h: of what all ranks along an axis have, what each of them gets.
#include "concord/ops/collective.h"

#include <algorithm>
#include <cmath>

#include "concord/base/error.h"
#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

// Elements of an array around dim `dim`: [outer, extent, inner].
struct Around {
  std::int64_t outer = 1, extent = 1, inner = 1;
  Around(const Shape& shape, int dim) : extent(shape[dim]) {
    for (int d = 0; d < shape.rank(); ++d) (d < dim ? outer : inner) *= d == dim ? 1 : shape[d];
  }
  std::int64_t at(std::int64_t o, std::int64_t e, std::int64_t i) const {
    return (o * extent + e) * inner + i;
  }
};

// Copies indices [begin, begin + count) of `from` along dim to `to`, from index `into` on.
void copy_range(const Array& from, std::int64_t begin, Array& to, std::int64_t into,
                std::int64_t count, int dim, bool adds = false) {
  const Around a(from.shape, dim), b(to.shape, dim);
  for (std::int64_t o = 0; o < a.outer; ++o) {
    for (std::int64_t e = 0; e < count; ++e) {
      for (std::int64_t i = 0; i < a.inner; ++i) {
        double& x = to[b.at(o, into + e, i)];
        x = (adds ? x : 0) + from[a.at(o, begin + e, i)];
      }
    }
  }
}

Array shard(const Array& whole, const Placement& split, int ranks, int index) {
  Array part(shard_shape(whole.shape, split, ranks));
  std::int64_t into = 0;
  for (const Range& range : ranges_of(whole.shape[split.dim], split, ranks, index)) {
    copy_range(whole, range.begin, part, into, range.end - range.begin, split.dim);
    into += range.end - range.begin;
  }
  return part;
}

// Of Placement::kFlat, in row-major order.
Array flat_shard(const Array& whole, std::int64_t part, int index) {
  Array result({part});
  for (std::int64_t i = 0; i < part && index * part + i < whole.shape.elements(); ++i) {
    result[i] = whole[index * part + i];
  }
  return result;
}

Array flat_gathered(std::span<const Array* const> parts, const Shape& shape) {
  Array whole(shape);
  const std::int64_t part = parts[0]->shape.elements();
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    whole[i] = (*parts[static_cast<std::size_t>(i / part)])[i % part];
  }
  return whole;
}

Array gathered(std::span<const Array* const> parts, const Placement& split) {
  const auto ranks = static_cast<int>(parts.size());
  Array whole(whole_shape(parts[0]->shape, split, ranks));
  for (int r = 0; r < ranks; ++r) {
    std::int64_t from = 0;
    for (const Range& range : ranges_of(whole.shape[split.dim], split, ranks, r)) {
      copy_range(*parts[static_cast<std::size_t>(r)], from, whole, range.begin,
                 range.end - range.begin, split.dim);
      from += range.end - range.begin;
    }
  }
  return whole;
}

double larger(double a, double b) { return std::isnan(a) || a > b ? a : b; }

Array reduced(std::span<const Array* const> inputs, bool maximum) {
  Array result = *inputs[0];
  for (const Array* input : inputs.subspan(1)) {
    for (std::size_t i = 0; i < result.data.size(); ++i) {
      result.data[i] =
          maximum ? larger(result.data[i], input->data[i]) : result.data[i] + input->data[i];
    }
  }
  return result;
}

// Each rank's part with what its neighbours have next to it.
std::vector<Array> exchanged(const Node& node, std::span<const Array* const> parts) {
  const auto dim = static_cast<int>(node.attributes.integer("dim"));
  const std::int64_t before = node.attributes.integer("before");
  const std::int64_t after = node.attributes.integer("after");
  const std::int64_t own = parts[0]->shape[dim];
  std::vector<Array> results;
  for (std::size_t r = 0; r < parts.size(); ++r) {
    Array& result = results.emplace_back(parts[r]->shape.with(dim, own + before + after));
    copy_range(*parts[r], 0, result, before, own, dim);
    if (r > 0) copy_range(*parts[r - 1], own - before, result, 0, before, dim);
    if (r + 1 < parts.size()) copy_range(*parts[r + 1], 0, result, before + own, after, dim);
  }
  return results;
}

std::vector<Array> summed_halos(const Node& node, std::span<const Array* const> parts) {
  const auto dim = static_cast<int>(node.attributes.integer("dim"));
  const std::int64_t before = node.attributes.integer("before");
  const std::int64_t after = node.attributes.integer("after");
  const std::int64_t own = parts[0]->shape[dim] - before - after;
  std::vector<Array> results;
  for (std::size_t r = 0; r < parts.size(); ++r) {
    Array& result = results.emplace_back(parts[r]->shape.with(dim, own));
    copy_range(*parts[r], before, result, 0, own, dim);
    if (r > 0) copy_range(*parts[r - 1], before + own, result, 0, after, dim, /*adds=*/true);
    if (r + 1 < parts.size()) {
      copy_range(*parts[r + 1], 0, result, own - before, before, dim, /*adds=*/true);
    }
  }
  return results;
}

std::vector<Array> shards(const Array& whole, const Placement& split, std::size_t ranks) {
  std::vector<Array> results;
  for (std::size_t r = 0; r < ranks; ++r) {
    results.push_back(shard(whole, split, static_cast<int>(ranks), static_cast<int>(r)));
  }
  return results;
}

std::vector<Array> run_flat(const Node& node, std::span<const Array* const> inputs) {
  if (node.op == ops::kAllGather) {
    const Shape whole(node.attributes.integers("shape"));
    return std::vector<Array>(inputs.size(), flat_gathered(inputs, whole));
  }
  const Array sum = reduced(inputs, false);
  std::vector<Array> results;
  for (std::size_t r = 0; r < inputs.size(); ++r) {
    results.push_back(flat_shard(sum, node.attributes.integer("part"), static_cast<int>(r)));
  }
  return results;
}

const RegisterKernel shard_kernel{std::string(ops::kShard), [](const Call& c) {
                                    const Attributes& attributes = c.node.attributes;
                                    if (ops::is_flat(c.node)) {
                                      c.out(0) =
                                          flat_shard(c.in(0), attributes.integer("part"),
                                                     static_cast<int>(attributes.integer("index")));
                                      return;
                                    }
                                    c.out(0) = shard(c.in(0), ops::split_of(c.node),
                                                     static_cast<int>(attributes.integer("ranks")),
                                                     static_cast<int>(attributes.integer("index")));
                                  }};

const RegisterKernel first_summand{std::string(ops::kFirstSummand), [](const Call& c) {
                                     if (c.node.attributes.integer("index") == 0)
                                       c.out(0) = c.in(0);
                                   }};

}  // namespace

std::vector<Array> run_collective(const Node& node, std::span<const Array* const> inputs) {
  const std::size_t ranks = inputs.size();
  if (node.op == ops::kAllReduce) {
    const bool maximum = node.attributes.has("maximum");
    return std::vector<Array>(ranks, reduced(inputs, maximum));
  }
  if (ops::is_flat(node)) return run_flat(node, inputs);
  if (node.op == ops::kReduceScatter) {
    return shards(reduced(inputs, false), ops::split_of(node), ranks);
  }
  if (node.op == ops::kAllGather) {
    return std::vector<Array>(ranks, gathered(inputs, ops::split_of(node)));
  }
  if (node.op == ops::kAllToAll) {
    return shards(gathered(inputs, ops::split_of(node)), ops::second_split_of(node), ranks);
  }
  if (node.op == ops::kHaloExchange) return exchanged(node, inputs);
  CONCORD_CHECK(node.op == ops::kHaloSum, "collective {}", node.op);
  return summed_halos(node, inputs);
}

Array part_of(Array whole, const State& state) {
  for (const Cut& cut : state.cuts) whole = shard(whole, cut.split, cut.ranks, cut.index);
  if (!state.flat || state.flat->is_held_whole) return whole;
  return flat_shard(whole, state.flat->part, state.flat->index);
}

}  // namespace concord::ref
