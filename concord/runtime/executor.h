// Executor: runs programs over one set of states. A training step:
//
//   executor.begin_step();
//   executor.microbatch(program, place);    for each microbatch of each leaf, inputs set
//   executor.reduce(program);               sum over the leaves of all ranks
//   executor.update(program);               optimizer
//
// Microbatches may read parameters older than they are (read_older). Then several steps may be in
// flight, of which the first is updated first (add_step, turn_to).
//
// A program without batch inputs, such as one that continues a text, is run by update() alone.
//
// Several programs may contribute to one step (the full microbatch and the shorter one that ends an
// epoch); their sums have the same layouts. Programs share one arena, sized for the largest. Each
// keeps what its prologue computed, which is run again when a state has changed since, and in a new
// step when it reads step inputs. Executors that take turns share all this memory.
// In the steady state nothing is allocated. Used by one thread.
#pragma once

#include <array>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "concord/base/file_memory.h"
#include "concord/comm/communicator.h"
#include "concord/runtime/messages.h"
#include "concord/runtime/program.h"
#include "concord/runtime/state_store.h"
#include "concord/runtime/step_sums.h"
#include "concord/runtime/trace.h"
#include "concord/tensor/buffer.h"

namespace concord {

class Executor;

// What executors that take turns from step to step compute in: what one has kept is lost when
// another begins.
class Workspace {
 public:
  // `readers`: ranks who read each other's operands where they lie, and who outlive it; null: none.
  // It is there from the first reserve() on; where there are readers, or it is only planned, from
  // allocate() on.
  explicit Workspace(comm::Communicator* readers = nullptr, bool is_planned = false)
      : readers_(readers), is_planned_(is_planned || readers != nullptr) {}
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  // It has, or will have, at least so many bytes. What it held is lost where it grows. Once it is
  // there this is collective among the readers: it grows for all or for none.
  void reserve(std::size_t bytes);
  // Collective among the readers.
  void allocate();

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  // Of Communicator::bytes() of the readers.
  std::size_t shared_bytes() const { return readers_ == nullptr || is_planned_ ? 0 : bytes_; }

  const Executor* user = nullptr;

 private:
  void make();
  void release();

  comm::Communicator* readers_;
  bool is_planned_;
  Buffer own_;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

class Executor {
 public:
  // The programs must be compiled over `states`, which outlives the executor.
  explicit Executor(StateStore& states,
                    std::shared_ptr<Workspace> workspace = std::make_shared<Workspace>())
      : states_(states), workspace_(std::move(workspace)) {}

  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Steps are computed together with other ranks, whose communicators outlive the executor: those
  // along the axis "data" share the leaves of a step and sum over them, and collectives of programs
  // are along any axis. For before the first prepare().
  using Axes = std::map<std::string, comm::Communicator*, std::less<>>;
  struct SumBuffers {
    std::size_t buffers = 0;  // what LeafSums needs,
    std::int64_t rounds = 1;  // or RoundSums
    // Where sums are encoded: of an encoder's node, and of its random numbers.
    int most_height = comm::kMostHeight;
    std::uint64_t seed = 0;
  };
  void join(comm::Communicator& data, const SumBuffers& sum_buffers, Axes others = {}) {
    ranks_ = &data;
    sum_buffers_ = sum_buffers;
    others_ = std::move(others);
  }

  // Microbatches are computed in halves, in this order where a step has as many as it ever has: for
  // before the first prepare(). The streams are for before the first step.
  void plan_pipeline(const PipelineOrder& order) { most_ = order; }
  void join_streams(std::map<parallel::Stream, comm::Communicator*> streams) {
    messages_.join(std::move(streams));
  }

  // Microbatches read the version of parameters that comes of `older` updates less than those of
  // all steps before theirs (versions.h), and at most so many steps are in flight at once. For
  // before the first prepare().
  void read_older(int older, int steps_in_flight) {
    older_ = older;
    most_steps_ = static_cast<std::size_t>(steps_in_flight);
  }

  // Makes room for a program; call for each one before its first use. After share_memory()
  // collective among the readers of the workspace. Throws Error where the program has a collective
  // along an axis that was not joined.
  void prepare(Program& program);

  // Makes what programs offload of their arenas, in a file in this folder: now, and again where a
  // program is prepared that needs more. Throws Error where there is no room for it.
  void allocate_offloaded(const std::filesystem::path& folder);

  // Memory of an input or output of a program. Batch inputs are read by the program's next
  // microbatch; step inputs, set in every program that runs, by everything until the next
  // begin_step; outputs are valid after update().
  // `microbatch`: of a pipeline.
  template <typename T>
  T* at(const Program& program, const Binding& binding, std::int64_t microbatch = 0) const {
    return reinterpret_cast<T*>(resolve(bases(program, microbatch), binding.address));
  }

