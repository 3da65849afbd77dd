#include <algorithm>

#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

const RegisterKernel constant{"constant", [](const Call& c) {
                                std::fill(c.out(0).data.begin(), c.out(0).data.end(),
                                          c.node.attributes.real("value"));
                              }};

}  // namespace
}  // namespace concord::ref
