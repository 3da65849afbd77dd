#include "concord/train/weights_hash.h"

#include <gtest/gtest.h>

#include <vector>

namespace concord::train {
namespace {

using formats::NamedTensor;

TEST(WeightsHash, IsTheChecksumOfTheDocumentedBytes) {
  const std::vector<float> bias = {1.0f, -2.0f};
  const std::vector<std::uint8_t> table = {7};
  const std::vector<NamedTensor> parameters = {
      {"b", {DType::kU8, {}}, std::as_bytes(std::span(table))},
      {"a", {DType::kF32, {1, 2}}, std::as_bytes(std::span(bias))}};
  using namespace std::string_literals;
  const std::string bytes = "a\0f32\0"s + "\2\0\0\0\0\0\0\0"s + "\1\0\0\0\0\0\0\0"s +
                            "\2\0\0\0\0\0\0\0"s + "\0\0\x80\x3f"s + "\0\0\0\xc0"s + "b\0u8\0"s +
                            "\0\0\0\0\0\0\0\0"s + "\7"s;
  EXPECT_EQ(weights_hash(parameters), formats::checksum(bytes));
}

TEST(WeightsHash, DependsOnNamesTypesShapesAndBitsButNotOnOrder) {
  const std::vector<float> values = {0.0f, 0.0f};
  const std::vector<float> negative_zero = {0.0f, -0.0f};
  const auto hash = [](std::string name, Shape shape, const std::vector<float>& from) {
    return weights_hash(std::vector<NamedTensor>{
        {std::move(name), {DType::kF32, shape}, std::as_bytes(std::span(from))}});
  };
  const std::string reference = hash("w", {2}, values);
  EXPECT_NE(hash("v", {2}, values), reference);
  EXPECT_NE(hash("w", {2, 1}, values), reference);
  EXPECT_NE(hash("w", {2}, negative_zero), reference);

  const NamedTensor a{"a", {DType::kF32, {2}}, std::as_bytes(std::span(values))};
  const NamedTensor b{"b", {DType::kF32, {2}}, std::as_bytes(std::span(negative_zero))};
  EXPECT_EQ(weights_hash(std::vector{a, b}), weights_hash(std::vector{b, a}));
}

}  // namespace
}  // namespace concord::train
