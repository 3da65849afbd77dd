#include "concord/net/signals.h"

#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "concord/base/error.h"

namespace concord::net {

Signals::Signals() {
  std::signal(SIGCHLD, SIG_DFL);  // a parent may have had it ignored: nobody could be waited for
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGTSTP, SIGCHLD}) sigaddset(&set, signal);
  descriptor_ = Descriptor(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!descriptor_.is_open()) fail("signalfd failed: {}", std::strerror(errno));
  pthread_sigmask(SIG_BLOCK, &set, &before_);
}

Signals::~Signals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

std::vector<int> Signals::take() const {
  std::vector<int> signals;
  signalfd_siginfo info;
  while (read(descriptor(), &info, sizeof info) == sizeof info) {
    if (info.ssi_signo != SIGCHLD) signals.push_back(static_cast<int>(info.ssi_signo));
  }
  return signals;
}

}  // namespace concord::net
