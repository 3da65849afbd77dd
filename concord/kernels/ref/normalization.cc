#include <algorithm>
#include <cmath>

#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

// Calls visit(index, channel) for every element of [N, C] or [N, C, H, W].
template <typename Visit>
void for_each_channel_element(const Shape& shape, Visit visit) {
  const std::int64_t positions = shape.elements() / (shape[0] * shape[1]);
  for (std::int64_t i = 0; i < shape.elements(); ++i) visit(i, i / positions % shape[1]);
}

double per_channel(const Shape& shape) {
  const std::int64_t elements = shape.elements() / shape[1];
  return static_cast<double>(elements);
}

bool has_relu(const Call& c) { return c.node.attributes.integer("relu") != 0; }

// y from x, gamma, beta (inputs 0-2) and the statistics.
void normalize(const Call& c, const Array& mean, const Array& variance) {
  const double epsilon = c.node.attributes.real("epsilon");
  for_each_channel_element(c.in(0).shape, [&](auto i, auto k) {
    const double normal = (c.in(0)[i] - mean[k]) / std::sqrt(variance[k] + epsilon);
    const double y = c.in(1)[k] * normal + c.in(2)[k];
    c.out(0)[i] = has_relu(c) ? std::max(y, 0.0) : y;
  });
}

const RegisterKernel batch_norm{"batch_norm", [](const Call& c) {
                                  const Array& x = c.in(0);
                                  Array& mean = c.out(1);
                                  Array& variance = c.out(2);
                                  const double count = per_channel(x.shape);
                                  for_each_channel_element(
                                      x.shape, [&](auto i, auto k) { mean[k] += x[i] / count; });
                                  for_each_channel_element(x.shape, [&](auto i, auto k) {
                                    variance[k] += (x[i] - mean[k]) * (x[i] - mean[k]) / count;
                                  });
                                  normalize(c, mean, variance);
                                }};

const RegisterKernel batch_norm_inference{"batch_norm_inference",
                                          [](const Call& c) { normalize(c, c.in(3), c.in(4)); }};

// The chain rule through mean and variance (Ioffe, Szegedy 2015, section 3), with n = (x - mean) /
// sqrt(variance + epsilon) and m elements per channel:
//   dx = gamma / sqrt(variance + epsilon) (dy - dbeta / m - n dgamma / m)
const RegisterKernel batch_norm_backward{
    "batch_norm_backward", [](const Call& c) {
      const Array &x = c.in(1), &gamma = c.in(2), &mean = c.in(3), &variance = c.in(4);
      Array &dx = c.out(0), &dgamma = c.out(1), &dbeta = c.out(2);
      const double epsilon = c.node.attributes.real("epsilon");
      const double count = per_channel(x.shape);
      const auto scale = [&](auto k) { return 1.0 / std::sqrt(variance[k] + epsilon); };
      const auto dy = [&](auto i) { return has_relu(c) && c.in(5)[i] <= 0 ? 0.0 : c.in(0)[i]; };
      for_each_channel_element(x.shape, [&](auto i, auto k) {
        dgamma[k] += dy(i) * (x[i] - mean[k]) * scale(k);
        dbeta[k] += dy(i);
      });
      for_each_channel_element(x.shape, [&](auto i, auto k) {
        const double normal = (x[i] - mean[k]) * scale(k);
        dx[i] = gamma[k] * scale(k) * (dy(i) - dbeta[k] / count - normal * dgamma[k] / count);
      });
    }};

}  // namespace
}  // namespace concord::ref
