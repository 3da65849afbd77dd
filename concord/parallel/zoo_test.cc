// Every model of the zoo, divided over meshes of up to 8 ranks: the naive evaluator runs the graphs
// of all ranks side by side, and finds what it finds of the whole graph.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <span>

#include "concord/base/error.h"
#include "concord/graph/verifier.h"
#include "concord/kernels/ref/difference.h"
#include "concord/kernels/ref/reference.h"
#include "concord/nn/step.h"
#include "concord/parallel/axis_plan.h"
#include "concord/parallel/candidates.h"
#include "concord/parallel/partition.h"
#include "concord/parallel/separate.h"

namespace concord::parallel {
namespace {

using Leaves = std::vector<std::vector<ref::Bindings>>;

struct Case {
  std::string name;
  nn::StepOptions options;
};

std::vector<Case> zoo() {
  const auto numbers = [](nn::ModelOptions model, Shape sample) {
    return nn::StepOptions{.model = std::move(model),
                           .sample = std::move(sample),
                           .outputs = 8,
                           .optimizer = {.name = "adam", .clip_norm = 0.5}};
  };
  const auto tokens = [](nn::ModelOptions model) {
    return nn::StepOptions{.model = std::move(model),
                           .tokens = true,
                           .sample = {8},
                           .outputs = 16,
                           .optimizer = {.name = "adamw", .clip_norm = 0.5}};
  };
  std::vector<Case> cases;
  cases.push_back({"mlp", numbers({.name = "mlp", .hidden = {128, 8}, .dropout = 0.3}, {4})});
  cases.push_back({"cnn", numbers({.name = "cnn"}, {1, 16, 16})});
  cases.push_back({"lenet", numbers({.name = "lenet"}, {1, 28, 28})});
  cases.push_back(
      {"resnet_small", numbers({.name = "resnet_small", .width = 8, .blocks = {1, 1}}, {3, 8, 8})});
  // Narrow, and of images that leave several values in each channel of the last stage: batch norm
  // of fewer magnifies rounding (BatchNorm tests below).
  cases.push_back({"vgg11", numbers({.name = "vgg11", .channels = 8}, {3, 32, 32})});
  cases.push_back({"resnet18, imagenet",
                   numbers({.name = "resnet18", .stem = "imagenet", .channels = 8}, {3, 64, 32})});
  cases.push_back({"resnet50", numbers({.name = "resnet50", .channels = 8}, {3, 16, 16})});
  cases.push_back(
      {"gpt", tokens({.name = "gpt", .dropout = 0.1, .width = 16, .layers = 2, .heads = 8})});
  cases.push_back({"gpt, rotary, grouped", tokens({.name = "gpt",
                                                   .width = 16,
                                                   .layers = 1,
                                                   .heads = 4,
                                                   .key_value_heads = 2,
                                                   .positions = "rotary",
                                                   .norm = "rms_norm",
                                                   .tied_embeddings = false})});
  nn::StepOptions bert =
      tokens({.name = "bert", .dropout = 0.1, .width = 16, .layers = 1, .heads = 8});
  bert.label_smoothing = 0.1;
  cases.push_back({"bert", bert});
  bert.labelled = 2;
  cases.push_back({"bert, some labels", bert});
  cases.push_back({"vit", numbers({.name = "vit", .width = 16, .layers = 1, .heads = 4, .patch = 4},
                                  {3, 8, 8})});
  return cases;
}

double draw(std::mt19937& random) { return static_cast<double>(random() % 2001) / 1000.0 - 1; }

// Numbers that are neither 0 nor 1 where an initialiser would have one or the other.
ref::Bindings states_of(const Graph& graph) {
  std::mt19937 random(7);
  ref::Bindings bindings;
  for (const State& state : graph.states) {
    const Value& value = graph.value(state.value);
    ref::Array array(value.type.shape);
    for (double& x : array.data) {
      x = static_cast<float>(0.3 * draw(random));
      if (state.role != State::Role::kParameter || value.type.shape.rank() < 2)
        x = std::abs(x) + 0.5;
      if (value.name == "step") x = 3;
    }
    bindings[value.name] = std::move(array);
  }
  return bindings;
}

ref::Bindings batch_of(const Graph& graph, std::int64_t first_sample, std::int64_t outputs) {
  std::mt19937 random(static_cast<unsigned>(first_sample) + 11);
  ref::Bindings bindings;
  for (const Input& input : graph.inputs) {
    const Value& value = graph.value(input.value);
    ref::Array array(value.type.shape);
    for (double& x : array.data) {
      x = value.type.dtype == DType::kI32
              ? static_cast<double>(random() % static_cast<unsigned>(outputs))
              : static_cast<float>(draw(random));
    }
    if (value.name == "position") array.data = {5, static_cast<double>(first_sample)};
    bindings[value.name] = std::move(array);
  }
  return bindings;
}

// The whole graph of a model, and what one rank finds of a step of so many leaves.
class Whole {
 public:
  struct Step {
    ref::Bindings bindings;
    std::vector<ref::Bindings> leaves;
    ref::StepResult result;
  };

