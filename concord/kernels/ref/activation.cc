#include <algorithm>

#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

const RegisterKernel relu{"relu", [](const Call& c) {
                            for (std::size_t i = 0; i < c.in(0).data.size(); ++i)
                              c.out(0).data[i] = std::max(c.in(0).data[i], 0.0);
                          }};
const RegisterKernel relu_backward{"relu_backward", [](const Call& c) {
                                     for (std::size_t i = 0; i < c.in(0).data.size(); ++i) {
                                       c.out(0).data[i] =
                                           c.in(1).data[i] > 0 ? c.in(0).data[i] : 0.0;
                                     }
                                   }};

}  // namespace
}  // namespace concord::ref
