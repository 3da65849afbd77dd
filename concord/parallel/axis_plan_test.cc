// What comes out by itself: the plans that the search finds for models of the zoo.
#include "concord/parallel/axis_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "concord/base/error.h"
#include "concord/graph/builder.h"
#include "concord/nn/step.h"
#include "concord/ops/collective.h"
#include "concord/parallel/plan.h"
#include "concord/parallel/separate.h"

namespace concord::parallel {
namespace {

using Names = std::map<std::string, std::string>;

struct TextSizes {
  std::int64_t width, length, microbatch, words;
  double dropout = 0.1;
};

Graph text_model(nn::ModelOptions model, const TextSizes& sizes) {
  model.width = sizes.width;
  model.dropout = sizes.dropout;
  model.layers = 2;
  model.heads = 8;
  return separate(nn::build_training_step({.model = std::move(model),
                                           .tokens = true,
                                           .sample = {sizes.length},
                                           .outputs = sizes.words,
                                           .microbatch = sizes.microbatch,
                                           .optimizer = {.name = "adamw", .clip_norm = 0.5}}));
}

// So few numbers that a collective's latency counts most, but for the table of words.
constexpr TextSizes kSmall{.width = 64, .length = 16, .microbatch = 2, .words = 8192};
// So many that what is done with them counts, and yet not more than a weight has: else it is
// cheaper to gather that.
constexpr TextSizes kLarge{.width = 512, .length = 64, .microbatch = 4, .words = 8192};

Graph image_model() {
  return separate(nn::build_training_step(
      {.model = {.name = "vit", .dropout = 0.1, .width = 64, .layers = 2, .heads = 8, .patch = 4},
       .sample = {3, 16, 16},
       .outputs = 16,
       .microbatch = 2,
       .optimizer = {.name = "adamw", .clip_norm = 0.5}}));
}

// Placements of the states with these names, as text.
Names placements(const Graph& graph, const AxisPlan& plan, const Names& of) {
  Names found;
  for (std::size_t s = 0; s < graph.states.size(); ++s) {
    const std::string& name = graph.value(graph.states[s].value).name;
    if (of.contains(name)) found[name] = to_string(plan.states[s]);
  }
  return found;
}

// How often which collective moves a tensor of so many numbers, of all ranks together, in the
// layers whose names begin so.
std::map<std::string, int> collectives(const Graph& local, const std::string& prefix,
                                       std::int64_t elements) {
  std::map<std::string, int> count;
  for (const Node& node : local.nodes) {
    if (!ops::is_collective(node.op) || !node.name.starts_with(prefix)) continue;
    const std::int64_t larger = std::max(local.type(node.inputs[0]).shape.elements(),
                                         local.type(node.outputs[0]).shape.elements());
    if (larger == elements) ++count[node.op];
  }
  return count;
}

// The most numbers that a collective leaves on a rank.
std::int64_t largest_collective(const Graph& local) {
  std::int64_t largest = 0;
  for (const Node& node : local.nodes) {
    if (!ops::is_collective(node.op)) continue;
    largest = std::max(largest, local.type(node.outputs[0]).shape.elements());
  }
  return largest;
}

const PlacementSignature& signature_of(const Graph& graph, const AxisPlan& plan,
                                       std::string_view op, std::string_view layer) {
  const auto node = std::ranges::find_if(
      graph.nodes, [&](const Node& n) { return n.op == op && n.name.starts_with(layer); });
  return plan.nodes[static_cast<std::size_t>(node - graph.nodes.begin())];
}

// Shoeybi et al. 2019, section 3: column-parallel, then row-parallel.
Names gpt_blocks() {
  Names layout = {{"wte.weight", "Split(0)"}};
  for (const std::string block : {"h.0.", "h.1."}) {
    layout[block + "attn.c_attn.weight"] = layout[block + "attn.c_attn.bias"] =
        "Split(0, 3 sections)";
    layout[block + "attn.c_proj.weight"] = "Split(1)";
    layout[block + "mlp.c_fc.weight"] = layout[block + "mlp.c_fc.bias"] = "Split(0)";
    layout[block + "mlp.c_proj.weight"] = "Split(1)";
    layout[block + "attn.c_proj.bias"] = layout[block + "mlp.c_proj.bias"] = "Replicate";
  }
  return layout;
}

TEST(AxisPlan, MegatronsLayoutComesOutForGpt) {
  const Graph graph = text_model({.name = "gpt"}, kSmall);
  const std::int64_t activations = kSmall.microbatch * kSmall.length * kSmall.width;
  for (const int ranks : {2, 4}) {
    const AxisPlan plan = choose_plan(graph, "tensor", ranks);
    EXPECT_TRUE(plan.is_exact);
    EXPECT_EQ(placements(graph, plan, gpt_blocks()), gpt_blocks());
    const Graph local = apply_plan(graph, plan, {"tensor", ranks, 0});
    // Behind attention and behind the feed-forward network, forward and backward.
    const std::map<std::string, int> expected = {{"all_reduce", 4}};
    EXPECT_EQ(collectives(local, "h.0.", activations), expected);
    EXPECT_EQ(collectives(local, "h.1.", activations), expected);
    // Neither the table of words nor the logits are ever gathered.
    EXPECT_EQ(signature_of(graph, plan, "linear_cross_entropy", "").inputs[1], Placement::split(0));
    EXPECT_EQ(signature_of(graph, plan, "gather", "").inputs[0], Placement::split(0));
    EXPECT_LE(largest_collective(local), activations);
  }
}

// Korthikanti et al. 2022, section 4.2.2: norms and dropout on some positions, with a
// reduce_scatter and an all_gather in place of each all_reduce.
TEST(AxisPlan, SequenceParallelismComesOutWhereActivationsAreLarge) {
  const Graph graph = text_model({.name = "gpt"}, kLarge);
  const std::int64_t activations = kLarge.microbatch * kLarge.length * kLarge.width;
  for (const int ranks : {2, 4}) {
    const AxisPlan plan = choose_plan(graph, "tensor", ranks);
    EXPECT_TRUE(plan.is_exact);
    EXPECT_EQ(placements(graph, plan, gpt_blocks()), gpt_blocks());
    const Graph local = apply_plan(graph, plan, {"tensor", ranks, 0});
    const std::map<std::string, int> expected = {{"all_gather", 4}, {"reduce_scatter", 4}};
    EXPECT_EQ(collectives(local, "h.0.", activations), expected);
    EXPECT_EQ(collectives(local, "h.1.", activations), expected);
    const Placement by_position = Placement::split(0, {kLarge.microbatch});
    EXPECT_EQ(signature_of(graph, plan, "layer_norm", "h.1.ln_1").inputs[0], by_position);
    EXPECT_EQ(signature_of(graph, plan, "layer_norm", "h.1.ln_2").inputs[0], by_position);
    EXPECT_LE(largest_collective(local), activations);
  }
}

// One sample's positions are not samples.
TEST(AxisPlan, SequenceParallelismComesOutOfOneSample) {
  TextSizes sizes = kLarge;
  sizes.length *= sizes.microbatch;
  sizes.microbatch = 1;
  const Graph graph = text_model({.name = "gpt"}, sizes);
  const AxisPlan plan = choose_plan(graph, "tensor", 2);
  EXPECT_EQ(signature_of(graph, plan, "layer_norm", "h.1.ln_1").inputs[0], Placement::split(0));
}

// Each rank has whole groups of heads that share keys and values.
TEST(AxisPlan, HeadsAreDividedInGroups) {
  const Graph graph = text_model({.name = "gpt",
                                  .key_value_heads = 4,
                                  .positions = "rotary",
                                  .norm = "rms_norm",
                                  .tied_embeddings = false},
                                 kSmall);
  for (const int ranks : {2, 4}) {
    const AxisPlan plan = choose_plan(graph, "tensor", ranks);
    // The vectors of words that are no classifier are cheaper by column: an all_gather sends half
    // of what an all_reduce does.
    const Names expected = {{"wte.weight", "Split(1)"},
                            {"lm_head.weight", "Split(0)"},
                            {"h.1.attn.c_attn.weight", "Split(0, 2:1:1)"},
                            {"h.1.attn.c_proj.weight", "Split(1)"},
                            {"h.1.mlp.c_fc.weight", "Split(0)"},
                            {"h.1.mlp.c_proj.weight", "Split(1)"}};
    EXPECT_EQ(placements(graph, plan, expected), expected);
  }
}

TEST(AxisPlan, MegatronsLayoutComesOutForVit) {
  const Graph graph = image_model();
  for (const int ranks : {2, 4}) {
    const AxisPlan plan = choose_plan(graph, "tensor", ranks);
    EXPECT_TRUE(plan.is_exact);
    Names expected;
    for (const std::string layer :
         {"encoder.layers.encoder_layer_0.", "encoder.layers.encoder_layer_1."}) {
      expected[layer + "self_attention.in_proj_weight"] = "Split(0, 3 sections)";
      expected[layer + "self_attention.in_proj_bias"] = "Split(0, 3 sections)";
      expected[layer + "self_attention.out_proj.weight"] = "Split(1)";
      expected[layer + "mlp.0.weight"] = "Split(0)";
      expected[layer + "mlp.3.weight"] = "Split(1)";
    }
    EXPECT_EQ(placements(graph, plan, expected), expected);
    const Graph local = apply_plan(graph, plan, {"tensor", ranks, 0});
    const std::map<std::string, int> all_reduces = {{"all_reduce", 4}};
    EXPECT_EQ(collectives(local, "encoder.layers.encoder_layer_0.", 2 * 17 * 64), all_reduces);
  }
}

TEST(AxisPlan, MegatronsLayoutComesOutForBert) {
  const Graph graph = text_model({.name = "bert"}, kSmall);
  const AxisPlan plan = choose_plan(graph, "tensor", 4);
  EXPECT_TRUE(plan.is_exact);
  const std::string layer = "bert.encoder.layer.1.";
  const Names expected = {{"bert.embeddings.word_embeddings.weight", "Split(0)"},
                          {layer + "attention.self.query.weight", "Split(0)"},
                          {layer + "attention.self.key.weight", "Split(0)"},
                          {layer + "attention.self.value.weight", "Split(0)"},
                          {layer + "attention.output.dense.weight", "Split(1)"},
                          {layer + "intermediate.dense.weight", "Split(0)"},
                          {layer + "output.dense.weight", "Split(1)"}};
  EXPECT_EQ(placements(graph, plan, expected), expected);
}

Graph convolutions(const std::string& model, std::int64_t side) {
  return separate(nn::build_training_step({.model = {.name = model},
                                           .sample = {3, side, side},
                                           .outputs = 16,
                                           .microbatch = 2,
                                           .optimizer = {.name = "sgd"}}));
}

// Of each convolution: "strips" of the image, "channels" of its output, or "both" ways of its
// channels, where a rank has some of the input's and a summand of the output.
Names divisions_of_convolutions(const Graph& graph, const AxisPlan& plan) {
  Names found;
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    if (graph.nodes[n].op != "conv2d") continue;
    const PlacementSignature& signature = plan.nodes[n];
    const Placement &w = signature.inputs[1], &y = signature.outputs[0];
    found[graph.nodes[n].name] = y.is_split(2) && w.is_replicate() ? "strips"
                                 : y.is_split(1) && w.is_split(0)  ? "channels"
                                 : y.is_partial() && w.is_split(1) ? "input channels"
                                                                   : to_string(y);
  }
  return found;
}

// All convolutions of a model in order, of which those from `first_by_channels` on are divided so.
Names strips_before(const Graph& graph, const std::string& first_by_channels) {
  Names found;
  bool by_channels = false;
  for (const Node& node : graph.nodes) {
    if (node.op != "conv2d") continue;
    by_channels = by_channels || node.name == first_by_channels;
    found[node.name] = by_channels ? "channels" : "strips";
  }
  return found;
}

// Early layers have large images and few weights, late ones small images and many: the first are
// divided into strips, whose neighbours exchange a row or two, the others by output channels. The
// larger the images, the later that changes.
TEST(AxisPlan, ConvolutionsAreDividedInStripsEarlyAndByChannelsLate) {
  const struct {
    std::string model;
    std::int64_t side;
    std::string first_by_channels;
  } cases[] = {{"resnet18", 64, "layer3.0.conv1"},
               {"resnet18", 224, "layer4.0.conv1"},
               {"vgg11", 256, "features.15"}};
  for (const auto& [model, side, first_by_channels] : cases) {
    const Graph graph = convolutions(model, side);
    const AxisPlan plan = choose_plan(graph, "tensor", 2);
    EXPECT_TRUE(plan.is_exact);
    EXPECT_EQ(divisions_of_convolutions(graph, plan), strips_before(graph, first_by_channels))
        << model << " of " << side << " pixels";
    // The weights lie as they are read.
    for (std::size_t s = 0; s < graph.states.size(); ++s) {
      const Value& weight = graph.value(graph.states[s].value);
      const std::string layer = weight.name.substr(0, weight.name.rfind('.'));
      const Names divisions = strips_before(graph, first_by_channels);
      if (weight.type.shape.rank() != 4 || !divisions.contains(layer)) continue;
      if (divisions.at(layer) == "channels") {
        EXPECT_EQ(plan.states[s], Placement::split(0)) << weight.name;
      }
    }
    // A convolution in strips asks its neighbours, one by channels does not.
    std::set<std::string> asking;
    const Graph local = apply_plan(graph, plan, {"tensor", 2, 0});
    for (const Node& node : local.nodes) {
      if (node.op == ops::kHaloExchange) asking.insert(node.name);
    }
    for (const auto& [layer, division] : strips_before(graph, first_by_channels)) {
      const bool is_wide = layer.find("downsample") == layer.npos;  // more than one pixel
      EXPECT_EQ(asking.contains(layer), division == "strips" && is_wide) << layer;
    }
  }
}

TEST(AxisPlan, ConvolutionsOfSmallImagesAreDividedByChannelsAlone) {
  const Graph graph = convolutions("vgg11", 64);
  Names expected = strips_before(graph, "features.0");
  // Two in a row send once for both: the second takes what the first made, and sums.
  expected["features.22"] = "input channels";
  EXPECT_EQ(divisions_of_convolutions(graph, choose_plan(graph, "tensor", 2)), expected);
}

// Where no sum is divided, all ranks have all that a product reads, and each some of its outputs.
TEST(AxisPlan, OutputsAloneAreDividedWhereSumsMayNotBe) {
  for (const Graph& graph : {text_model({.name = "gpt"}, kLarge), convolutions("resnet18", 32)}) {
    for (const int ranks : {2, 4}) {
      const AxisPlan plan = choose_plan(graph, "tensor", ranks, {.may_split_sums = false});
      const Graph local = apply_plan(graph, plan, {"tensor", ranks, 0});
      for (const Node& node : local.nodes) {
        const bool sums = node.op == ops::kAllReduce || node.op == ops::kReduceScatter ||
                          node.op == ops::kHaloSum;
        EXPECT_FALSE(sums) << node.op << " of " << node.name;
      }
    }
  }
  const Graph gpt = text_model({.name = "gpt"}, kLarge);
  const AxisPlan plan = choose_plan(gpt, "tensor", 2, {.may_split_sums = false});
  for (const char* layer : {"h.1.mlp.c_fc", "h.1.mlp.c_proj", "h.1.attn.c_proj"}) {
    const PlacementSignature& product = signature_of(gpt, plan, "matmul", layer);
    EXPECT_TRUE(product.outputs[0].is_split()) << layer;
  }
}

// What is gathered is gathered once and cut for those who want it otherwise, whoever comes first.
TEST(ApplyPlan, WhatIsGatheredIsCutWhateverTheOrderOfReaders) {
  const Placement rows = Placement::split(0), columns = Placement::split(1), whole;
  for (const std::vector<Placement>& readers :
       {std::vector{columns, whole}, std::vector{whole, columns}}) {
    Graph graph;
    GraphBuilder builder(graph);
    const ValueId w = builder.state("w", {DType::kF32, {4, 4}}, State::Role::kParameter, {});
    for (std::size_t i = 0; i < 2; ++i) builder.node1("relu", {w});
    AxisPlan plan{.states = {rows}};
    for (const Placement& reader : readers) plan.nodes.push_back({{reader}, {reader}});
    const auto moved = [&] {
      std::multiset<std::string> ops;
      for (const Node& node : apply_plan(graph, plan, {"tensor", 2, 0}).nodes) {
        if (node.op != "relu") ops.insert(node.op);
      }
      return ops;
    };
    EXPECT_EQ(moved(), (std::multiset<std::string>{"all_gather", "shard"}));
    plan.nodes = {{{columns}, {columns}}, {{Placement::partial()}, {Placement::partial()}}};
    plan.gathered = {w};
    EXPECT_EQ(moved(), (std::multiset<std::string>{"all_gather", "first_summand", "shard"}));
    plan.nodes.pop_back();
    plan.nodes.push_back({{columns}, {columns}});
    plan.gathered = {};
    EXPECT_EQ(moved(), std::multiset<std::string>{"all_to_all"});
  }
}

Plan plan_of(const nn::StepOptions& options, int ranks, std::vector<Pin> pins = {}) {
  Plan plan{.mesh = {{{std::string(kTensorAxis), ranks}}}, .pins = std::move(pins)};
  divide(nn::build_training_step(options), plan, 0);
  return plan;
}

TEST(Divide, AMeshThatDividesNothingIsRefused) {
  const nn::StepOptions options{
      .model = {.name = "mlp", .hidden = {32}}, .sample = {64}, .outputs = 4, .microbatch = 8};
  try {
    plan_of(options, 3);
    ADD_FAILURE() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              "parallel.mesh: tensor = 3 divides no weight and no op: \"fc1.weight\" of [32, 64] "
              "can be cut by 2, 4, 8, 16, ...");
  }
  EXPECT_TRUE(plan_of(options, 2).whole_weights.empty());
}