  explicit Whole(nn::StepOptions options, std::int64_t microbatch = 2)
      : microbatch_(microbatch), outputs_(options.outputs) {
    options.microbatch = microbatch;
    graph = separate(nn::build_training_step(options));
  }

  const Step& step(int leaves) {
    const auto [known, is_new] = steps_.try_emplace(leaves);
    if (is_new) known->second = run(leaves);
    return known->second;
  }

  // What it would find if each feature differed by one unit in the last place of a double.
  ref::StepResult shaken(int leaves, unsigned seed) {
    std::mt19937 random(seed);
    Leaves of_step;
    for (ref::Bindings leaf : step(leaves).leaves) {
      for (double& x : leaf.at("features").data) {
        x = std::nextafter(x, random() % 2 == 0 ? -HUGE_VAL : HUGE_VAL);
      }
      of_step.push_back({std::move(leaf)});
    }
    return ref::evaluate_step(graph, step(leaves).bindings, of_step);
  }

  Graph graph;

 private:
  Step run(int leaves) const {
    Step step{.bindings = states_of(graph)};
    step.bindings["learning_rate"] = {{}, {0.01}};
    step.bindings["batch_weight"] = {{}, {1.0 / static_cast<double>(microbatch_ * leaves)}};
    Leaves of_step;
    for (int leaf = 0; leaf < leaves; ++leaf) {
      step.leaves.push_back(batch_of(graph, microbatch_ * leaf, outputs_));
      of_step.push_back({step.leaves.back()});
    }
    step.result = ref::evaluate_step(graph, step.bindings, of_step);
    return step;
  }

  std::int64_t microbatch_, outputs_;
  std::map<int, Step> steps_;
};

// Whether a value that lies so can be read so (ops/collective.h).
bool can_become(const TensorType& type, const Placement& from, const Placement& to) {
  if (from == to || from.is_replicate() || to.is_replicate() || to.is_split()) {
    return is_floating(type.dtype) || !(from.is_partial() || to.is_partial());
  }
  return false;
}

// One signature for each node, drawn from all that its inputs' placements permit: far from cheap,
// but what every rule says is computed by some of these plans.
AxisPlan random_plan(const Graph& graph, int ranks, unsigned seed) {
  std::mt19937 random(seed);
  const Candidates candidates = find_candidates(graph, ranks);
  std::vector<Placement> lies(graph.values.size());
  AxisPlan plan;
  for (std::size_t s = 0; s < graph.states.size(); ++s) {
    const std::vector<Placement>& allowed = candidates.states[s];
    plan.states.push_back(allowed[random() % allowed.size()]);
    lies[static_cast<std::size_t>(graph.states[s].value)] = plan.states.back();
  }
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    std::vector<PlacementSignature> possible;
    for (const PlacementSignature& signature : candidates.nodes[n]) {
      bool fits = true;
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        const Placement& from = lies[static_cast<std::size_t>(node.inputs[i])];
        fits = fits && can_become(graph.type(node.inputs[i]), from, signature.inputs[i]) &&
               (!signature.inputs[i].is_partial() || from.is_partial() || from.is_replicate());
      }
      if (fits) possible.push_back(signature);
    }
    plan.nodes.push_back(possible[random() % possible.size()]);
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      lies[static_cast<std::size_t>(node.outputs[o])] = plan.nodes.back().outputs[o];
    }
  }
  return plan;
}

// What the ranks compute by a plan, and by which graphs.
struct Divided {
  std::vector<Graph> graphs;
  std::vector<ref::StepResult> found;
};

