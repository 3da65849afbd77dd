#include "concord/ops/labels.h"

#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

const RegisterKernel labelled_rows{
    "labelled_rows", [](const Call& c) {
      const Array& labels = c.in(0);
      const std::int64_t samples = labels.shape[0], length = labels.shape[1];
      const Attributes& attributes = c.node.attributes;
      const std::int64_t count = attributes.integer("count");
      const std::int64_t before =
          attributes.has("first_sample") ? attributes.integer("first_sample") * length : 0;
      for (std::int64_t n = 0; n < samples; ++n) {
        std::int64_t found = 0;
        for (std::int64_t row = n * length; row < (n + 1) * length; ++row) {
          if (labels[row] < 0 || found == count) continue;
          c.out(0)[n * count + found] = static_cast<double>(before + row);
          c.out(1)[n * count + found] = labels[row];
          ++found;
        }
        for (; found < count; ++found) {
          c.out(0)[n * count + found] = static_cast<double>(before + n * length);
          c.out(1)[n * count + found] = ops::kNoLabel;
        }
      }
    }};

}  // namespace
}  // namespace concord::ref
