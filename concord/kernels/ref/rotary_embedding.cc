#include <cmath>

#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

const RegisterKernel rotary_embedding{
    "rotary_embedding", [](const Call& c) {
      const Attributes& attributes = c.node.attributes;
      const Shape& shape = c.in(0).shape;
      const std::int64_t length = shape[1], heads = shape[2], channels = shape[3];
      const std::int64_t half = channels / 2, turned = attributes.integer("heads");
      const double sign = attributes.integer("inverse") != 0 ? -1 : 1;
      const std::int64_t first = attributes.integer("first_position") +
                                 (c.inputs.size() == 2 ? static_cast<std::int64_t>(c.in(1)[0]) : 0);
      for (std::int64_t row = 0; row < shape.elements() / channels; ++row) {
        const std::int64_t position = first + row / heads % length;
        for (std::int64_t i = 0; i < half; ++i) {
          const double exponent = -2 * static_cast<double>(i) / static_cast<double>(channels);
          const double angle =
              row % heads < turned
                  ? static_cast<double>(position) * std::pow(attributes.real("base"), exponent)
                  : 0;
          const double cosine = std::cos(angle), sine = sign * std::sin(angle);
          const std::int64_t a = row * channels + i, b = a + half;
          c.out(0)[a] = c.in(0)[a] * cosine - c.in(0)[b] * sine;
          c.out(0)[b] = c.in(0)[a] * sine + c.in(0)[b] * cosine;
        }
      }
    }};

}  // namespace
}  // namespace concord::ref