Divided divide(Whole& model, const AxisPlan& plan, const Mesh& mesh, int zero = 0) {
  const Graph& whole = model.graph;
  const int tensor = mesh.extent("tensor"), data = mesh.extent("data");
  check_plan(whole, plan, tensor);
  const auto& [bindings, of_leaves, expected] = model.step(data);

  Divided divided;
  std::vector<Graph>& graphs = divided.graphs;
  std::vector<ref::Bindings> bindings_of_ranks;
  std::vector<Leaves> leaves_of_ranks;
  for (int rank = 0; rank < mesh.ranks(); ++rank) {
    const AxisPlace place{"tensor", tensor, mesh.coordinate(rank, "tensor")};
    Plan along_data{.mesh = mesh, .zero = zero, .smallest_part = 16};
    const Graph along_tensor = tensor > 1 ? apply_plan(whole, plan, place) : whole;
    graphs.push_back(partition(along_tensor, along_data, rank));
    if (data > 1) placements_along_data(graphs.back());
    std::set<ValueId> summed;  // over the ranks along data, where they lie: once
    for (const Node& node : graphs.back().nodes) {
      if (node.op != "all_reduce" && node.op != "reduce_scatter") continue;
      if (node.attributes.text("axis") != kDataAxis) continue;
      const NodeId producer = graphs.back().value(node.inputs[0]).producer;
      if (producer == kNoNode || graphs.back().node(producer).op != "leaf_sum") continue;
      EXPECT_TRUE(summed.insert(node.inputs[0]).second) << node.name;
    }
    verify(graphs.back());
    ref::Bindings own = bindings;
    for (const State& state : graphs.back().states) {
      ref::Array& array = own.at(graphs.back().value(state.value).name);
      array = ref::part_of(std::move(array), state);
    }
    bindings_of_ranks.push_back(std::move(own));
    leaves_of_ranks.push_back(
        {{of_leaves[static_cast<std::size_t>(mesh.coordinate(rank, "data"))]}});
  }
  divided.found = ref::evaluate_ranks(mesh, graphs, bindings_of_ranks, leaves_of_ranks);
  return divided;
}

// The first difference between what the ranks compute by the plan and what one does, "" where there
// is none.
std::string compare(Whole& model, const AxisPlan& plan, const Mesh& mesh, int zero = 0) {
  const ref::StepResult& expected = model.step(mesh.extent("data")).result;
  const auto [graphs, found] = divide(model, plan, mesh, zero);
  for (std::size_t rank = 0; rank < found.size(); ++rank) {
    for (const auto& [name, array] : expected.outputs) {
      const std::string text = difference(array, found[rank].outputs.at(name));
      if (!text.empty()) return fmt::format("rank {}: output {}: {}", rank, name, text);
    }
    for (const State& state : graphs[rank].states) {
      const std::string& name = graphs[rank].value(state.value).name;
      const std::string text = difference(ref::part_of(expected.next_states.at(name), state),
                                          found[rank].next_states.at(name));
      if (!text.empty()) return fmt::format("rank {}: state {}: {}", rank, name, text);
    }
  }
  return "";
}

// All of up to 8 ranks.
const Mesh kMeshes[] = {Mesh{{{"tensor", 2}}},
                        Mesh{{{"tensor", 4}}},
                        Mesh{{{"tensor", 8}}},
                        Mesh{{{"data", 2}, {"tensor", 2}}},
                        Mesh{{{"data", 2}, {"tensor", 4}}},
                        Mesh{{{"data", 4}, {"tensor", 2}}}};

TEST(Zoo, EveryModelDividedOverEveryMeshComputesWhatOneRankDoes) {
  for (const Case& model : zoo()) {
    Whole whole(model.options);
    for (const Mesh& mesh : kMeshes) {
      const AxisPlan plan = choose_plan(whole.graph, "tensor", mesh.extent("tensor"));
      EXPECT_EQ(compare(whole, plan, mesh), "") << model.name << " over " << to_string(mesh);
    }
  }
}

TEST(Zoo, EveryModelWithStatesDividedOverDataComputesWhatOneRankDoes) {
  for (const Case& model : zoo()) {
    Whole whole(model.options);
    for (const Mesh& mesh :
         {Mesh{{{"data", 2}}}, Mesh{{{"data", 8}}}, Mesh{{{"data", 2}, {"tensor", 2}}}}) {
      const AxisPlan plan = choose_plan(whole.graph, "tensor", mesh.extent("tensor"));
      for (const int zero : {1, 3}) {
        EXPECT_EQ(compare(whole, plan, mesh, zero), "")
            << model.name << " over " << to_string(mesh) << ", zero = " << zero;
      }
    }
  }
}

