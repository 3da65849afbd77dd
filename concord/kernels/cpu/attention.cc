// Attention in blocks of 64 queries by 64 keys (FlashAttention: Dao et al. 2022; queries outside
// and keys inside, as in Dao 2023): scores exist for one block at a time and are computed anew
// backward, from the logarithm of their sums. Memory is linear in the number of positions. Where
// causality hides a part of a block, the block is cut into strips of 16 keys, and queries that see
// none of a strip are left out.
//
// A block's scores lie transposed, [keys, queries]. So the vectors' lanes are queries: the maxima
// and sums of softmax need no operation across lanes, keys and values are read where they lie, and
// only queries (and gradients of outputs) are transposed, once for all keys.
//
// Sums are taken block by block in the order of heads, queries and keys, whoever computes them, so
// the bits do not depend on the number of threads.
#include "concord/ops/attention.h"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/attention.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/block_matmul-inl.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/vector_math-inl.h"
#include "concord/ops/shape_ops.h"

#ifndef CONCORD_KERNELS_CPU_ATTENTION_ONCE_
#define CONCORD_KERNELS_CPU_ATTENTION_ONCE_
namespace concord::cpu {

// Queries, and keys, of a block. A multiple of every instruction set's lanes.
inline constexpr std::int64_t kBlock = 64;
// Keys of a strip. A multiple of every instruction set's lanes, too.
inline constexpr std::int64_t kStrip = 16;

struct Range {
  std::int64_t begin, end;
  std::int64_t size() const { return end - begin; }
};

// Heads of a [samples, length, stored heads, head size] in memory.
struct HeadRows {
  float* data = nullptr;  // of the first head
  std::int64_t length = 0, stored_heads = 0, head_size = 0;

  std::int64_t stride() const { return stored_heads * head_size; }  // between positions
  float* at(std::int64_t n, std::int64_t position, std::int64_t head) const {
    return data + (n * length + position) * stride() + head * head_size;
  }
};

struct AttentionProblem {
  ops::AttentionSizes sizes;
  float scale;
  bool causal;
  std::int64_t keys_before;  // causal: those that every query sees, before its own position

  // Keys that the queries before `query_end` see.
  std::int64_t keys_seen(std::int64_t query_end) const {
    return causal ? keys_before + query_end : sizes.keys;
  }
  // The first query that sees the key and those after it.
  std::int64_t first_query(std::int64_t key) const {
    return causal ? std::max<std::int64_t>(0, key - keys_before) : 0;
  }
  float* row_of(float* logsumexp, std::int64_t n, std::int64_t head) const {
    return logsumexp + (n * sizes.heads + head) * sizes.queries;
  }
};

struct AttentionOperands {
  HeadRows q, k, v, o;
  float* logsumexp;  // or null: not wanted
};

struct AttentionGradients {
  HeadRows q, k, v, o;
};

// What one call of AttentionBackward computes, for one sample: heads of one group, block-aligned
// ranges of queries and keys, and the gradients of these queries, or of these keys and values, or
// both. What is summed over lies wholly within the ranges.
struct BackwardPart {
  std::int64_t sample;
  Range heads, queries, keys;
  bool of_queries, of_keys;
};

// Runs of floats, each of whole cache lines, cut from a scratchpad one after the other. Without
// one, counts what would be needed.
class Scratch {
 public:
  explicit Scratch(float* data = nullptr) : data_(data) {}
  float* take(std::int64_t count) {
    float* const taken = data_ == nullptr ? nullptr : data_ + used_;
    used_ += (count + 15) / 16 * 16;
    return taken;
  }
  std::int64_t used() const { return used_; }

