// Decoding of JPEG and PNG images, and resizing.
// Errors: Error naming `source` when the data is no image, is corrupt or truncated, or has more
// than 2^26 pixels. Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace concord::data {

// Eight-bit RGB pixels [height, width, 3].
struct Image {
  int height = 0;
  int width = 0;
  std::vector<std::uint8_t> pixels;
};

// The image in `bytes`; its format is told from the bytes, not from a name. Grey and CMYK images
// become RGB, transparent pixels are laid on black. A JPEG may be decoded at a half, quarter or
// eighth of its size as long as its shorter side keeps at least `min_side` pixels, which saves most
// of the work for an image that is shrunk afterwards.
Image decode_image(std::string_view bytes, std::string_view source, int min_side = 1 << 20);

// The largest centred square of `image`, resized to [3, size, size] with values in [0, 1].
// Bilinear; when shrinking, the triangle filter widens with the scale, so that no pixel is skipped.
void resize_center_square(const Image& image, int size, std::span<float> planes);

}  // namespace concord::data
