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
  // From rehearsals of the program, of which the median counts. What was known stays.
  void add(const Program& program, std::span<const Executor::Rehearsal> alone,
           std::span<const Executor::Rehearsal> crowded);
  std::size_t size() const { return costs_.size(); }

 private:
  std::map<std::string, OpCost> costs_;
};

// What a rank's own steps have taken in a rehearsal, each by itself.
class RehearsedCosts {
 public:
  RehearsedCosts(const Program& program, Executor::Rehearsal alone, Executor::Rehearsal crowded);
  // Of a step of the program with a kernel; `microbatch`: -1 outside of microbatches.
  OpCost of(const ProgramStep& step, std::int64_t microbatch) const;
  OpCost of_inputs(std::int64_t microbatch) const;
  OpCost of_bucket(std::size_t bucket, std::int64_t microbatch) const;  // added to the sums

 private:
  const Program* program_;
  Executor::Rehearsal alone_, crowded_;
};

// The kinds of a program's steps with kernels, by names that are of no further meaning.
std::set<std::string> kinds_of(const Program& program);

}  // namespace concord
