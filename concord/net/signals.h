// Signals that are read from a descriptor, between other things that are waited for.
#pragma once

#include <signal.h>

#include <vector>

#include "concord/base/descriptor.h"

namespace concord::net {

// While this lives, SIGINT, SIGTERM, SIGTSTP and SIGCHLD of the thread that made it, and of those
// that are started meanwhile, wait to be taken. Used by one thread.
class Signals {
 public:
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // Readable where one has come.
  int descriptor() const { return descriptor_.descriptor(); }
  // Those that have come, but for SIGCHLD.
  std::vector<int> take() const;
  // What was blocked before: what a new process begins with.
  const sigset_t& before() const { return before_; }

 private:
  sigset_t before_{};
  Descriptor descriptor_;
};

}  // namespace concord::net
