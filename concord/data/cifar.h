// The binary versions of CIFAR-10 and CIFAR-100: records of a label (CIFAR-100: a coarse and a fine
// label) and 3072 bytes of a 32 x 32 image, channel by channel.
// Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
// Errors: Error naming the file for missing or truncated files and for labels out of range.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "concord/data/dataset.h"

namespace concord::data {

enum class CifarKind { k10, k100 };

struct CifarRecords {
  std::vector<std::uint8_t> pixels;  // [N, 3, 32, 32]
  std::vector<std::int64_t> labels;  // [N]; for CIFAR-100 the fine labels
};

// Appends the records of one file to `records`. `source` names it in errors.
void parse_cifar(std::string_view bytes, CifarKind kind, std::string_view source,
                 CifarRecords& records);

// The records of `files`, in that order. `names`, if it is not empty, is a text file with one class
// name per line.
std::unique_ptr<Dataset> open_cifar(const std::vector<std::filesystem::path>& files, CifarKind kind,
                                    const std::filesystem::path& names = {});

}  // namespace concord::data
