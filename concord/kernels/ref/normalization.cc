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

// y from x, gamma, beta (inputs 0-2), the statistics and what is added, if anything.
void normalize(const Call& c, const Array& mean, const Array& variance, const Array* addend) {
  const double epsilon = c.node.attributes.real("epsilon");
  for_each_channel_element(c.in(0).shape, [&](auto i, auto k) {
    const double normal = (c.in(0)[i] - mean[k]) / std::sqrt(variance[k] + epsilon);
    const double y = c.in(1)[k] * normal + c.in(2)[k] + (addend == nullptr ? 0 : (*addend)[i]);
    c.out(0)[i] = has_relu(c) ? std::max(y, 0.0) : y;
  });
}

const RegisterKernel batch_norm{
    "batch_norm", [](const Call& c) {
      const Array& x = c.in(0);
      Array& mean = c.out(1);
      Array& variance = c.out(2);
      const double count = per_channel(x.shape);
      for_each_channel_element(x.shape, [&](auto i, auto k) { mean[k] += x[i] / count; });
      for_each_channel_element(x.shape, [&](auto i, auto k) {
        variance[k] += (x[i] - mean[k]) * (x[i] - mean[k]) / count;
      });
      normalize(c, mean, variance, c.inputs.size() == 4 ? &c.in(3) : nullptr);
    }};

const RegisterKernel batch_norm_inference{
    "batch_norm_inference", [](const Call& c) { normalize(c, c.in(3), c.in(4), nullptr); }};

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
        if (c.outputs.size() == 4) c.out(3)[i] = dy(i);
      });
    }};

const RegisterKernel channel_sum{
    "channel_sum", [](const Call& c) {
      for_each_channel_element(c.in(0).shape, [&](auto i, auto k) {
        const double x = c.in(0)[i], distance = c.inputs.size() == 2 ? x - c.in(1)[k] : 0;
        c.out(0)[k] += c.inputs.size() == 2 ? distance * distance : x;
      });
    }};

const RegisterKernel batch_norm_over_leaves{
    "batch_norm_over_leaves", [](const Call& c) {
      for_each_channel_element(c.in(0).shape, [&](auto i, auto k) {
        const double scale = 1 / std::sqrt(c.in(4)[k] + c.node.attributes.real("epsilon"));
        c.out(0)[i] = c.in(1)[k] * (c.in(0)[i] - c.in(3)[k]) * scale + c.in(2)[k];
      });
    }};

const RegisterKernel batch_norm_over_leaves_sums{
    "batch_norm_over_leaves_sums", [](const Call& c) {
      for_each_channel_element(c.in(1).shape, [&](auto i, auto k) {
        const double scale = 1 / std::sqrt(c.in(3)[k] + c.node.attributes.real("epsilon"));
        c.out(0)[k] += c.in(0)[i] * (c.in(1)[i] - c.in(2)[k]) * scale;
        c.out(1)[k] += c.in(0)[i];
      });
    }};

// As in batch_norm_backward, where dgamma / m and dbeta / m are those of all leaves.
const RegisterKernel batch_norm_over_leaves_backward{
    "batch_norm_over_leaves_backward", [](const Call& c) {
      for_each_channel_element(c.in(1).shape, [&](auto i, auto k) {
        const double scale = 1 / std::sqrt(c.in(4)[k] + c.node.attributes.real("epsilon"));
        const double normal = (c.in(1)[i] - c.in(3)[k]) * scale;
        c.out(0)[i] = c.in(2)[k] * scale * (c.in(0)[i] - c.in(6)[k] - normal * c.in(5)[k]);
      });
    }};

// What is normalized together: sets of `size` elements that follow each other. A parameter serves
// `run` elements, then the next one follows.
struct Sets {
  std::int64_t elements, size, run, parameters;

