#include "concord/ops/collective.h"

#include <gtest/gtest.h>

#include "concord/kernels/kernel_check.h"

namespace concord::cpu {
namespace {

constexpr int kRanks = 2;

// Of one rank.
std::string check(DType dtype, const Shape& shape, const Placement& to, int index) {
  ref::Array x(shape);
  for (std::int64_t i = 0; i < shape.elements(); ++i) x[i] = static_cast<double>(i % 251);
  return check_kernels(
      {.inputs = {{dtype, shape}},
       .build =
           [&](GraphBuilder& b, const std::vector<ValueId>& in) {
             ops::place(b, in[0], {"tensor", kRanks, index}, Placement::replicate(), to);
           },
       .fixed = {{"x0", x}},
       .tolerance = 0,
       .backward = false});
}

TEST(CpuKernel, ShardTakesItsPartOfEachSection) {
  const std::vector<std::int64_t> of_sections[] = {{1}, {3}, {2, 1, 1}};
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI64, DType::kU8}) {
    for (const auto& sections : of_sections) {
      for (int index = 0; index < kRanks; ++index) {
        EXPECT_EQ("", check(dtype, {24, 5, 7}, Placement::split(0, sections), index));
        EXPECT_EQ("", check(dtype, {3, 24, 7}, Placement::split(1, sections), index));
        EXPECT_EQ("", check(dtype, {3, 5, 24}, Placement::split(2, sections), index));
      }
    }
  }
}

TEST(CpuKernel, FirstSummandIsZeroOnOtherRanks) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (int index = 0; index < kRanks; ++index) {
      EXPECT_EQ("", check(dtype, {5, 7, 33}, Placement::partial(), index));
    }
  }
}

}  // namespace
}  // namespace concord::cpu
