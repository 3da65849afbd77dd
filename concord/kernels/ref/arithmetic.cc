#include <algorithm>
#include <cmath>

#include "concord/kernels/ref/broadcast.h"
#include "concord/kernels/ref/elementwise.h"
#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

const RegisterKernel add{
    "add", [](const Call& c) { broadcast_apply(c, [](double a, double b) { return a + b; }); }};
const RegisterKernel sub{
    "sub", [](const Call& c) { broadcast_apply(c, [](double a, double b) { return a - b; }); }};
const RegisterKernel mul{
    "mul", [](const Call& c) { broadcast_apply(c, [](double a, double b) { return a * b; }); }};
const RegisterKernel div{
    "div", [](const Call& c) { broadcast_apply(c, [](double a, double b) { return a / b; }); }};
const RegisterKernel equal{"equal", [](const Call& c) {
                             broadcast_apply(c,
                                             [](double a, double b) { return a == b ? 1.0 : 0.0; });
                           }};

const RegisterKernel neg{"neg", [](const Call& c) { unary_apply(c, [](double x) { return -x; }); }};
const RegisterKernel exp{
    "exp", [](const Call& c) { unary_apply(c, [](double x) { return std::exp(x); }); }};
const RegisterKernel log{
    "log", [](const Call& c) { unary_apply(c, [](double x) { return std::log(x); }); }};
const RegisterKernel sqrt{
    "sqrt", [](const Call& c) { unary_apply(c, [](double x) { return std::sqrt(x); }); }};
const RegisterKernel square{"square",
                            [](const Call& c) { unary_apply(c, [](double x) { return x * x; }); }};
const RegisterKernel abs{
    "abs", [](const Call& c) { unary_apply(c, [](double x) { return std::abs(x); }); }};
const RegisterKernel abs_backward{"abs_backward", [](const Call& c) {
                                    binary_apply(c, [](double dy, double x) {
                                      return x == 0 ? 0.0 : std::copysign(1.0, x) * dy;
                                    });
                                  }};
const RegisterKernel clamp{"clamp", [](const Call& c) {
                             const double low = c.node.attributes.real("low");
                             const double high = c.node.attributes.real("high");
                             unary_apply(c, [=](double x) { return std::clamp(x, low, high); });
                           }};
const RegisterKernel scale{"scale", [](const Call& c) {
                             const double factor = c.node.attributes.real("factor");
                             unary_apply(c, [=](double x) { return factor * x; });
                           }};

const RegisterKernel sum_to_shape{"sum_to_shape", [](const Call& c) {
                                    Array& y = c.out(0);
                                    const std::vector<std::int64_t> to =
                                        broadcast_indices(y.shape, c.in(0).shape);
                                    for (std::size_t i = 0; i < to.size(); ++i)
                                      y[to[i]] += c.in(0).data[i];
                                  }};

const RegisterKernel broadcast_to{"broadcast_to", [](const Call& c) {
                                    const std::vector<std::int64_t> from =
                                        broadcast_indices(c.in(0).shape, c.out(0).shape);
                                    for (std::size_t i = 0; i < from.size(); ++i)
                                      c.out(0).data[i] = c.in(0)[from[i]];
                                  }};

}  // namespace
}  // namespace concord::ref
