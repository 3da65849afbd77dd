#include "concord/data/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/data/test_data.h"
#include "concord/data/test_files.h"

namespace concord::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Npy, ConvertsEveryElementType) {
  const auto floats = [](const std::string& bytes) {
    return npy_floats(parse_npy(bytes, "input"), "input");
  };
  EXPECT_THAT(floats(npy_bytes<float>("<f4", "(2,)", {1.5f, -2})), ElementsAre(1.5f, -2.0f));
  EXPECT_THAT(floats(npy_bytes<double>("<f8", "(2,)", {0.1, -2})), ElementsAre(0.1f, -2.0f));
  EXPECT_THAT(floats(npy_bytes("|u1", "(2,)", "\x01\xff")), ElementsAre(1.0f, 255.0f));
  EXPECT_THAT(floats(npy_bytes<std::int32_t>("<i4", "(2,)", {-3, 4})), ElementsAre(-3.0f, 4.0f));
  const std::string longs = npy_bytes<std::int64_t>("<i8", "(1, 2)", {-3, std::int64_t{1} << 60});
  EXPECT_THAT(npy_integers(parse_npy(longs, "input"), "input"),
              ElementsAre(-3, std::int64_t{1} << 60));
}

TEST(Npy, ReadsTheLongHeaderOfVersionTwo) {
  std::string bytes = npy_bytes("|u1", "(3,)", "abc");
  bytes[6] = 2;
  bytes.insert(10, 2, '\0');
  EXPECT_EQ(parse_npy(bytes, "input").shape, (Shape{3}));
}

TEST(Npy, RefusesWhatItCannotRead) {
  const auto error = [](const std::string& bytes) {
    return error_of([&] { parse_npy(bytes, "x.npy"); });
  };
  const std::string bytes = npy_bytes("|u1", "(2, 3)", "abcdef");
  EXPECT_THAT(error(bytes.substr(0, bytes.size() - 1)), HasSubstr("x.npy: truncated"));
  EXPECT_THAT(error(bytes + "g"), HasSubstr("7 bytes of data: expected 6"));
  EXPECT_THAT(error(bytes.substr(0, 40)), HasSubstr("header ends early"));
  EXPECT_THAT(error(npy_bytes("|u1", "(4611686018427387904, 4)", "")), HasSubstr("truncated"));
  EXPECT_THAT(error(npy_bytes("|u1", "(-1,)", "")), HasSubstr("expected an extent"));
  EXPECT_THAT(error(npy_bytes("|u1", "(0,)", "")), HasSubstr("empty"));
  EXPECT_THAT(error(npy_bytes("|u1", "()", "a")), HasSubstr("single number"));
  EXPECT_THAT(error(npy_bytes(">f4", "(1,)", "abcd")), HasSubstr("expected <f4"));
  EXPECT_THAT(error(npy_bytes("|O", "(1,)", "abcd")), HasSubstr("expected <f4"));
  std::string fortran = bytes;
  fortran.replace(fortran.find("False"), 5, "True ");
  EXPECT_THAT(error(fortran), HasSubstr("Fortran order"));
  EXPECT_THAT(error("PK\x03\x04 a zip file"), HasSubstr("not a .npy file"));
}

TEST(Npy, RefusesNumbersThatAreNotFinite) {
  const std::string bytes = npy_bytes<double>("<f8", "(2, 2)", {0, 0, 0, 1e300});
  EXPECT_THAT(error_of([&] { npy_floats(parse_npy(bytes, "x.npy"), "x.npy"); }),
              HasSubstr("sample 1 has a value that is not finite in single precision (element 1)"));
}

TEST(Npy, OpensVectorsWithClassesAndValues) {
  const ScratchFolder folder;
  const auto features =
      folder.write("f.npy", npy_bytes<float>("<f4", "(2, 3)", {1, 2, 3, 4, 5, 6}));
  const auto labels = folder.write("l.npy", npy_bytes<std::int64_t>("<i8", "(2,)", {1, 0}));
  const auto values =
      folder.write("v.npy", npy_bytes<float>("<f4", "(2, 2)", {.1f, .2f, .3f, .4f}));
  const auto classes = open_npy_classes(features, labels, 2);
  EXPECT_EQ(classes->sample_shape(), (Shape{3}));
  EXPECT_EQ(classes->label(0), 1);
  const auto regression = open_npy_values(features, values);
  EXPECT_EQ(regression->target_width(), 2);
  std::vector<float> sample(3), target(2);
  regression->read(1, sample);
  regression->read_target(1, target);
  EXPECT_THAT(sample, ElementsAre(4, 5, 6));
  EXPECT_THAT(target, ElementsAre(.3f, .4f));
}

TEST(Npy, ByteImagesAreScaledToTheUnitRange) {
  const ScratchFolder folder;
  const auto features = folder.write("f.npy", npy_bytes("|u1", "(1, 1, 2)", {"\x00\xff", 2}));
  const auto labels = folder.write("l.npy", npy_bytes("|u1", "(1,)", {"\0", 1}));
  const auto dataset = open_npy_classes(features, labels, 2);
  std::vector<float> sample(2);
  dataset->read(0, sample);
  EXPECT_EQ(dataset->sample_shape(), (Shape{1, 1, 2}));
  EXPECT_THAT(sample, ElementsAre(0, 1));
}

TEST(Npy, RefusesTargetsThatDoNotFit) {
  const ScratchFolder folder;
  const auto features = folder.write("f.npy", npy_bytes("|u1", "(2, 1)", "ab"));
  const auto one = folder.write("1.npy", npy_bytes("|u1", "(1,)", "\x01"));
  const auto two = folder.write("2.npy", npy_bytes<std::int32_t>("<i4", "(2,)", {0, -1}));
  const auto floats = folder.write("3.npy", npy_bytes<float>("<f4", "(2,)", {0, 1}));
  EXPECT_THAT(error_of([&] { open_npy_classes(features, one, 2); }),
              HasSubstr("expected one for each sample"));
  EXPECT_THAT(error_of([&] { open_npy_classes(features, two, 2); }),
              HasSubstr("2.npy: the label of sample 1 is -1: expected 0 to 1"));
  EXPECT_THAT(error_of([&] { open_npy_classes(features, floats, 2); }), HasSubstr("integers"));
}

}  // namespace
}  // namespace concord::data
