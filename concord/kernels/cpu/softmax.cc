#include "concord/ops/softmax.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <optional>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/softmax.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/vector_math-inl.h"

#ifndef CONCORD_KERNELS_CPU_SOFTMAX_ONCE_
#define CONCORD_KERNELS_CPU_SOFTMAX_ONCE_
namespace concord::cpu {

// What the cross-entropy of a row is made of.
struct RowSums {
  float largest;       // of the row's elements
  float exponentials;  // sum over j of e^(x_j - largest)
  float distances;     // sum over j of x_j - largest
};

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

// Calls f(v, i, count) for vectors that cover x[0, count); lanes past the end hold `rest`.
template <typename F>
void for_each_vector(const float* x, std::size_t count, float rest, F f) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) f(hn::LoadU(d, x + i), i, lanes);
  if (i < count) f(load_first(d, x + i, count - i, rest), i, count - i);
}

void store(V v, float* y, std::size_t count) {
  const D d;
  if (count == hn::Lanes(d)) return hn::StoreU(v, d, y);
  store_first(d, v, y, count);
}

float sum_of_lanes(V v) { return hn::GetLane(hn::SumOfLanes(D(), v)); }

// y = softmax(x). NaN anywhere in the row makes the whole row NaN.
RowSums SoftmaxRow(const float* x, float* y, std::size_t classes) {
  const D d;
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  V largest = hn::Set(d, kLowest);
  for_each_vector(x, classes, kLowest,
                  [&](V v, std::size_t, std::size_t) { largest = hn::Max(largest, v); });
  const float shift = hn::GetLane(hn::MaxOfLanes(d, largest));
  V exponentials = hn::Zero(d), distances = hn::Zero(d);
  for_each_vector(x, classes, kLowest, [&](V v, std::size_t i, std::size_t count) {
    const V distance = hn::Sub(v, hn::Set(d, shift));
    const V e = exp(d, distance);
    exponentials = hn::Add(exponentials, e);
    // Lanes past the end are at minus infinity; they count for e only, as zero.
    const V within =
        count == hn::Lanes(d) ? distance : hn::IfThenElseZero(hn::FirstN(d, count), distance);
    distances = hn::Add(distances, within);
    store(e, y + i, count);
  });
  const float sum = sum_of_lanes(exponentials);
  const V factor = hn::Set(d, 1.0f / sum);
  for_each_vector(y, classes, 0, [&](V v, std::size_t i, std::size_t count) {
    store(hn::Mul(v, factor), y + i, count);
  });
  return {shift, sum, sum_of_lanes(distances)};
}

// dx_j = y_j * (dy_j - sum_k dy_k y_k).
void SoftmaxBackwardRow(const float* dy, const float* y, float* dx, std::size_t classes) {
  const D d;
  V dot = hn::Zero(d);
  const auto of_y = [&](std::size_t i, std::size_t count) {
    return count == hn::Lanes(d) ? hn::LoadU(d, y + i) : load_first(d, y + i, count);
  };
  for_each_vector(dy, classes, 0, [&](V v, std::size_t i, std::size_t count) {
    dot = hn::MulAdd(v, of_y(i, count), dot);
  });
  const V mean = hn::Set(d, sum_of_lanes(dot));
  for_each_vector(dy, classes, 0, [&](V v, std::size_t i, std::size_t count) {
    store(hn::Mul(of_y(i, count), hn::Sub(v, mean)), dx + i, count);
  });
}

// dx_j = g * (p_j - t) for each class, which is right for all but the labelled one.
void CrossEntropyBackwardRow(const float* p, float g, float t, float* dx, std::size_t classes) {
  const D d;
  for_each_vector(p, classes, 0, [&](V v, std::size_t i, std::size_t count) {
    store(hn::Mul(hn::Set(d, g), hn::Sub(v, hn::Set(d, t))), dx + i, count);
  });
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(SoftmaxRow);
HWY_EXPORT(SoftmaxBackwardRow);
HWY_EXPORT(CrossEntropyBackwardRow);

namespace {

// A stack of rows of class scores.
struct Rows {
  explicit Rows(const Operand& operand)
      : classes(operand.type.shape[-1]), count(operand.type.shape.elements() / classes) {}
  std::int64_t classes, count;

  template <typename F>
  void for_each(F f) const {
    parallel_for(count, std::max<std::int64_t>(1, 4096 / classes),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t row = begin; row < end; ++row) f(row);
                 });
  }
  bool has_class(std::int32_t label) const { return label >= 0 && label < classes; }
};

