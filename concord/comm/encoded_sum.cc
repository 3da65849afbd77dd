#include "concord/comm/encoded_sum.h"

#include "concord/base/error.h"
#include "concord/comm/communicator.h"

namespace concord::comm {

EncodedSum::EncodedSum(const Encoders& encoders, std::size_t tensors)
    : encoders_(encoders),
      memories_(tensors),
      parts_(static_cast<std::size_t>(encoders.count / encoders.ranks)) {
  CONCORD_CHECK(encoders.count % encoders.ranks == 0, "{} encoders of {} ranks", encoders.count,
                encoders.ranks);
}

void EncodedSum::begin(std::span<const Part> parts, std::int64_t step, std::byte* out) {
  const std::int64_t first = encoders_.rank * encoders_.own();
  for (std::vector<Part>& of_encoder : parts_) of_encoder.clear();
  for (const Part& part : parts) {
    CONCORD_CHECK(part.node.height <= encoders_.height, "a part of several encoders");
    const std::int64_t encoder = part.node.index >> (encoders_.height - part.node.height);
    parts_.at(static_cast<std::size_t>(encoder - first)).push_back(part);
  }
  step_ = step;
  out_ = out;
  restart();
}

// From the right, as Joins does.
void EncodedSum::join_leaves(std::size_t offset, std::int64_t count) const {
  for (const std::vector<Part>& parts : parts_) {
    for (std::size_t p = parts.size(); p-- > 1;) {
      add_floats(parts[p - 1].data + offset, parts[p].data + offset,
                 static_cast<std::size_t>(count) * sizeof(float));
    }
  }
}

const float* EncodedSum::values_of(std::int64_t own_encoder, std::size_t offset) const {
  const std::vector<Part>& parts = parts_[static_cast<std::size_t>(own_encoder)];
  return parts.empty() ? nullptr : reinterpret_cast<const float*>(parts[0].data + offset);
}

}  // namespace concord::comm
