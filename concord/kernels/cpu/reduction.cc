// Sums and maxima over some dims of a tensor.
//
// Merged as far as it goes, a reduction alternates between kept and reduced dims. Each reduced dim
// is one pass [outer, extent, inner] -> [outer, inner], innermost first, so that what later passes
// read is already small. A pass is cut into tasks along outer, along blocks of columns (inner) and,
// where that leaves too few tasks, along parts of the reduced dim, whose results one more pass
// combines. The cut depends on the shape alone, so the bits do not depend on the threads.
#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/reduction.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/loops.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/vector_math-inl.h"

#ifndef CONCORD_KERNELS_CPU_REDUCTION_ONCE_
#define CONCORD_KERNELS_CPU_REDUCTION_ONCE_
namespace concord::cpu {

enum class Reduction { kSum, kMax };

// Columns that one task reduces at once; their sums stay in the first-level cache.
inline constexpr std::int64_t kColumns = 512;

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

struct Sum {
  static constexpr float kNeutral = 0;
  V operator()(V a, V b) const { return hn::Add(a, b); }
  float operator()(float a, float b) const { return a + b; }
  float across(V v) const { return hn::GetLane(hn::SumOfLanes(D(), v)); }
};

// NaN wins.
struct Max {
  static constexpr float kNeutral = -std::numeric_limits<float>::infinity();
  V operator()(V a, V b) const { return hn::IfThenElse(hn::Or(hn::Gt(a, b), hn::IsNaN(a)), a, b); }
  float operator()(float a, float b) const { return a > b || a != a ? a : b; }
  float across(V v) const {
    HWY_ALIGN float lanes[hn::MaxLanes(D())];
    hn::Store(v, D(), lanes);
    float result = lanes[0];
    for (std::size_t i = 1; i < hn::Lanes(D()); ++i) result = (*this)(result, lanes[i]);
    return result;
  }
};

// y[j] = f(y[j], x[r * stride + j]) for every row r, four rows at a time.
template <typename F, typename T>
void add_rows(F f, const T* x, std::int64_t stride, std::int64_t rows, float* y,
              std::int64_t columns) {
  const D d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const T* x0 = x + r * stride;
    const T* x1 = x0 + stride;
    const T* x2 = x1 + stride;
    const T* x3 = x2 + stride;
    const auto at = [](const T* row, std::int64_t j) { return static_cast<float>(row[j]); };
    std::int64_t j = 0;
    for (; j + lanes <= columns; j += lanes) {
      const V pair0 = f(load_vector(d, x0 + j), load_vector(d, x1 + j));
      const V pair1 = f(load_vector(d, x2 + j), load_vector(d, x3 + j));
      hn::StoreU(f(hn::LoadU(d, y + j), f(pair0, pair1)), d, y + j);
    }
    for (; j < columns; ++j) {
      y[j] = f(y[j], f(f(at(x0, j), at(x1, j)), f(at(x2, j), at(x3, j))));
    }
  }
  for (; r < rows; ++r) {
    const T* row = x + r * stride;
    std::int64_t j = 0;
    for (; j + lanes <= columns; j += lanes) {
      hn::StoreU(f(hn::LoadU(d, y + j), load_vector(d, row + j)), d, y + j);
    }
    for (; j < columns; ++j) y[j] = f(y[j], static_cast<float>(row[j]));
  }
}

// y[j] = the reduction of column j. Groups of 64 rows are reduced on their own first, which keeps
// the rounding error of long sums small.
template <typename F, typename T>
void columns(F f, const T* x, std::int64_t stride, std::int64_t rows, float* y,
             std::int64_t count) {
  HWY_ALIGN float group[kColumns];
  std::fill(y, y + count, F::kNeutral);
  for (std::int64_t r = 0; r < rows; r += 64) {
    std::fill(group, group + count, F::kNeutral);
    add_rows(f, x + r * stride, stride, std::min<std::int64_t>(64, rows - r), group, count);
    add_rows(f, group, 0, 1, y, count);
  }
}

