#include "concord/data/cifar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/data/test_data.h"
#include "concord/data/test_files.h"

namespace concord::data {
namespace {

using testing::HasSubstr;

TEST(Cifar, ReadsTheRecordsOfAllFilesInOrder) {
  const ScratchFolder folder;
  const auto first = folder.write(
      "a.bin", cifar_record(CifarKind::k10, 7, '\xff') + cifar_record(CifarKind::k10, 0, '\0'));
  const auto second = folder.write("b.bin", cifar_record(CifarKind::k10, 9, '\x33'));
  const auto dataset = open_cifar({first, second}, CifarKind::k10);
  EXPECT_EQ(dataset->size(), 3);
  EXPECT_EQ(dataset->sample_shape(), (Shape{3, 32, 32}));
  EXPECT_EQ(dataset->classes(), 10);
  std::vector<float> sample(3 * 32 * 32);
  dataset->read(2, sample);
  EXPECT_EQ(sample, std::vector<float>(sample.size(), 0.2f));
  EXPECT_EQ(dataset->label(0), 7);
  EXPECT_EQ(dataset->label(2), 9);
}

TEST(Cifar, HundredClassesUseTheFineLabelAndNames) {
  const ScratchFolder folder;
  const auto file = folder.write("train.bin", cifar_record(CifarKind::k100, 99, 'x'));
  std::string names;
  for (int i = 0; i < 100; ++i) names += "class " + std::to_string(i) + "\r\n";
  const auto dataset =
      open_cifar({file}, CifarKind::k100, folder.write("fine_label_names.txt", names));
  EXPECT_EQ(dataset->label(0), 99);
  EXPECT_EQ(dataset->class_names()[99], "class 99");
}

TEST(Cifar, RefusesTruncatedFilesAndWrongLabels) {
  CifarRecords records;
  const std::string record = cifar_record(CifarKind::k10, 10, 'x');
  EXPECT_THAT(error_of([&] { parse_cifar(record + record, CifarKind::k10, "a.bin", records); }),
              HasSubstr("a.bin: the label of sample 0 is 10: expected 0 to 9"));
  EXPECT_THAT(error_of([&] { parse_cifar(record.substr(1), CifarKind::k10, "a.bin", records); }),
              HasSubstr("a.bin: 3072 bytes: expected a multiple of 3073"));
  EXPECT_NE(error_of([&] { parse_cifar("", CifarKind::k10, "a.bin", records); }), "");
}

}  // namespace
}  // namespace concord::data
