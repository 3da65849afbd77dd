#include "concord/formats/tensorboard.h"

#include <fmt/core.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <cstring>

#include "concord/base/host.h"
#include "concord/formats/checksum.h"

namespace concord::formats {
namespace {

static_assert(std::endian::native == std::endian::little,
              "TFRecord and protobuf are little endian");

template <typename T>
void put_fixed(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(0x80 | (value & 0x7f)));
  out.push_back(static_cast<char>(value));
}

// Protocol Buffers' wire types; a field starts with its number and its type.
enum WireType : std::uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_key(std::string& out, std::uint32_t field, WireType type) {
  put_varint(out, (field << 3) | type);
}

void put_bytes(std::string& out, std::uint32_t field, std::string_view bytes) {
  put_key(out, field, kBytes);
  put_varint(out, bytes.size());
  out.append(bytes);
}

void put_integer(std::string& out, std::uint32_t field, std::int64_t value) {
  put_key(out, field, kVarint);
  put_varint(out, static_cast<std::uint64_t>(value));
}

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Event { double wall_time = 1; int64 step = 2; and one of
//         string file_version = 3; Summary summary = 5; SessionLog session_log = 7; }
constexpr std::uint32_t kFileVersion = 3;
constexpr std::uint32_t kSummary = 5;
constexpr std::uint32_t kSessionLog = 7;

std::string event(std::int64_t step, std::uint32_t what, std::string_view content) {
  std::string out;
  put_key(out, 1, kFixed64);
  put_fixed(out, unix_seconds());
  put_integer(out, 2, step);
  put_bytes(out, what, content);
  return out;
}

// TensorBoard takes a file's order from its name: the time first, then a number against collisions.
std::filesystem::path fresh_name(const std::filesystem::path& directory) {
  const std::string host = host_name();
  const auto seconds = static_cast<std::int64_t>(unix_seconds());
  for (int number = 0;; ++number) {
    auto path = directory / fmt::format("events.out.tfevents.{}.{}.{}", seconds, host, number);
    std::error_code ignored;  // a path that cannot be looked up fails when it is opened
    if (!std::filesystem::exists(path, ignored)) return path;
  }
}

}  // namespace

std::string tfrecord_frame(std::string_view data) {
  // A CRC stored among the data it covers is masked, so that a CRC over both is not degenerate.
  const auto masked_crc = [](std::string_view bytes) {
    return std::rotr(crc32c(bytes), 15) + 0xa282ead8u;
  };
  std::string frame;
  put_fixed(frame, static_cast<std::uint64_t>(data.size()));
  put_fixed(frame, masked_crc(frame));
  frame.append(data);
  put_fixed(frame, masked_crc(data));
  return frame;
}

EventWriter::EventWriter(const std::filesystem::path& directory, std::int64_t first_step)
    : file_(fresh_name(directory)) {
  file_.write(tfrecord_frame(event(0, kFileVersion, "brain.Event:2")));
  if (first_step <= 0) return;
  std::string session_start;
  put_integer(session_start, 1, 1);  // SessionLog { SessionStatus status = 1; } with START = 1
  file_.write(tfrecord_frame(event(first_step, kSessionLog, session_start)));
}

void EventWriter::write(std::int64_t step, std::span<const Scalar> scalars) {
  std::string summary;  // Summary { repeated Value value = 1; }
  for (const Scalar& scalar : scalars) {
    std::string value;  // Value { string tag = 1; float simple_value = 2; }
    put_bytes(value, 1, scalar.tag);
    put_key(value, 2, kFixed32);
    put_fixed(value, scalar.value);
    put_bytes(summary, 1, value);
  }
  file_.write(tfrecord_frame(event(step, kSummary, summary)));
}

}  // namespace concord::formats