  // Collective: makes the memory for sums over ranks, so that no step has to, and the workspace.
  void share_memory() {
    for (const auto& of_half : sums_) {
      for (const auto& sums : of_half) sums->share();
    }
    workspace_->allocate();
  }
  // Collective when it is called first, unless share_memory() was. What is in flight is given up.
  void begin_step(const StepPlace& place = {});
  // Another step, while those before it are in flight. All below is of the one that was turned to
  // last, of those in flight; each update() is of the first, which then is in flight no more. The
  // halves of a step but the last may be run before the steps before it are updated.
  void add_step(const StepPlace& place);
  void turn_to(std::size_t step);
  // How many updates lie between the weights that the microbatches of the first step in flight have
  // read and its own, which is the next.
  std::int64_t staleness() const;
  void microbatch(Program& program, const MicrobatchPlace& place);
  // The same in halves: after begin_step() and begin_pipeline(), each half of each of its
  // microbatches in the order given; the inputs of one are set before its first. `programs`: until
  // end_pipeline(). Of several steps, begin_pipeline() after each add_step(): the microbatches are
  // numbered on, and the orders, which follow each other for the other ranks, may overlap here.
  void begin_pipeline(const PipelineOrder& order, const Messages::Programs& programs);
  void half(Program& program, int half, std::int64_t microbatch, const MicrobatchPlace& place);
  // In the place of a half of a microbatch that other ranks along data have and this one does not,
  // where they sum in rounds.
  void stand_by(Program& program, std::size_t half, std::int64_t microbatch);
  void end_pipeline() { messages_.end(); }
  void reduce(Program& program);  // collective
  // In the place of a microbatch, for one of other ranks: takes part in its collectives along data.
  void take_part(Program& program);
  // After reduce(): whether every sum of at most `largest` elements is finite. Loss, statistics,
  // and gradients of biases and norms are; large gradients would cost a trip through memory.
  bool sums_are_finite(const Program& program, std::int64_t largest) const;
  // Collective where the ranks have memory in common.
  void update(Program& program);
  // Whether the states are those before an update or after it. Not so where update() has thrown,
  // because another rank has not done its part.
  bool states_are_whole() const { return !updating_; }

  // Runs a microbatch, step by step, and describes the first step that makes a number that is not
  // finite from inputs that are: "" when there is none. The sums are not changed. Other ranks are
  // not asked, which look for themselves: what this one has stands for what collectives give.
  std::string find_nonfinite(Program& program);

  // Seconds spent in each step since timing was switched on, by step, in program order
  // (prologue, microbatch, update).
  struct Timing {
    const Program* program = nullptr;
    std::vector<double> prologue, microbatch, update;
  };
  void set_timing(Timing* timing) { timing_ = timing; }
  // Every step that is run is written down there from here on; null: nowhere.
  void set_trace(Trace* trace) { trace_ = trace; }

  // Seconds that one step of a program that was just run takes by itself: the median of `runs`
  // runs, after begin_step(). What the program has computed, its sums included, is lost. Of a
  // collective it is the copy that stands for it: other ranks are not asked.
  double time_alone(const Program& program, const ProgramStep& step, int runs);
  // The same of a training step, whose halves of microbatches come in this order: other ranks are
  // not asked. After begin_step(); `places`: by microbatch, none the last of the step; `set_inputs`
  // is called before a microbatch's first half.
  struct Rehearsal {
    std::vector<double> prologue, update;           // by step of the program
    std::vector<std::vector<double>> microbatches;  // of each, by step of the program,
    std::vector<double> inputs;                     // and of setting the inputs
    std::vector<std::vector<double>> additions;     // to the sums of leaves, by bucket
  };
  Rehearsal rehearse(const Program& program, std::span<const Turn> turns,
                     std::span<const MicrobatchPlace> places,
                     const std::function<void(std::int64_t microbatch)>& set_inputs);

  // Of the memory that it shares with other executors, or will.
  std::size_t workspace_bytes() const { return workspace_->bytes(); }
  // Of that of its own that lies in a file.
  std::size_t offloaded_bytes() const { return offloaded_bytes_; }
  // Of what is encoded, for sending and receiving.
  std::size_t encoded_bytes() const {
    std::size_t bytes = 0;
    for (const auto& sum : encoded_sums_) bytes += sum->bytes();
    return bytes;
  }
  // Of the sums that a rank keeps of its leaves.
  std::size_t sum_buffer_bytes() const {
    std::size_t bytes = 0;
    for (const auto& of_half : sums_) {
      for (const auto& sums : of_half) bytes += sums->bytes();
    }
    return bytes;
  }

 private:
  // What a program's prologue computed, and from what: for each step that may be in flight.
  struct Prologue {
    std::size_t offset = 0;            // behind the arena
    std::uint64_t states_version = 0;  // 0: it has not run, or its values are lost
    std::uint64_t step = 0;
    bool is_of_newest = false;  // version, as an update reads
  };
  struct StepInFlight {
    std::uint64_t number = 0;
    StepPlace place;
    std::int64_t updates_read = -1;  // of the version that its microbatches read
  };
  // Where regions begin; of those that have parts, where each does.
  struct Bases {
    std::array<std::byte*, kRegions> of_regions;
    std::span<std::byte*const> of_sums, of_parts;
    const Executor* executor;
    const Program* program;
    std::int64_t microbatch;
  };

