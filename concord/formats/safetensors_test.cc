#include "concord/formats/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "concord/base/error.h"
#include "concord/base/file.h"

namespace concord::formats {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A file of the given header and data, with nothing checked.
std::string file_of(std::string_view header, std::string_view data = "") {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8).append(header).append(data);
}

std::string error_of(const std::string& contents) {
  try {
    SafetensorsFile::parse(contents, "m.safetensors");
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

template <typename T>
std::vector<T> values(const SafetensorsFile& file, std::string_view name) {
  CONCORD_CHECK(file.type(name).dtype == DTypeOf<T>::value);
  const auto bytes = file.bytes(name);
  std::vector<T> result(bytes.size() / sizeof(T));
  std::memcpy(result.data(), bytes.data(), bytes.size());
  return result;
}

class SafetensorsFileTest : public testing::Test {
 protected:
  ~SafetensorsFileTest() override { std::filesystem::remove(path_); }

  std::filesystem::path path_ = std::filesystem::path(testing::TempDir()) /
                                (std::string("concord_safetensors_") +
                                 testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(SafetensorsFileTest, WhatIsWrittenIsReadBack) {
  const std::vector<float> weights = {1.0f, -0.0f, 2.5f, 3.0f};
  const std::vector<std::uint8_t> flags = {1, 2, 3};
  const std::vector<std::uint16_t> small = {0x3f80};
  const std::vector<std::int64_t> count = {-5};
  const std::vector<NamedTensor> tensors = {
      {"flags", {DType::kU8, {3}}, std::as_bytes(std::span(flags))},
      {"b \"quoted\" \xc3\xa9", {DType::kF32, {2, 2}}, std::as_bytes(std::span(weights))},
      {"a", {DType::kBF16, {1, 1}}, std::as_bytes(std::span(small))},
      {"scalar", {DType::kI64, {}}, std::as_bytes(std::span(count))},
      {"none", {DType::kF64, {3, 0}}, {}}};
  const FileDigest digest = write_safetensors(path_, tensors, {{"k", "v"}});

  const std::string contents = read_file(path_);
  EXPECT_EQ(digest, (FileDigest{contents.size(), checksum(contents)}));
  std::uint64_t header = 0;
  std::memcpy(&header, contents.data(), 8);
  EXPECT_EQ(header % 8, 0u);
  EXPECT_EQ(contents.size(), 8 + header + 8 + 16 + 2 + 3);

  const SafetensorsFile file = SafetensorsFile::open(path_);
  EXPECT_THAT(file.names(), ElementsAre("a", "b \"quoted\" \xc3\xa9", "flags", "none", "scalar"));
  EXPECT_EQ(file.metadata(), (Metadata{{"k", "v"}}));
  for (const NamedTensor& tensor : tensors) {
    EXPECT_EQ(file.type(tensor.name), tensor.type);
    EXPECT_TRUE(std::ranges::equal(file.bytes(tensor.name), tensor.bytes)) << tensor.name;
    // Aligned to its element, for whoever maps the file. Most bytes occur once.
    const std::string_view data(reinterpret_cast<const char*>(tensor.bytes.data()),
                                tensor.bytes.size());
    EXPECT_EQ(contents.find(data, 8 + header) % size_of(tensor.type.dtype), 0u) << tensor.name;
  }
}

TEST_F(SafetensorsFileTest, SeveralWriteTheSameFileAsOne) {
  const std::vector<float> a = {1, 2, 3}, b = {4};
  const std::vector<std::uint8_t> c = {5, 6, 7};
  const std::vector<NamedTensor> tensors = {{"c", {DType::kU8, {3}}, std::as_bytes(std::span(c))},
                                            {"b", {DType::kF32, {1}}, std::as_bytes(std::span(b))},
                                            {"a", {DType::kF32, {3}}, std::as_bytes(std::span(a))},
                                            {"none", {DType::kF64, {0}}, {}}};
  const FileDigest digest = write_safetensors(path_, tensors, {{"k", "v"}});
  const std::string expected = read_file(path_);
  std::filesystem::remove(path_);

  std::map<std::string, TensorType, std::less<>> types;
  for (const NamedTensor& tensor : tensors) types.emplace(tensor.name, tensor.type);
  const SharedSafetensors first(path_, types, {{"k", "v"}}), second(path_, types, {{"k", "v"}});
  EXPECT_THROW(second.write(std::span(tensors).first(1)), Error);  // nobody has created it
  first.create();
  EXPECT_EQ(read_file(path_).size(), expected.size());
  second.write(std::span(tensors).subspan(1, 1));
  EXPECT_NE(digest_of(path_), digest);
  const std::vector<NamedTensor> rest = {tensors[0], tensors[3], tensors[2]};
  first.write(rest);
  EXPECT_EQ(read_file(path_), expected);
  EXPECT_EQ(digest_of(path_), digest);
  EXPECT_THROW(digest_of(path_ / "not there"), Error);
  EXPECT_THROW((SharedSafetensors{path_, {{"__metadata__", {DType::kU8, {1}}}}}), Error);
}

TEST_F(SafetensorsFileTest, AFileWithoutTensorsIsReadBack) {
  write_safetensors(path_, {});
  EXPECT_TRUE(SafetensorsFile::open(path_).names().empty());
}

TEST_F(SafetensorsFileTest, NamesThatCannotBeWrittenAreErrors) {
  const std::byte value{1};
  const auto write = [&](std::initializer_list<const char*> names) {
    std::vector<NamedTensor> tensors;
    for (const char* name : names) tensors.push_back({name, {DType::kU8, {1}}, {&value, 1}});
    write_safetensors(path_, tensors);
  };
  EXPECT_THROW(write({"a", "a"}), Error);
  EXPECT_THROW(write({"__metadata__"}), Error);
  EXPECT_THROW(write({"\xff"}), Error);
  EXPECT_NO_THROW(write({"a", ""}));
}

TEST(SafetensorsGolden, AFileOfThePublicPackageIsRead) {
  const SafetensorsFile file =
      SafetensorsFile::open(CONCORD_SOURCE_DIR "/tests/golden/public.safetensors");
  EXPECT_THAT(file.names(), ElementsAre("byte", "double", "empty", "float", "half", "int", "long"));
  EXPECT_EQ(file.metadata(), (Metadata{{"made by", "the public package"}}));
  EXPECT_EQ(file.type("float").shape, (Shape{2, 3}));
  EXPECT_THAT(
      values<float>(file, "float"),
      ElementsAre(1.5f, -2.0f, 0.0f, 1e-40f, std::numeric_limits<float>::infinity(), 3.25f));
  EXPECT_THAT(values<double>(file, "double"), ElementsAre(1.0 / 3.0));
  EXPECT_THAT(values<std::int32_t>(file, "int"), ElementsAre(-1, 2147483647));
  EXPECT_EQ(file.type("long").shape, Shape{});
  EXPECT_THAT(values<std::int64_t>(file, "long"),
              ElementsAre(std::numeric_limits<std::int64_t>::min()));
  EXPECT_THAT(values<std::uint8_t>(file, "byte"), ElementsAre(0, 128, 255));
  EXPECT_EQ(file.type("empty").shape, (Shape{0, 4}));
  EXPECT_TRUE(file.bytes("empty").empty());
}

TEST(SafetensorsGolden, AnUnknownElementTypeIsAnErrorOnlyWhenAskedFor) {
  const SafetensorsFile file =
      SafetensorsFile::open(CONCORD_SOURCE_DIR "/tests/golden/public.safetensors");
  EXPECT_TRUE(file.contains("half"));
  try {
    file.bytes("half");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("public.safetensors: tensor 'half' has element type F16"));
  }
  EXPECT_THROW(file.type("absent"), Error);
}

TEST(SafetensorsParse, EachRuleOfTheFormatIsChecked) {
  const auto header_error = [](std::string_view header) {
    return error_of(file_of(header, "12345678"));
  };
  const std::string good = R"({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})";
  EXPECT_EQ(header_error(good), "no error");
  EXPECT_EQ(header_error(good + "   "), "no error");
  const auto with = [&](std::string_view from, std::string_view to) {
    std::string changed = good;
    return header_error(changed.replace(changed.find(from), from.size(), to));
  };

  EXPECT_THAT(error_of("1234567"), HasSubstr("7 bytes, too short"));
  EXPECT_THAT(error_of(std::string(8, '\xff') + "{}"), HasSubstr("18446744073709551615 bytes"));
  EXPECT_THAT(error_of(file_of(good, "1234567")), HasSubstr("within the 7 bytes of data"));
  EXPECT_THAT(error_of(file_of(good, "123456789")), HasSubstr("1 bytes at the end"));
  EXPECT_THAT(header_error(" " + good), HasSubstr("begin with '{'"));
  EXPECT_THAT(header_error(good.substr(0, 20)), HasSubstr("not valid JSON"));
  EXPECT_THAT(header_error(R"({"t": 3})"), HasSubstr("tensor 't': no dtype"));
  EXPECT_THAT(with("F32", "F64"),
              HasSubstr("m.safetensors: tensor 't': 8 bytes do not hold F64 of shape [2]"));
  EXPECT_THAT(with("\"F32\"", "32"), HasSubstr("no dtype"));
  EXPECT_THAT(with("[2]", "2"), HasSubstr("no shape"));
  EXPECT_THAT(with("[2]", "[-2]"), HasSubstr("-2 where a size"));
  EXPECT_THAT(with("[2]", "[2.0]"), HasSubstr("2.0 where a size"));
  EXPECT_THAT(with("[2]", "[18446744073709551615]"), HasSubstr("where a size"));
  EXPECT_THAT(with("[2]", "[4611686018427387904, 4]"), HasSubstr("64 bits"));
  EXPECT_THAT(with("[2]", "[0, 4611686018427387904, 4]"), HasSubstr("64 bits"));
  EXPECT_THAT(with("[2]", "[4611686018427387906]"), HasSubstr("do not hold"));
  EXPECT_THAT(with("[0, 8]", "[0]"), HasSubstr("not two numbers"));
  EXPECT_THAT(with("[0, 8]", "[8, 0]"), HasSubstr("do not lie within"));
  EXPECT_THAT(with("[0, 8]", "[1, 9]"), HasSubstr("do not lie within"));
  EXPECT_THAT(with("\"t\"", "\"__metadata__\""), HasSubstr("not a string"));
  EXPECT_THAT(header_error(R"({"__metadata__": []})"), HasSubstr("not a JSON object"));
}

TEST(SafetensorsParse, HolesOverlapsAndDuplicatesAreRefused) {
  const auto two = [](std::string_view second, std::string_view name = "b") {
    return error_of(file_of(
        fmt::format(R"({{"a": {{"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, "{}": {}}})",
                    name, second),
        "12345678"));
  };
  EXPECT_EQ(two(R"({"dtype": "U8", "shape": [4], "data_offsets": [4, 8]})"), "no error");
  EXPECT_THAT(two(R"({"dtype": "U8", "shape": [3], "data_offsets": [5, 8]})"),
              HasSubstr("tensor 'b' begins at byte 5 of the data, expected 4"));
  EXPECT_THAT(two(R"({"dtype": "U8", "shape": [5], "data_offsets": [3, 8]})"),
              HasSubstr("overlap"));
  EXPECT_THAT(two(R"({"dtype": "U8", "shape": [0], "data_offsets": [2, 2]})"),
              HasSubstr("overlap"));
  EXPECT_THAT(two(R"({"dtype": "U8", "shape": [4], "data_offsets": [4, 8]})", "a"),
              HasSubstr("\"a\" appears twice"));
}

TEST(SafetensorsParse, MutationsAreErrorsOrFilesThatCanBeRead) {
  const std::string golden = read_file(CONCORD_SOURCE_DIR "/tests/golden/public.safetensors");
  const auto survives = [](const std::string& contents) {
    try {
      const SafetensorsFile file = SafetensorsFile::parse(contents, "mutant");
      for (const std::string& name : file.names()) {
        if (name != "half" && file.bytes(name).size() != file.type(name).bytes()) return false;
      }
    } catch (const Error&) {
    }
    return true;
  };
  for (std::size_t i = 0; i < golden.size(); ++i) {
    EXPECT_THROW(SafetensorsFile::parse(golden.substr(0, i), "mutant"), Error) << i;
    for (const char replacement : {'\0', '\x7f', '\xff', '0', '9', '"', '[', '}', '-'}) {
      std::string mutant = golden;
      mutant[i] = replacement;
      EXPECT_TRUE(survives(mutant)) << i;
    }
  }
}

}  // namespace
}  // namespace concord::formats
