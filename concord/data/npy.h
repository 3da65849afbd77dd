// NumPy's .npy arrays. Source: the NumPy enhancement proposal 1 and numpy.lib.format (versions 1 to
// 3). Errors: Error naming the file for truncated, malformed or unsupported data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "concord/data/dataset.h"

namespace concord::data {

// The element types read here, as NumPy writes them on a little-endian machine.
enum class NpyType { kF4, kF8, kU1, kI4, kI8 };

// A row-major array.
struct NpyArray {
  NpyType type = NpyType::kF4;
  Shape shape;
  std::string_view data;  // little-endian elements, within the parsed bytes
};

// `source` names the array in errors; the array refers to `bytes`.
NpyArray parse_npy(std::string_view bytes, std::string_view source);

// The array's numbers as float. Throws Error for one that is not finite as a float.
std::vector<float> npy_floats(const NpyArray& array, std::string_view source);
// The array's integers. Throws Error for an array of floating-point numbers.
std::vector<std::int64_t> npy_integers(const NpyArray& array, std::string_view source);

// The labels of a one-dimensional .npy file of integers.
std::vector<std::int64_t> read_npy_labels(const std::filesystem::path& path);

// What u1 stands for in images: pixels, scaled to [0, 1], or plain numbers.
enum class NpyBytes { kPixels, kNumbers };

// The shape of the samples in an array of features: [N], [N, F], images [N, H, W] (samples [1, H,
// W]) or [N, C, H, W]. Throws Error naming `source` for another array.
Shape npy_sample_shape(const Shape& array, std::string_view source);

// Features as above. Numbers that are not pixels stay as they are. Class targets: integers [N] in
// [0, classes).
std::unique_ptr<Dataset> open_npy_classes(const std::filesystem::path& features,
                                          const std::filesystem::path& labels, int classes,
                                          NpyBytes bytes = NpyBytes::kPixels);
// As above with numbers to predict, [N] or [N, width].
std::unique_ptr<Dataset> open_npy_values(const std::filesystem::path& features,
                                         const std::filesystem::path& values,
                                         NpyBytes bytes = NpyBytes::kPixels);

}  // namespace concord::data
