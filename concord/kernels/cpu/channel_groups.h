// How the channels of images lie in memory, and how work over them is divided: for kernels that
// reduce each channel to a few numbers and then walk over its pixels once more.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/kernel.h"

namespace concord::cpu {

// Images [N, C, H, W] or vectors [N, C] as groups of neighbouring channels, all of one width but
// the last. The pixels of a group are cut into parts by the shape alone, so that sums over parts do
// not depend on the threads.
class ChannelGroups {
 public:
  // nullopt where neighbouring channels lie apart.
  static std::optional<ChannelGroups> of(const Operand& operand);

  std::int64_t parts() const { return parts_; }
  // Channels in whole groups: those of the tensor and the padding behind them.
  std::int64_t stored_channels() const { return groups_ * width_; }
  std::int64_t first_channel(std::int64_t group) const { return group * width_; }
  // Of all images together, and of them in one part.
  std::int64_t pixels() const { return images_ * pixels_; }
  std::int64_t pixels_of(std::int64_t part) const { return begin_of(part + 1) - begin_of(part); }

  // Pixels of a group that follow each other, `stride` elements apart, from element `offset` on.
  struct Run {
    std::int64_t offset, pixels, stride;
    std::size_t channels;
  };

  // Calls f(run) for what the part holds of each image.
  template <typename F>
  void for_each_run(std::int64_t group, std::int64_t part, F f) const {
    const std::int64_t end = begin_of(part + 1);
    const std::int64_t width = std::min(width_, channels_ - first_channel(group));
    for (std::int64_t at = begin_of(part); at < end;) {
      const std::int64_t image = at / pixels_, pixel = at % pixels_;
      const std::int64_t count = std::min(end - at, pixels_ - pixel);
      f(Run{image * image_stride_ + group * group_stride_ + pixel * pixel_stride_, count,
            pixel_stride_, static_cast<std::size_t>(width)});
      at += count;
    }
  }

  // Calls first(group, part) for each part of a group, settle(channel) for each channel, padding
  // included, then second(group, part): a few groups at a time, so that the second pass finds in
  // the cache what the first has read. The passes run on several threads.
  template <typename First, typename Settle, typename Second>
  void in_two_passes(First first, Settle settle, Second second) const {
    for (std::int64_t group = 0; group < groups_; group += at_once_) {
      const std::int64_t count = std::min(at_once_, groups_ - group);
      const auto pass = [&](auto f) {
        parallel_for(count * parts_, 1, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) f(group + i / parts_, i % parts_);
        });
      };
      pass(first);
      for (std::int64_t c = first_channel(group); c < first_channel(group + count); ++c) settle(c);
      pass(second);
    }
  }

  // Calls f(group, part) for all of them, on several threads.
  template <typename F>
  void in_one_pass(F f) const {
    parallel_for(groups_ * parts_, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) f(i / parts_, i % parts_);
    });
  }

 private:
  std::int64_t begin_of(std::int64_t part) const { return pixels() * part / parts_; }

  std::int64_t channels_ = 0, width_ = 0, groups_ = 0;  // channels: padding included
  std::int64_t images_ = 0, pixels_ = 0;
  std::int64_t image_stride_ = 0, pixel_stride_ = 0, group_stride_ = 0;  // in elements
  std::int64_t parts_ = 1, at_once_ = 1;  // of a group; groups of one pass
};

// A layout in which neighbouring channels lie together: the first of `given` that is one, else a
// convolution's.
Layout layout_by_channels(const TensorType& type, std::span<const std::optional<Layout>> given);

}  // namespace concord::cpu
