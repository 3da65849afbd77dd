// Layouts that the tests of kernels offer.
#pragma once

#include "concord/kernels/kernel_check.h"
#include "concord/tensor/layout.h"

namespace concord::cpu {

// [N, C, H, W] stored as [N, H, W, C].
inline Layout channels_last(const Shape& s) {
  return Layout(s, {s[1] * s[2] * s[3], 1, s[3] * s[1], s[1]}, s.dims(), {});
}

// [N, C, H, W] in tiles of 8 channels, padded up to whole tiles.
inline Layout channel_tiles(const Shape& s) {
  const std::int64_t tiles = (s[1] + 7) / 8;
  return Layout(s, {tiles * s[2] * s[3] * 8, s[2] * s[3] * 8, s[3] * 8, 8},
                {s[0], tiles * 8, s[2], s[3]}, {{1, 8}});
}

// Checks with the layouts of all inputs left free, so that kernels take what suits them, and with
// all of them row-major.
inline std::string check_free_and_row_major(KernelCheck check) {
  std::string report = check_kernels(check);
  if (!report.empty()) return report;
  check.offered = Layout();
  return check_kernels(check);
}

}  // namespace concord::cpu
