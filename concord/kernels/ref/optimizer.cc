#include <algorithm>
#include <array>
#include <cmath>

#include "concord/base/exact_sum.h"
#include "concord/kernels/ref/elementwise.h"

namespace concord::ref {
namespace {

// For each element of each parameter: p and g after weight decay, what the optimizer remembers of
// it, and update(p, g, memory), which makes p and memory what they become. Scalars, of which there
// are `scalars`, begin with the learning rate and the gradient's scale.
template <typename Update>
void update_elements(const Call& c, std::size_t scalars, Update update) {
  const double decay = c.node.attributes.real("weight_decay");
  const bool decoupled = c.node.attributes.integer("decoupled") != 0;
  const double learning_rate = c.in(0)[0], gradient_scale = c.in(1)[0];
  const std::size_t count = c.inputs.size() - scalars - c.outputs.size();
  const std::size_t memories = c.outputs.size() / count - 1;
  for (std::size_t k = 0; k < count; ++k) {
    for (std::int64_t i = 0; i < c.out(k).shape.elements(); ++i) {
      double p = c.in(scalars + k)[i], g = gradient_scale * c.in(scalars + count + k)[i];
      std::array<double, 2> memory{};
      for (std::size_t m = 0; m < memories; ++m) {
        memory[m] = c.in(scalars + (2 + m) * count + k)[i];
      }
      if (decoupled) {
        p -= learning_rate * decay * p;
      } else {
        g += decay * p;
      }
      update(p, g, memory);
      c.out(k)[i] = p;
      for (std::size_t m = 0; m < memories; ++m) c.out((1 + m) * count + k)[i] = memory[m];
    }
  }
}

const RegisterKernel sgd_update{
    "sgd_update", [](const Call& c) {
      const double learning_rate = c.in(0)[0];
      const double momentum = c.node.attributes.real("momentum");
      const bool nesterov = c.node.attributes.integer("nesterov") != 0;
      update_elements(c, 2, [=](double& p, double g, std::array<double, 2>& memory) {
        memory[0] = momentum * memory[0] + g;
        p -= learning_rate * (nesterov ? g + momentum * memory[0] : memory[0]);
      });
    }};

const RegisterKernel adam_update{
    "adam_update", [](const Call& c) {
      const Attributes& attributes = c.node.attributes;
      const double beta1 = attributes.real("beta1"), beta2 = attributes.real("beta2");
      const double epsilon = attributes.real("epsilon");
      const double learning_rate = c.in(0)[0];
      const double bias1 = 1 - std::pow(beta1, c.in(2)[0]);
      const double bias2 = 1 - std::pow(beta2, c.in(2)[0]);
      update_elements(c, 3, [=](double& p, double g, std::array<double, 2>& memory) {
        auto& [m, v] = memory;
        m = beta1 * m + (1 - beta1) * g;
        v = beta2 * v + (1 - beta2) * g * g;
        p -= learning_rate / bias1 * m / (std::sqrt(v / bias2) + epsilon);
      });
    }};

const RegisterKernel lion_update{
    "lion_update", [](const Call& c) {
      const double beta1 = c.node.attributes.real("beta1");
      const double beta2 = c.node.attributes.real("beta2");
      const double learning_rate = c.in(0)[0];
      update_elements(c, 2, [=](double& p, double g, std::array<double, 2>& memory) {
        const double step = beta1 * memory[0] + (1 - beta1) * g;
        p -= learning_rate * (step > 0 ? 1 : step < 0 ? -1 : step);
        memory[0] = beta2 * memory[0] + (1 - beta2) * g;
      });
    }};

const RegisterKernel rmsprop_update{
    "rmsprop_update", [](const Call& c) {
      const double alpha = c.node.attributes.real("alpha");
      const double epsilon = c.node.attributes.real("epsilon");
      const double momentum = c.node.attributes.real("momentum");
      const double learning_rate = c.in(0)[0];
      update_elements(c, 2, [=](double& p, double g, std::array<double, 2>& memory) {
        auto& [v, b] = memory;
        v = alpha * v + (1 - alpha) * g * g;
        b = momentum * b + g / (std::sqrt(v) + epsilon);
        p -= learning_rate * b;
      });
    }};

const RegisterKernel adagrad_update{
    "adagrad_update", [](const Call& c) {
      const double epsilon = c.node.attributes.real("epsilon");
      const double learning_rate = c.in(0)[0];
      update_elements(c, 2, [=](double& p, double g, std::array<double, 2>& memory) {
        memory[0] += g * g;
        p -= learning_rate * g / (std::sqrt(memory[0]) + epsilon);
      });
    }};

const RegisterKernel lars_update{
    "lars_update", [](const Call& c) {
      const double momentum = c.node.attributes.real("momentum");
      const double decay = c.node.attributes.real("weight_decay");
      const double learning_rate = c.in(0)[0], gradient_scale = c.in(1)[0], ratio = c.in(2)[0];
      const std::size_t count = c.inputs.size() - 3 - c.outputs.size();
      for (std::size_t k = 0; k < count; ++k) {
        const Array &p = c.in(3 + k), &gradient = c.in(3 + count + k);
        for (std::int64_t i = 0; i < p.shape.elements(); ++i) {
          double step = ratio * (gradient_scale * gradient[i] + decay * p[i]);
          if (momentum != 0) {
            step += momentum * c.in(3 + 2 * count + k)[i];
            c.out(count + k)[i] = step;
          }
          c.out(k)[i] = p[i] - learning_rate * step;
        }
      }
    }};

const RegisterKernel lamb_direction{
    "lamb_direction", [](const Call& c) {
      const Attributes& attributes = c.node.attributes;
      const double beta1 = attributes.real("beta1"), beta2 = attributes.real("beta2");
      const double epsilon = attributes.real("epsilon");
      const double decay = attributes.real("weight_decay");
      const double gradient_scale = c.in(0)[0];
      const double bias1 = 1 - std::pow(beta1, c.in(1)[0]);
      const double bias2 = 1 - std::pow(beta2, c.in(1)[0]);
      const std::size_t count = c.outputs.size() / 3;
      for (std::size_t k = 0; k < count; ++k) {
        const Array& p = c.in(2 + k);
        Array &m = c.out(count + k), &v = c.out(2 * count + k);
        for (std::int64_t i = 0; i < p.shape.elements(); ++i) {
          const double g = gradient_scale * c.in(2 + count + k)[i];
          m[i] = beta1 * c.in(2 + 2 * count + k)[i] + (1 - beta1) * g;
          v[i] = beta2 * c.in(2 + 3 * count + k)[i] + (1 - beta2) * g * g;
          c.out(k)[i] = m[i] / bias1 / (std::sqrt(v[i] / bias2) + epsilon) + decay * p[i];
        }
      }
    }};

const RegisterKernel momentum{"momentum", [](const Call& c) {
                                const double factor = c.node.attributes.real("factor");
                                const bool nesterov = c.node.attributes.integer("nesterov") != 0;
                                const double gradient_scale = c.in(0)[0];
                                for (std::int64_t i = 0; i < c.in(1).shape.elements(); ++i) {
                                  const double g = gradient_scale * c.in(2)[i],
                                               m = factor * c.in(1)[i] + g;
                                  c.out(0)[i] = m;
                                  c.out(1)[i] = nesterov ? g + factor * m : m;
                                }
                              }};

const RegisterKernel trust_ratio{"trust_ratio", [](const Call& c) {
                                   const double parameter = std::sqrt(c.in(0)[0]);
                                   const double step = std::abs(c.in(1)[0]) * std::sqrt(c.in(0)[1]);
                                   const double decay = c.node.attributes.real("weight_decay");
                                   const double ratio = c.node.attributes.real("coefficient") *
                                                        parameter / (step + decay * parameter);
                                   c.out(0)[0] = parameter == 0 || step == 0 ? 1 : ratio;
                                 }};

const RegisterKernel sum_of_squares{"sum_of_squares", [](const Call& c) {
                                      const bool apart = c.node.attributes.has("apart");
                                      for (std::size_t k = 0; k < c.inputs.size(); ++k) {
                                        double& sum = c.out(0).data[apart ? k : 0];
                                        for (const double x : c.in(k).data) sum += x * x;
                                      }
                                    }};

const RegisterKernel exact_sum_of_squares{"exact_sum_of_squares", [](const Call& c) {
                                            const bool apart = c.node.attributes.has("apart");
                                            std::vector<ExactSum> sums(apart ? c.inputs.size() : 1);
                                            for (std::size_t k = 0; k < c.inputs.size(); ++k) {
                                              for (const double x : c.in(k).data)
                                                sums[apart ? k : 0].add(x * x);
                                            }
                                            auto out = c.out(0).data.begin();
                                            for (const ExactSum& sum : sums)
                                              out = std::ranges::copy(sum.digits(), out).out;
                                          }};

const RegisterKernel rounded_sum{
    "rounded_sum", [](const Call& c) {
      for (std::size_t s = 0; s < c.out(0).data.size(); ++s) {
        ExactSum sum;
        for (const Array* value : c.inputs) {
          ExactSum::Digits digits;
          for (std::size_t i = 0; i < digits.size(); ++i) {
            digits[i] = static_cast<std::int64_t>(value->data[s * digits.size() + i]);
          }
          sum.add(digits);
        }
        c.out(0).data[s] = sum.rounded();
      }
    }};

const RegisterKernel add_all{"add_all", [](const Call& c) {
                               for (const Array* value : c.inputs) c.out(0)[0] += (*value)[0];
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
