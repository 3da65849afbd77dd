#include <algorithm>
#include <cmath>

#include "concord/kernels/ref/elementwise.h"

namespace concord::ref {
namespace {

const RegisterKernel binary_cross_entropy{"binary_cross_entropy_with_logits", [](const Call& c) {
                                            binary_apply(c, [](double x, double t) {
                                              return std::max(x, 0.0) - x * t +
                                                     std::log1p(std::exp(-std::abs(x)));
                                            });
                                          }};

}  // namespace
}  // namespace concord::ref
