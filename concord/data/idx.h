// The IDX format of MNIST and its relatives, plain or compressed by gzip.
// Layout (big endian): two zero bytes, an element type, the number of dims, each dim as 32 bits,
// then the elements. Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits".
// Errors: Error naming the file for missing, truncated, oversized or inconsistent data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "concord/data/dataset.h"

namespace concord::data {

struct IdxArray {
  Shape shape;
  std::vector<std::uint8_t> values;
};

// An array of unsigned bytes, the only element type image sets use. `source` names it in errors.
IdxArray parse_idx(std::string_view bytes, std::string_view source);

// The labels of a one-dimensional IDX file.
std::vector<std::int64_t> read_idx_labels(const std::filesystem::path& path);

// Images [N, H, W] or [N, C, H, W] with N labels. Samples are [1, H, W] or [C, H, W].
std::unique_ptr<Dataset> open_idx(const std::filesystem::path& images,
                                  const std::filesystem::path& labels, int classes);

}  // namespace concord::data
