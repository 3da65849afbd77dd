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
// In bf16 the factors of all products are bf16 and their sums f32; the scores, softmax and sums
// over keys are f32 throughout.
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
#include "concord/kernels/cpu/attention_heads-inl.h"
#include "concord/kernels/cpu/instruction_set.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/vector_math-inl.h"
#include "concord/ops/shape_ops.h"

#ifndef CONCORD_KERNELS_CPU_ATTENTION_ONCE_
#define CONCORD_KERNELS_CPU_ATTENTION_ONCE_
namespace concord::cpu {

// Keys of a strip. A multiple of every instruction set's lanes, too.
inline constexpr std::int64_t kStrip = 16;

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

  // The scale is a factor of the queries as they are loaded, or in bf16, which that would round
  // once more, of the scores, and of the gradients of keys at the end.
  template <typename T>
  float scale_of_queries() const {
    return std::is_same_v<T, float> ? scale : 1;
  }
  template <typename T>
  float scale_of_scores() const {
    return std::is_same_v<T, float> ? 1 : scale;
  }
};

template <typename T>
struct AttentionOperands {
  HeadRows<T> q, k, v, o;
  float* logsumexp;  // or null: not wanted
};

template <typename T>
struct AttentionGradients {
  HeadRows<T> q, k, v, o;
};

// What one call of AttentionBackward computes, for one sample: heads of one group, block-aligned
// ranges of queries and keys, and the gradients of these queries, or of these keys and values, or
// both. What is summed over lies wholly within the ranges.
struct BackwardPart {
  std::int64_t sample;
  Range heads, queries, keys;
  bool of_queries, of_keys;
};

// Elements of a scratch memory that only heads in bf16 need.
template <typename T>
constexpr std::int64_t if_bf16(std::int64_t count) {
  return std::is_same_v<T, BF16> ? count : 0;
}

template <typename T>
struct ForwardScratch {
  using F = Factor<T>;
  ForwardScratch(Scratch s, std::int64_t head_size)
      : q(s.take<F>(factors<T>(head_size) * kBlock)),
        o(s.take(head_size * kBlock)),
        scores(s.take(kBlock * kBlock)),
        largest(s.take(kBlock)),
        sums(s.take(kBlock)),
        rows(s.take<F>(if_bf16<T>(factors<T>(head_size) * kBlock))),
        v(s.take<F>(if_bf16<T>(padded_size(head_size) * kBlock / 2))),
        p(s.take<F>(if_bf16<T>(kBlock * kBlock / 2))),
        floats(s.used()) {}
  F* q;                   // [head size, queries]
  float* o;               // likewise
  float* scores;          // [keys, queries]
  float *largest, *sums;  // [queries]
  F *rows, *v, *p;        // copies of blocks as factors
  std::int64_t floats;
};

template <typename T>
struct BackwardScratch {
  using F = Factor<T>;
  BackwardScratch(Scratch s, std::int64_t head_size, std::int64_t keys)
      : q_columns(s.take<F>(factors<T>(head_size) * kBlock)),
        do_columns(s.take<F>(factors<T>(head_size) * kBlock)),
        dq_columns(s.take(head_size * kBlock)),
        q_rows(s.take<F>(padded_size(head_size) * factors<T>(kBlock))),
        do_rows(s.take<F>(padded_size(head_size) * factors<T>(kBlock))),
        dk(s.take(padded_size(head_size) * keys)),
        dv(s.take(padded_size(head_size) * keys)),
        p(s.take(kBlock * kBlock)),
        ds(s.take(kBlock * kBlock)),
        logsumexp(s.take(kBlock)),
        delta(s.take(kBlock)),
        rows(s.take<F>(if_bf16<T>(factors<T>(head_size) * kBlock))),
        k_columns(s.take<F>(if_bf16<T>(padded_size(head_size) * kBlock / 2))),
        scores(s.take<F>(if_bf16<T>(kBlock * kBlock / 2))),
        floats(s.used()) {}
  F *q_columns, *do_columns;     // [head size, queries]
  float* dq_columns;             // likewise
  F *q_rows, *do_rows;           // [queries, padded head size]
  float *dk, *dv;                // [keys, padded head size]
  float *p, *ds;                 // [keys, queries]
  float *logsumexp, *delta;      // [queries]
  F *rows, *k_columns, *scores;  // copies of blocks as factors
  std::int64_t floats;
};

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

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

