#include "concord/ops/reorder.h"

#include <gtest/gtest.h>

#include <numeric>

#include "concord/kernels/cpu/registry.h"
#include "concord/tensor/relayout.h"

namespace concord::cpu {
namespace {

// Row-major numbers through `from` to `to` and back.
template <typename T>
std::vector<T> reordered(const TensorType& type, const Layout& from, const Layout& to) {
  Graph graph;
  GraphBuilder builder(graph);
  ops::reorder(builder, builder.input("x", type));
  KernelPolicy policy;
  const std::unique_ptr<Kernel> kernel =
      find_kernel_rule("reorder").make({graph.nodes[0], {{type, from}}, {{type, to}}}, policy);
  OwnedTensor plain(type);
  std::iota(plain.as<T>().begin(), plain.as<T>().end(), T{1});
  Buffer source(stored_bytes(type, from)), destination(stored_bytes(type, to));
  Buffer scratchpad(kernel->scratchpad_bytes());
  to_layout(type, from, plain.view().data, source.data());
  std::fill_n(destination.data(), destination.bytes(), std::byte{0xff});
  kernel->run(std::vector<std::byte*>{source.data(), destination.data(), scratchpad.data()});

  Buffer expected(stored_bytes(type, to));
  to_layout(type, to, plain.view().data, expected.data());
  EXPECT_TRUE(std::equal(expected.data(), expected.data() + expected.bytes(), destination.data()));
  from_layout(type, to, destination.data(), plain.view().data);
  return {plain.as<T>().begin(), plain.as<T>().end()};
}

template <typename T>
void expect_reorders(const TensorType& type, const Layout& from, const Layout& to) {
  std::vector<T> numbers(static_cast<std::size_t>(type.shape.elements()));
  std::iota(numbers.begin(), numbers.end(), T{1});
  EXPECT_EQ(reordered<T>(type, from, to), numbers);
}

TEST(CpuKernel, ReorderOfImagesKeepsPaddingZero) {
  const Shape shape{2, 20, 3, 2};
  const Layout blocked(shape, {32 * 6, 16 * 6, 2 * 16, 16}, {2, 32, 3, 2}, {{1, 16}});
  const Layout channels_last(shape, {120, 1, 40, 20}, {2, 20, 3, 2}, {});
  for (const Layout& layout : {blocked, channels_last}) {
    expect_reorders<float>({DType::kF32, shape}, Layout(), layout);
    expect_reorders<float>({DType::kF32, shape}, layout, Layout());
    expect_reorders<std::uint8_t>({DType::kU8, shape}, Layout(), layout);
    expect_reorders<std::int32_t>({DType::kI32, shape}, layout, Layout());
  }
  expect_reorders<float>({DType::kF32, shape}, blocked, channels_last);
}

TEST(CpuKernel, ReorderOfWeights) {
  const Shape shape{32, 16, 3, 3};
  const Layout forward(shape, {9 * 256, 9 * 256, 3 * 256, 256}, {32, 16, 3, 3}, {{1, 16}, {0, 16}});
  const Layout backward(shape, {9 * 256, 9 * 256, 3 * 256, 256}, {32, 16, 3, 3},
                        {{0, 16}, {1, 16}});
  expect_reorders<float>({DType::kF32, shape}, forward, backward);
  expect_reorders<float>({DType::kF32, shape}, backward, Layout());
}

}  // namespace
}  // namespace concord::cpu
