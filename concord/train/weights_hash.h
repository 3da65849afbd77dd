// One name for the values of a model's parameters: equal on two runs exactly when all bits are
// equal.
#pragma once

#include <span>
#include <string>

#include "concord/formats/checksum.h"
#include "concord/formats/safetensors.h"

namespace concord::train {

// The XXH3-128 (seed 0, 32 hexadecimal digits) of, for each parameter in ascending byte order of
// its name, these bytes in this order:
//   the name, in UTF-8, and a byte 0;
//   the element type's name ("f32", "bf16", ...) and a byte 0;
//   the number of dims, then each dim, as 64-bit little-endian integers;
//   the elements, row-major in the logical layout [the shape of the parameter], little-endian.
// How a parameter is laid out in memory, split over ranks or ordered in the model has no influence.
std::string weights_hash(std::span<const formats::NamedTensor> parameters);

// The same, of parameters that come one after the other in that order.
class WeightsHash {
 public:
  void add(const std::string& name, const TensorType& type, std::span<const std::byte> bytes);
  std::string hex() const { return sum_.hex(); }

 private:
  formats::Checksum sum_;
  std::string last_;  // name
};

}  // namespace concord::train