  Bases bases(const Program& program, std::int64_t microbatch = 0) const;
  static std::byte* resolve(const Bases& bases, const Address& address) {
    const auto part = static_cast<std::size_t>(address.part);
    switch (address.region) {
      case Region::kSums:
        return bases.of_sums[part] + address.offset;
      case Region::kParts:
        return bases.of_parts[part] + address.offset;
      case Region::kCarried:
        return bases.executor->in_pool(bases.program->pools[part], bases.microbatch) +
               address.offset;
      default:
        return bases.of_regions[static_cast<std::size_t>(address.region)] + address.offset;
    }
  }
  // What programs share whose pools hold the same.
  struct PoolMemory {
    Pool pool;  // of the most bytes
    std::int64_t slots = 1;
  };
  const PoolMemory& memory_of(const Pool& pool) const;
  std::byte* in_pool(const Pool& pool, std::int64_t microbatch) const;
  std::size_t pools_bytes() const;
  const StepInFlight& step() const { return steps_[turn_]; }
  // Of those for steps in flight: the one that is this step's.
  std::size_t slot() const { return step().number % most_steps_; }
  int age_read() const;
  StepSums& sums(std::size_t half) const;
  void note_version();
  void begin_update();
  void end_update();
  void take_turn();
  void run_prologue(Program& program);
  // Steps [begin, end). `alone`: collectives do not ask other ranks.
  void run(const Program& program, const std::vector<ProgramStep>& steps, std::size_t begin,
           std::size_t end, std::vector<double>* seconds, std::int64_t microbatch = 0,
           bool alone = false);
  void run(const Program& program, const std::vector<ProgramStep>& steps,
           std::vector<double>* seconds) {
    run(program, steps, 0, steps.size(), seconds);
  }
  const FileMemory& memory_of(const OffloadedRange& range) const;
  void run(const ProgramStep& step, const Bases& bases, bool alone = false);
  void resolve_operands(const ProgramStep& step, const Bases& bases);
  void meet(const ProgramStep& step);
  void deliver(const ProgramStep& step, const Bases& bases, bool alone);
  // What of a half was computed since it began, or since it last waited for a message, goes into
  // the trace.
  void trace_half(double end);
  void trace(const ProgramStep& step, double start, double stop);
  void run_half(Program& program, std::size_t half, std::int64_t microbatch,
                const MicrobatchPlace& place);
  void make_encoded_sums(Program& program);
  void find_memories(const Program& program, const ProgramHalf& half);
  void take_sums(const Program& program);
  void make_up_messages(const Program& program, std::int64_t microbatch);
  void rehearse_half(const Program& program, const Turn& turn, const MicrobatchPlace& place,
                     Rehearsal& result);
  void await(std::size_t count);
  void await_all();
  comm::Communicator& ranks_along(const std::string& axis) const;
  void stand_by(const Program& program, const ProgramStep& step, std::int64_t microbatch);

  StateStore& states_;
  std::shared_ptr<Workspace> workspace_;
  std::size_t arena_bytes_ = 0;     // of the largest program
  std::size_t prologue_bytes_ = 0;  // of all programs
  FileMemory offloaded_;
  std::filesystem::path offloaded_folder_;
  std::size_t offloaded_bytes_ = 0;  // of the largest program
  comm::Alone alone_;
  comm::Communicator* ranks_ = &alone_;  // along data
  Axes others_;
  SumBuffers sum_buffers_;
  // By half, and for the steps in flight of all but the last; none where nothing is summed.
  std::vector<std::vector<std::unique_ptr<StepSums>>> sums_;
  std::vector<std::unique_ptr<comm::EncodedSum>> encoded_sums_;
  std::size_t sums_bytes_ = 0;
  std::vector<std::byte*> sums_bases_, parts_bases_;  // by half
  Messages messages_;
  PipelineOrder most_;
  std::vector<PoolMemory> pools_;  // behind the prologue's values
  std::map<const Program*, std::vector<Prologue>> prologues_;
  std::map<const CollectiveStep*, comm::Communicator*> along_;  // whom steps of programs ask
  int older_ = 0;
  std::size_t most_steps_ = 1;
  std::vector<StepInFlight> steps_ = {{}};
  std::size_t turn_ = 0;  // of these
  std::uint64_t begun_steps_ = 0;
  bool reads_newest_ = false;  // in an update
  bool updating_ = false;
  Timing* timing_ = nullptr;
  Trace* trace_ = nullptr;
  struct Working {  // on a half of a microbatch that is traced
    const PipelineOrder::HalfName* half = nullptr;
    std::int64_t microbatch = 0;
    double since = 0;
    bool has_computed = false;
  };
  const PipelineOrder* order_ = nullptr;  // of the step
  Working working_;
  std::vector<std::byte*> operands_;
  // Collectives of the phase that go on. A communicator remembers only so many operations.
  static constexpr std::size_t kMostBegun = 64;
  struct Begun {
    comm::Communicator* ranks;
    comm::Ticket ticket;
  };
  std::array<Begun, kMostBegun> begun_;
  std::size_t begun_count_ = 0, finished_count_ = 0;
};

}  // namespace concord