class Softmax final : public Kernel {
 public:
  explicit Softmax(Rows rows) : rows_(rows) {}
  void run(std::span<std::byte* const> operands) override {
    const auto row_function = HWY_DYNAMIC_DISPATCH(SoftmaxRow);
    rows_.for_each([&](std::int64_t row) {
      const std::int64_t at = row * rows_.classes;
      row_function(as<float>(operands[0]) + at, as<float>(operands[1]) + at,
                   static_cast<std::size_t>(rows_.classes));
    });
  }

 private:
  Rows rows_;
};

class SoftmaxBackward final : public Kernel {
 public:
  explicit SoftmaxBackward(Rows rows) : rows_(rows) {}
  void run(std::span<std::byte* const> operands) override {
    const auto row_function = HWY_DYNAMIC_DISPATCH(SoftmaxBackwardRow);
    rows_.for_each([&](std::int64_t row) {
      const std::int64_t at = row * rows_.classes;
      row_function(as<float>(operands[0]) + at, as<float>(operands[1]) + at,
                   as<float>(operands[2]) + at, static_cast<std::size_t>(rows_.classes));
    });
  }

 private:
  Rows rows_;
};

// Operands: logits, labels, weight; loss, probabilities; the rows' losses.
class CrossEntropy final : public Kernel {
 public:
  explicit CrossEntropy(const Signature& s)
      : rows_(s.inputs[0]),
        smoothing_(s.node.attributes.real("label_smoothing")),
        ignored_(ops::ignored_label(s.node)) {}
  std::size_t scratchpad_bytes() const override {
    return static_cast<std::size_t>(rows_.count) * sizeof(double);
  }
  void run(std::span<std::byte* const> operands) override {
    const auto row_function = HWY_DYNAMIC_DISPATCH(SoftmaxRow);
    const auto* labels = as<std::int32_t>(operands[1]);
    double* losses = scratchpad_bytes() > 0 ? as<double>(operands[5]) : nullptr;
    rows_.for_each([&](std::int64_t row) {
      const float* x = as<float>(operands[0]) + row * rows_.classes;
      float* p = as<float>(operands[4]) + row * rows_.classes;
      if (labels[row] == ignored_) {
        std::fill_n(p, rows_.classes, 0.0f);
        losses[row] = 0;
        return;
      }
      const RowSums sums = row_function(x, p, static_cast<std::size_t>(rows_.classes));
      losses[row] = rows_.has_class(labels[row]) ? loss(sums, x[labels[row]])
                                                 : std::numeric_limits<double>::quiet_NaN();
    });
    double sum = 0;
    for (std::int64_t row = 0; row < rows_.count; ++row) sum += losses[row];
    *as<float>(operands[3]) = static_cast<float>(sum * *as<float>(operands[2]));
  }

 private:
  // ln sum_j e^x_j - sum_j t_j x_j, with every x measured from the largest.
  double loss(const RowSums& sums, float labelled) const {
    const double distance = static_cast<double>(labelled) - sums.largest;
    double target = (1 - smoothing_) * distance;
    if (smoothing_ != 0) {
      target += smoothing_ * sums.distances / static_cast<double>(rows_.classes);
    }
    return std::log(static_cast<double>(sums.exponentials)) - target;
  }

  Rows rows_;
  double smoothing_;
  std::optional<std::int64_t> ignored_;
};

