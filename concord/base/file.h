// Whole files: bounded reads, and writes that are seen either complete or not at all.
// Errors: each function throws Error naming the path and the system's reason.
// Thread safety: the functions share no state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "concord/base/descriptor.h"

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

// A file that is read piece by piece, or bytes in memory in the place of one.
class InputFile {
 public:
  // Throws Error when it is not a file that can be read.
  explicit InputFile(const std::filesystem::path& path);
  InputFile(std::string contents, std::string name)
      : name_(std::move(name)), contents_(std::move(contents)), bytes_(contents_.size()) {}

  const std::string& name() const { return name_; }  // for errors
  // When it was opened.
  std::uint64_t bytes() const { return bytes_; }
  // Fills `to` with what stands from `offset` on. Throws Error when there is not so much.
  void read(std::uint64_t offset, std::span<std::byte> to) const;

 private:
  std::string name_;
  Descriptor file_;  // else contents_
  std::string contents_;
  std::uint64_t bytes_ = 0;
};

// A file being written: buffered by the caller, errors thrown at once, fsync on request. Closes
// when destroyed; the file stays as far as it was written.
class OutputFile {
 public:
  // Creates or truncates the file, appends to it, or opens one that is there to write in its midst.
  enum class Mode { kTruncate, kAppend, kExisting };
  explicit OutputFile(std::filesystem::path path, Mode mode = Mode::kTruncate);
  ~OutputFile();
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;

  // At the end of the file. When it throws, the file is as it was before.
  void write(std::string_view bytes);
  void write(std::span<const std::byte> bytes);
  // From `offset` bytes on. When it throws, some may be written.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);
  // The file has so many bytes; those that nobody wrote are 0.
  void resize(std::uint64_t bytes);
  void sync();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace concord
