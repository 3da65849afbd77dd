// OpCosts: how long the steps of programs take on this machine, measured once for each kind: of one
// op, with the same attributes, shapes and layouts. So a program costs nothing to look at whose
// kinds of steps are known from another.
//
// Thread safety: reading alone is.
#pragma once

#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "concord/runtime/executor.h"
#include "concord/runtime/program.h"

namespace concord {

// Seconds of a step.
struct OpCost {
  double alone = 0;    // while nothing else is computed on the host,
  double crowded = 0;  // and while all ranks of the host compute
};

class OpCosts {
 public:
  // Of a step with a kernel. A broken invariant where it is not known.
  const OpCost& of(const Program& program, const ProgramStep& step) const;
  // From the program's steps timed one by one, several times, of which the mean counts. What was
  // known stays.
  void add(const Program& program, std::span<const Executor::Timing> alone,
           std::span<const Executor::Timing> crowded);
  std::size_t size() const { return costs_.size(); }

 private:
  std::map<std::string, OpCost> costs_;
};

// The kinds of a program's steps with kernels, by names that are of no further meaning.
std::set<std::string> kinds_of(const Program& program);

}  // namespace concord
