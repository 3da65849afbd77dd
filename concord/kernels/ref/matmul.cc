#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

const RegisterKernel matmul{
    "matmul", [](const Call& c) {
      const bool ta = c.node.attributes.integer("transpose_a") != 0;
      const bool tb = c.node.attributes.integer("transpose_b") != 0;
      const Shape& y = c.out(0).shape;
      const std::int64_t rows = y[-2], columns = y[-1], inner = c.in(0).shape[ta ? -2 : -1];
      const std::int64_t stack = y.elements() / (rows * columns);
      for (std::int64_t s = 0; s < stack; ++s) {
        for (std::int64_t i = 0; i < rows; ++i) {
          for (std::int64_t j = 0; j < columns; ++j) {
            double sum = c.inputs.size() == 3 ? c.in(2)[j] : 0.0;
            for (std::int64_t k = 0; k < inner; ++k) {
              sum += c.in(0)[s * rows * inner + (ta ? k * rows + i : i * inner + k)] *
                     c.in(1)[s * inner * columns + (tb ? j * inner + k : k * columns + j)];
            }
            c.out(0)[(s * rows + i) * columns + j] = sum;
          }
        }
      }
    }};

}  // namespace
}  // namespace concord::ref
