#include "concord/nn/initialize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "concord/base/philox.h"
#include "concord/graph/builder.h"

namespace concord::nn {
namespace {

std::vector<float> draw(std::string_view name, const Shape& shape, Initializer initializer,
                        std::uint64_t seed = 1) {
  Graph graph;
  GraphBuilder builder(graph);
  builder.state(name, {DType::kF32, shape}, State::Role::kParameter, initializer);
  std::vector<float> values(static_cast<std::size_t>(shape.elements()));
  initialize(graph, graph.states[0], seed, values);
  return values;
}

struct Moments {
  double mean = 0, variance = 0;
};

Moments moments(const std::vector<float>& values) {
  Moments m;
  for (const float v : values) m.mean += v;
  m.mean /= static_cast<double>(values.size());
  for (const float v : values) m.variance += (v - m.mean) * (v - m.mean);
  m.variance /= static_cast<double>(values.size());
  return m;
}

// The FNV test suite of Landon Curt Noll.
TEST(RandomStream, IsTheFnv1aHashOfTheName) {
  EXPECT_EQ(random_stream(""), 0x811C9DC5u);
  EXPECT_EQ(random_stream("a"), 0xE40C292Cu);
  EXPECT_EQ(random_stream("foobar"), 0xBF9CF968u);
}

TEST(Initialize, DrawsAreThoseOfTheElementsIndex) {
  const RandomStream stream{7, random_stream("fc.weight"), 0};
  const auto uniform = draw("fc.weight", {3, 5}, {Initializer::Kind::kUniform, 0.5}, 7);
  const auto normal = draw("fc.weight", {3, 5}, {Initializer::Kind::kNormal, 0.25}, 7);
  for (std::size_t i = 0; i < uniform.size(); ++i) {
    EXPECT_EQ(uniform[i], 0.5f * (2.0f * uniform01(stream.bits(i)) - 1.0f));
    EXPECT_EQ(normal[i], 0.25f * normal01(stream.bits(2 * i), stream.bits(2 * i + 1)));
  }
}

TEST(Initialize, HasTheStatedDistribution) {
  // The standard errors are 0.0012 for the mean and at most 0.0005 for the variance.
  const Moments uniform = moments(draw("w", {400, 500}, {Initializer::Kind::kUniform, 0.5}));
  EXPECT_NEAR(uniform.mean, 0, 0.005);
  EXPECT_NEAR(uniform.variance, 0.5 * 0.5 / 3, 0.002);
  const Moments normal = moments(draw("w", {400, 500}, {Initializer::Kind::kNormal, 0.5}));
  EXPECT_NEAR(normal.mean, 0, 0.005);
  EXPECT_NEAR(normal.variance, 0.25, 0.004);
  EXPECT_EQ(draw("w", {3}, {Initializer::Kind::kConstant, 1.5}), std::vector(3, 1.5f));
}

TEST(Initialize, DependsOnSeedAndName) {
  const Initializer uniform{Initializer::Kind::kUniform, 1};
  EXPECT_EQ(draw("a", {8}, uniform, 1), draw("a", {8}, uniform, 1));
  EXPECT_NE(draw("a", {8}, uniform, 1), draw("b", {8}, uniform, 1));
  EXPECT_NE(draw("a", {8}, uniform, 1), draw("a", {8}, uniform, 2));
}

}  // namespace
}  // namespace concord::nn
