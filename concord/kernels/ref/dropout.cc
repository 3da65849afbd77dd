#include "concord/ops/dropout.h"

#include <bit>

#include "concord/base/philox.h"
#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

const RegisterKernel dropout{
    "dropout", [](const Call& c) {
      const Attributes& attributes = c.node.attributes;
      const double rate = attributes.real("rate");
      const RandomStream random{
          .seed = std::bit_cast<std::uint64_t>(attributes.integer("seed")),
          .stream = static_cast<std::uint32_t>(attributes.integer("stream")),
          .step = static_cast<std::uint32_t>(static_cast<std::int64_t>(c.in(1)[0]))};
      const ops::DropoutPlace place = ops::dropout_place(c.node, c.in(0).shape);
      const std::int64_t first = static_cast<std::int64_t>(c.in(1)[1]) * place.sample_elements;
      for (std::int64_t i = 0; i < c.in(0).shape.elements(); ++i) {
        const bool kept =
            uniform01(random.bits(static_cast<std::uint64_t>(first + place.of(i)))) >= rate;
        c.out(0)[i] = kept ? c.in(0)[i] / (1 - rate) : 0.0;
      }
    }};

}  // namespace
}  // namespace concord::ref
