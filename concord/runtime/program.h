// Program: what one rank runs, a flat list of steps compiled from a graph (docs/architecture.md,
// idea 3).
//
// Each step is a kernel, or a collective in which ranks meet, and the addresses of its operands. An
// address is an offset in a region: the states of this rank; those that it has in common with
// others, those that are offloaded to a file, and those of which it has several versions
// (state_store.h); the sums (what the leaf_sum nodes
// read, contiguous, so that adding up leaves is one pass over flat memory); this rank's parts of
// those that are scattered; the prologue's memory (the step inputs and what the prologue computes),
// which is the program's own and keeps its values when other programs run; the arena, which holds
// everything else by lifetime; and another arena, in a file, for what of that is offloaded
// (offload.h). The sums region is rebound from leaf to leaf; the others stay. A view, such as a
// reshape, has the address of what it views and no step. A program is immutable after compilation
// except for its kernels' inner state, so it is run by one thread at a time.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "concord/graph/graph.h"
#include "concord/kernels/kernel.h"
#include "concord/parallel/plan.h"
#include "concord/passes/layout.h"
#include "concord/passes/pass.h"
#include "concord/passes/recompute.h"
#include "concord/runtime/collective_step.h"
#include "concord/runtime/step_sums.h"

namespace concord {

class StateStore;

enum class Region : std::uint8_t {
  kStates,
  kCommonStates,
  kOffloadedStates,
  kVersions,
  kSums,
  kParts,
  kPrologue,
  kArena,
  kOffloadedArena,
  kCarried
};
inline constexpr std::size_t kRegions = 10;

struct Address {
  Region region = Region::kArena;
  std::size_t offset = 0;  // bytes
  int part = 0;            // of sums and parts: the half; of what is carried: the pool
  friend bool operator==(const Address&, const Address&) = default;
};

// A piece of memory that lies in a file.
struct OffloadedRange {
  Address address;
  std::size_t bytes = 0;
  bool is_read_again = true;  // once it has been given back
};

// A message to or from another rank (ops/collective.h, kSend) as a step of a program.
struct MessageStep {
  bool is_send = false;
  std::string axis, stream;
  int peer = 0;  // its place along the axis
  std::int64_t number = 0;
  int sender_half = 0;  // of a receive: in which it is sent
  std::size_t bytes = 0;
  comm::Label label;
};

struct ProgramStep {
  NodeId node = kNoNode;  // of Program::graph; kNoNode for the copies that end a program
  std::string op;
  std::string layer;
  std::unique_ptr<Kernel> kernel;  // or null:
  std::optional<CollectiveStep> collective;
  std::optional<MessageStep> message;
  bool goes_on = false;    // the collective does, while later steps are run;
  std::size_t awaits = 0;  // of those of its phase or half, how many have to be done before it
  std::vector<Address> operands;  // inputs, outputs, then the scratchpad if any
  // Of what is offloaded: asked for before the step is run, and given back after it.
  std::vector<OffloadedRange> prefetched, released;
  double flops = 0;
  std::size_t bytes = 0;  // of all operands
};

// Where an input is to be written, or an output read.
struct Binding {
  std::string name;
  TensorType type;
  Address address;
};

// How a sum is encoded on its way (an encoded_sum): where what encoders keep lies, of this rank's
// encoders one after another; and what who encodes the sum keeps, this rank's part. All of the sum
// comes out at Sum::part.
struct SumEncoding {
  NodeId node = kNoNode;
  int rank = 0;  // of factors of a matrix; 0: numbers are encoded
  std::vector<Address> memories, sum_memories;
};

// What a leaf_sum reads and, once the leaves are in, returns.
struct Sum {
  std::string name;  // of the parameter, or what it is
  int half = 0;      // that computes it
  TensorType type;
  std::int64_t stored_elements = 0;  // padding included
  std::size_t place = 0;             // in the order in which sums are put in buckets, in bytes
  Address address;
  std::size_t part_bytes = 0;  // of each rank's part of the sum; 0: each gets all of it
  Address part;                // where it gets that
  std::optional<SumEncoding> encoding = {};
};

// What a microbatch computes at once; between its halves a rank computes others of other
// microbatches (parallel/stages.h).
struct ProgramHalf {
  std::size_t end = 0;  // of Program::microbatch's steps
  // What is summed of it over ranks, together, in the order in which it is completed: bucket b is
  // complete when the first bucket_ends[b] steps of a microbatch are done.
  std::vector<Bucket> buckets;
  std::vector<std::size_t> bucket_ends;
  std::size_t sums_bytes = 0;
  std::size_t totals_bytes = 0;  // Program::totals_bytes, of this half
};

// Memory of what lives from one half of a microbatch to another, of one microbatch.
struct Pool {
  int first = 0, last = 0;  // halves
  // It is received before the first, or may still be on its way to another rank after the last.
  bool is_received = false, is_sent = false;
  std::size_t bytes = 0;
  bool holds_like(const Pool& other) const {
    return first == other.first && last == other.last && is_received == other.is_received &&
           is_sent == other.is_sent;
  }
};

struct Program {
  Graph graph;  // after all passes
  std::vector<ProgramStep> prologue;
  std::vector<ProgramStep> microbatch;
  std::vector<ProgramStep> update;
  std::vector<Binding> batch_inputs;
  std::vector<Binding> step_inputs;
  std::vector<Binding> outputs;
  bool prologue_reads_step_inputs = false;  // or states alone
  std::size_t prologue_bytes = 0;
  std::size_t arena_bytes = 0;
  std::size_t arena_lower_bound = 0;  // most bytes alive at once: no plan could need less
  std::size_t offloaded_arena_bytes = 0;
  std::size_t sums_bytes = 0;
  bool in_rounds = false;        // ranks sum after each leaf (round_sums.h)
  std::size_t totals_bytes = 0;  // then: of what a rank gets of the sums
  std::vector<Sum> sums;         // in order of the leaf_sum nodes
  std::vector<ProgramHalf> halves;
  std::vector<Pool> pools;
  std::vector<Layout> sums_layouts;  // of those
  std::vector<PassRecord> passes;
};

// The binding of this name, or null.
const Binding* find_binding(const std::vector<Binding>& bindings, std::string_view name);

// One line for each step: phase, op, layer, types with layouts, addresses, bytes, FLOPs.
std::string to_string(const Program& program);

struct LowerOptions {
  // How the ranks divide the model, for one of whom the graph is to be; it gains what is decided on
  // the way. Null: one rank has everything.
  parallel::Plan* plan = nullptr;
  int rank = 0;
  DType precision = DType::kF32;  // in which microbatches are computed: f32 or bf16
  Recompute recompute = Recompute::kNone;
  LayoutOptions layouts;
  // Gains the layouts of what the leaf_sum nodes read, for layouts.leaf_sums of other graphs of the
  // model; unless it is null. The graph of a rank may have only some of the nodes.
  std::vector<Layout>* sums_layouts = nullptr;
};

// Runs the passes over the graph and assigns layouts: the part of compiling that needs no memory.
// `policy` gains the kernel choices made on the way.
Graph lower(const Graph& graph, KernelPolicy& policy, const LowerOptions& options = {},
            std::vector<PassRecord>* records = nullptr);

struct CompileOptions {
  int halves = 1;  // of a microbatch
  // A step has one microbatch. Nothing that the prologue computes from states is kept for another:
  // it is computed where the microbatch first reads it, in memory that others use before and after.
  bool single_microbatch = false;
  // Ranks sum after each leaf, so that no rank keeps more than its parts.
  bool in_rounds = false;
  // What of a microbatch is large and long not used lies in a file meanwhile (offload.h).
  bool offload_activations = false;
  // Sums lie, and are put in buckets, as in this program, with which this one takes part in steps.
  const Program* like = nullptr;
  std::size_t bucket_bytes = std::size_t{8} << 20;  // of gradients that are summed together
};

// Compiles a lowered graph over states whose places are fixed by `states`.
Program compile(Graph lowered, KernelPolicy& policy, const StateStore& states,
                const CompileOptions& options = {});

}  // namespace concord