// The reduction of a run of elements, in groups as above.
template <typename F, typename T>
float run(F f, const T* x, std::int64_t count) {
  const D d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  float result = F::kNeutral;
  std::int64_t i = 0;
  while (count - i >= 4 * lanes) {
    const std::int64_t end = i + std::min<std::int64_t>((count - i) / (4 * lanes), 64) * 4 * lanes;
    V v0 = hn::Set(d, F::kNeutral), v1 = v0, v2 = v0, v3 = v0;
    for (; i < end; i += 4 * lanes) {
      v0 = f(v0, load_vector(d, x + i));
      v1 = f(v1, load_vector(d, x + i + lanes));
      v2 = f(v2, load_vector(d, x + i + 2 * lanes));
      v3 = f(v3, load_vector(d, x + i + 3 * lanes));
    }
    result = f(result, f.across(f(f(v0, v1), f(v2, v3))));
  }
  for (; i < count; ++i) result = f(result, static_cast<float>(x[i]));
  return result;
}

template <typename T>
void reduce_columns(Reduction reduction, const T* x, std::int64_t stride, std::int64_t rows,
                    float* y, std::int64_t count) {
  if (reduction == Reduction::kSum) return columns(Sum(), x, stride, rows, y, count);
  columns(Max(), x, stride, rows, y, count);
}
void ReduceColumns(Reduction reduction, const float* x, std::int64_t stride, std::int64_t rows,
                   float* y, std::int64_t count) {
  reduce_columns(reduction, x, stride, rows, y, count);
}
void ReduceColumnsBF16(Reduction reduction, const BF16* x, std::int64_t stride, std::int64_t rows,
                       float* y, std::int64_t count) {
  reduce_columns(reduction, x, stride, rows, y, count);
}