 private:
  float* data_;
  std::int64_t used_ = 0;
};

// Rows of vectors of the head size are padded to whole vectors of any instruction set.
inline std::int64_t padded_size(std::int64_t head_size) { return (head_size + 15) / 16 * 16; }

struct ForwardScratch {
  ForwardScratch(Scratch s, std::int64_t head_size)
      : q(s.take(head_size * kBlock)),
        o(s.take(head_size * kBlock)),
        scores(s.take(kBlock * kBlock)),
        largest(s.take(kBlock)),
        sums(s.take(kBlock)),
        floats(s.used()) {}
  float *q, *o;           // [head size, queries]
  float* scores;          // [keys, queries]
  float *largest, *sums;  // [queries]
  std::int64_t floats;
};

struct BackwardScratch {
  BackwardScratch(Scratch s, std::int64_t head_size, std::int64_t keys)
      : q_columns(s.take(head_size * kBlock)),
        do_columns(s.take(head_size * kBlock)),
        dq_columns(s.take(head_size * kBlock)),
        q_rows(s.take(padded_size(head_size) * kBlock)),
        do_rows(s.take(padded_size(head_size) * kBlock)),
        dk(s.take(padded_size(head_size) * keys)),
        dv(s.take(padded_size(head_size) * keys)),
        p(s.take(kBlock * kBlock)),
        ds(s.take(kBlock * kBlock)),
        logsumexp(s.take(kBlock)),
        delta(s.take(kBlock)),
        floats(s.used()) {}
  float *q_columns, *do_columns, *dq_columns;  // [head size, queries]
  float *q_rows, *do_rows;                     // [queries, padded head size]
  float *dk, *dv;                              // [keys, padded head size]
  float *p, *ds;                               // [keys, queries]
  float *logsumexp, *delta;                    // [queries]
  std::int64_t floats;
};

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

std::int64_t lanes() { return static_cast<std::int64_t>(hn::Lanes(D())); }
std::int64_t whole_vectors(std::int64_t count) { return (count + lanes() - 1) / lanes() * lanes(); }

// to[j, i] = scale * from[i, j] for a matrix of rows x columns; four rows at a time.
void transpose(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns,
               float scale, float* to, std::int64_t to_stride) {
  const hn::CappedTag<float, 4> d;
  const auto width = static_cast<std::int64_t>(hn::Lanes(d));
  const auto factor = hn::Set(d, scale);
  std::int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    const auto load = [&](std::int64_t r, std::int64_t j) {
      return hn::Mul(hn::LoadU(d, from + (i + r) * from_stride + j), factor);
    };
    std::int64_t j = 0;
    for (; j + width <= columns; j += width) {
      HWY_ALIGN float quads[4 * hn::MaxLanes(d)];
      hn::StoreInterleaved4(load(0, j), load(1, j), load(2, j), load(3, j), d, quads);
      for (std::int64_t c = 0; c < width; ++c)
        std::copy_n(quads + 4 * c, 4, to + (j + c) * to_stride + i);
    }
    for (; j < columns; ++j) {
      for (std::int64_t r = i; r < i + 4; ++r)
        to[j * to_stride + r] = scale * from[r * from_stride + j];
    }
  }
  for (; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j)
      to[j * to_stride + i] = scale * from[i * from_stride + j];
  }
}

// Positions of a head as columns [head size, kBlock], with zeros after the last to whole vectors.
void load_columns(const HeadRows& heads, std::int64_t n, Range positions, std::int64_t head,
                  float scale, float* to) {
  const std::int64_t count = positions.size();
  transpose(heads.at(n, positions.begin, head), heads.stride(), count, heads.head_size, scale, to,
            kBlock);
  for (std::int64_t j = 0; j < heads.head_size; ++j) {
    std::fill(to + j * kBlock + count, to + j * kBlock + whole_vectors(count), 0.0f);
  }
}

// The reverse, a few positions at a time: they may lie so that a cache holds only a few.
void store_columns(const float* from, float scale, const HeadRows& heads, std::int64_t n,
                   Range positions, std::int64_t head) {
  for (std::int64_t i = 0; i < positions.size(); i += 4) {
    transpose(from + i, kBlock, heads.head_size, std::min<std::int64_t>(4, positions.size() - i),
              scale, heads.at(n, positions.begin + i, head), heads.stride());
  }
}

