// Convolutions of 3x3 of stride 1 by Winograd's algorithm: Concord's own kernels, of images in f32
// or bf16.
#pragma once

#include <memory>
#include <optional>

#include "concord/kernels/kernel.h"

namespace concord::cpu {

// What the op (conv2d, conv2d_backward_data, conv2d_backward_weights) wants where these kernels are
// for it, by types and attributes alone: 3x3, stride, dilation and groups 1, channels in whole
// blocks of 16, as oneDNN lays them out on this processor. Otherwise nullopt.
std::optional<LayoutWish> winograd_convolution_layouts(const Signature& signature);

// The kernel, for operands that lie as wished.
std::unique_ptr<Kernel> make_winograd_convolution(const Signature& signature);

}  // namespace concord::cpu
