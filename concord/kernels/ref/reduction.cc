#include <cmath>
#include <limits>

#include "concord/kernels/ref/broadcast.h"
#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

const RegisterKernel max_to_shape{
    "max_to_shape", [](const Call& c) {
      Array& y = c.out(0);
      y.data.assign(y.data.size(), -std::numeric_limits<double>::infinity());
      const std::vector<std::int64_t> to = broadcast_indices(y.shape, c.in(0).shape);
      for (std::size_t i = 0; i < to.size(); ++i) {
        const double x = c.in(0).data[i];
        if (x > y[to[i]] || std::isnan(x)) y[to[i]] = x;
      }
    }};

}  // namespace
}  // namespace concord::ref
