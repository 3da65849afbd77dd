#include "concord/ops/labels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/kernels/kernel_check.h"

namespace concord::cpu {
namespace {

using testing::ElementsAre;

// The third sample has one label more than fits, the last one too few.
const ref::Array kLabels({4, 4}, {-1, 7, -1, 0, 3, 2, -1, -1, 9, 8, -1, 6, -1, -1, -1, 5});

void build(GraphBuilder& b, const std::vector<ValueId>& x) { ops::labelled_rows(b, x[0], 2); }

TEST(CpuKernel, LabelledRows) {
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kI32, kLabels.shape}},
                               .build = build,
                               .fixed = {{"x0", kLabels}},
                               .backward = false}));
}

TEST(CpuKernel, LabelledRowsOfSomeSamples) {
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kI32, kLabels.shape}},
                               .build =
                                   [](GraphBuilder& b, const std::vector<ValueId>& x) {
                                     b.node("labelled_rows", {x[0]},
                                            {{"count", std::int64_t{2}},
                                             {"first_sample", std::int64_t{12}}});
                                   },
                               .fixed = {{"x0", kLabels}},
                               .backward = false}));
}

TEST(ReferenceKernel, LabelledRowsAreTheFirstOfEachSample) {
  Graph graph;
  GraphBuilder b(graph);
  build(b, {b.input("x", {DType::kI32, kLabels.shape})});
  const std::vector<ref::Array> values = ref::evaluate(graph, {{"x", kLabels}});
  EXPECT_THAT(values[1].data, ElementsAre(1, 3, 4, 5, 8, 9, 15, 12));
  EXPECT_THAT(values[2].data, ElementsAre(7, 0, 3, 2, 9, 8, 5, ops::kNoLabel));
}

}  // namespace
}  // namespace concord::cpu