TEST(Zoo, EveryOptimizerThatNeedsNormsComputesWhatOneRankDoes) {
  for (const char* name : {"lars", "lamb", "muon"}) {
    for (const double clip_norm : {0.0, 0.5}) {
      OptimizerOptions optimizer = usual_options(name);
      optimizer.weight_decay = 0.1;
      optimizer.clip_norm = clip_norm;
      optimizer.nesterov = clip_norm != 0 && std::string(name) == "muon";
      optimizer.ema_decay = 0.9;
      Whole whole({.model = {.name = "mlp", .hidden = {40, 24, 8}},
                   .sample = {4},
                   .outputs = 8,
                   .optimizer = optimizer});
      for (const Mesh& mesh : {Mesh{{{"tensor", 4}}}, Mesh{{{"data", 2}}}, Mesh{{{"data", 3}}},
                               Mesh{{{"data", 2}, {"tensor", 2}}}}) {
        const AxisPlan plan = choose_plan(whole.graph, "tensor", mesh.extent("tensor"));
        for (const int zero : {0, 1, 3}) {
          EXPECT_EQ(compare(whole, plan, mesh, zero), "")
              << name << " over " << to_string(mesh) << ", zero = " << zero;
        }
      }
    }
  }
}

// Models in the widths of the papers, for which other plans are the cheapest, and for which the
// naive evaluator takes seconds: ranks along `data` compute what those along `tensor` alone do.
TEST(Zoo, WideModelsDividedComputeWhatOneRankDoes) {
  const auto options = [](const std::string& name, Shape sample) {
    return nn::StepOptions{.model = {.name = name},
                           .sample = std::move(sample),
                           .outputs = 8,
                           .optimizer = {.name = "sgd", .clip_norm = 0.5}};
  };
  // Numbers of samples that leave more than one to normalise over, and as many meshes as take
  // seconds: all of them are for the narrow ones above.
  const struct {
    nn::StepOptions options;
    std::int64_t microbatch;
    std::size_t meshes;
  } models[] = {{options("vgg11", {3, 32, 32}), 1, 5},
                {options("resnet18", {3, 8, 8}), 2, 6},
                {options("resnet50", {3, 8, 8}), 2, 3}};
  for (const auto& model : models) {
    Whole whole(model.options, model.microbatch);
    for (const Mesh& mesh : std::span(kMeshes).first(model.meshes)) {
      const AxisPlan plan = choose_plan(whole.graph, "tensor", mesh.extent("tensor"));
      EXPECT_EQ(compare(whole, plan, mesh), "")
          << model.options.model.name << " over " << to_string(mesh);
    }
  }
}

// With one value a sample in the channels of the last stages.
nn::StepOptions resnet50_of_tiny_images(std::int64_t side) {
  return {.model = {.name = "resnet50", .channels = 8},
          .sample = {3, side, side},
          .outputs = 8,
          .optimizer = {.name = "sgd", .clip_norm = 0.5}};
}

// Where a channel's few values are nearly equal, batch norm magnifies their rounding by up to
// 1 / sqrt(epsilon), layer after layer. What ranks find then differs from what one finds by more
// than rounding, and by no more than what one finds differs where its input is rounded otherwise.
TEST(BatchNorm, OfFewValuesDiffersOverRanksAsItDoesByRoundingTheInput) {
  constexpr double kRounding = 1e-9;  // what difference() allows
  Whole whole(resnet50_of_tiny_images(2));
  bool differs = false;
  for (const Mesh& mesh : kMeshes) {
    const int leaves = mesh.extent("data");
    const double loss = whole.step(leaves).result.outputs.at("loss")[0];
    double sensitivity = 0;
    for (unsigned seed = 0; seed < 4; ++seed) {
      const double shaken = whole.shaken(leaves, seed).outputs.at("loss")[0];
      sensitivity = std::max(sensitivity, std::abs(shaken - loss));
    }
    const AxisPlan plan = choose_plan(whole.graph, "tensor", mesh.extent("tensor"));
    differs = differs || !compare(whole, plan, mesh).empty();
    const double found = divide(whole, plan, mesh).found[0].outputs.at("loss")[0];
    EXPECT_LE(std::abs(found - loss), 8 * sensitivity + 1e-15 * loss) << to_string(mesh);
    EXPECT_GT(sensitivity, kRounding * loss) << to_string(mesh);
  }
  EXPECT_TRUE(differs);
}

// The same graphs but for epsilon, which bounds how much is magnified, differ by rounding alone: so
// it is not strips of one row, nor halos, strides and padding, that differ.
TEST(BatchNorm, OfFewValuesWithALargeEpsilonIsTheSameOverRanks) {
  for (const std::int64_t side : {2, 4}) {
    Whole whole(resnet50_of_tiny_images(side));
    for (Node& node : whole.graph.nodes) {
      if (node.op.starts_with("batch_norm")) node.attributes.set("epsilon", 1.0);
    }
    for (const Mesh& mesh : kMeshes) {
      const AxisPlan plan = choose_plan(whole.graph, "tensor", mesh.extent("tensor"));
      EXPECT_EQ(compare(whole, plan, mesh), "") << side << " over " << to_string(mesh);
    }
  }
}

