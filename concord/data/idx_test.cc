#include "concord/data/idx.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/data/test_data.h"
#include "concord/data/test_files.h"

namespace concord::data {
namespace {

using testing::HasSubstr;

TEST(Idx, PlainAndCompressedGiveTheSameArray) {
  const std::string bytes = idx_bytes({2, 1, 3}, "abcdef");
  for (const std::string& input : {bytes, gzip(bytes)}) {
    const IdxArray array = parse_idx(input, "input");
    EXPECT_EQ(array.shape, (Shape{2, 1, 3}));
    EXPECT_EQ(array.values, (std::vector<std::uint8_t>{'a', 'b', 'c', 'd', 'e', 'f'}));
  }
}

TEST(Idx, RefusesDataThatDoesNotFitItsHeader) {
  const std::string bytes = idx_bytes({2, 3}, "abcdef");
  const auto error = [](const std::string& input) {
    return error_of([&] { parse_idx(input, "some.idx"); });
  };
  EXPECT_THAT(error(bytes.substr(0, bytes.size() - 1)),
              HasSubstr("some.idx: truncated data: the header says [2, 3]"));
  EXPECT_THAT(error(gzip(bytes.substr(0, bytes.size() - 1))), HasSubstr("truncated"));
  EXPECT_THAT(error(bytes + "x"), HasSubstr("too much data"));
  EXPECT_THAT(error(gzip(bytes + "x")), HasSubstr("too much data"));
  EXPECT_THAT(error(idx_bytes({0xffffffff, 0xffffffff, 0xffffffff}, "")), HasSubstr("large"));
  EXPECT_THAT(error(idx_bytes({0}, "")), HasSubstr("dim 0"));
  EXPECT_THAT(error(""), HasSubstr("not an IDX file"));
  std::string floats = bytes;
  floats[2] = 0x0d;
  EXPECT_THAT(error(floats), HasSubstr("type 0x0d"));
}

TEST(Idx, RefusesCorruptGzip) {
  const std::string bytes = gzip(idx_bytes({1000}, std::string(1000, 'x')));
  EXPECT_THAT(error_of([&] { parse_idx(bytes.substr(0, bytes.size() - 9), "some.gz"); }),
              HasSubstr("some.gz: the gzip data ends early"));
  std::string checksum = bytes;
  checksum[bytes.size() - 6] ^= 1;
  EXPECT_THAT(error_of([&] { parse_idx(checksum, "some.gz"); }), HasSubstr("corrupt gzip"));
}

TEST(Idx, DataSetGivesPixelsInUnitRangeAndLabels) {
  const ScratchFolder folder;
  const auto images = folder.write("images", idx_bytes({2, 1, 2}, {"\x00\xff\x33\x66", 4}));
  const auto labels = folder.write("labels", idx_bytes({2}, {"\x02\x00", 2}));
  const auto dataset = open_idx(images, labels, 3);
  EXPECT_EQ(dataset->size(), 2);
  EXPECT_EQ(dataset->sample_shape(), (Shape{1, 1, 2}));
  EXPECT_EQ(dataset->classes(), 3);
  std::vector<float> sample(2);
  dataset->read(0, sample);
  EXPECT_EQ(sample, (std::vector<float>{0.0f, 1.0f}));
  dataset->read(1, sample);
  EXPECT_EQ(sample, (std::vector<float>{0.2f, 0.4f}));
  EXPECT_EQ(dataset->label(0), 2);
  EXPECT_EQ(dataset->label(1), 0);
}

TEST(Idx, NamesTheLabelOutOfRange) {
  const ScratchFolder folder;
  const auto images = folder.write("images", idx_bytes({2, 1, 1}, "ab"));
  const auto labels = folder.write("labels", idx_bytes({2}, "\x01\x05"));
  EXPECT_EQ(error_of([&] { open_idx(images, labels, 5); }),
            labels.string() + ": the label of sample 1 is 5: expected 0 to 4 (5 classes)");
  const auto few = folder.write("few", idx_bytes({1}, "\x01"));
  EXPECT_THAT(error_of([&] { open_idx(images, few, 5); }), HasSubstr("one label for each image"));
}

}  // namespace
}  // namespace concord::data