// Positions of a head as rows [positions, padded head size], with zeros in the padding.
void load_rows(const HeadRows& heads, std::int64_t n, Range positions, std::int64_t head,
               float scale, float* to) {
  const std::int64_t width = padded_size(heads.head_size);
  for (std::int64_t i = 0; i < positions.size(); ++i) {
    const float* row = heads.at(n, positions.begin + i, head);
    for (std::int64_t j = 0; j < heads.head_size; ++j) to[i * width + j] = scale * row[j];
    std::fill(to + i * width + heads.head_size, to + (i + 1) * width, 0.0f);
  }
}

void store_rows(const float* from, const HeadRows& heads, std::int64_t n, Range positions,
                std::int64_t head) {
  const std::int64_t width = padded_size(heads.head_size);
  for (std::int64_t i = 0; i < positions.size(); ++i) {
    std::copy_n(from + i * width, heads.head_size, heads.at(n, positions.begin + i, head));
  }
}

// Keys, or values, as the left factor of a product: a row for each position, or a column.
LeftFactor as_rows(const HeadRows& heads, std::int64_t n, Range positions, std::int64_t head) {
  return {heads.at(n, positions.begin, head), heads.stride(), 1};
}
LeftFactor as_columns(const HeadRows& heads, std::int64_t n, Range positions, std::int64_t head) {
  return {heads.at(n, positions.begin, head), 1, heads.stride()};
}

// The next keys before `end` to meet a block of queries: a block, or a strip where some of these
// queries do not see all of the block.
Range next_keys(const AttentionProblem& problem, std::int64_t begin, std::int64_t end,
                Range queries) {
  const bool all_seen = problem.first_query(begin + kBlock - 1) <= queries.begin;
  return {begin, std::min(begin + (all_seen ? kBlock : kStrip), end)};
}

// The columns of a block of queries that see any of these keys, rounded to whole vectors.
Range columns_seeing(const AttentionProblem& problem, Range keys, Range queries) {
  const std::int64_t hidden = problem.first_query(keys.begin) - queries.begin;
  return {std::max<std::int64_t>(0, hidden) / kStrip * kStrip, whole_vectors(queries.size())};
}

// Scores of keys that a query does not see become minus infinity.
void mask(const AttentionProblem& problem, Range keys, Range queries, float* scores) {
  for (std::int64_t i = 0; i < keys.size(); ++i) {
    const std::int64_t hidden = problem.first_query(keys.begin + i) - queries.begin;
    if (hidden <= 0) continue;
    std::fill_n(scores + i * kBlock, std::min(hidden, queries.size()),
                -std::numeric_limits<float>::infinity());
  }
}

// One more block of keys (Milakov, Gimelshein 2018): turns scores into e^(score - largest so far),
// adds them to the queries' sums, and rescales these and the outputs where the largest has grown.
void update_softmax(std::int64_t keys, Range columns, std::int64_t head_size,
                    const ForwardScratch& s) {
  const D d;
  for (std::int64_t q = columns.begin; q < columns.end; q += lanes()) {
    const V before = hn::Load(d, s.largest + q);
    V largest = before;
    for (std::int64_t k = 0; k < keys; ++k) {
      largest = hn::Max(largest, hn::Load(d, s.scores + k * kBlock + q));
    }
    V sum = hn::Zero(d);
    for (std::int64_t k = 0; k < keys; ++k) {
      float* score = s.scores + k * kBlock + q;
      const V e = exp_below_zero(d, hn::Sub(hn::Load(d, score), largest));
      sum = hn::Add(sum, e);
      hn::Store(e, d, score);
    }
    const V factor = exp_below_zero(d, hn::Sub(before, largest));
    hn::Store(largest, d, s.largest + q);
    hn::Store(hn::MulAdd(hn::Load(d, s.sums + q), factor, sum), d, s.sums + q);
    for (std::int64_t j = 0; j < head_size; ++j) {
      float* o = s.o + j * kBlock + q;
      hn::Store(hn::Mul(hn::Load(d, o), factor), d, o);
    }
  }
}

