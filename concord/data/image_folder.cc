#include "concord/data/image_folder.h"

#include <algorithm>
#include <cctype>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/data/image.h"

namespace concord::data {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 28;
constexpr int kMaxSide = 1 << 13;

class ImageFolder final : public Dataset {
 public:
  ImageFolder(int size, std::vector<std::string> files, Targets targets)
      : Dataset({3, size, size}, std::move(targets)), side_(size), files_(std::move(files)) {}

  void read(std::int64_t index, std::span<float> features) const override {
    CONCORD_CHECK(index >= 0 && index < size(), "{} of {}", index, size());
    const std::string& file = files_[static_cast<std::size_t>(index)];
    const Image image = decode_image(read_file(file, kMaxFileBytes), file, side_);
    resize_center_square(image, side_, features);
  }

  bool scaled_bytes() const override { return true; }

 private:
  int side_;
  std::vector<std::string> files_;
};

// The names in `directory` that satisfy `accept`, sorted.
template <typename Accept>
std::vector<std::string> sorted_names(const fs::path& directory, Accept accept) {
  std::error_code error;
  fs::directory_iterator entries(directory, error);
  if (error) fail("cannot list {}: {}", directory.string(), error.message());
  std::vector<std::string> names;
  for (; entries != fs::directory_iterator(); entries.increment(error)) {
    if (accept(*entries)) names.push_back(entries->path().filename().string());
    if (error) break;
  }
  if (error) fail("cannot list {}: {}", directory.string(), error.message());
  std::ranges::sort(names);
  return names;
}

bool has_image_extension(const fs::directory_entry& entry) {
  std::string extension = entry.path().extension().string();
  std::ranges::transform(extension, extension.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

bool is_class_folder(const fs::directory_entry& entry) {
  std::error_code error;
  return entry.is_directory(error) && !entry.path().filename().string().starts_with('.');
}

}  // namespace

std::vector<std::string> class_folders(const fs::path& root) {
  std::vector<std::string> names = sorted_names(root, is_class_folder);
  if (names.empty()) {
    fail("{} has no folders: expected one folder of images for each class", root.string());
  }
  return names;
}

std::unique_ptr<Dataset> open_image_folder(const fs::path& root, int size,
                                           const std::vector<std::string>& class_names) {
  if (size <= 0 || size > kMaxSide) {
    fail("image size {}: expected 1 to {} pixels", size, kMaxSide);
  }
  std::vector<std::string> files;
  std::vector<std::int64_t> labels;
  for (const std::string& name : class_folders(root)) {
    const auto place = std::ranges::lower_bound(class_names, name);
    if (place == class_names.end() || *place != name) {
      fail("{} is not among the {} classes of the training images", (root / name).string(),
           class_names.size());
    }
    for (const std::string& file : sorted_names(root / name, has_image_extension)) {
      files.push_back((root / name / file).string());
      labels.push_back(place - class_names.begin());
    }
  }
  if (files.empty()) {
    fail("{} has no .jpg, .jpeg or .png files in its class folders", root.string());
  }
  Targets targets =
      class_targets(labels, static_cast<int>(class_names.size()), root.string(), class_names);
  return std::make_unique<ImageFolder>(size, std::move(files), std::move(targets));
}

}  // namespace concord::data
