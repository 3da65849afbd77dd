// Copies a tensor between row-major order and another layout. For checkpoints, initial values and
// tests; on the hot path the reorder op does this.
#pragma once

#include <cstddef>

#include "concord/tensor/buffer.h"
#include "concord/tensor/layout.h"

namespace concord {

// Bytes that a tensor of this type occupies in this layout, padding included.
std::size_t stored_bytes(const TensorType& type, const Layout& layout);

// Writes the row-major tensor at `source` to `destination` in `layout`; padding becomes zero.
void to_layout(const TensorType& type, const Layout& layout, const std::byte* source,
               std::byte* destination);

// Writes the tensor at `source`, which lies in `layout`, to `destination` in row-major order.
void from_layout(const TensorType& type, const Layout& layout, const std::byte* source,
                 std::byte* destination);

}  // namespace concord
