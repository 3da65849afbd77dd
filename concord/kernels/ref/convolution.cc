#include <algorithm>

#include "concord/kernels/ref/reference.h"
#include "concord/ops/window.h"

namespace concord::ref {
namespace {

// The rows of products of a convolution: products of x[x_index + j * stride], w[w_index] and
// y[y_index + j] for j < count. Each element of y meets its products in order of input channels and
// places in the window.
template <typename Visit>
void for_each_row(const Node& node, const Shape& x, const Shape& w, const Shape& y, Visit visit) {
  const ops::Window2d window = ops::Window2d::of(node);
  const std::int64_t outputs_per_group = w[0] / node.attributes.integer("groups");
  const std::int64_t stride = window.stride[1];
  // Columns of y that meet column s of the window inside of x: [first, end).
  const auto first_of = [&](std::int64_t s) {
    const std::int64_t outside = window.padding[1] - s * window.dilation[1];
    return outside <= 0 ? 0 : (outside + stride - 1) / stride;
  };
  const auto end_of = [&](std::int64_t s) {
    const std::int64_t last = x[3] - 1 + window.padding[1] - s * window.dilation[1];
    return last < 0 ? 0 : std::min(y[3], last / stride + 1);
  };
  for (std::int64_t n = 0; n < y[0]; ++n) {
    for (std::int64_t o = 0; o < y[1]; ++o) {
      for (std::int64_t i = 0; i < w[1]; ++i) {
        const std::int64_t channel = o / outputs_per_group * w[1] + i;
        for (std::int64_t r = 0; r < w[2]; ++r) {
          for (std::int64_t s = 0; s < w[3]; ++s) {
            const std::int64_t first = first_of(s), end = end_of(s);
            if (first >= end) continue;
            for (std::int64_t p = 0; p < y[2]; ++p) {
              const std::int64_t h =
                  p * window.stride[0] + r * window.dilation[0] - window.padding[0];
              if (h < 0 || h >= x[2]) continue;
              const std::int64_t v = first * stride + s * window.dilation[1] - window.padding[1];
              visit(((n * x[1] + channel) * x[2] + h) * x[3] + v, stride,
                    ((o * w[1] + i) * w[2] + r) * w[3] + s,
                    ((n * y[1] + o) * y[2] + p) * y[3] + first, end - first);
            }
          }
        }
      }
    }
  }
}

const RegisterKernel conv2d{"conv2d", [](const Call& c) {
                              Array& y = c.out(0);
                              if (c.inputs.size() == 3) {
                                const std::int64_t positions = y.shape[2] * y.shape[3];
                                for (std::int64_t i = 0; i < y.shape.elements(); ++i) {
                                  y[i] = c.in(2)[i / positions % y.shape[1]];
                                }
                              }
                              const Array &x = c.in(0), &w = c.in(1);
                              for_each_row(c.node, x.shape, w.shape, y.shape,
                                           [&](auto xi, auto stride, auto wi, auto yi, auto count) {
                                             const double* from = x.data.data() + xi;
                                             double* to = &y[yi];
                                             for (std::int64_t j = 0; j < count; ++j)
                                               to[j] += from[j * stride] * w[wi];
                                           });
                            }};

const RegisterKernel backward_data{"conv2d_backward_data", [](const Call& c) {
                                     Array& dx = c.out(0);
                                     const Array &dy = c.in(0), &w = c.in(1);
                                     for_each_row(
                                         c.node, dx.shape, w.shape, dy.shape,
                                         [&](auto xi, auto stride, auto wi, auto yi, auto count) {
                                           const double* from = dy.data.data() + yi;
                                           double* to = &dx[xi];
                                           for (std::int64_t j = 0; j < count; ++j)
                                             to[j * stride] += from[j] * w[wi];
                                         });
                                   }};

const RegisterKernel backward_weights{
    "conv2d_backward_weights", [](const Call& c) {
      Array& dw = c.out(0);
      const Array &x = c.in(0), &dy = c.in(1);
      for_each_row(c.node, x.shape, dw.shape, dy.shape,
                   [&](auto xi, auto stride, auto wi, auto yi, auto count) {
                     const double *from = x.data.data() + xi, *by = dy.data.data() + yi;
                     double sum = 0;
                     for (std::int64_t j = 0; j < count; ++j) sum += from[j * stride] * by[j];
                     dw[wi] += sum;
                   });
      if (c.outputs.size() == 1) return;
      const std::int64_t positions = dy.shape[2] * dy.shape[3];
      for (std::int64_t i = 0; i < dy.shape.elements(); ++i) {
        c.out(1)[i / positions % dy.shape[1]] += dy[i];
      }
    }};

}  // namespace
}  // namespace concord::ref
