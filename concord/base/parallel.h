// The compute threads of one rank. oneDNN runs on OpenMP's pool, so Concord's own kernels use the
// same pool: two pools would fight for the cores.
//
// Results never depend on how work is cut over threads unless a kernel's documentation says so.
#pragma once

#include <cstdint>
#include <type_traits>

namespace concord {

// Number of compute threads used by kernels of this process (at least 1).
int compute_threads();
// Sets it for the calling thread's kernels; 0 means every core the process may run on.
// Throws Error for a negative number, and for more than OMP_THREAD_LIMIT in the environment.
void set_compute_threads(int threads);
// Threads that can run at once: the cores of the process's affinity mask, at most OMP_THREAD_LIMIT.
int available_cores();

namespace internal {
using RangeFunction = void (*)(void* context, std::int64_t begin, std::int64_t end);
void parallel_ranges(std::int64_t count, std::int64_t grain, void* context, RangeFunction run);
}  // namespace internal

// Calls body(begin, end) over disjoint ranges that cover [0, count), in parallel; a range is never
// smaller than `grain` unless it is the last. Does not allocate. `body` must not throw.
template <typename Body>
void parallel_for(std::int64_t count, std::int64_t grain, Body&& body) {
  internal::parallel_ranges(count, grain, &body,
                            [](void* context, std::int64_t begin, std::int64_t end) {
                              (*static_cast<std::remove_reference_t<Body>*>(context))(begin, end);
                            });
}

}  // namespace concord