// Ops of which a plan divides a node.
std::set<std::string> divided_ops(const Graph& graph, const AxisPlan& plan) {
  std::set<std::string> ops;
  const auto is_divided = [](const Placement& placement) { return !placement.is_replicate(); };
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const PlacementSignature& signature = plan.nodes[n];
    if (std::ranges::any_of(signature.inputs, is_divided) ||
        std::ranges::any_of(signature.outputs, is_divided)) {
      ops.insert(graph.nodes[n].op);
    }
  }
  return ops;
}

// Ops that every rank computes whole. The first two are of single numbers here, the third of whole
// samples.
const std::set<std::string> kNeverDivided = {"clip_factor", "constant", "labelled_rows"};

TEST(Zoo, EveryPlanOfEveryModelComputesWhatOneRankDoes) {
  std::set<std::string> ops, divided;
  for (const Case& model : zoo()) {
    Whole whole(model.options);
    for (const int ranks : {2, 4}) {
      for (unsigned seed = 0; seed < 4; ++seed) {
        const AxisPlan plan = random_plan(whole.graph, ranks, seed);
        divided.merge(divided_ops(whole.graph, plan));
        EXPECT_EQ(compare(whole, plan, {{{"tensor", ranks}}}), "")
            << model.name << " over " << ranks << " ranks, plan " << seed;
      }
    }
    for (const Node& node : whole.graph.nodes) ops.insert(node.op);
  }
  std::vector<std::string> left;
  std::ranges::set_difference(ops, divided, std::back_inserter(left));
  EXPECT_EQ(std::set(left.begin(), left.end()), kNeverDivided);
}

// "h.0.attn.c_proj.bias" and "h.1.attn.c_proj.bias" are of one kind.
std::string kind_of(std::string name) {
  for (char& c : name) {
    if (c >= '0' && c <= '9') c = '#';
  }
  return name;
}

// What a pin could say of a state: every split that its ops allow, and every dim that it has.
std::vector<Placement> wishes_for(const Shape& shape, const std::vector<Placement>& allowed) {
  std::vector<Placement> wishes = allowed;
  const auto add = [&](const Placement& wish) {
    if (std::ranges::count(wishes, wish) == 0) wishes.push_back(wish);
  };
  add(Placement::replicate());
  for (int dim = 0; dim < shape.rank(); ++dim) add(Placement::split(dim));
  return wishes;
}

// Of each kind of weight one is pinned at a time. Biases that are added to what is summed over the
// ranks are the ones that are read as summands.
TEST(Zoo, EveryPinOfAWeightIsRefusedInOneLineOrDividesTheModel) {
  const Mesh mesh{{{"tensor", 2}}};
  const std::set<std::string> computed = {"mlp", "lenet", "gpt, rotary, grouped"};
  int pinned = 0, refused = 0;
  for (Case model : zoo()) {
    model.options.optimizer = {.name = "sgd"};  // the search takes a share of the time
    Whole whole(model.options);
    const Candidates candidates = find_candidates(whole.graph, 2);
    std::set<std::string> kinds;
    for (std::size_t s = 0; s < whole.graph.states.size(); ++s) {
      const State& state = whole.graph.states[s];
      const Value& value = whole.graph.value(state.value);
      if (state.role != State::Role::kParameter || !kinds.insert(kind_of(value.name)).second) {
        continue;
      }
      const std::vector<Placement>& allowed = candidates.states[s];
      for (const Placement& wish : wishes_for(value.type.shape, allowed)) {
        const std::string text = fmt::format("{}: {} {}", model.name, value.name, pin_text(wish));
        try {
          const AxisPlan plan =
              choose_plan(whole.graph, "tensor", 2, {.pinned_states = {{value.name, wish}}});
          EXPECT_TRUE(wish.is_replicate() || std::ranges::count(allowed, wish) > 0) << text;
          EXPECT_EQ(plan.states[s], wish) << text;
          check_plan(whole.graph, plan, 2);
          verify(apply_plan(whole.graph, plan, {"tensor", 2, 1}));
          if (computed.contains(model.name) && value.type.shape.rank() == 1 && wish.is_split()) {
            EXPECT_EQ(compare(whole, plan, mesh), "") << text;
          }
          ++pinned;
        } catch (const Error& error) {
          const std::string message = error.what();
          EXPECT_EQ(std::ranges::count(allowed, wish), 0) << text << ": " << message;
          EXPECT_EQ(message.find('\n'), message.npos) << message;
          EXPECT_NE(message.find("its ops allow"), message.npos) << message;
          ++refused;
        }
      }
    }
  }
  EXPECT_GT(pinned, 0);
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace concord::parallel
