#include "concord/base/parallel.h"

#include <omp.h>

#include <algorithm>

#include "concord/base/error.h"

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

namespace concord {
namespace {

// libgomp is not instrumented, so ThreadSanitizer is told where a parallel region begins and ends:
// what a thread did before publish(moment) is done for one that has called observe(moment).
#ifdef __SANITIZE_THREAD__
void publish(void* moment) { __tsan_release(moment); }
void observe(void* moment) { __tsan_acquire(moment); }
#else
void publish(void*) {}
void observe(void*) {}
#endif

}  // namespace

// Not this thread's affinity mask: with OMP_PROC_BIND it is bound to one core of several.
int available_cores() { return std::min(omp_get_num_procs(), omp_get_thread_limit()); }

int compute_threads() { return omp_get_max_threads(); }

// oneDNN's threads wait for each other: were one not granted, the others would wait forever.
void set_compute_threads(int threads) {
  if (threads < 0)
    fail("threads = {}: expected 0 (every available core) or a positive number", threads);
  if (threads > omp_get_thread_limit()) {
    fail("threads = {}: the environment's OMP_THREAD_LIMIT allows {}", threads,
         omp_get_thread_limit());
  }
  omp_set_dynamic(0);  // OMP_DYNAMIC grants fewer on a busy machine
  omp_set_max_active_levels(std::max(1, omp_get_max_active_levels()));
  omp_set_num_threads(threads == 0 ? available_cores() : threads);
}

namespace internal {

// The sanitizer leaves this function alone, for its threads read the captured variables before they
// can observe anything; the body they run is checked.
[[gnu::no_sanitize_thread]] void parallel_ranges(std::int64_t count, std::int64_t grain,
                                                 void* context, RangeFunction run) {
  if (count <= 0) return;
  grain = std::max<std::int64_t>(grain, 1);
  const std::int64_t chunks =
      std::min<std::int64_t>(compute_threads(), (count + grain - 1) / grain);
  if (chunks <= 1) {
    run(context, 0, count);
    return;
  }
  const std::int64_t size = (count + chunks - 1) / chunks;
  char begun = 0;
  char ended = 0;
  publish(&begun);
#pragma omp parallel num_threads(static_cast <int>(chunks))
  {
    observe(&begun);
    // OpenMP may grant fewer threads than asked for, and in a nested region grants one.
    for (std::int64_t begin = size * omp_get_thread_num(); begin < count;
         begin += size * omp_get_num_threads()) {
      run(context, begin, std::min(count, begin + size));
    }
    publish(&ended);
  }
  observe(&ended);
}

}  // namespace internal
}  // namespace concord
