#include "concord/train/weights_hash.h"

#include <algorithm>
#include <bit>
#include <string_view>
#include <vector>

namespace concord::train {

static_assert(std::endian::native == std::endian::little,
              "weights_hash is over little-endian bytes");

void WeightsHash::add(const std::string& name, const TensorType& type,
                      std::span<const std::byte> bytes) {
  CONCORD_CHECK(bytes.size() == type.bytes() && (last_.empty() || last_ < name), "{}", name);
  last_ = name;
  constexpr std::string_view kEnd("\0", 1);
  sum_.update(name);
  sum_.update(kEnd);
  sum_.update(to_string(type.dtype));
  sum_.update(kEnd);
  const std::int64_t rank = type.shape.rank();
  sum_.update(std::as_bytes(std::span(&rank, 1)));
  sum_.update(std::as_bytes(std::span(type.shape.dims())));
  sum_.update(bytes);
}

std::string weights_hash(std::span<const formats::NamedTensor> parameters) {
  std::vector<const formats::NamedTensor*> order;
  for (const formats::NamedTensor& parameter : parameters) order.push_back(&parameter);
  std::ranges::sort(order, {},
                    [](const auto* parameter) { return std::string_view(parameter->name); });
  WeightsHash hash;
  for (const formats::NamedTensor* parameter : order) {
    hash.add(parameter->name, parameter->type, parameter->bytes);
  }
  return hash.hex();
}

}  // namespace concord::train
