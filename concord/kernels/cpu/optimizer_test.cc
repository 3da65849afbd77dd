#include "concord/ops/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "concord/kernels/cpu/check_layouts.h"
#include "concord/kernels/kernel_check.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/step.h"

namespace concord::cpu {
namespace {

using Inputs = std::vector<ValueId>;

// Parameters of different shapes; the last is large enough for several threads.
const std::vector<Shape> kShapes = {{}, {5}, {3, 7}, {2, 5, 3, 7}, {170, 101}};

// `lists` inputs for each shape, list by list.
std::vector<TensorType> lists_of(std::size_t lists) {
  std::vector<TensorType> types;
  for (std::size_t list = 0; list < lists; ++list) {
    for (const Shape& shape : kShapes) types.push_back({DType::kF32, shape});
  }
  return types;
}

Inputs list_at(const Inputs& x, std::size_t list) {
  const auto begin = x.begin() + static_cast<std::ptrdiff_t>(list * kShapes.size());
  return {begin, begin + static_cast<std::ptrdiff_t>(kShapes.size())};
}

ValueId scalar(GraphBuilder& b, double value) { return ops::constant(b, {DType::kF32, {}}, value); }

TEST(CpuKernel, SgdUpdate) {
  for (const ops::SgdOptions& options :
       {ops::SgdOptions{}, ops::SgdOptions{.weight_decay = 0.1}, ops::SgdOptions{.momentum = 0.9},
        ops::SgdOptions{.momentum = 0.9, .nesterov = true, .weight_decay = 0.1},
        ops::SgdOptions{.momentum = 0.5, .weight_decay = 0.1, .decoupled = true}}) {
    const bool has_momentum = options.momentum != 0;
    EXPECT_EQ("", check_kernels({.inputs = lists_of(has_momentum ? 3 : 2),
                                 .build =
                                     [&](GraphBuilder& b, const Inputs& x) {
                                       ops::sgd_update(b, scalar(b, 0.3), scalar(b, 0.7),
                                                       list_at(x, 0), list_at(x, 1),
                                                       has_momentum ? list_at(x, 2) : Inputs(),
                                                       options);
                                     },
                                 .tolerance = 1e-6,
                                 .backward = false,
                                 .any_threads = true}));
  }
}

// Positive values for a list of inputs, for means of squares.
ref::Bindings positive_list(std::size_t list) {
  ref::Bindings values;
  for (std::size_t i = 0; i < kShapes.size(); ++i) {
    ref::Array v(kShapes[i]);
    for (std::size_t k = 0; k < v.data.size(); ++k) v.data[k] = 0.01 + static_cast<double>(k % 17);
    values["x" + std::to_string(list * kShapes.size() + i)] = v;
  }
  return values;
}

TEST(CpuKernel, AdamUpdate) {
  for (const double step : {1.0, 1000.0}) {
    for (const ops::AdamOptions& options :
         {ops::AdamOptions{}, ops::AdamOptions{.beta1 = 0.8, .weight_decay = 0.1},
          ops::AdamOptions{.weight_decay = 0.1, .decoupled = true}}) {
      EXPECT_EQ("", check_kernels({.inputs = lists_of(4),
                                   .build =
                                       [&](GraphBuilder& b, const Inputs& x) {
                                         ops::adam_update(b, scalar(b, 0.01), scalar(b, 0.7),
                                                          scalar(b, step), list_at(x, 0),
                                                          list_at(x, 1), list_at(x, 2),
                                                          list_at(x, 3), options);
                                       },
                                   .fixed = positive_list(3),
                                   .tolerance = 1e-6,
                                   .backward = false,
                                   .any_threads = true}));
    }
  }
}

TEST(CpuKernel, LionUpdate) {
  for (const ops::LionOptions& options :
       {ops::LionOptions{}, ops::LionOptions{.beta1 = 0.5, .beta2 = 0.7, .weight_decay = 0.1}}) {
    EXPECT_EQ("", check_kernels({.inputs = lists_of(3),
                                 .build =
                                     [&](GraphBuilder& b, const Inputs& x) {
                                       ops::lion_update(b, scalar(b, 0.3), scalar(b, 0.7),
                                                        list_at(x, 0), list_at(x, 1), list_at(x, 2),
                                                        options);
                                     },
                                 .tolerance = 1e-6,
                                 .backward = false,
                                 .any_threads = true}));
  }
}

TEST(CpuKernel, LionStepsNowhereOnZerosAndPassesNaNOn) {
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {3}}, {DType::kF32, {3}}},
                               .build =
                                   [](GraphBuilder& b, const Inputs& x) {
                                     ops::lion_update(b, scalar(b, 0.3), scalar(b, 1), {x[0]},
                                                      {x[1]}, {x[1]}, {});
                                   },
                               .fixed = {{"x1", ref::Array({3}, {0, std::nan(""), -1e-30})}},
                               .tolerance = 1e-6,
                               .backward = false}));
}

