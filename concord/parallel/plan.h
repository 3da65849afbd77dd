// Plan: how the ranks of a job divide a model between them. It is data: it can be printed, saved
// and given back.
//
// The mesh says how many ranks there are along which axis; the placements, what a rank holds of
// each state. Everything else follows: of the signatures that fit the states, those that cost least
// (axis_plan.h). The first graph of a model that is divided decides what the wishes leave open; the
// others of the same model follow it, since they share its states and sums.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "concord/base/error.h"
#include "concord/graph/graph.h"
#include "concord/graph/mesh.h"
#include "concord/parallel/axis_plan.h"
#include "concord/parallel/schedule.h"

namespace concord::parallel {

inline constexpr std::string_view kDataAxis = "data";
inline constexpr std::string_view kTensorAxis = "tensor";
inline constexpr std::string_view kPipeAxis = "pipe";

// A wish: states whose names fit the pattern ("*" stands for anything) have this placement.
struct Pin {
  std::string pattern;
  std::string axis;
  Placement placement;
  // "[32, 64]" in a saved plan, which knows its model: the weight must have this shape. Where some
  // pin has one, every parameter of the model must have a pin. Empty: a wish for any shape.
  std::string shape = {};
};

// A saved plan that is not for the model, or a wish that it does not allow: where a plan was given,
// it is the plan that has to be mended.
class PlanError : public Error {
 public:
  using Error::Error;
};

// Of "h.*.mlp.c_fc.weight" and "tensor:split(0)". Placements are "replicate", "split(DIM)",
// "split(DIM, N)" for N equal sections and "split(DIM, 4:1:1)" for sections of these proportions;
// in a saved plan the weight's shape follows: "tensor:split(0) of [32, 64]".
// Throws Error that says so.
Pin parse_pin(std::string_view pattern, std::string_view text);
// "split(0, 3)": what stands behind the axis.
std::string pin_text(const Placement& placement);

// A weight that every rank along an axis has all of.
struct WholeWeight {
  std::string name;
  Shape shape;
};

// Messages that arrive in the order in which they were sent: from one place along "pipe" to
// another.
struct Stream {
  std::string name;  // "forward", "backward", "weights"
  int from = 0, to = 0;
  friend auto operator<=>(const Stream&, const Stream&) = default;
};

// How what is summed over "data" is encoded on its way (comm/codec.h), as far as a graph tells.
struct SumCodec {
  std::string text;      // "topk:density=0.001"; empty: it is not encoded
  int rank = 0;          // of factors of a matrix that are sent (comm/low_rank_sum.h); 0: none
  int memories = 0;      // arrays of numbers that an encoder keeps, as long as what it encodes,
  int sum_memories = 0;  // and who encodes the sum
  bool encodes_sum = false;
  double bits = 32;  // of a number on its way, in a long tensor
  friend bool operator==(const SumCodec&, const SumCodec&) = default;
};

// A wish: the gradients of parameters whose names fit the pattern are encoded so.
struct CodecRule {
  std::string pattern;
  SumCodec codec;
  friend bool operator==(const CodecRule&, const CodecRule&) = default;
};

struct Plan {
  Mesh mesh;
  std::vector<Pin> pins = {};
  MachineCost machine = {};
  bool may_split_sums = true;  // candidates.h
  // What was decided along "tensor", in the order of the states and the leaf_sum nodes; empty
  // before the first graph.
  std::map<std::string, Placement> states = {};
  std::vector<Placement> sums = {};
  // Weights of products and embeddings that stay whole along "tensor" though no pin says so, since
  // it does not divide their dims; the largest first.
  std::vector<WholeWeight> whole_weights = {};
  // The stage of ZeRO, 0 to 3: what of states and gradients the ranks along "data" share
  // (partition.h), and whether they see each other's memory, so that what they share need not be
  // gathered.
  int zero = 0;
  bool in_common = false;
  // Tensors with fewer numbers for each rank are not worth a message, nor the zeros behind the last
  // part: every rank has all of them.
  std::int64_t smallest_part = 8 * kFlatRun;
  // What was decided along "data": the states whose numbers they share, and of each whether a rank
  // holds all of it; nothing before the first graph.
  std::optional<std::map<std::string, bool>> flat = {};
  // What is sent along "data" for gradients (compress.h): the first rule that fits counts. The
  // leaves of a step are divided into as many runs as there are encoders, of which each rank has
  // equally many.
  std::vector<CodecRule> codecs = {};
  std::int64_t encoders = 1;
  // Along "pipe": in which order the parts of a step's microbatches are computed, and how many
  // stages a rank has (schedule.h).
  Schedule schedule = Schedule::k1F1B;
  int chunks = 1;
  bool vertical_sync = false;
  // What was decided there: the stages that have each state, the one that updates it first; the one
  // that reads it first; the states that belong to no stage, such as a count of steps, which all
  // have; and the streams of messages. Nothing before the first graph.
  std::map<std::string, std::vector<int>> stages = {};
  std::map<std::string, int> first_stages = {};
  std::set<std::string> everywhere = {};
  std::vector<Stream> streams = {};
  // Where the model is cut: by stage but the last, the number of the cut point behind it; and what
  // a microbatch costs in each stage, measured or counted (stages.h).
  std::vector<std::size_t> cuts = {};
  std::vector<StageCosts> stage_costs = {};
  Pipeline pipeline(std::int64_t microbatches = 1) const {
    return {schedule, mesh.extent(kPipeAxis), chunks, microbatches, vertical_sync};
  }
};

// Whether a rank updates its part of the parameters and has those of others sent.
bool gathers_updates(const Plan& plan);

// The graph of one rank along "tensor" (partition.h does the same along "data"). Throws Error for a
// pin that fits no state, that contradicts another, or that no signature allows; and where nothing
// is divided along "tensor", so that all ranks would compute the same.
Graph divide(const Graph& graph, Plan& plan, int rank);

}  // namespace concord::parallel
