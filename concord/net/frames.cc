#include "concord/net/frames.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "concord/base/error.h"

namespace concord::net {
namespace {

constexpr std::size_t kHeader = 1 + 2 * sizeof(std::int32_t);  // kind, rank, size
constexpr std::int32_t kLongest = 1 << 24;
constexpr std::string_view kKinds = "jskropex";

}  // namespace

std::string agent_greeting(std::string_view version) {
  return fmt::format("CONCORD AGENT {}\n", version);
}

void write_all(const Descriptor& to, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(to.descriptor(), bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("the connection ended: {}", std::strerror(errno));
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

void write_frame(const Descriptor& to, const Frame& frame) {
  const auto size = static_cast<std::int32_t>(frame.bytes.size());
  std::string bytes(1, static_cast<char>(frame.kind));
  bytes.append(reinterpret_cast<const char*>(&frame.rank), sizeof frame.rank);
  bytes.append(reinterpret_cast<const char*>(&size), sizeof size);
  write_all(to, bytes + frame.bytes);
}

std::optional<std::string> FrameReader::take_line_after(std::string_view word) {
  const std::size_t begin = bytes_.find(word);
  if (begin == std::string::npos) return std::nullopt;
  const std::size_t end = bytes_.find('\n', begin);
  if (end == std::string::npos) return std::nullopt;
  std::string line = bytes_.substr(begin + word.size(), end - begin - word.size());
  bytes_.erase(0, end + 1);
  return line;
}

std::optional<Frame> FrameReader::take() {
  if (bytes_.size() < kHeader) return std::nullopt;
  Frame frame{static_cast<Frame::Kind>(bytes_[0])};
  std::int32_t size = 0;
  std::memcpy(&frame.rank, bytes_.data() + 1, sizeof frame.rank);
  std::memcpy(&size, bytes_.data() + 1 + sizeof frame.rank, sizeof size);
  if (kKinds.find(bytes_[0]) == std::string_view::npos || size < 0 || size > kLongest) {
    fail("it sent what Concord does not understand: {}", bytes_.substr(0, 80));
  }
  const auto whole = kHeader + static_cast<std::size_t>(size);
  if (bytes_.size() < whole) return std::nullopt;
  frame.bytes = bytes_.substr(kHeader, static_cast<std::size_t>(size));
  bytes_.erase(0, whole);
  return frame;
}

}  // namespace concord::net
