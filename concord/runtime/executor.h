// Executor: runs programs over one set of states. A training step is four verbs:
//
//   executor.begin_step();                          with the step inputs set
//   executor.microbatch(program, first_of_leaf);    for each microbatch of each leaf, inputs set
//   executor.finish_leaf();                         after each leaf
//   executor.reduce(); executor.update(program);    sum over leaves; optimizer
//
// Several programs may contribute to one step (the full microbatch and the shorter one that ends an
// epoch); their sums have the same layouts. Programs share one arena, sized for the largest.
// In the steady state nothing is allocated. Used by one thread.
#pragma once

#include <string>
#include <vector>

#include "concord/runtime/leaf_sums.h"
#include "concord/runtime/program.h"
#include "concord/runtime/state_store.h"

namespace concord {

class Executor {
 public:
  // The programs must be compiled over `states`, which outlives the executor.
  explicit Executor(StateStore& states) : states_(states), sums_(0) {}

  // Makes room for a program; call for each one before its first use.
  void prepare(Program& program);

  // Memory of an input or output of a program. Batch inputs are read by the next microbatch; step
  // inputs by everything until the next begin_step; outputs are valid after update().
  template <typename T>
  T* at(const Binding& binding) const {
    return reinterpret_cast<T*>(resolve(binding.address));
  }

  void begin_step();
  // Runs the prologue first when `program` was not the last one to run in this step. Step inputs
  // must be set in every program that runs.
  void activate(Program& program);
  void microbatch(Program& program, bool first_of_leaf);
  void finish_leaf();
  void reduce();
  // After reduce(): whether every sum of at most `largest` elements is finite. Loss, statistics,
  // and gradients of biases and norms are; large gradients would cost a trip through memory.
  bool sums_are_finite(const Program& program, std::int64_t largest) const;
  void update(Program& program);

  // Runs a microbatch again, step by step, and describes the first step that makes a number that is
  // not finite from inputs that are: "" when there is none. The sums are not changed.
  std::string find_nonfinite(Program& program);

  // Seconds spent in each step since timing was switched on, by step, in program order
  // (prologue, microbatch, update).
  struct Timing {
    const Program* program = nullptr;
    std::vector<double> prologue, microbatch, update;
  };
  void set_timing(Timing* timing) { timing_ = timing; }

  std::size_t arena_bytes() const { return arena_.bytes(); }

 private:
  std::byte* resolve(const Address& address) const;
  void run(std::vector<ProgramStep>& steps, std::vector<double>* seconds);

  StateStore& states_;
  Buffer arena_;
  LeafSums sums_;
  std::size_t sums_bytes_ = 0;
  std::byte* sums_base_ = nullptr;
  Program* active_ = nullptr;
  Timing* timing_ = nullptr;
  std::vector<std::byte*> operands_;
};

}  // namespace concord