// Operands: dL/dloss, probabilities, labels, weight; dL/dlogits, which may lie over the
// probabilities.
class CrossEntropyBackward final : public Kernel {
 public:
  explicit CrossEntropyBackward(const Signature& s)
      : rows_(s.inputs[1]),
        first_(s.node.attributes.has("first") ? s.node.attributes.integer("first") : 0),
        classes_(s.node.attributes.has("first") ? s.node.attributes.integer("classes")
                                                : rows_.classes),
        smoothing_(s.node.attributes.real("label_smoothing")),
        ignored_(ops::ignored_label(s.node)) {}
  void run(std::span<std::byte* const> operands) override {
    const auto row_function = HWY_DYNAMIC_DISPATCH(CrossEntropyBackwardRow);
    const auto* labels = as<std::int32_t>(operands[2]);
    const float g = *as<float>(operands[0]) * *as<float>(operands[3]);
    const double other = smoothing_ / static_cast<double>(classes_);
    rows_.for_each([&](std::int64_t row) {
      const float* p = as<float>(operands[1]) + row * rows_.classes;
      float* dx = as<float>(operands[4]) + row * rows_.classes;
      if (labels[row] == ignored_) {
        std::fill_n(dx, rows_.classes, 0.0f);
        return;
      }
      if (labels[row] < 0 || labels[row] >= classes_) {
        std::fill_n(dx, rows_.classes, std::numeric_limits<float>::quiet_NaN());
        return;
      }
      const std::int64_t place = labels[row] - first_;
      const bool is_here = place >= 0 && place < rows_.classes;
      const double labelled = is_here ? p[place] - (1 - smoothing_ + other) : 0;
      row_function(p, g, static_cast<float>(other), dx, static_cast<std::size_t>(rows_.classes));
      if (is_here) dx[place] = static_cast<float>(g * labelled);
    });
  }

 private:
  Rows rows_;
  std::int64_t first_, classes_;  // of the part that this is of all classes
  double smoothing_;
  std::optional<std::int64_t> ignored_;
};

class CountCorrect final : public Kernel {
 public:
  explicit CountCorrect(const Signature& s)
      : rows_(s.inputs[0]), ignored_(ops::ignored_label(s.node)) {}
  void run(std::span<std::byte* const> operands) override {
    std::atomic<std::int64_t> correct = 0;
    rows_.for_each([&](std::int64_t row) {
      const std::int32_t label = as<std::int32_t>(operands[1])[row];
      if (label == ignored_) return;
      if (is_first_largest(as<float>(operands[0]) + row * rows_.classes, label)) ++correct;
    });
    *as<float>(operands[2]) = static_cast<float>(correct);
  }

 private:
  // Comparisons with NaN are false, so a row with NaN is never correct.
  bool is_first_largest(const float* x, std::int32_t label) const {
    if (!rows_.has_class(label)) return false;
    for (std::int64_t j = 0; j < label; ++j) {
      if (!(x[j] < x[label])) return false;
    }
    for (std::int64_t j = label; j < rows_.classes; ++j) {
      if (!(x[j] <= x[label])) return false;
    }
    return true;
  }

  Rows rows_;
  std::optional<std::int64_t> ignored_;
};

const RegisterKernelRule softmax{{
    .op = "softmax",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      expect_f32(s);
      return std::make_unique<Softmax>(Rows(s.inputs[0]));
    },
    .in_place = element_wise_in_place,
}};

const RegisterKernelRule softmax_backward{{
    .op = "softmax_backward",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      expect_f32(s);
      return std::make_unique<SoftmaxBackward>(Rows(s.inputs[0]));
    },
    .in_place = element_wise_in_place,
}};

const RegisterKernelRule softmax_cross_entropy{{
    .op = "softmax_cross_entropy",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      expect_f32(s);
      return std::make_unique<CrossEntropy>(s);
    },
}};

const RegisterKernelRule softmax_cross_entropy_backward{{
    .op = "softmax_cross_entropy_backward",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      expect_f32(s);
      return std::make_unique<CrossEntropyBackward>(s);
    },
    .in_place = [](const Signature&, std::size_t, std::size_t i) { return i == 1; },
}};

const RegisterKernelRule count_correct{{
    .op = "count_correct",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      expect_f32(s);
      return std::make_unique<CountCorrect>(s);
    },
}};

}  // namespace
}  // namespace concord::cpu
#endif