// Of what fits is asked by wishes for weights.
TEST(Divide, PatternsOfPinsFitNamesInLittleTime) {
  const nn::StepOptions options{
      .model = {.name = "mlp", .hidden = {32}}, .sample = {64}, .outputs = 4, .microbatch = 8};
  const auto fits_fc1 = [&](const std::string& pattern) {
    try {
      const Plan plan =
          plan_of(options, 2, {{pattern, std::string(kTensorAxis), Placement::split(0)}});
      return plan.states.at("fc1.weight") == Placement::split(0);
    } catch (const Error&) {
      return false;
    }
  };
  for (const char* pattern :
       {"fc1.weight", "fc1*", "*1.w*", "*fc*eig*t", "f**1*.weight*", "*1*ght"}) {
    EXPECT_TRUE(fits_fc1(pattern)) << pattern;
  }
  for (const char* pattern : {"fc1", "c1.weight", "*fc1.weigh", "*fc*eigt", "fc1.weight*t", ""}) {
    EXPECT_FALSE(fits_fc1(pattern)) << pattern;
  }
  EXPECT_FALSE(fits_fc1(std::string(4000, '*') + "zz"));
  std::string many;
  for (int i = 0; i < 1000; ++i) many += "*e";
  EXPECT_FALSE(fits_fc1(many));
}