// Divides the outputs by the sums, and gives the logarithms of the sums in place of the sums.
void finish_softmax(std::int64_t queries, std::int64_t head_size, const ForwardScratch& s) {
  const D d;
  for (std::int64_t q = 0; q < queries; q += lanes()) {
    const V sum = hn::Load(d, s.sums + q);
    const V factor = hn::Div(hn::Set(d, 1.0f), sum);
    for (std::int64_t j = 0; j < head_size; ++j) {
      float* o = s.o + j * kBlock + q;
      hn::Store(hn::Mul(hn::Load(d, o), factor), d, o);
    }
    hn::Store(hn::Add(hn::Load(d, s.largest + q), log(d, sum)), d, s.sums + q);
  }
}

// One head of one sample, one block of queries.
void AttentionForward(const AttentionProblem& problem, const AttentionOperands& x, std::int64_t n,
                      std::int64_t head, Range queries, float* scratch) {
  const std::int64_t head_size = problem.sizes.head_size;
  const std::int64_t group = problem.sizes.group_of(head);
  const ForwardScratch s(Scratch(scratch), head_size);
  load_columns(x.q, n, queries, head, problem.scale, s.q);
  std::fill_n(s.o, head_size * kBlock, 0.0f);
  std::fill_n(s.sums, kBlock, 0.0f);
  std::fill_n(s.largest, kBlock, -std::numeric_limits<float>::infinity());
  const std::int64_t seen = problem.keys_seen(queries.end);
  for (Range keys = next_keys(problem, 0, seen, queries); keys.size() > 0;
       keys = next_keys(problem, keys.end, seen, queries)) {
    const Range columns = columns_seeing(problem, keys, queries);
    const std::int64_t c = columns.begin;
    multiply(as_rows(x.k, n, keys, group), {s.q + c, kBlock}, {s.scores + c, kBlock},
             {keys.size(), head_size, columns.size()}, false);
    mask(problem, keys, queries, s.scores);
    update_softmax(keys.size(), columns, head_size, s);
    multiply(as_columns(x.v, n, keys, group), {s.scores + c, kBlock}, {s.o + c, kBlock},
             {head_size, keys.size(), columns.size()}, true);
  }
  finish_softmax(whole_vectors(queries.size()), head_size, s);
  store_columns(s.o, 1.0f, x.o, n, queries, head);
  if (x.logsumexp == nullptr) return;
  std::copy_n(s.sums, queries.size(), problem.row_of(x.logsumexp, n, head) + queries.begin);
}

float dot(const float* a, const float* b, std::int64_t count) {
  const D d;
  V sums = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + lanes() <= count; i += lanes()) {
    sums = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sums);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

// to += factor * from
void add_scaled(float factor, const float* from, std::int64_t count, float* to) {
  const D d;
  const V f = hn::Set(d, factor);
  std::int64_t i = 0;
  for (; i + lanes() <= count; i += lanes()) {
    hn::StoreU(hn::MulAdd(f, hn::LoadU(d, from + i), hn::LoadU(d, to + i)), d, to + i);
  }
  for (; i < count; ++i) to[i] += factor * from[i];
}

// One query of one head. Its scores fill no block: the vectors' lanes are channels here.
void AttentionOfOne(const AttentionProblem& problem, const AttentionOperands& x, std::int64_t n,
                    std::int64_t head, std::int64_t query, float* scores) {
  const D d;
  const std::int64_t group = problem.sizes.group_of(head), size = problem.sizes.head_size;
  const std::int64_t keys = problem.keys_seen(query + 1);
  float largest = -std::numeric_limits<float>::infinity();
  for (std::int64_t k = 0; k < keys; ++k) {
    scores[k] = problem.scale * dot(x.q.at(n, query, head), x.k.at(n, k, group), size);
    largest = std::max(largest, scores[k]);
  }
  std::fill(scores + keys, scores + whole_vectors(keys), -std::numeric_limits<float>::infinity());
  V sums = hn::Zero(d);
  for (std::int64_t k = 0; k < keys; k += lanes()) {
    const V e = exp_below_zero(d, hn::Sub(hn::Load(d, scores + k), hn::Set(d, largest)));
    sums = hn::Add(sums, e);
    hn::Store(e, d, scores + k);
  }
  const float factor = 1 / hn::GetLane(hn::SumOfLanes(d, sums));
  float* o = x.o.at(n, query, head);
  std::fill_n(o, size, 0.0f);
  for (std::int64_t k = 0; k < keys; ++k) {
    add_scaled(factor * scores[k], x.v.at(n, k, group), size, o);
  }
}

