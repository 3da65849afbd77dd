#include "concord/kernels/ref/reference.h"
#include "concord/ops/window.h"

namespace concord::ref {
namespace {

// Calls visit(x_index, w_index, y_index) for every product of a convolution.
template <typename Visit>
void for_each_product(const Node& node, const Shape& x, const Shape& w, const Shape& y,
                      Visit visit) {
  const ops::Window2d window = ops::Window2d::of(node);
  const std::int64_t outputs_per_group = w[0] / node.attributes.integer("groups");
  for (std::int64_t n = 0; n < y[0]; ++n) {
    for (std::int64_t o = 0; o < y[1]; ++o) {
      for (std::int64_t p = 0; p < y[2]; ++p) {
        for (std::int64_t q = 0; q < y[3]; ++q) {
          const std::int64_t y_index = ((n * y[1] + o) * y[2] + p) * y[3] + q;
          for (std::int64_t i = 0; i < w[1]; ++i) {
            const std::int64_t channel = o / outputs_per_group * w[1] + i;
            for (std::int64_t r = 0; r < w[2]; ++r) {
              const std::int64_t h =
                  p * window.stride[0] + r * window.dilation[0] - window.padding[0];
              if (h < 0 || h >= x[2]) continue;
              for (std::int64_t s = 0; s < w[3]; ++s) {
                const std::int64_t v =
                    q * window.stride[1] + s * window.dilation[1] - window.padding[1];
                if (v < 0 || v >= x[3]) continue;
                visit(((n * x[1] + channel) * x[2] + h) * x[3] + v,
                      ((o * w[1] + i) * w[2] + r) * w[3] + s, y_index);
              }
            }
          }
        }
      }
    }
  }
}

const RegisterKernel conv2d{
    "conv2d", [](const Call& c) {
      Array& y = c.out(0);
      if (c.inputs.size() == 3) {
        const std::int64_t positions = y.shape[2] * y.shape[3];
        for (std::int64_t i = 0; i < y.shape.elements(); ++i) {
          y[i] = c.in(2)[i / positions % y.shape[1]];
        }
      }
      for_each_product(c.node, c.in(0).shape, c.in(1).shape, y.shape,
                       [&](auto xi, auto wi, auto yi) { y[yi] += c.in(0)[xi] * c.in(1)[wi]; });
    }};

const RegisterKernel backward_data{
    "conv2d_backward_data", [](const Call& c) {
      Array& dx = c.out(0);
      for_each_product(c.node, dx.shape, c.in(1).shape, c.in(0).shape,
                       [&](auto xi, auto wi, auto yi) { dx[xi] += c.in(0)[yi] * c.in(1)[wi]; });
    }};

const RegisterKernel backward_weights{
    "conv2d_backward_weights", [](const Call& c) {
      Array& dw = c.out(0);
      const Array& dy = c.in(1);
      for_each_product(c.node, c.in(0).shape, dw.shape, dy.shape,
                       [&](auto xi, auto wi, auto yi) { dw[wi] += c.in(0)[xi] * dy[yi]; });
      if (c.outputs.size() == 1) return;
      const std::int64_t positions = dy.shape[2] * dy.shape[3];
      for (std::int64_t i = 0; i < dy.shape.elements(); ++i) {
        c.out(1)[i / positions % dy.shape[1]] += dy[i];
      }
    }};

}  // namespace
}  // namespace concord::ref