void scale_scores(std::int64_t keys, Range columns, float scale, float* scores) {
  if (scale == 1) return;
  const D d;
  for (std::int64_t k = 0; k < keys; ++k) {
    for (std::int64_t q = columns.begin; q < columns.end; q += lanes()) {
      float* score = scores + k * kBlock + q;
      hn::Store(hn::Mul(hn::Load(d, score), splat(scale)), d, score);
    }
  }
}

// One more block of keys (Milakov, Gimelshein 2018): turns scores into e^(score - largest so far),
// adds them to the queries' sums, and rescales these and the outputs where the largest has grown.
template <typename T>
void update_softmax(std::int64_t keys, Range columns, std::int64_t head_size,
                    const ForwardScratch<T>& s) {
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
template <typename T>
void finish_softmax(std::int64_t queries, std::int64_t head_size, const ForwardScratch<T>& s) {
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
template <typename T>
void forward(const AttentionProblem& problem, const AttentionOperands<T>& x, std::int64_t n,
             std::int64_t head, Range queries, float* scratch) {
  const std::int64_t head_size = problem.sizes.head_size;
  const std::int64_t group = problem.sizes.group_of(head);
  const ForwardScratch<T> s(Scratch(scratch), head_size);
  load_columns({x.q, n, queries, head}, problem.scale_of_queries<T>(), s.rows, s.q);
  std::fill_n(s.o, head_size * kBlock, 0.0f);
  std::fill_n(s.sums, kBlock, 0.0f);
  std::fill_n(s.largest, kBlock, -std::numeric_limits<float>::infinity());
  const std::int64_t seen = problem.keys_seen(queries.end);
  for (Range keys = next_keys(problem, 0, seen, queries); keys.size() > 0;
       keys = next_keys(problem, keys.end, seen, queries)) {
    const Range columns = columns_seeing(problem, keys, queries);
    const std::int64_t c = columns.begin;
    multiply(as_rows({x.k, n, keys, group}, s.rows), {s.q + c, kBlock}, {s.scores + c, kBlock},
             {keys.size(), factors<T>(head_size), columns.size()}, false);
    scale_scores(keys.size(), columns, problem.scale_of_scores<T>(), s.scores);
    mask(problem, keys, queries, s.scores);
    update_softmax(keys.size(), columns, head_size, s);
    multiply(as_columns({x.v, n, keys, group}, s.v), as_right(s.scores, keys.size(), columns, s.p),
             {s.o + c, kBlock}, {head_size, factors<T>(keys.size()), columns.size()}, true);
  }
  finish_softmax(whole_vectors(queries.size()), head_size, s);
  store_columns(s.o, 1.0f, {x.o, n, queries, head}, s.rows);
  if (x.logsumexp == nullptr) return;
  std::copy_n(s.sums, queries.size(), problem.row_of(x.logsumexp, n, head) + queries.begin);
}

template <typename T>
float dot(const T* a, const T* b, std::int64_t count) {
  const D d;
  V sums = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + lanes() <= count; i += lanes()) {
    sums = hn::MulAdd(load_vector(d, a + i), load_vector(d, b + i), sums);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < count; ++i) sum += static_cast<float>(a[i]) * static_cast<float>(b[i]);
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
void AttentionOfOne(const AttentionProblem& problem, const AttentionOperands<float>& x,
                    std::int64_t n, std::int64_t head, std::int64_t query, float* scores) {
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
template <typename T>
void load_queries(const AttentionProblem& problem, const AttentionOperands<T>& x,
                  const HeadRows<T>& d_o, std::int64_t n, std::int64_t head, Range queries,
                  const BackwardScratch<T>& s) {
  const HeadBlock<T> q(x.q, n, queries, head), gradients(d_o, n, queries, head);
  const float scale = problem.scale_of_queries<T>();
  load_columns(q, scale, s.rows, s.q_columns);
  load_rows(q, scale, s.q_rows);
  load_columns(gradients, 1.0f, s.rows, s.do_columns);
  load_rows(gradients, 1.0f, s.do_rows);
  std::fill_n(s.logsumexp, kBlock, 0.0f);
  std::fill_n(s.delta, kBlock, 0.0f);
  std::copy_n(problem.row_of(x.logsumexp, n, head) + queries.begin, queries.size(), s.logsumexp);
  const HeadBlock<T> o(x.o, n, queries, head);
  for (std::int64_t t = 0; t < queries.size(); ++t) {
    s.delta[t] = dot(gradients.row(t), o.row(t), problem.sizes.head_size);
  }
}

// p = e^(score - logsumexp), in place.
template <typename T>
void probabilities(std::int64_t keys, Range columns, const BackwardScratch<T>& s) {
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
template <typename T>
void score_gradients(std::int64_t keys, Range columns, const BackwardScratch<T>& s) {
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
// these keys add to each other's gradients.
template <typename T>
void add_gradients(const AttentionProblem& problem, const AttentionOperands<T>& x,
                   const BackwardPart& part, Range queries, Range keys,
                   const BackwardScratch<T>& s) {
  const std::int64_t n = part.sample, group = problem.sizes.group_of(part.heads.begin);
  const std::int64_t head_size = problem.sizes.head_size, width = padded_size(head_size);
  const Range columns = columns_seeing(problem, keys, queries);
  const std::int64_t c = columns.begin;
  const HeadBlock<T> k(x.k, n, keys, group), v(x.v, n, keys, group);
  const ProductSizes of_scores{keys.size(), factors<T>(head_size), columns.size()};
  multiply(as_rows(k, s.rows), {s.q_columns + c, kBlock}, {s.p + c, kBlock}, of_scores, false);
  scale_scores(keys.size(), columns, problem.scale_of_scores<T>(), s.p);
  mask(problem, keys, queries, s.p);
  probabilities(keys.size(), columns, s);
  multiply(as_rows(v, s.rows), {s.do_columns + c, kBlock}, {s.ds + c, kBlock}, of_scores, false);
  score_gradients(keys.size(), columns, s);
  if (part.of_keys) {
    const std::int64_t row = (keys.begin - part.keys.begin) * width, first = factors<T>(c) * width;
    const ProductSizes of_keys{keys.size(), factors<T>(queries.size() - c), width};
    multiply(as_left(s.p, keys.size(), columns, s.scores), {s.do_rows + first, width},
             {s.dv + row, width}, of_keys, true);
    multiply(as_left(s.ds, keys.size(), columns, s.scores), {s.q_rows + first, width},
             {s.dk + row, width}, of_keys, true);
  }
  if (part.of_queries) {
    multiply(as_columns(k, s.k_columns), as_right(s.ds, keys.size(), columns, s.scores),
             {s.dq_columns + c, kBlock}, {head_size, factors<T>(keys.size()), columns.size()},
             true);
  }
}

// Algorithm 4 with the loop over queries outside and that over keys inside.
template <typename T>
void backward(const AttentionProblem& problem, const AttentionOperands<T>& x,
              const AttentionGradients<T>& dx, const BackwardPart& part, float* scratch) {
  const std::int64_t n = part.sample, head_size = problem.sizes.head_size;
  const BackwardScratch<T> s(Scratch(scratch), head_size, part.keys.size());
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
      if (part.of_queries) {
        store_columns(s.dq_columns, problem.scale, {dx.q, n, queries, head}, s.rows);
      }
    }
  }
  if (part.of_keys) {
    const std::int64_t group = problem.sizes.group_of(part.heads.begin);
    store_rows(s.dk, problem.scale_of_scores<T>(), HeadBlock<T>(dx.k, n, part.keys, group));
    store_rows(s.dv, 1.0f, HeadBlock<T>(dx.v, n, part.keys, group));
  }
}

void AttentionForward(const AttentionProblem& problem, const AttentionOperands<float>& x,
                      std::int64_t n, std::int64_t head, Range queries, float* scratch) {
  forward(problem, x, n, head, queries, scratch);
}
void AttentionForwardBF16(const AttentionProblem& problem, const AttentionOperands<BF16>& x,
                          std::int64_t n, std::int64_t head, Range queries, float* scratch) {
  forward(problem, x, n, head, queries, scratch);
}
void AttentionBackward(const AttentionProblem& problem, const AttentionOperands<float>& x,
                       const AttentionGradients<float>& dx, const BackwardPart& part,
                       float* scratch) {
  backward(problem, x, dx, part, scratch);
}
void AttentionBackwardBF16(const AttentionProblem& problem, const AttentionOperands<BF16>& x,
                           const AttentionGradients<BF16>& dx, const BackwardPart& part,
                           float* scratch) {
  backward(problem, x, dx, part, scratch);
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(AttentionForward);
HWY_EXPORT(AttentionForwardBF16);
HWY_EXPORT(AttentionOfOne);
HWY_EXPORT(AttentionBackward);
HWY_EXPORT(AttentionBackwardBF16);

namespace {

// Of a node whose q, k and v are inputs [first, end).
AttentionProblem problem_of(const Signature& s, std::size_t first, std::size_t end) {
  std::vector<TensorType> operands;
  for (std::size_t i = first; i < end; ++i) operands.push_back(s.inputs[i].type);
  const Attributes& attributes = s.node.attributes;
  const ops::AttentionSizes sizes = ops::attention_sizes(s.node, operands);
  return {sizes, static_cast<float>(attributes.real("scale")), attributes.integer("causal") != 0,
          sizes.keys - sizes.queries};
}

// q, k or v (`which` is 0, 1 or 2), or its gradient, among operands that begin there.
template <typename T>
HeadRows<T> rows_of(const AttentionProblem& problem, std::size_t which,
                    std::span<std::byte* const> operands) {
  const ops::AttentionSizes& sizes = problem.sizes;
  const ops::AttentionSizes::Heads& at = sizes.qkv[which];
  return {as<T>(operands[at.index]) + at.first_head * sizes.head_size,
          which == 0 ? sizes.queries : sizes.keys, at.stored_heads, sizes.head_size};
}

template <typename T>
HeadRows<T> rows_of_o(const AttentionProblem& problem, std::byte* operand) {
  const ops::AttentionSizes& sizes = problem.sizes;
  return {as<T>(operand), sizes.queries, sizes.heads, sizes.head_size};
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
template <typename T>
void run_blocks(const AttentionProblem& problem, const Team& team, const AttentionOperands<T>& x,
                std::byte* scratchpad) {
  const ops::AttentionSizes& sizes = problem.sizes;
  const auto forward = for_type<T>(HWY_DYNAMIC_DISPATCH(AttentionForward),
                                   HWY_DYNAMIC_DISPATCH(AttentionForwardBF16));
  const std::int64_t blocks_each = blocks(sizes.queries);
  team.run(sizes.samples * sizes.heads * blocks_each, scratchpad,
           [&](std::int64_t task, float* scratch) {
             const std::int64_t head = task / blocks_each;
             forward(problem, x, head / sizes.heads, head % sizes.heads,
                     block(task % blocks_each, sizes.queries), scratch);
           });
}

// Operands: those of the node, then the scratchpad.
template <typename T>
class Attention final : public Kernel {
 public:
  explicit Attention(const Signature& s)
      : problem_(problem_of(s, 0, s.inputs.size())),
        inputs_(s.inputs.size()),
        team_(ForwardScratch<T>(Scratch(), problem_.sizes.head_size).floats) {}

  std::size_t scratchpad_bytes() const override { return team_.scratchpad_bytes(); }

  void run(std::span<std::byte* const> operands) override {
    run_blocks<T>(problem_, team_,
                  {rows_of<T>(problem_, 0, operands), rows_of<T>(problem_, 1, operands),
                   rows_of<T>(problem_, 2, operands), rows_of_o<T>(problem_, operands[inputs_]),
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
                  : ForwardScratch<float>(Scratch(), problem_.sizes.head_size).floats) {
    expect_f32(s);
  }

  std::size_t scratchpad_bytes() const override { return team_.scratchpad_bytes(); }

  void run(std::span<std::byte* const> operands) override {
    const ops::AttentionSizes& sizes = problem_.sizes;
    problem_.keys_before = *as<std::int64_t>(operands[2]);
    ops::expect_inside(problem_.keys_before, sizes.queries, sizes.keys);
    const AttentionOperands<float> x{
        rows_of<float>(problem_, 0, operands), rows_of<float>(problem_, 1, operands),
        rows_of<float>(problem_, 2, operands), rows_of_o<float>(problem_, operands[3]), nullptr};
    if (sizes.queries > 1) return run_blocks<float>(problem_, team_, x, operands[4]);
    const auto attend = HWY_DYNAMIC_DISPATCH(AttentionOfOne);
    team_.run(sizes.samples * sizes.heads, operands[4], [&](std::int64_t task, float* scratch) {
      attend(problem_, x, task / sizes.heads, task % sizes.heads, 0, scratch);
    });
  }

 private:
  AttentionProblem problem_;
  Team team_;
};

template <typename T>
class AttentionBackward final : public Kernel {
 public:
  explicit AttentionBackward(const Signature& s)
      : problem_(problem_of(s, 3, s.inputs.size())),
        inputs_(s.inputs.size()),
        team_(BackwardScratch<T>(Scratch(), problem_.sizes.head_size, problem_.sizes.keys).floats) {
  }

  std::size_t scratchpad_bytes() const override { return team_.scratchpad_bytes(); }

  void run(std::span<std::byte* const> operands) override {
    const auto qkv = operands.subspan(3), gradients = operands.subspan(inputs_);
    const AttentionOperands<T> x{rows_of<T>(problem_, 0, qkv), rows_of<T>(problem_, 1, qkv),
                                 rows_of<T>(problem_, 2, qkv), rows_of_o<T>(problem_, operands[1]),
                                 as<float>(operands[2])};
    const AttentionGradients<T> dx{
        rows_of<T>(problem_, 0, gradients), rows_of<T>(problem_, 1, gradients),
        rows_of<T>(problem_, 2, gradients), rows_of_o<T>(problem_, operands[0])};
    const auto backward = for_type<T>(HWY_DYNAMIC_DISPATCH(AttentionBackward),
                                      HWY_DYNAMIC_DISPATCH(AttentionBackwardBF16));
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

template <template <typename T> typename AttentionKernel>
std::unique_ptr<Kernel> make(const Signature& s, KernelPolicy&) {
  return with_float_type(s.inputs[0].type.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
    using T = decltype(zero);
    if (std::is_same_v<T, BF16>) require_bf16();
    return std::make_unique<AttentionKernel<T>>(s);
  });
}

const RegisterKernelRule attention{{.op = "attention", .make = make<Attention>}};
const RegisterKernelRule cached_attention{
    {.op = "cached_attention",
     .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
       return std::make_unique<CachedAttention>(s);
     }}};
const RegisterKernelRule attention_backward{
    {.op = "attention_backward", .make = make<AttentionBackward>}};

}  // namespace
}  // namespace concord::cpu
#endif