// What the backward pass needs of a block of queries.
void load_queries(const AttentionProblem& problem, const AttentionOperands& x, const HeadRows& d_o,
                  std::int64_t n, std::int64_t head, Range queries, const BackwardScratch& s) {
  load_columns(x.q, n, queries, head, problem.scale, s.q_columns);
  load_rows(x.q, n, queries, head, problem.scale, s.q_rows);
  load_columns(d_o, n, queries, head, 1.0f, s.do_columns);
  load_rows(d_o, n, queries, head, 1.0f, s.do_rows);
  std::fill_n(s.logsumexp, kBlock, 0.0f);
  std::fill_n(s.delta, kBlock, 0.0f);
  std::copy_n(problem.row_of(x.logsumexp, n, head) + queries.begin, queries.size(), s.logsumexp);
  for (std::int64_t t = 0; t < queries.size(); ++t) {
    s.delta[t] = dot(d_o.at(n, queries.begin + t, head), x.o.at(n, queries.begin + t, head),
                     problem.sizes.head_size);
  }
}

// p = e^(score - logsumexp), in place.
void probabilities(std::int64_t keys, Range columns, const BackwardScratch& s) {
  const D d;
  for (std::int64_t q = columns.begin; q < columns.end; q += lanes()) {
    const V logsumexp = hn::Load(d, s.logsumexp + q);
    for (std::int64_t k = 0; k < keys; ++k) {
      float* p = s.p + k * kBlock + q;
      hn::Store(exp_below_zero(d, hn::Sub(hn::Load(d, p), logsumexp)), d, p);
    }
  }
}

// ds = p * (dp - delta), in place of dp.
void score_gradients(std::int64_t keys, Range columns, const BackwardScratch& s) {
  const D d;
  for (std::int64_t q = columns.begin; q < columns.end; q += lanes()) {
    const V delta = hn::Load(d, s.delta + q);
    for (std::int64_t k = 0; k < keys; ++k) {
      const std::int64_t at = k * kBlock + q;
      const V distance = hn::Sub(hn::Load(d, s.ds + at), delta);
      hn::Store(hn::Mul(hn::Load(d, s.p + at), distance), d, s.ds + at);
    }
  }
}

// One pass of the inner loop of algorithm 4 (Dao et al. 2022): what a block of loaded queries and
// these keys add to each other's gradients. The factor `scale` is in the loaded queries, and so in
// the scores and in dk.
void add_gradients(const AttentionProblem& problem, const AttentionOperands& x,
                   const BackwardPart& part, Range queries, Range keys, const BackwardScratch& s) {
  const std::int64_t n = part.sample, group = problem.sizes.group_of(part.heads.begin);
  const std::int64_t head_size = problem.sizes.head_size, width = padded_size(head_size);
  const Range columns = columns_seeing(problem, keys, queries);
  const std::int64_t c = columns.begin;
  const ProductSizes of_scores{keys.size(), head_size, columns.size()};
  multiply(as_rows(x.k, n, keys, group), {s.q_columns + c, kBlock}, {s.p + c, kBlock}, of_scores,
           false);
  mask(problem, keys, queries, s.p);
  probabilities(keys.size(), columns, s);
  multiply(as_rows(x.v, n, keys, group), {s.do_columns + c, kBlock}, {s.ds + c, kBlock}, of_scores,
           false);
  score_gradients(keys.size(), columns, s);
  if (part.of_keys) {
    const std::int64_t row = (keys.begin - part.keys.begin) * width, first = c * width;
    const ProductSizes of_keys{keys.size(), queries.size() - c, width};
    multiply({s.p + c, kBlock, 1}, {s.do_rows + first, width}, {s.dv + row, width}, of_keys, true);
    multiply({s.ds + c, kBlock, 1}, {s.q_rows + first, width}, {s.dk + row, width}, of_keys, true);
  }
  if (part.of_queries) {
    multiply(as_columns(x.k, n, keys, group), {s.ds + c, kBlock}, {s.dq_columns + c, kBlock},
             {head_size, keys.size(), columns.size()}, true);
  }
}

