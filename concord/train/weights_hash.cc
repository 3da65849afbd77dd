#include "concord/train/weights_hash.h"

#include <algorithm>
#include <bit>
#include <string_view>
#include <vector>

namespace concord::train {

static_assert(std::endian::native == std::endian::little,
              "weights_hash is over little-endian bytes");

std::string weights_hash(std::span<const formats::NamedTensor> parameters) {
  std::vector<const formats::NamedTensor*> order;
  for (const formats::NamedTensor& parameter : parameters) order.push_back(&parameter);
  std::ranges::sort(order, {},
                    [](const auto* parameter) { return std::string_view(parameter->name); });

  constexpr std::string_view kEnd("\0", 1);
  formats::Checksum sum;
  for (const formats::NamedTensor* parameter : order) {
    const auto& [dtype, shape] = parameter->type;
    CONCORD_CHECK(parameter->bytes.size() == parameter->type.bytes(), "{}", parameter->name);
    sum.update(parameter->name);
    sum.update(kEnd);
    sum.update(to_string(dtype));
    sum.update(kEnd);
    const std::int64_t rank = shape.rank();
    sum.update(std::as_bytes(std::span(&rank, 1)));
    sum.update(std::as_bytes(std::span(shape.dims())));
    sum.update(parameter->bytes);
  }
  return sum.hex();
}

}  // namespace concord::train
