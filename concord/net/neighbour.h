// What the ranks of one machine know of each other's processes: whether one has ended, and whether
// each has a core to itself.
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>

#include "concord/base/descriptor.h"

namespace concord::net {

// In shared memory that begins as zeros.
struct Neighbour {
  std::atomic<std::int32_t> process;
  cpu_set_t cores;  // that it may run on

  // This process is `rank`. Throws Error where another has said so.
  void introduce(int rank);
};

// Watches a process that has introduced itself.
class Watch {
 public:
  explicit Watch(const Neighbour& neighbour);
  pid_t process() const { return process_; }
  // Never of this very process, whose threads may be ranks. Where the system does not let a process
  // be watched, one that nobody has waited for counts as running.
  bool has_ended() const;

 private:
  pid_t process_;
  Descriptor descriptor_;
};

// How one who waits for another rank looks again and again before it sleeps, which is slow to begin
// and to end: for some tens of microseconds where `cores`, those of all ranks, are enough that
// nobody else needs this one meanwhile; else by letting the others go first.
class Glances {
 public:
  enum class Manner { kSleep, kSpin, kYield };
  static Manner manner_for(const cpu_set_t& cores, int ranks);

  explicit Glances(Manner manner) : manner_(manner) {}
  // Passes a moment; false, at once, when it is time to sleep.
  bool another();

 private:
  Manner manner_;
  int count_ = 0;
};

}  // namespace concord::net
