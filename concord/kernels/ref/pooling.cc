#include <cmath>

#include "concord/kernels/ref/reference.h"
#include "concord/ops/window.h"

namespace concord::ref {
namespace {

// Calls visit(x_index, y_index, place) for every element of every window; `place` counts the places
// of a window from its first corner, those in the padding too.
template <typename Visit>
void for_each_place(const ops::Window2d& window, const Shape& x, const Shape& y, Visit visit) {
  for (std::int64_t image = 0; image < y[0] * y[1]; ++image) {
    for (std::int64_t p = 0; p < y[2]; ++p) {
      for (std::int64_t q = 0; q < y[3]; ++q) {
        for (std::int64_t place = 0; place < window.kernel[0] * window.kernel[1]; ++place) {
          const std::int64_t h =
              p * window.stride[0] - window.padding[0] + place / window.kernel[1];
          const std::int64_t v =
              q * window.stride[1] - window.padding[1] + place % window.kernel[1];
          if (h < 0 || h >= x[2] || v < 0 || v >= x[3]) continue;
          visit((image * x[2] + h) * x[3] + v, (image * y[2] + p) * y[3] + q, place);
        }
      }
    }
  }
}

const RegisterKernel max_pool2d{"max_pool2d", [](const Call& c) {
                                  const Array& x = c.in(0);
                                  Array& y = c.out(0);
                                  Array& index = c.out(1);
                                  std::fill(y.data.begin(), y.data.end(), -INFINITY);
                                  for_each_place(ops::Window2d::of(c.node), x.shape, y.shape,
                                                 [&](auto xi, auto yi, auto place) {
                                                   if (x[xi] <= y[yi]) return;
                                                   y[yi] = x[xi];
                                                   index[yi] = static_cast<double>(place);
                                                 });
                                }};

const RegisterKernel max_pool2d_backward{"max_pool2d_backward", [](const Call& c) {
                                           Array& dx = c.out(0);
                                           for_each_place(
                                               ops::Window2d::of(c.node), dx.shape, c.in(0).shape,
                                               [&](auto xi, auto yi, auto place) {
                                                 if (c.in(1)[yi] == static_cast<double>(place))
                                                   dx[xi] += c.in(0)[yi];
                                               });
                                         }};

// For each element of y, how many elements its mean is over.
std::vector<double> divisors(const Node& node, const Shape& x, const Shape& y) {
  const ops::Window2d window = ops::Window2d::of(node);
  const bool whole = node.attributes.integer("count_include_pad") != 0;
  std::vector<double> count(static_cast<std::size_t>(y.elements()),
                            whole ? static_cast<double>(window.kernel[0] * window.kernel[1]) : 0.0);
  if (whole) return count;
  for_each_place(window, x, y,
                 [&](auto, auto yi, auto) { count[static_cast<std::size_t>(yi)] += 1.0; });
  return count;
}

const RegisterKernel avg_pool2d{
    "avg_pool2d", [](const Call& c) {
      Array& y = c.out(0);
      const std::vector<double> count = divisors(c.node, c.in(0).shape, y.shape);
      for_each_place(ops::Window2d::of(c.node), c.in(0).shape, y.shape,
                     [&](auto xi, auto yi, auto) {
                       y[yi] += c.in(0)[xi] / count[static_cast<std::size_t>(yi)];
                     });
    }};

const RegisterKernel avg_pool2d_backward{
    "avg_pool2d_backward", [](const Call& c) {
      Array& dx = c.out(0);
      const Array& dy = c.in(0);
      const std::vector<double> count = divisors(c.node, dx.shape, dy.shape);
      for_each_place(ops::Window2d::of(c.node), dx.shape, dy.shape, [&](auto xi, auto yi, auto) {
        dx[xi] += dy[yi] / count[static_cast<std::size_t>(yi)];
      });
    }};

}  // namespace
}  // namespace concord::ref
