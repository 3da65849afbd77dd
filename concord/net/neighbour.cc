#include "concord/net/neighbour.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "concord/base/error.h"

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

int spins_before_sleep(const cpu_set_t& cores, int ranks) {
  constexpr int kSpins = 2000;
  return CPU_COUNT(&cores) >= ranks ? kSpins : 0;
}

}  // namespace concord::net