TEST(Divide, PlacementsUnderWhichNothingIsDividedAreRefused) {
  const nn::StepOptions options{
      .model = {.name = "mlp", .hidden = {32}}, .sample = {64}, .outputs = 4, .microbatch = 8};
  try {
    plan_of(options, 2, {{"*", std::string(kTensorAxis), Placement::replicate()}});
    ADD_FAILURE() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              "parallel.place: with these placements tensor = 2 divides no weight and no op: leave "
              "out those of weights that are to be divided, or set tensor = 1");
  }
}

TEST(Divide, WeightsThatTheMeshDoesNotDivideAreNamed) {
  const nn::StepOptions options{
      .model = {.name = "mlp", .hidden = {32, 48}}, .sample = {20}, .outputs = 4, .microbatch = 8};
  const Plan plan = plan_of(options, 3);  // fc2 and fc3 have 48 outputs and inputs
  ASSERT_EQ(plan.whole_weights.size(), 1);
  EXPECT_EQ(plan.whole_weights[0].name, "fc1.weight");
  EXPECT_EQ(plan.whole_weights[0].shape, Shape({32, 20}));
  EXPECT_TRUE(plan_of(options, 2).whole_weights.empty());
  // A wish is not told again.
  EXPECT_TRUE(
      plan_of(options, 3, {{"fc1.weight", std::string(kTensorAxis), {}}}).whole_weights.empty());
}

}  // namespace
}  // namespace concord::parallel
