#include "concord/base/parallel.h"

#include <gtest/gtest.h>

#include <vector>

#include "concord/base/error.h"

namespace concord {
namespace {

TEST(ParallelFor, CoversEveryIndexOnce) {
  for (const std::int64_t count : {0, 1, 5, 1000}) {
    std::vector<int> visits(static_cast<std::size_t>(count), 0);
    parallel_for(count, 3, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
    });
    for (const int v : visits) EXPECT_EQ(v, 1);
  }
}

// A nested parallel region gets one thread, however many are asked for.
TEST(ParallelFor, CoversEveryIndexOnceInsideAnother) {
  const int threads = compute_threads();
  set_compute_threads(4);
  std::vector<int> visits(4 * 100, 0);
  parallel_for(4, 1, [&](std::int64_t outer_begin, std::int64_t outer_end) {
    parallel_for(100 * (outer_end - outer_begin), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        ++visits[static_cast<std::size_t>(100 * outer_begin + i)];
      }
    });
  });
  set_compute_threads(threads);
  for (const int v : visits) EXPECT_EQ(v, 1);
}

TEST(ComputeThreads, RejectsNegativeCount) { EXPECT_THROW(set_compute_threads(-1), Error); }

}  // namespace
}  // namespace concord