// y[i] = the reduction of run i of `length` elements.
template <typename T>
void reduce_runs(Reduction reduction, const T* x, std::int64_t length, float* y,
                 std::int64_t runs) {
  for (std::int64_t i = 0; i < runs; ++i) {
    y[i] = reduction == Reduction::kSum ? run(Sum(), x + i * length, length)
                                        : run(Max(), x + i * length, length);
  }
}
void ReduceRuns(Reduction reduction, const float* x, std::int64_t length, float* y,
                std::int64_t runs) {
  reduce_runs(reduction, x, length, y, runs);
}
void ReduceRunsBF16(Reduction reduction, const BF16* x, std::int64_t length, float* y,
                    std::int64_t runs) {
  reduce_runs(reduction, x, length, y, runs);
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(ReduceColumns);
HWY_EXPORT(ReduceColumnsBF16);
HWY_EXPORT(ReduceRuns);
HWY_EXPORT(ReduceRunsBF16);

namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// [outer, extent, inner] -> [outer, parts, inner].
struct Pass {
  std::int64_t outer, extent, inner;
  std::int64_t parts = 1;

  std::int64_t rows_of_part() const { return ceil_div(extent, parts); }
  std::int64_t results() const { return outer * parts * inner; }
};

// Tasks enough for many threads, each of a few thousand elements at least.
std::int64_t parts_of(const Pass& pass) {
  const std::int64_t others = pass.outer * ceil_div(pass.inner, kColumns);
  const std::int64_t rows_at_least = ceil_div(8192, std::min(pass.inner, kColumns));
  const std::int64_t parts =
      std::max<std::int64_t>(1, std::min(64 / others, pass.extent / rows_at_least));
  return ceil_div(pass.extent, ceil_div(pass.extent, parts));  // no part is empty
}

std::vector<Pass> passes_of(Loops<1> loops) {
  std::vector<Pass> passes;
  const auto add = [&](Pass pass) {
    pass.parts = parts_of(pass);
    passes.push_back(pass);
    if (pass.parts > 1) passes.push_back({pass.outer, pass.parts, pass.inner});
  };
  std::int64_t inner = 1;
  for (std::size_t d = loops.extents.size(); d-- > 0;) {
    if (loops.strides[0][d] != 0) {
      inner *= loops.extents[d];
      continue;
    }
    std::int64_t outer = 1;
    for (std::size_t e = 0; e < d; ++e) outer *= loops.extents[e];
    add({outer, loops.extents[d], inner});
  }
  if (passes.empty()) passes.push_back({1, 1, inner});
  return passes;
}

// The first pass reads elements of type T; their sums, and their maxima, are f32.
template <typename T>
class ReduceKernel final : public Kernel {
 public:
  ReduceKernel(Reduction reduction, std::vector<Pass> passes)
      : reduction_(reduction), passes_(std::move(passes)) {}

  std::size_t scratchpad_bytes() const override {
    std::int64_t elements = 0;
    for (std::size_t i = 0; i + 1 < passes_.size(); ++i) elements += passes_[i].results();
    return static_cast<std::size_t>(elements) * sizeof(float);
  }

  void run(std::span<std::byte* const> operands) override {
    const float* x = nullptr;
    float* scratch = operands.size() > 2 ? as<float>(operands[2]) : nullptr;
    for (std::size_t i = 0; i < passes_.size(); ++i) {
      const bool last = i + 1 == passes_.size();
      float* y = last ? as<float>(operands[1]) : scratch;
      i == 0 ? run(passes_[i], as<T>(operands[0]), y) : run(passes_[i], x, y);
      x = y;
      if (!last) scratch += passes_[i].results();
    }
  }

 private:
  template <typename X>
  void run(const Pass& pass, const X* x, float* y) const {
    const std::int64_t rows = pass.rows_of_part();
    if (pass.inner == 1) {
      parallel_for(
          pass.outer * pass.parts, std::max<std::int64_t>(1, kGrain / rows),
          [&](std::int64_t begin, std::int64_t end) { reduce_runs(pass, x, y, begin, end); });
      return;
    }
    const std::int64_t blocks = ceil_div(pass.inner, kColumns);
    const std::int64_t work = rows * std::min(pass.inner, kColumns);
    parallel_for(pass.outer * pass.parts * blocks, std::max<std::int64_t>(1, kGrain / work),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t task = begin; task < end; ++task) {
                     reduce_columns(pass, x, y, task / blocks, task % blocks * kColumns);
                   }
                 });
  }

  // `piece` counts parts of all outer indices.
  template <typename X>
  void reduce_columns(const Pass& pass, const X* x, float* y, std::int64_t piece,
                      std::int64_t column) const {
    const std::int64_t outer = piece / pass.parts, row = piece % pass.parts * pass.rows_of_part();
    const auto reduce =
        for_type<X>(HWY_DYNAMIC_DISPATCH(ReduceColumns), HWY_DYNAMIC_DISPATCH(ReduceColumnsBF16));
    reduce(reduction_, x + (outer * pass.extent + row) * pass.inner + column, pass.inner,
           std::min(pass.rows_of_part(), pass.extent - row), y + piece * pass.inner + column,
           std::min(kColumns, pass.inner - column));
  }

  template <typename X>
  void reduce_runs(const Pass& pass, const X* x, float* y, std::int64_t begin,
                   std::int64_t end) const {
    const auto reduce =
        for_type<X>(HWY_DYNAMIC_DISPATCH(ReduceRuns), HWY_DYNAMIC_DISPATCH(ReduceRunsBF16));
    if (pass.parts == 1) {
      reduce(reduction_, x + begin * pass.extent, pass.extent, y + begin, end - begin);
      return;
    }
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const std::int64_t outer = piece / pass.parts, row = piece % pass.parts * pass.rows_of_part();
      reduce(reduction_, x + outer * pass.extent + row,
             std::min(pass.rows_of_part(), pass.extent - row), y + piece, 1);
    }
  }

  Reduction reduction_;
  std::vector<Pass> passes_;
};

class Zero final : public Kernel {
 public:
  explicit Zero(std::int64_t elements) : elements_(elements) {}
  void run(std::span<std::byte* const> operands) override {
    std::fill_n(as<float>(operands[1]), elements_, 0.0f);
  }

 private:
  std::int64_t elements_;
};

template <Reduction reduction>
std::unique_ptr<Kernel> make(const Signature& s, KernelPolicy&) {
  const Shape& from = s.inputs[0].type.shape;
  const Shape& to = s.outputs[0].type.shape;
  if (from.elements() == 0) return std::make_unique<Zero>(to.elements());
  const Loops<1> loops = merged(Loops<1>{from.dims(), {broadcast_strides(to, from)}});
  return with_float_type(s.inputs[0].type.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
    return std::make_unique<ReduceKernel<decltype(zero)>>(reduction, passes_of(loops));
  });
}

const RegisterKernelRule sum_to_shape{{.op = "sum_to_shape", .make = make<Reduction::kSum>}};
const RegisterKernelRule max_to_shape{{.op = "max_to_shape", .make = make<Reduction::kMax>}};

}  // namespace
}  // namespace concord::cpu
#endif
