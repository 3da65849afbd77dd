// Whole files: bounded reads, and writes that are seen either complete or not at all.
// Errors: each function throws Error naming the path and the system's reason.
// Thread safety: the functions share no state.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace concord {

// Whether there is something at `path`; false where that cannot be found out.
bool file_exists(const std::filesystem::path& path);

// The bytes of a file or pipe. Throws Error when it cannot be read or is larger than `limit` bytes.
std::string read_file(const std::filesystem::path& path, std::size_t limit = std::size_t{1} << 40);

// Writes a temporary file beside `path`, flushes it to the device (fsync), and renames it to
// `path`, so that a crash or a full disk leaves the old file or the new one, never a part.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// Flushes a directory's entries to the device, so that a rename in it survives a power cut.
void sync_directory(const std::filesystem::path& directory);

// A file being written: buffered by the caller, errors thrown at once, fsync on request. Closes
// when destroyed; the file stays as far as it was written.
class OutputFile {
 public:
  // Creates or truncates the file, or appends to it.
  enum class Mode { kTruncate, kAppend };
  explicit OutputFile(std::filesystem::path path, Mode mode = Mode::kTruncate);
  ~OutputFile();
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;

  // At the end of the file. When it throws, the file is as it was before.
  void write(std::string_view bytes);
  void write(std::span<const std::byte> bytes);
  void sync();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace concord
