#include "concord/ops/split_classes.h"

#include <cmath>
#include <limits>

#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

using ops::ClassSum;

bool is_ignored(const Call& c, double label) {
  const Attributes& attributes = c.node.attributes;
  return attributes.has("ignore_label") &&
         label == static_cast<double>(attributes.integer("ignore_label"));
}

std::int64_t at(std::int64_t row, ClassSum sum) {
  return row * ops::kClassSumCount + static_cast<std::int64_t>(sum);
}

const RegisterKernel largest_of_row{std::string(ops::kLargestOfRow), [](const Call& c) {
                                      const std::int64_t classes = c.in(0).shape[-1];
                                      for (std::int64_t row = 0; row < c.out(0).shape.elements();
                                           ++row) {
                                        double largest = c.in(0)[row * classes];
                                        for (std::int64_t j = 1; j < classes; ++j) {
                                          const double x = c.in(0)[row * classes + j];
                                          if (std::isnan(x) || x > largest) largest = x;
                                        }
                                        c.out(0)[row] = largest;
                                      }
                                    }};

const RegisterKernel class_sums{
    std::string(ops::kClassSums), [](const Call& c) {
      const std::int64_t classes = c.in(0).shape[-1];
      const std::int64_t first = c.node.attributes.integer("first");
      for (std::int64_t row = 0; row < c.in(1).shape.elements(); ++row) {
        const double label = c.in(2)[row];
        if (is_ignored(c, label)) continue;
        for (std::int64_t j = 0; j < classes; ++j) {
          const double x = c.in(0)[row * classes + j], largest = c.in(1)[row];
          const auto of_all = static_cast<double>(first + j);
          c.out(0)[at(row, ClassSum::kExponentials)] += std::exp(x - largest);
          c.out(0)[at(row, ClassSum::kDistances)] += x - largest;
          if (of_all == label) c.out(0)[at(row, ClassSum::kLabelled)] = x - largest;
          if (of_all == label && x == largest) c.out(0)[at(row, ClassSum::kIsCorrect)] += 1;
          if (of_all < label && x == largest) c.out(0)[at(row, ClassSum::kIsCorrect)] -= 1;
        }
      }
    }};

const RegisterKernel cross_entropy_of_sums{
    std::string(ops::kCrossEntropyOfSums), [](const Call& c) {
      const double smoothing = c.node.attributes.real("label_smoothing");
      const auto classes = static_cast<double>(c.node.attributes.integer("classes"));
      double loss = 0;
      for (std::int64_t row = 0; row < c.in(1).shape.elements(); ++row) {
        const double label = c.in(1)[row];
        if (is_ignored(c, label)) continue;
        loss += std::log(c.in(0)[at(row, ClassSum::kExponentials)]) -
                (1 - smoothing) * c.in(0)[at(row, ClassSum::kLabelled)];
        if (smoothing != 0) loss -= smoothing * c.in(0)[at(row, ClassSum::kDistances)] / classes;
        if (label < 0 || label >= classes) loss = std::numeric_limits<double>::quiet_NaN();
      }
      c.out(0)[0] = c.in(2)[0] * loss;
    }};

const RegisterKernel count_correct_of_sums{
    std::string(ops::kCountCorrectOfSums), [](const Call& c) {
      const bool only_finite = c.node.attributes.integer("only_finite") != 0;
      for (std::int64_t row = 0; row < c.in(1).shape.elements(); ++row) {
        if (is_ignored(c, c.in(1)[row])) continue;
        if (only_finite && !std::isfinite(c.in(0)[at(row, ClassSum::kExponentials)])) continue;
        if (c.in(0)[at(row, ClassSum::kIsCorrect)] == 1) c.out(0)[0] += 1;
      }
    }};

const RegisterKernel softmax_of_sums{std::string(ops::kSoftmaxOfSums), [](const Call& c) {
                                       const std::int64_t classes = c.in(0).shape[-1];
                                       for (std::int64_t i = 0; i < c.in(0).shape.elements(); ++i) {
                                         const std::int64_t row = i / classes;
                                         if (is_ignored(c, c.in(3)[row])) continue;
                                         c.out(0)[i] = std::exp(c.in(0)[i] - c.in(1)[row]) /
                                                       c.in(2)[at(row, ClassSum::kExponentials)];
                                       }
                                     }};

}  // namespace
}  // namespace concord::ref
