// Counters in memory that several processes see, and sleeping until one changes (futex(2)).
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cmath>
#include <cstdint>

namespace concord::net {

using SharedCounter = std::atomic<std::uint32_t>;
static_assert(SharedCounter::is_always_lock_free, "processes share it");

inline void wake_all(SharedCounter& counter) {
  syscall(SYS_futex, &counter, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// Returns when the counter may have changed from `value`, at the latest after `seconds`.
inline void sleep_on(const SharedCounter& counter, std::uint32_t value, double seconds) {
  const double whole = std::floor(seconds);
  const timespec limit{static_cast<time_t>(whole), static_cast<long>((seconds - whole) * 1e9)};
  syscall(SYS_futex, &counter, FUTEX_WAIT, value, &limit, nullptr, 0);
}

// A moment in a loop that looks at a counter again and again.
inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace concord::net
