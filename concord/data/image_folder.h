// Images in folders: root/<class name>/<any name>.{jpg,jpeg,png}, extensions in any case; other
// files are not looked at. Classes are numbered in the order of their names, samples in the order
// of (class, file name). Files are decoded when they are read.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "concord/data/dataset.h"

namespace concord::data {

// The names of the folders in `root`, sorted: its classes. Throws Error when there are none.
std::vector<std::string> class_folders(const std::filesystem::path& root);

// Samples are the centre squares [3, size, size]. `class_names` (sorted) are the classes, those of
// the training folder; throws Error for a folder in `root` that is not among them, and when there
// are no images. read() throws Error naming the file when it cannot be read or decoded.
std::unique_ptr<Dataset> open_image_folder(const std::filesystem::path& root, int size,
                                           const std::vector<std::string>& class_names);

}  // namespace concord::data
