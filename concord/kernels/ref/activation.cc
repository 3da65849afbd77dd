#include <algorithm>
#include <cmath>
#include <numbers>

#include "concord/kernels/ref/elementwise.h"

namespace concord::ref {
namespace {

double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }

double silu_derivative(double x) {
  const double s = sigmoid_of(x);
  return s * (1 + x * (1 - s));
}

// P(Z <= x) and its derivative, the density, for a standard normal Z.
double normal_probability(double x) { return 0.5 * (1 + std::erf(x / std::numbers::sqrt2)); }
double normal_density(double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi); }

// The approximation's 1 + tanh(u), with u a polynomial in x.
const double kGeluScale = std::sqrt(2 / std::numbers::pi);
constexpr double kGeluCubic = 0.044715;
double gelu_argument(double x) { return kGeluScale * (x + kGeluCubic * x * x * x); }

bool uses_tanh(const Call& c) { return c.node.attributes.integer("tanh") != 0; }

double gelu_exact(double x) { return x * normal_probability(x); }
double gelu_tanh(double x) { return 0.5 * x * (1 + std::tanh(gelu_argument(x))); }
double gelu_exact_derivative(double x) { return normal_probability(x) + x * normal_density(x); }
double gelu_tanh_derivative(double x) {
  const double t = std::tanh(gelu_argument(x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * kGeluScale * (1 + 3 * kGeluCubic * x * x);
}

const RegisterKernel relu{
    "relu", [](const Call& c) { unary_apply(c, [](double x) { return x < 0 ? 0.0 : x; }); }};
const RegisterKernel relu_backward{
    "relu_backward",
    [](const Call& c) { binary_apply(c, [](double dy, double y) { return y > 0 ? dy : 0.0; }); }};

const RegisterKernel sigmoid{"sigmoid", [](const Call& c) { unary_apply(c, sigmoid_of); }};
const RegisterKernel sigmoid_backward{
    "sigmoid_backward",
    [](const Call& c) { binary_apply(c, [](double dy, double y) { return dy * y * (1 - y); }); }};

const RegisterKernel tanh{
    "tanh", [](const Call& c) { unary_apply(c, [](double x) { return std::tanh(x); }); }};
const RegisterKernel tanh_backward{
    "tanh_backward",
    [](const Call& c) { binary_apply(c, [](double dy, double y) { return dy * (1 - y * y); }); }};

const RegisterKernel silu{
    "silu", [](const Call& c) { unary_apply(c, [](double x) { return x * sigmoid_of(x); }); }};
const RegisterKernel silu_backward{
    "silu_backward", [](const Call& c) {
      binary_apply(c, [](double dy, double x) { return dy * silu_derivative(x); });
    }};

const RegisterKernel gelu{
    "gelu", [](const Call& c) { unary_apply(c, uses_tanh(c) ? gelu_tanh : gelu_exact); }};
const RegisterKernel gelu_backward{
    "gelu_backward", [](const Call& c) {
      const auto derivative = uses_tanh(c) ? gelu_tanh_derivative : gelu_exact_derivative;
      binary_apply(c, [=](double dy, double x) { return dy * derivative(x); });
    }};

}  // namespace
}  // namespace concord::ref
