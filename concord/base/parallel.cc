#include "concord/base/parallel.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>

#include "concord/base/error.h"

namespace concord {

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

int compute_threads() { return omp_get_max_threads(); }

void set_compute_threads(int threads) {
  if (threads < 0)
    fail("threads = {}: expected 0 (every available core) or a positive number", threads);
  omp_set_num_threads(threads == 0 ? available_cores() : threads);
}

namespace internal {

void parallel_ranges(std::int64_t count, std::int64_t grain, void* context, RangeFunction run) {
  if (count <= 0) return;
  grain = std::max<std::int64_t>(grain, 1);
  const std::int64_t chunks =
      std::min<std::int64_t>(compute_threads(), (count + grain - 1) / grain);
  if (chunks <= 1) {
    run(context, 0, count);
    return;
  }
  const std::int64_t size = (count + chunks - 1) / chunks;
#pragma omp parallel num_threads(static_cast <int>(chunks))
  {
    const std::int64_t begin = size * omp_get_thread_num();
    const std::int64_t end = std::min(count, begin + size);
    if (begin < end) run(context, begin, end);
  }
}

}  // namespace internal
}  // namespace concord
