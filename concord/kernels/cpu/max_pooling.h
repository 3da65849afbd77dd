// Max pooling of images that lie in memory as pixels of whole vectors, of neighbouring channels or
// of neighbouring samples, without padding: Concord's own kernels.
#pragma once

#include <memory>

#include "concord/kernels/kernel.h"

namespace concord::cpu {

// Whether these kernels can run on images of this layout.
bool has_pixels_of_vectors(const Operand& images);

// The kernel of max_pool2d or max_pool2d_backward; null where an operand does not lie so, or
// windows have more than 255 taps.
std::unique_ptr<Kernel> make_max_pooling(const Signature& signature);

}  // namespace concord::cpu