  static Sets of_rows(const Shape& shape) { return {shape.elements(), shape[-1], 1, shape[-1]}; }
  static Sets of_groups(const Shape& shape, std::int64_t groups) {
    const std::int64_t positions = shape.elements() / (shape[0] * shape[1]);
    return {shape.elements(), shape[1] / groups * positions, positions, shape[1]};
  }
  // Calls visit(element, set, parameter).
  template <typename Visit>
  void for_each(Visit visit) const {
    for (std::int64_t i = 0; i < elements; ++i) visit(i, i / size, i / run % parameters);
  }
};

// y and the statistics from x, gamma and beta. Without beta nothing is subtracted either: that is
// RMSNorm, whose mean counts as 0.
void normalize_sets(const Call& c, const Sets& sets) {
  const bool centered = c.inputs.size() == 3;
  const Array& x = c.in(0);
  const auto count = static_cast<double>(sets.size);
  Array mean(c.outputs.back().shape), variance(mean.shape);
  Array& reciprocal = c.outputs.back();
  if (centered) sets.for_each([&](auto i, auto s, auto) { mean[s] += x[i] / count; });
  sets.for_each([&](auto i, auto s, auto) {
    variance[s] += (x[i] - mean[s]) * (x[i] - mean[s]) / count;
    reciprocal[s] = 1.0 / std::sqrt(variance[s] + c.node.attributes.real("epsilon"));
  });
  sets.for_each([&](auto i, auto s, auto k) {
    c.out(0)[i] = c.in(1)[k] * (x[i] - mean[s]) * reciprocal[s] + (centered ? c.in(2)[k] : 0.0);
  });
  if (centered) c.out(1) = mean;
}

// The chain rule as for batch norm, with m elements in a set, g = gamma dy and n = (x - mean) r, r
// being the reciprocal deviation:
//   dx = r (g - sum of g / m - n sum of g n / m)
// where RMSNorm, which has no mean, lacks the middle term.
void backpropagate_sets(const Call& c, const Sets& sets) {
  const bool centered = c.inputs.size() == 5;
  const Array &dy = c.in(0), &x = c.in(1), &gamma = c.in(2), &reciprocal = *c.inputs.back();
  const Array mean = centered ? c.in(3) : Array(reciprocal.shape);
  const auto count = static_cast<double>(sets.size);
  const auto normal = [&](auto i, auto s) { return (x[i] - mean[s]) * reciprocal[s]; };
  Array mean_g(mean.shape), mean_gn(mean.shape);
  sets.for_each([&](auto i, auto s, auto k) {
    if (centered) mean_g[s] += gamma[k] * dy[i] / count;
    mean_gn[s] += gamma[k] * dy[i] * normal(i, s) / count;
    c.out(1)[k] += dy[i] * normal(i, s);
    if (centered) c.out(2)[k] += dy[i];
  });
  sets.for_each([&](auto i, auto s, auto k) {
    c.out(0)[i] = reciprocal[s] * (gamma[k] * dy[i] - mean_g[s] - normal(i, s) * mean_gn[s]);
  });
}

const RegisterKernel layer_norm{
    "layer_norm", [](const Call& c) { normalize_sets(c, Sets::of_rows(c.in(0).shape)); }};
const RegisterKernel rms_norm{
    "rms_norm", [](const Call& c) { normalize_sets(c, Sets::of_rows(c.in(0).shape)); }};
const RegisterKernel group_norm{
    "group_norm", [](const Call& c) {
      normalize_sets(c, Sets::of_groups(c.in(0).shape, c.node.attributes.integer("groups")));
    }};

const RegisterKernel layer_norm_backward{"layer_norm_backward", [](const Call& c) {
                                           backpropagate_sets(c, Sets::of_rows(c.in(1).shape));
                                         }};
const RegisterKernel rms_norm_backward{"rms_norm_backward", [](const Call& c) {
                                         backpropagate_sets(c, Sets::of_rows(c.in(1).shape));
                                       }};
const RegisterKernel group_norm_backward{
    "group_norm_backward", [](const Call& c) {
      backpropagate_sets(c, Sets::of_groups(c.in(1).shape, c.node.attributes.integer("groups")));
    }};

}  // namespace
}  // namespace concord::ref