TEST(CpuKernel, RmspropUpdate) {
  for (const ops::RmspropOptions& options :
       {ops::RmspropOptions{}, ops::RmspropOptions{.alpha = 0.9, .weight_decay = 0.1},
        ops::RmspropOptions{.epsilon = 1e-3, .momentum = 0.9},
        ops::RmspropOptions{.momentum = 0.5, .weight_decay = 0.1, .decoupled = true}}) {
    const bool has_momentum = options.momentum != 0;
    EXPECT_EQ("", check_kernels({.inputs = lists_of(has_momentum ? 4 : 3),
                                 .build =
                                     [&](GraphBuilder& b, const Inputs& x) {
                                       ops::rmsprop_update(
                                           b, scalar(b, 0.3), scalar(b, 0.7), list_at(x, 0),
                                           list_at(x, 1), list_at(x, 2),
                                           has_momentum ? list_at(x, 3) : Inputs(), options);
                                     },
                                 .fixed = positive_list(2),
                                 .tolerance = 1e-6,
                                 .backward = false,
                                 .any_threads = true}));
  }
}

TEST(CpuKernel, AdagradUpdate) {
  for (const ops::AdagradOptions& options :
       {ops::AdagradOptions{}, ops::AdagradOptions{.epsilon = 1e-3, .weight_decay = 0.1},
        ops::AdagradOptions{.weight_decay = 0.1, .decoupled = true}}) {
    EXPECT_EQ("", check_kernels({.inputs = lists_of(3),
                                 .build =
                                     [&](GraphBuilder& b, const Inputs& x) {
                                       ops::adagrad_update(b, scalar(b, 0.3), scalar(b, 0.7),
                                                           list_at(x, 0), list_at(x, 1),
                                                           list_at(x, 2), options);
                                     },
                                 .fixed = positive_list(2),
                                 .tolerance = 1e-6,
                                 .backward = false,
                                 .any_threads = true}));
  }
}

TEST(CpuKernel, LarsUpdate) {
  for (const ops::LarsOptions& options : {ops::LarsOptions{}, ops::LarsOptions{.weight_decay = 0.1},
                                          ops::LarsOptions{.momentum = 0, .weight_decay = 0.1}}) {
    const bool has_momentum = options.momentum != 0;
    EXPECT_EQ("", check_kernels({.inputs = lists_of(has_momentum ? 3 : 2),
                                 .build =
                                     [&](GraphBuilder& b, const Inputs& x) {
                                       ops::lars_update(
                                           b, scalar(b, 0.3), scalar(b, 0.7), scalar(b, 0.2),
                                           list_at(x, 0), list_at(x, 1),
                                           has_momentum ? list_at(x, 2) : Inputs(), options);
                                     },
                                 .tolerance = 1e-6,
                                 .backward = false,
                                 .any_threads = true}));
  }
}

TEST(CpuKernel, LambDirection) {
  for (const double step : {1.0, 1000.0}) {
    for (const ops::LambOptions& options :
         {ops::LambOptions{},
          ops::LambOptions{.beta1 = 0.8, .epsilon = 1e-3, .weight_decay = 0.1}}) {
      EXPECT_EQ("", check_kernels({.inputs = lists_of(4),
                                   .build =
                                       [&](GraphBuilder& b, const Inputs& x) {
                                         ops::lamb_direction(b, scalar(b, 0.7), scalar(b, step),
                                                             list_at(x, 0), list_at(x, 1),
                                                             list_at(x, 2), list_at(x, 3), options);
                                       },
                                   .fixed = positive_list(3),
                                   .tolerance = 1e-6,
                                   .backward = false,
                                   .any_threads = true}));
    }
  }
}

TEST(CpuKernel, Momentum) {
  for (const bool nesterov : {false, true}) {
    EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {33, 37}}, {DType::kF32, {33, 37}}},
                                 .build =
                                     [&](GraphBuilder& b, const Inputs& x) {
                                       ops::momentum(b, scalar(b, 0.7), x[0], x[1], 0.9, nesterov);
                                     },
                                 .tolerance = 1e-6,
                                 .backward = false,
                                 .any_threads = true}));
  }
}

TEST(CpuKernel, TrustRatioAndSumsOfSquares) {
  EXPECT_EQ("", check_kernels({.inputs = lists_of(2),
                               .build =
                                   [](GraphBuilder& b, const Inputs& x) {
                                     const ValueId sums = ops::sums_of_squares(b, {x[3], x[2]});
                                     ops::trust_ratio(b, sums, scalar(b, 1), {});
                                     ops::trust_ratio(b, sums, scalar(b, -0.7),
                                                      {.coefficient = 0.1, .weight_decay = 0.2});
                                   },
                               .tolerance = 1e-6,
                               .backward = false,
                               .any_threads = true}));
}

// Exactly, as all squares are whole numbers.
TEST(CpuKernel, ExactSumsOfSquaresApart) {
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {3}}, {DType::kF32, {3}}},
                               .build =
                                   [](GraphBuilder& b, const Inputs& x) {
                                     const ValueId exact = b.node1("exact_sum_of_squares", x,
                                                                   {{"apart", std::int64_t{1}}});
                                     ops::rounded_sum(b, {exact, exact});
                                   },
                               .fixed = {{"x0", ref::Array({3}, {1, 2, 3})},
                                         {"x1", ref::Array({3}, {0, 4, 5})}},
                               .tolerance = 0,
                               .backward = false}));
}

