// Operands stay row-major: oneDNN packs them as it goes, and within a tenth of what blocked weights
// give (measured at 128x784x512, 128x512x512 and 64x9216x128, every orientation, one thread), while
// one layout serves forward, backward and the optimizer.
#include "concord/kernels/cpu/product.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/row_matmul.h"

namespace concord::cpu {
namespace {

const RegisterKernelRule matmul{{
    .op = "matmul",
    .make = [](const Signature& s, KernelPolicy& policy) -> std::unique_ptr<Kernel> {
      if (is_row_matmul(s) && !policy.same_in_parts) return make_row_matmul(s);
      const Attributes& attributes = s.node.attributes;
      Product product{.a = s.inputs[0].type,
                      .b = s.inputs[1].type,
                      .y = s.outputs[0].type,
                      .transpose_a = attributes.integer("transpose_a") != 0,
                      .transpose_b = attributes.integer("transpose_b") != 0,
                      .same_in_parts = policy.same_in_parts};
      if (s.inputs.size() == 3) product.bias = s.inputs[2].type;
      return make_product(product);
    },
}};

}  // namespace
}  // namespace concord::cpu