// Algorithm 4 with the loop over queries outside and that over keys inside.
void AttentionBackward(const AttentionProblem& problem, const AttentionOperands& x,
                       const AttentionGradients& dx, const BackwardPart& part, float* scratch) {
  const std::int64_t n = part.sample, head_size = problem.sizes.head_size;
  const BackwardScratch s(Scratch(scratch), head_size, part.keys.size());
  if (part.of_keys) {
    std::fill_n(s.dk, part.keys.size() * padded_size(head_size), 0.0f);
    std::fill_n(s.dv, part.keys.size() * padded_size(head_size), 0.0f);
  }
  for (std::int64_t head = part.heads.begin; head < part.heads.end; ++head) {
    for (std::int64_t query = part.queries.begin; query < part.queries.end; query += kBlock) {
      const Range queries{query, std::min(query + kBlock, part.queries.end)};
      const std::int64_t seen = std::min(part.keys.end, problem.keys_seen(queries.end));
      load_queries(problem, x, dx.o, n, head, queries, s);
      std::fill_n(s.dq_columns, head_size * kBlock, 0.0f);
      for (Range keys = next_keys(problem, part.keys.begin, seen, queries); keys.size() > 0;
           keys = next_keys(problem, keys.end, seen, queries)) {
        add_gradients(problem, x, part, queries, keys, s);
      }
      if (part.of_queries) store_columns(s.dq_columns, problem.scale, dx.q, n, queries, head);
    }
  }
  if (part.of_keys) {
    const std::int64_t group = problem.sizes.group_of(part.heads.begin);
    store_rows(s.dk, dx.k, n, part.keys, group);
    store_rows(s.dv, dx.v, n, part.keys, group);
  }
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(AttentionForward);
HWY_EXPORT(AttentionOfOne);
HWY_EXPORT(AttentionBackward);

namespace {

// Of a node whose q, k and v are inputs [first, end).
AttentionProblem problem_of(const Signature& s, std::size_t first, std::size_t end) {
  expect_f32(s);
  std::vector<TensorType> operands;
  for (std::size_t i = first; i < end; ++i) operands.push_back(s.inputs[i].type);
  const Attributes& attributes = s.node.attributes;
  const ops::AttentionSizes sizes = ops::attention_sizes(s.node, operands);
  return {sizes, static_cast<float>(attributes.real("scale")), attributes.integer("causal") != 0,
          sizes.keys - sizes.queries};
}

// q, k or v (`which` is 0, 1 or 2), or its gradient, among operands that begin there.
HeadRows rows_of(const AttentionProblem& problem, std::size_t which,
                 std::span<std::byte* const> operands) {
  const ops::AttentionSizes& sizes = problem.sizes;
  const ops::AttentionSizes::Heads& at = sizes.qkv[which];
  return {as<float>(operands[at.index]) + at.first_head * sizes.head_size,
          which == 0 ? sizes.queries : sizes.keys, at.stored_heads, sizes.head_size};
}

HeadRows rows_of_o(const AttentionProblem& problem, std::byte* operand) {
  const ops::AttentionSizes& sizes = problem.sizes;
  return {as<float>(operand), sizes.queries, sizes.heads, sizes.head_size};
}

std::int64_t blocks(std::int64_t positions) { return (positions + kBlock - 1) / kBlock; }

Range block(std::int64_t index, std::int64_t positions) {
  return {index * kBlock, std::min((index + 1) * kBlock, positions)};
}

// Numbered tasks dealt out to the threads in turn, so that causal ones, which grow with their
// number, come out even; each thread has scratch memory of its own.
class Team {
 public:
  explicit Team(std::int64_t floats_each) : floats_each_(floats_each) {}

  std::int64_t threads() const { return threads_; }
  std::size_t scratchpad_bytes() const {
    return static_cast<std::size_t>(threads_ * floats_each_) * sizeof(float);
  }
  template <typename Task>
  void run(std::int64_t tasks, std::byte* scratchpad, Task task) const {
    parallel_for(threads_, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t thread = begin; thread < end; ++thread) {
        float* scratch = as<float>(scratchpad) + thread * floats_each_;
        for (std::int64_t t = thread; t < tasks; t += threads_) task(t, scratch);
      }
    });
  }

 private:
  std::int64_t threads_ = compute_threads();
  std::int64_t floats_each_;
};

