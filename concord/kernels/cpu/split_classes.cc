#include "concord/ops/split_classes.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <optional>

#include "concord/ops/softmax.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/split_classes.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/vector_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// NaN where x has one: the largest of two vectors says nothing of it.
float LargestOfRow(const float* x, std::size_t classes) {
  const D d;
  V parts[4] = {splat(kLowest), splat(kLowest), splat(kLowest), splat(kLowest)};
  auto has_nan = hn::IsNaN(hn::Zero(d));
  for_each_vector(classes, [&](std::size_t i, std::size_t n, int k) {
    const V v = load(x + i, n, kLowest);
    parts[k] = hn::Max(parts[k], v);
    has_nan = hn::Or(has_nan, hn::IsNaN(v));
  });
  if (!hn::AllFalse(d, has_nan)) return std::numeric_limits<float>::quiet_NaN();
  const V all = hn::Max(hn::Max(parts[0], parts[1]), hn::Max(parts[2], parts[3]));
  return hn::GetLane(hn::MaxOfLanes(d, all));
}

// sums[0] += e^(x_j - largest) and sums[1] += x_j - largest, over the row.
void AddUpRow(const float* x, float largest, std::size_t classes, float* sums) {
  const D d;
  Sum exponentials, distances;
  for_each_vector(classes, [&](std::size_t i, std::size_t n, int k) {
    const V distance = hn::Sub(load(x + i, n, kLowest), splat(largest));
    exponentials.add(k, exp(d, distance));
    const bool is_whole = n >= hn::Lanes(d);
    distances.add(k, is_whole ? distance : hn::IfThenElseZero(hn::FirstN(d, n), distance));
  });
  sums[0] += exponentials.total();
  sums[1] += distances.total();
}

std::size_t CountEqual(const float* x, float value, std::size_t count) {
  const D d;
  std::size_t equal = 0;
  for_each_vector(count, [&](std::size_t i, std::size_t n, int) {
    equal += hn::CountTrue(d, hn::And(hn::FirstN(d, n), hn::Eq(load(x + i, n), splat(value))));
  });
  return equal;
}

// y_j = factor * e^(x_j - largest).
void ScaledExponentials(const float* x, float largest, float factor, std::size_t classes,
                        float* y) {
  for_each_vector(classes, [&](std::size_t i, std::size_t n, int) {
    const V distance = hn::Sub(load(x + i, n), splat(largest));
    store(hn::Mul(exp(D(), distance), splat(factor)), y + i, n);
  });
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(LargestOfRow);
HWY_EXPORT(AddUpRow);
HWY_EXPORT(CountEqual);
HWY_EXPORT(ScaledExponentials);

namespace {

using ops::ClassSum;

// Rows of a rank's logits.
struct Rows {
  explicit Rows(const Operand& logits)
      : classes(logits.type.shape[-1]), count(logits.type.shape.elements() / classes) {}

  template <typename F>
  void for_each(F f) const {
    parallel_for(count, std::max<std::int64_t>(1, 4096 / classes),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t row = begin; row < end; ++row) f(row);
                 });
  }
  std::int64_t classes, count;
};

float of(const float* sums, std::int64_t row, ClassSum sum) {
  return sums[row * ops::kClassSumCount + static_cast<std::int64_t>(sum)];
}

class LargestLogits final : public Kernel {
 public:
  explicit LargestLogits(const Signature& s) : rows_(s.inputs[0]) {}
  void run(std::span<std::byte* const> operands) override {
    const auto largest = HWY_DYNAMIC_DISPATCH(LargestOfRow);
    rows_.for_each([&](std::int64_t row) {
      as<float>(operands[1])[row] = largest(as<float>(operands[0]) + row * rows_.classes,
                                            static_cast<std::size_t>(rows_.classes));
    });
  }

 private:
  Rows rows_;
};

// Operands: logits, the largest of all classes, labels; sums.
class ClassSums final : public Kernel {
 public:
  explicit ClassSums(const Signature& s)
      : rows_(s.inputs[0]),
        first_(s.node.attributes.integer("first")),
        ignored_(ops::ignored_label(s.node)) {}
  void run(std::span<std::byte* const> operands) override {
    const auto add_up = HWY_DYNAMIC_DISPATCH(AddUpRow);
    const auto count_equal = HWY_DYNAMIC_DISPATCH(CountEqual);
    rows_.for_each([&](std::int64_t row) {
      float* sums = as<float>(operands[3]) + row * ops::kClassSumCount;
      std::fill_n(sums, ops::kClassSumCount, 0.0f);
      const std::int64_t label = as<std::int32_t>(operands[2])[row];
      if (label == ignored_) return;
      const float* x = as<float>(operands[0]) + row * rows_.classes;
      const float largest = as<float>(operands[1])[row];
      add_up(x, largest, static_cast<std::size_t>(rows_.classes), sums);
      const std::int64_t place = label - first_;
      const std::int64_t before = std::clamp<std::int64_t>(place, 0, rows_.classes);
      float& correct = sums[static_cast<std::size_t>(ClassSum::kIsCorrect)];
      correct = -static_cast<float>(count_equal(x, largest, static_cast<std::size_t>(before)));
      if (place < 0 || place >= rows_.classes) return;
      sums[static_cast<std::size_t>(ClassSum::kLabelled)] = x[place] - largest;
      if (x[place] == largest) correct += 1;
    });
  }

