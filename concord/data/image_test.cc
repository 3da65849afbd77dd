#include "concord/data/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "concord/data/test_data.h"
#include "concord/data/test_files.h"

namespace concord::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

int largest_difference(const Image& a, const Image& b) {
  if (a.height != b.height || a.width != b.width || a.pixels.size() != b.pixels.size()) return 256;
  int difference = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i) {
    difference = std::max(difference, std::abs(int{a.pixels[i]} - int{b.pixels[i]}));
  }
  return difference;
}

TEST(DecodeImage, PngIsExact) {
  const Image image = test_image(17, 31);
  EXPECT_EQ(largest_difference(decode_image(png_bytes(image), "x.png"), image), 0);
}

TEST(DecodeImage, JpegIsClose) {
  const Image image = test_image(48, 64);
  EXPECT_LE(largest_difference(decode_image(jpeg_bytes(image), "x.jpg"), image), 12);
  EXPECT_LE(largest_difference(decode_image(jpeg_bytes(image, JCS_RGB, true), "x.jpg"), image), 12);
}

TEST(DecodeImage, GreyTransparentAndInkImagesBecomeRgb) {
  const Image grey{2, 3, std::vector<std::uint8_t>(6, 200)};
  const Image expected{2, 3, std::vector<std::uint8_t>(18, 200)};
  EXPECT_EQ(largest_difference(decode_image(png_bytes(grey, PNG_FORMAT_GRAY), "x"), expected), 0);
  EXPECT_LE(largest_difference(decode_image(jpeg_bytes(grey, JCS_GRAYSCALE), "x"), expected), 1);
  const Image transparent{1, 1, {255, 255, 255, 0}};
  EXPECT_THAT(decode_image(png_bytes(transparent, PNG_FORMAT_RGBA), "x").pixels,
              ElementsAre(0, 0, 0));
  // libjpeg marks CMYK files as Adobe's, whose inks are inverted: 255 means no ink.
  const Image inks{8, 8, std::vector<std::uint8_t>(8 * 8 * 4, 255)};
  EXPECT_EQ(decode_image(jpeg_bytes(inks, JCS_CMYK), "x").pixels,
            std::vector<std::uint8_t>(8 * 8 * 3, 255));
}

TEST(DecodeImage, LargeJpegMayBeDecodedSmaller) {
  const std::string bytes = jpeg_bytes(test_image(64, 96));
  EXPECT_EQ(decode_image(bytes, "x", 33).height, 64);
  EXPECT_EQ(decode_image(bytes, "x", 32).height, 32);
  EXPECT_EQ(decode_image(bytes, "x", 1).height, 8);
}

TEST(DecodeImage, RefusesDamagedImagesNamingTheFile) {
  for (const std::string& bytes : {png_bytes(test_image(40, 40)), jpeg_bytes(test_image(40, 40))}) {
    EXPECT_THAT(error_of([&] { decode_image(bytes.substr(0, bytes.size() / 2), "cat.img"); }),
                HasSubstr("cat.img: corrupt"));
  }
  EXPECT_THAT(error_of([] { decode_image("GIF89a", "cat.img"); }),
              HasSubstr("cat.img: neither a JPEG nor a PNG image"));
}

TEST(DecodeImage, RefusesAnImageOfEndlessSizeBeforeAllocatingIt) {
  std::string bytes = jpeg_bytes(test_image(8, 8));
  const std::size_t frame = bytes.find("\xff\xc0");
  ASSERT_NE(frame, bytes.npos);
  for (std::size_t i = 5; i < 9; ++i) bytes[frame + i] = '\x7f';  // height and width
  EXPECT_THAT(error_of([&] { decode_image(bytes, "huge.jpg"); }),
              HasSubstr("huge.jpg: an image of 32639 x 32639 pixels"));
}

TEST(ResizeCenterSquare, KeepsAnImageOfTheSameSize) {
  const Image image = test_image(4, 4);
  std::vector<float> planes(3 * 4 * 4);
  resize_center_square(image, 4, planes);
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t c = 0; c < 3; ++c) {
      EXPECT_FLOAT_EQ(planes[c * 16 + i], static_cast<float>(image.pixels[i * 3 + c]) / 255.0f);
    }
  }
}

TEST(ResizeCenterSquare, CropsTheCentreAndAveragesWhenShrinking) {
  // Columns 0, 51, 51, 102, 102, 0: the centre square of a 4 x 6 image starts at column 1.
  Image image{4, 6, {}};
  for (int y = 0; y < 4; ++y) {
    for (const std::uint8_t value : {0, 51, 51, 102, 102, 0})
      image.pixels.insert(image.pixels.end(), 3, value);
  }
  std::vector<float> planes(3);
  resize_center_square(image, 1, planes);
  EXPECT_THAT(planes, testing::Each(testing::FloatNear(0.3f, 1e-6f)));
}

TEST(ResizeCenterSquare, InterpolatesLinearlyWhenEnlarging) {
  Image image{2, 2, {}};
  for (const std::uint8_t value : {0, 255, 0, 255})
    image.pixels.insert(image.pixels.end(), 3, value);
  std::vector<float> planes(3 * 16);
  resize_center_square(image, 4, planes);
  EXPECT_THAT(std::vector<float>(planes.begin(), planes.begin() + 4),
              testing::Pointwise(testing::FloatNear(1e-6f), {0.0f, 0.25f, 0.75f, 1.0f}));
}

}  // namespace
}  // namespace concord::data
