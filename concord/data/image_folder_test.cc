#include "concord/data/image_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/data/test_data.h"
#include "concord/data/test_files.h"

namespace concord::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Image plain(std::uint8_t value) { return {6, 8, std::vector<std::uint8_t>(6 * 8 * 3, value)}; }

TEST(ImageFolder, NumbersClassesAndSamplesByName) {
  const ScratchFolder folder;
  folder.write("dog/b.png", png_bytes(plain(51)));
  folder.write("dog/a.JPEG", jpeg_bytes(plain(255)));
  folder.write("cat/z.jpg", png_bytes(plain(0)));  // some data sets hold a PNG under such a name
  folder.write("cat/notes.txt", "not looked at");
  const auto classes = class_folders(folder.path());
  EXPECT_THAT(classes, ElementsAre("cat", "dog"));
  const auto dataset = open_image_folder(folder.path(), 4, classes);
  ASSERT_EQ(dataset->size(), 3);
  EXPECT_EQ(dataset->sample_shape(), (Shape{3, 4, 4}));
  EXPECT_EQ(dataset->label(0), 0);
  EXPECT_EQ(dataset->label(2), 1);
  const float expected[] = {0.0f, 1.0f, 0.2f};
  for (std::int64_t i = 0; i < 3; ++i) {
    std::vector<float> sample(3 * 4 * 4);
    dataset->read(i, sample);
    EXPECT_THAT(sample, testing::Each(testing::FloatNear(expected[i], 1e-5f)));
  }
}

TEST(ImageFolder, ErrorsNameTheFolderOrFile) {
  const ScratchFolder folder;
  EXPECT_THAT(error_of([&] { class_folders(folder.path()); }), HasSubstr("has no folders"));
  EXPECT_THAT(error_of([&] { class_folders(folder.path() / "none"); }), HasSubstr("cannot list"));
  folder.write("cat/notes.txt", "");
  EXPECT_THAT(error_of([&] { open_image_folder(folder.path(), 4, {"cat"}); }),
              HasSubstr("no .jpg, .jpeg or .png files"));
  folder.write("cat/1.jpg", jpeg_bytes(plain(9)).substr(0, 300));
  EXPECT_THAT(error_of([&] { open_image_folder(folder.path(), 4, {"dog"}); }),
              HasSubstr("cat is not among the 1 classes"));
  const auto dataset = open_image_folder(folder.path(), 4, {"cat"});
  std::vector<float> sample(3 * 4 * 4);
  EXPECT_THAT(error_of([&] { dataset->read(0, sample); }), HasSubstr("1.jpg: corrupt JPEG"));
}

}  // namespace
}  // namespace concord::data
