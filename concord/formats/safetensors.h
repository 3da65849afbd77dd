// Safetensors: named tensors in one file, without code. A file is the header's length (8 bytes,
// little endian), the header (JSON: name -> dtype, shape, data_offsets; "__metadata__" -> strings),
// and the tensors' row-major bytes without gaps. Source: the format's specification,
// https://github.com/huggingface/safetensors (README, "Format"). Thread safety: a SafetensorsFile
// is constant once opened and may be read by many threads.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "concord/base/file.h"
#include "concord/formats/checksum.h"
#include "concord/tensor/buffer.h"

namespace concord::formats {

// A tensor to be written or hashed: a view of row-major bytes.
struct NamedTensor {
  std::string name;
  TensorType type;
  std::span<const std::byte> bytes;
};

using Metadata = std::map<std::string, std::string>;

// Writes `tensors`, in any order, and flushes the file to the device. Tensors are stored by falling
// element size, then by name, so each lies aligned to its element. Throws Error when the file
// cannot be written (it stays as far as it got: write under a temporary name where that matters),
// when two names are equal, or when a name is "__metadata__" or not UTF-8.
FileDigest write_safetensors(const std::filesystem::path& path,
                             std::span<const NamedTensor> tensors, const Metadata& metadata = {});

// A file that several processes write together, each of its tensors by one of them. It is, byte for
// byte, the one that write_safetensors() writes.
class SharedSafetensors {
 public:
  // Nothing is written yet. `tensors`: all of the file; they and `metadata` are the same in all
  // processes. Throws Error as write_safetensors() does.
  SharedSafetensors(std::filesystem::path path,
                    const std::map<std::string, TensorType, std::less<>>& tensors,
                    const Metadata& metadata = {});

  // By one process, before all others: the file, with room for the tensors.
  void create() const;
  // Writes these tensors of the file, at their places, and flushes them to the device. Throws Error
  // when that cannot be done.
  void write(std::span<const NamedTensor> tensors) const;

 private:
  std::filesystem::path path_;
  std::string header_;
  std::map<std::string, std::uint64_t, std::less<>> offsets_;  // in the file
  std::uint64_t bytes_ = 0;                                    // of it
};

class SafetensorsFile {
 public:
  // Reads the header; tensors are read when they are asked for. Throws Error naming the file, and
  // the tensor if it is about one, unless everything the specification asks of a file holds.
  static SafetensorsFile open(const std::filesystem::path& path);
  // The same for bytes in memory; `source` names them in errors.
  static SafetensorsFile parse(std::string contents, std::string source);

  // In ascending byte order.
  std::vector<std::string> names() const;
  const Metadata& metadata() const { return metadata_; }
  bool contains(std::string_view name) const { return entries_.contains(name); }
  // Throw Error when there is no such tensor or Concord has no such element type (F16, for
  // example).
  const TensorType& type(std::string_view name) const;
  // Row-major.
  std::vector<std::byte> bytes(std::string_view name) const;

 private:
  struct Entry {
    std::string dtype;  // as the file spells it
    TensorType type;    // its dtype counts only if `known`
    bool known = false;
    std::uint64_t begin = 0;  // offsets in the file
    std::uint64_t end = 0;
  };

  explicit SafetensorsFile(InputFile file);
  const Entry& find(std::string_view name) const;
  void check_coverage(std::uint64_t data) const;

  InputFile file_;
  Metadata metadata_;
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace concord::formats
