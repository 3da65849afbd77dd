#include <algorithm>
#include <cmath>
#include <limits>

#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// y[j] = e^x[j] / sum, for one row; returns the logarithm of the sum.
double softmax_row(const double* x, double* y, std::int64_t classes) {
  const double largest = *std::max_element(x, x + classes);
  double sum = 0;
  for (std::int64_t j = 0; j < classes; ++j) sum += y[j] = std::exp(x[j] - largest);
  for (std::int64_t j = 0; j < classes; ++j) y[j] /= sum;
  return largest + std::log(sum);
}

// The smoothed target of class j, or NaN for a label outside the classes.
double target(double label, std::int64_t j, std::int64_t classes, double smoothing) {
  if (label < 0 || label >= static_cast<double>(classes)) return kNaN;
  return (label == static_cast<double>(j) ? 1 - smoothing : 0.0) +
         smoothing / static_cast<double>(classes);
}

bool is_ignored(const Call& c, double label) {
  const Attributes& attributes = c.node.attributes;
  return attributes.has("ignore_label") &&
         label == static_cast<double>(attributes.integer("ignore_label"));
}

const RegisterKernel softmax{"softmax", [](const Call& c) {
                               const std::int64_t classes = c.in(0).shape[-1];
                               const std::int64_t elements = c.in(0).shape.elements();
                               for (std::int64_t row = 0; row < elements; row += classes) {
                                 softmax_row(&c.in(0).data[static_cast<std::size_t>(row)],
                                             &c.out(0)[row], classes);
                               }
                             }};

const RegisterKernel softmax_backward{"softmax_backward", [](const Call& c) {
                                        const Array& dy = c.in(0);
                                        const Array& y = c.in(1);
                                        const std::int64_t classes = y.shape[-1];
                                        for (std::int64_t row = 0; row < y.shape.elements();
                                             row += classes) {
                                          double dot = 0;
                                          for (std::int64_t j = row; j < row + classes; ++j)
                                            dot += dy[j] * y[j];
                                          for (std::int64_t j = row; j < row + classes; ++j)
                                            c.out(0)[j] = y[j] * (dy[j] - dot);
                                        }
                                      }};

const RegisterKernel softmax_cross_entropy{
    "softmax_cross_entropy", [](const Call& c) {
      const Array& x = c.in(0);
      const double smoothing = c.node.attributes.real("label_smoothing");
      const std::int64_t classes = x.shape[-1];
      double loss = 0;
      for (std::int64_t i = 0; i < c.in(1).shape.elements(); ++i) {
        if (is_ignored(c, c.in(1)[i])) continue;
        const std::int64_t row = i * classes;
        const double log_sum =
            softmax_row(&x.data[static_cast<std::size_t>(row)], &c.out(1)[row], classes);
        for (std::int64_t j = 0; j < classes; ++j) {
          loss -= target(c.in(1)[i], j, classes, smoothing) * (x[row + j] - log_sum);
        }
      }
      c.out(0)[0] = c.in(2)[0] * loss;
    }};

const RegisterKernel softmax_cross_entropy_backward{
    "softmax_cross_entropy_backward", [](const Call& c) {
      const double smoothing = c.node.attributes.real("label_smoothing");
      const Attributes& attributes = c.node.attributes;
      const std::int64_t classes = c.in(1).shape[-1];
      const bool is_part = attributes.has("first");
      const std::int64_t first = is_part ? attributes.integer("first") : 0;
      const std::int64_t all = is_part ? attributes.integer("classes") : classes;
      for (std::int64_t i = 0; i < c.in(2).shape.elements(); ++i) {
        if (is_ignored(c, c.in(2)[i])) continue;
        for (std::int64_t j = 0; j < classes; ++j) {
          c.out(0)[i * classes + j] =
              c.in(0)[0] * c.in(3)[0] *
              (c.in(1)[i * classes + j] - target(c.in(2)[i], first + j, all, smoothing));
        }
      }
    }};

const RegisterKernel count_correct{
    "count_correct", [](const Call& c) {
      const std::int64_t classes = c.in(0).shape[-1];
      for (std::int64_t i = 0; i < c.in(1).shape.elements(); ++i) {
        if (is_ignored(c, c.in(1)[i])) continue;
        const double* x = c.in(0).data.data() + i * classes;
        const bool has_nan = std::any_of(x, x + classes, [](double v) { return std::isnan(v); });
        const auto best = static_cast<double>(std::max_element(x, x + classes) - x);
        if (!has_nan && best == c.in(1)[i]) c.out(0)[0] += 1;
      }
    }};

}  // namespace
}  // namespace concord::ref
