// Convolutions of few channels, where a vector of channels, as oneDNN lays images out, would be
// mostly padding: Concord's own kernels, whose vectors hold the same pixel of neighbouring samples.
#pragma once

#include <memory>
#include <optional>

#include "concord/kernels/kernel.h"

namespace concord::cpu {

// What the op (conv2d, conv2d_backward_data, conv2d_backward_weights) wants where these kernels are
// for it, by types and attributes alone: stride 1, at most 16 channels on either side and on
// one of them not a multiple of 8, batches of whole vectors. Otherwise nullopt.
std::optional<LayoutWish> narrow_convolution_layouts(const Signature& signature);

// The kernel, for operands that lie as wished; otherwise null.
std::unique_ptr<Kernel> make_narrow_convolution(const Signature& signature);

}  // namespace concord::cpu