// Every head, by blocks of queries.
void run_blocks(const AttentionProblem& problem, const Team& team, const AttentionOperands& x,
                std::byte* scratchpad) {
  const ops::AttentionSizes& sizes = problem.sizes;
  const auto forward = HWY_DYNAMIC_DISPATCH(AttentionForward);
  const std::int64_t blocks_each = blocks(sizes.queries);
  team.run(sizes.samples * sizes.heads * blocks_each, scratchpad,
           [&](std::int64_t task, float* scratch) {
             const std::int64_t head = task / blocks_each;
             forward(problem, x, head / sizes.heads, head % sizes.heads,
                     block(task % blocks_each, sizes.queries), scratch);
           });
}

// Operands: those of the node, then the scratchpad.
class Attention final : public Kernel {
 public:
  explicit Attention(const Signature& s)
      : problem_(problem_of(s, 0, s.inputs.size())),
        inputs_(s.inputs.size()),
        team_(ForwardScratch(Scratch(), problem_.sizes.head_size).floats) {}

  std::size_t scratchpad_bytes() const override { return team_.scratchpad_bytes(); }

  void run(std::span<std::byte* const> operands) override {
    run_blocks(problem_, team_,
               {rows_of(problem_, 0, operands), rows_of(problem_, 1, operands),
                rows_of(problem_, 2, operands), rows_of_o(problem_, operands[inputs_]),
                as<float>(operands[inputs_ + 1])},
               operands[inputs_ + 2]);
  }

 private:
  AttentionProblem problem_;
  std::size_t inputs_;
  Team team_;
};

// Operands: q, kv, position, o, the scratchpad.
class CachedAttention final : public Kernel {
 public:
  explicit CachedAttention(const Signature& s)
      : problem_(problem_of(s, 0, 2)),
        team_(problem_.sizes.queries == 1
                  ? (problem_.sizes.keys + kBlock - 1) / kBlock * kBlock
                  : ForwardScratch(Scratch(), problem_.sizes.head_size).floats) {}

  std::size_t scratchpad_bytes() const override { return team_.scratchpad_bytes(); }

  void run(std::span<std::byte* const> operands) override {
    const ops::AttentionSizes& sizes = problem_.sizes;
    problem_.keys_before = *as<std::int64_t>(operands[2]);
    ops::expect_inside(problem_.keys_before, sizes.queries, sizes.keys);
    const AttentionOperands x{rows_of(problem_, 0, operands), rows_of(problem_, 1, operands),
                              rows_of(problem_, 2, operands), rows_of_o(problem_, operands[3]),
                              nullptr};
    if (sizes.queries > 1) return run_blocks(problem_, team_, x, operands[4]);
    const auto attend = HWY_DYNAMIC_DISPATCH(AttentionOfOne);
    team_.run(sizes.samples * sizes.heads, operands[4], [&](std::int64_t task, float* scratch) {
      attend(problem_, x, task / sizes.heads, task % sizes.heads, 0, scratch);
    });
  }