 private:
  Rows rows_;
  std::int64_t first_;
  std::optional<std::int64_t> ignored_;
};

// Operands: sums, labels, weight; loss. A few numbers for each row, added up in their order.
class CrossEntropyOfSums final : public Kernel {
 public:
  explicit CrossEntropyOfSums(const Signature& s)
      : rows_(s.inputs[1].type.shape.elements()),
        classes_(s.node.attributes.integer("classes")),
        smoothing_(s.node.attributes.real("label_smoothing")),
        ignored_(ops::ignored_label(s.node)) {}
  void run(std::span<std::byte* const> operands) override {
    const float* sums = as<float>(operands[0]);
    double loss = 0;
    for (std::int64_t row = 0; row < rows_; ++row) {
      const std::int64_t label = as<std::int32_t>(operands[1])[row];
      if (label == ignored_) continue;
      loss += label >= 0 && label < classes_ ? of_row(sums, row)
                                             : std::numeric_limits<double>::quiet_NaN();
    }
    *as<float>(operands[3]) = static_cast<float>(loss * *as<float>(operands[2]));
  }

 private:
  double of_row(const float* sums, std::int64_t row) const {
    double target = (1 - smoothing_) * of(sums, row, ClassSum::kLabelled);
    if (smoothing_ != 0) {
      target += smoothing_ * of(sums, row, ClassSum::kDistances) / static_cast<double>(classes_);
    }
    return std::log(static_cast<double>(of(sums, row, ClassSum::kExponentials))) - target;
  }

  std::int64_t rows_, classes_;
  double smoothing_;
  std::optional<std::int64_t> ignored_;
};

// Operands: sums, labels; the count.
class CountCorrectOfSums final : public Kernel {
 public:
  explicit CountCorrectOfSums(const Signature& s)
      : rows_(s.inputs[1].type.shape.elements()),
        only_finite_(s.node.attributes.integer("only_finite") != 0),
        ignored_(ops::ignored_label(s.node)) {}
  void run(std::span<std::byte* const> operands) override {
    const float* sums = as<float>(operands[0]);
    std::int64_t correct = 0;
    for (std::int64_t row = 0; row < rows_; ++row) {
      if (as<std::int32_t>(operands[1])[row] == ignored_) continue;
      if (only_finite_ && !std::isfinite(of(sums, row, ClassSum::kExponentials))) continue;
      if (of(sums, row, ClassSum::kIsCorrect) == 1) ++correct;
    }
    *as<float>(operands[2]) = static_cast<float>(correct);
  }

 private:
  std::int64_t rows_;
  bool only_finite_;
  std::optional<std::int64_t> ignored_;
};

// Operands: logits, the largest and the sums of all classes, labels; probabilities.
class SoftmaxOfSums final : public Kernel {
 public:
  explicit SoftmaxOfSums(const Signature& s)
      : rows_(s.inputs[0]), ignored_(ops::ignored_label(s.node)) {}
  void run(std::span<std::byte* const> operands) override {
    const auto scaled = HWY_DYNAMIC_DISPATCH(ScaledExponentials);
    rows_.for_each([&](std::int64_t row) {
      float* y = as<float>(operands[4]) + row * rows_.classes;
      if (as<std::int32_t>(operands[3])[row] == ignored_) {
        std::fill_n(y, rows_.classes, 0.0f);
        return;
      }
      scaled(as<float>(operands[0]) + row * rows_.classes, as<float>(operands[1])[row],
             1 / of(as<float>(operands[2]), row, ClassSum::kExponentials),
             static_cast<std::size_t>(rows_.classes), y);
    });
  }

 private:
  Rows rows_;
  std::optional<std::int64_t> ignored_;
};

template <typename K>
std::unique_ptr<Kernel> make(const Signature& s, KernelPolicy&) {
  expect_f32(s);
  return std::make_unique<K>(s);
}

const RegisterKernelRule largest_of_row{
    {.op = std::string(ops::kLargestOfRow), .make = make<LargestLogits>}};
const RegisterKernelRule class_sums{{.op = std::string(ops::kClassSums), .make = make<ClassSums>}};
const RegisterKernelRule cross_entropy_of_sums{
    {.op = std::string(ops::kCrossEntropyOfSums), .make = make<CrossEntropyOfSums>}};
const RegisterKernelRule count_correct_of_sums{
    {.op = std::string(ops::kCountCorrectOfSums), .make = make<CountCorrectOfSums>}};
const RegisterKernelRule softmax_of_sums{
    {.op = std::string(ops::kSoftmaxOfSums),
     .make = make<SoftmaxOfSums>,
     .in_place = [](const Signature&, std::size_t, std::size_t i) { return i == 0; }}};

}  // namespace
}  // namespace concord::cpu
#endif