TEST(CpuKernel, ParametersOrStepsOfZerosAreTrustedFully) {
  for (const char* zeros : {"x0", "x1"}) {
    EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {3}}, {DType::kF32, {3}}},
                                 .build =
                                     [](GraphBuilder& b, const Inputs& x) {
                                       const ValueId sums = ops::sums_of_squares(b, x);
                                       ops::trust_ratio(b, sums, scalar(b, 1), {});
                                       ops::trust_ratio(b, sums, scalar(b, 1),
                                                        {.weight_decay = 0.1});
                                     },
                                 .fixed = {{zeros, ref::Array({3}, {0, 0, 0})}},
                                 .tolerance = 1e-6,
                                 .backward = false}));
  }
}

TEST(CpuKernel, UpdatesInAPaddedLayoutKeepThePaddingZero) {
  const TensorType type{DType::kF32, {2, 5, 3, 7}};
  ref::Array v(type.shape);
  std::fill(v.data.begin(), v.data.end(), 0.5);
  EXPECT_EQ("",
            check_kernels({.inputs = {type, type, type, type},
                           .build =
                               [](GraphBuilder& b, const Inputs& x) {
                                 ops::sgd_update(b, scalar(b, 0.3), scalar(b, 0.7), {x[0]}, {x[1]},
                                                 {x[2]}, {.momentum = 0.9});
                                 ops::adam_update(b, scalar(b, 0.3), scalar(b, 0.7), scalar(b, 3),
                                                  {x[0]}, {x[1]}, {x[2]}, {x[3]}, {});
                                 ops::lion_update(b, scalar(b, 0.3), scalar(b, 0.7), {x[0]}, {x[1]},
                                                  {x[2]}, {});
                                 ops::rmsprop_update(b, scalar(b, 0.3), scalar(b, 0.7), {x[0]},
                                                     {x[1]}, {x[3]}, {}, {});
                                 ops::adagrad_update(b, scalar(b, 0.3), scalar(b, 0.7), {x[0]},
                                                     {x[1]}, {x[3]}, {});
                                 ops::lars_update(b, scalar(b, 0.3), scalar(b, 0.7), scalar(b, 0.2),
                                                  {x[0]}, {x[1]}, {x[2]}, {.weight_decay = 0.1});
                                 ops::lamb_direction(b, scalar(b, 0.7), scalar(b, 3), {x[0]},
                                                     {x[1]}, {x[2]}, {x[3]}, {.weight_decay = 0.1});
                                 ops::momentum(b, scalar(b, 0.7), x[0], x[1], 0.9, true);
                                 ops::moving_average(b, x[0], x[1], 0.1);
                                 ops::sum_of_squares(b, {x[0], x[1]});
                                 ops::sums_of_squares(b, {x[0], x[1]});
                               },
                           .fixed = {{"x3", v}},
                           .tolerance = 1e-6,
                           .backward = false,
                           .offered = channel_tiles(type.shape)}));
}

TEST(CpuKernel, SumOfSquaresClipFactorAndMovingAverage) {
  EXPECT_EQ("", check_kernels({.inputs = lists_of(2),
                               .build =
                                   [](GraphBuilder& b, const Inputs& x) {
                                     const ValueId sum = ops::sum_of_squares(b, x);
                                     ops::clip_factor(b, sum, 1.0);
                                     ops::clip_factor(b, sum, 1e6);
                                     ops::moving_average(b, x[3], x[3 + kShapes.size()], 0.1);
                                   },
                               .tolerance = 1e-6,
                               .backward = false,
                               .any_threads = true}));
}

TEST(CpuKernel, NormsWhoseSquareExceedsF32AreClippedToo) {
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {4}}},
                               .build =
                                   [](GraphBuilder& b, const Inputs& x) {
                                     const ValueId sum = ops::sum_of_squares(b, {x[0]});
                                     const ValueId factor = ops::clip_factor(b, sum, 1e30);
                                     ops::add(b, factor, factor);
                                   },
                               .fixed = {{"x0", ref::Array({4}, {1e30, 1e30, 1e30, 1e30})}},
                               .backward = false}));
}

TEST(CpuKernel, AddAllAddsScalarsInTheirOrder) {
  const TensorType scalar{DType::kF64, {}};
  EXPECT_EQ("", check_kernels({.inputs = {scalar, scalar, scalar},
                               .build =
                                   [](GraphBuilder& b, const Inputs& x) {
                                     b.node1("add_all", {x[0], x[1], x[2]});
                                   },
                               .backward = false}));
}

TEST(CpuKernel, ClipFactorPassesNaNOn) {
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kF64, {}}},
                               .build = [](GraphBuilder& b,
                                           const Inputs& x) { ops::clip_factor(b, x[0], 1.0); },
                               .fixed = {{"x0", ref::Array({}, {std::nan("")})}},
                               .backward = false}));
}

}  // namespace
}  // namespace concord::cpu
