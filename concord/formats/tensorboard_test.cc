#include "concord/formats/tensorboard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <vector>

#include "concord/base/error.h"
#include "concord/formats/checksum.h"

namespace concord::formats {
namespace {

// A decoder of its own, so that the writer is not checked against itself.
template <typename T>
T take_fixed(std::string_view& bytes) {
  T value;
  CONCORD_CHECK(bytes.size() >= sizeof(T));
  std::memcpy(&value, bytes.data(), sizeof(T));
  bytes.remove_prefix(sizeof(T));
  return value;
}

std::uint64_t take_varint(std::string_view& bytes) {
  std::uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = take_fixed<std::uint8_t>(bytes);
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
}

std::string_view take(std::string_view& bytes, std::size_t count) {
  const std::string_view taken = bytes.substr(0, count);
  bytes.remove_prefix(count);
  return taken;
}

struct Field {
  std::uint64_t number;
  std::uint64_t integer = 0;  // or the bits of a fixed-size value
  std::string_view bytes;
};

std::vector<Field> fields(std::string_view message) {
  std::vector<Field> result;
  while (!message.empty()) {
    const std::uint64_t key = take_varint(message);
    Field field{.number = key >> 3};
    switch (key & 7) {
      case 0:
        field.integer = take_varint(message);
        break;
      case 1:
        field.integer = take_fixed<std::uint64_t>(message);
        break;
      case 2:
        field.bytes = take(message, take_varint(message));
        break;
      case 5:
        field.integer = take_fixed<std::uint32_t>(message);
        break;
      default:
        CONCORD_CHECK(false, "wire type");
    }
    result.push_back(field);
  }
  return result;
}

std::uint32_t masked(std::uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

std::vector<std::string_view> frames(std::string_view file) {
  std::vector<std::string_view> result;
  while (!file.empty()) {
    const std::string_view length_bytes = file.substr(0, 8);
    const auto length = take_fixed<std::uint64_t>(file);
    EXPECT_EQ(take_fixed<std::uint32_t>(file), masked(crc32c(length_bytes)));
    result.push_back(take(file, length));
    EXPECT_EQ(take_fixed<std::uint32_t>(file), masked(crc32c(result.back())));
  }
  return result;
}

class EventWriterTest : public testing::Test {
 protected:
  EventWriterTest() {
    std::string name = testing::TempDir() + "/concord_events_XXXXXX";
    CONCORD_CHECK(::mkdtemp(name.data()) != nullptr);
    directory_ = name;
  }
  ~EventWriterTest() override { std::filesystem::remove_all(directory_); }

  std::vector<std::filesystem::path> files() const {
    return {std::filesystem::directory_iterator(directory_), {}};
  }

  std::filesystem::path directory_;
};

TEST_F(EventWriterTest, ScalarsAreFramedEvents) {
  EventWriter(directory_, 0)
      .write(300, std::vector<Scalar>{{"loss/train", 0.25f}, {"rate", -1.0f}});
  ASSERT_EQ(files().size(), 1u);
  EXPECT_THAT(files()[0].filename().string(), testing::StartsWith("events.out.tfevents."));
  const std::string file = read_file(files()[0]);
  const auto events = frames(file);
  ASSERT_EQ(events.size(), 2u);

  const auto version = fields(events[0]);
  ASSERT_EQ(version.size(), 3u);
  EXPECT_EQ(version[2].number, 3u);
  EXPECT_EQ(version[2].bytes, "brain.Event:2");

  const auto event = fields(events[1]);
  ASSERT_EQ(event.size(), 3u);
  EXPECT_EQ(event[0].number, 1u);
  EXPECT_GT(std::bit_cast<double>(event[0].integer), 1.7e9);  // seconds since 1970
  EXPECT_EQ(event[1].number, 2u);
  EXPECT_EQ(event[1].integer, 300u);
  EXPECT_EQ(event[2].number, 5u);
  const auto values = fields(event[2].bytes);
  ASSERT_EQ(values.size(), 2u);
  EXPECT_EQ(values[0].number, 1u);
  const auto value = fields(values[0].bytes);
  ASSERT_EQ(value.size(), 2u);
  EXPECT_EQ(value[0].number, 1u);
  EXPECT_EQ(value[0].bytes, "loss/train");
  EXPECT_EQ(value[1].number, 2u);
  EXPECT_EQ(std::bit_cast<float>(static_cast<std::uint32_t>(value[1].integer)), 0.25f);
}

TEST_F(EventWriterTest, AResumedRunGetsItsOwnFileThatRestartsAtItsFirstStep) {
  EventWriter first(directory_, 0);
  const auto first_file = files().at(0);
  EventWriter second(directory_, 51);
  ASSERT_EQ(files().size(), 2u);
  const auto second_file = files()[0] == first_file ? files()[1] : files()[0];
  EXPECT_LT(first_file, second_file);
  const std::string file = read_file(second_file);
  const auto event = fields(frames(file).at(1));
  EXPECT_EQ(event.at(1).integer, 51u);
  EXPECT_EQ(event.at(2).number, 7u);         // session_log
  EXPECT_EQ(event.at(2).bytes, "\x08\x01");  // status = START
}

TEST(EventWriter, ADirectoryThatIsMissingIsAnError) {
  EXPECT_THROW(EventWriter("/nonexistent/events", 0), Error);
}

}  // namespace
}  // namespace concord::formats
