#include <cmath>

#include "concord/kernels/ref/elementwise.h"

namespace concord::ref {
namespace {

const RegisterKernel sgd_update{
    "sgd_update", [](const Call& c) {
      const Attributes& attributes = c.node.attributes;
      const double momentum = attributes.real("momentum");
      const double decay = attributes.real("weight_decay");
      const bool decoupled = attributes.integer("decoupled") != 0;
      const bool nesterov = attributes.integer("nesterov") != 0;
      const double learning_rate = c.in(0)[0], gradient_scale = c.in(1)[0];
      const std::size_t count = (c.inputs.size() - 2) / (momentum != 0 ? 3 : 2);
      for (std::size_t k = 0; k < count; ++k) {
        for (std::int64_t i = 0; i < c.out(k).shape.elements(); ++i) {
          double p = c.in(2 + k)[i];
          double step = gradient_scale * c.in(2 + count + k)[i];
          if (decoupled) {
            p -= learning_rate * decay * p;
          } else {
            step += decay * p;
          }
          if (momentum != 0) {
            const double m = momentum * c.in(2 + 2 * count + k)[i] + step;
            c.out(count + k)[i] = m;
            step = nesterov ? step + momentum * m : m;
          }
          c.out(k)[i] = p - learning_rate * step;
        }
      }
    }};

const RegisterKernel adam_update{
    "adam_update", [](const Call& c) {
      const Attributes& attributes = c.node.attributes;
      const double beta1 = attributes.real("beta1"), beta2 = attributes.real("beta2");
      const double epsilon = attributes.real("epsilon");
      const double decay = attributes.real("weight_decay");
      const bool decoupled = attributes.integer("decoupled") != 0;
      const double learning_rate = c.in(0)[0], gradient_scale = c.in(1)[0];
      const double bias1 = 1 - std::pow(beta1, c.in(2)[0]);
      const double bias2 = 1 - std::pow(beta2, c.in(2)[0]);
      const std::size_t count = (c.inputs.size() - 3) / 4;
      for (std::size_t k = 0; k < count; ++k) {
        for (std::int64_t i = 0; i < c.out(k).shape.elements(); ++i) {
          double p = c.in(3 + k)[i];
          double g = gradient_scale * c.in(3 + count + k)[i];
          if (decoupled) {
            p -= learning_rate * decay * p;
          } else {
            g += decay * p;
          }
          const double m = beta1 * c.in(3 + 2 * count + k)[i] + (1 - beta1) * g;
          const double v = beta2 * c.in(3 + 3 * count + k)[i] + (1 - beta2) * g * g;
          c.out(k)[i] = p - learning_rate / bias1 * m / (std::sqrt(v / bias2) + epsilon);
          c.out(count + k)[i] = m;
          c.out(2 * count + k)[i] = v;
        }
      }
    }};

const RegisterKernel sum_of_squares{"sum_of_squares", [](const Call& c) {
                                      for (const Array* values : c.inputs) {
                                        for (const double x : values->data) c.out(0)[0] += x * x;
                                      }
                                    }};

const RegisterKernel clip_factor{"clip_factor", [](const Call& c) {
                                   const double factor = c.node.attributes.real("max_norm") /
                                                         (std::sqrt(c.in(0)[0]) + 1e-6);
                                   c.out(0)[0] = factor > 1 ? 1 : factor;
                                 }};

const RegisterKernel moving_average{"moving_average", [](const Call& c) {
                                      const double momentum = c.node.attributes.real("momentum");
                                      binary_apply(c, [=](double running, double value) {
                                        return (1 - momentum) * running + momentum * value;
                                      });
                                    }};

}  // namespace
}  // namespace concord::ref