 private:
  AttentionProblem problem_;
  Team team_;
};

class AttentionBackward final : public Kernel {
 public:
  explicit AttentionBackward(const Signature& s)
      : problem_(problem_of(s, 3, s.inputs.size())),
        inputs_(s.inputs.size()),
        team_(BackwardScratch(Scratch(), problem_.sizes.head_size, problem_.sizes.keys).floats) {}

  std::size_t scratchpad_bytes() const override { return team_.scratchpad_bytes(); }

  void run(std::span<std::byte* const> operands) override {
    const auto qkv = operands.subspan(3), gradients = operands.subspan(inputs_);
    const AttentionOperands x{rows_of(problem_, 0, qkv), rows_of(problem_, 1, qkv),
                              rows_of(problem_, 2, qkv), rows_of_o(problem_, operands[1]),
                              as<float>(operands[2])};
    const AttentionGradients dx{rows_of(problem_, 0, gradients), rows_of(problem_, 1, gradients),
                                rows_of(problem_, 2, gradients), rows_of_o(problem_, operands[0])};
    const auto backward = HWY_DYNAMIC_DISPATCH(AttentionBackward);
    const auto run_parts = [&](std::int64_t count, auto part) {
      team_.run(count, operands.back(), [&](std::int64_t task, float* scratch) {
        backward(problem_, x, dx, part(task), scratch);
      });
    };
    const ops::AttentionSizes& sizes = problem_.sizes;
    const std::int64_t groups = sizes.samples * sizes.groups;
    if (groups >= team_.threads()) return run_parts(groups, [&](auto t) { return whole_group(t); });
    // Too few for the threads: each block on its own. Scores are then computed twice.
    run_parts(groups * blocks(sizes.keys), [&](auto t) { return keys_of_group(t); });
    run_parts(sizes.samples * sizes.heads * blocks(sizes.queries),
              [&](auto t) { return queries_of_head(t); });
  }

 private:
  BackwardPart whole_group(std::int64_t group) const {
    const ops::AttentionSizes& sizes = problem_.sizes;
    const std::int64_t heads = sizes.heads / sizes.groups, first = group % sizes.groups * heads;
    return {.sample = group / sizes.groups,
            .heads = {first, first + heads},
            .queries = {0, sizes.queries},
            .keys = {0, sizes.keys},
            .of_queries = true,
            .of_keys = true};
  }
  BackwardPart keys_of_group(std::int64_t task) const {
    const std::int64_t blocks_each = blocks(problem_.sizes.keys);
    BackwardPart part = whole_group(task / blocks_each);
    part.keys = block(task % blocks_each, problem_.sizes.keys);
    part.queries.begin = problem_.first_query(part.keys.begin) / kBlock * kBlock;
    part.of_queries = false;
    return part;
  }
  BackwardPart queries_of_head(std::int64_t task) const {
    const ops::AttentionSizes& sizes = problem_.sizes;
    const std::int64_t blocks_each = blocks(sizes.queries), head = task / blocks_each;
    return {.sample = head / sizes.heads,
            .heads = {head % sizes.heads, head % sizes.heads + 1},
            .queries = block(task % blocks_each, sizes.queries),
            .keys = {0, sizes.keys},
            .of_queries = true,
            .of_keys = false};
  }

  AttentionProblem problem_;
  std::size_t inputs_;
  Team team_;
};

template <typename AttentionKernel>
std::unique_ptr<Kernel> make(const Signature& s, KernelPolicy&) {
  return std::make_unique<AttentionKernel>(s);
}

const RegisterKernelRule attention{{.op = "attention", .make = make<Attention>}};
const RegisterKernelRule cached_attention{
    {.op = "cached_attention", .make = make<CachedAttention>}};
const RegisterKernelRule attention_backward{
    {.op = "attention_backward", .make = make<AttentionBackward>}};

}  // namespace
}  // namespace concord::cpu
#endif
