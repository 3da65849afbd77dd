#include "concord/net/neighbour.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "concord/base/error.h"
#include "concord/net/futex.h"

namespace concord::net {

void Neighbour::introduce(int rank) {
  if (const std::int32_t other = process.exchange(getpid())) {
    fail("processes {} and {} both say that they are rank {}", other, getpid(), rank);
  }
  sched_getaffinity(0, sizeof cores, &cores);
}

Watch::Watch(const Neighbour& neighbour) : process_(neighbour.process) {
  if (process_ == getpid()) return;
  descriptor_ = Descriptor(static_cast<int>(syscall(SYS_pidfd_open, process_, 0)));
}

bool Watch::has_ended() const {
  if (process_ == getpid()) return false;
  pollfd entry{descriptor_.descriptor(), POLLIN, 0};
  if (descriptor_.is_open()) return poll(&entry, 1, 0) == 1;
  return kill(process_, 0) != 0 && errno == ESRCH;
}

Glances::Manner Glances::manner_for(const cpu_set_t& cores, int ranks) {
  return CPU_COUNT(&cores) >= ranks ? Manner::kSpin : Manner::kYield;
}

bool Glances::another() {
  constexpr int kSpins = 2000, kYields = 500;
  ++count_;
  if (manner_ == Manner::kSpin && count_ <= kSpins) {
    relax();
    return true;
  }
  if (manner_ == Manner::kYield && count_ <= kYields) {
    sched_yield();
    return true;
  }
  return false;
}

}  // namespace concord::net
