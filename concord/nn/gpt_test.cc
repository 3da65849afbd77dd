// The shape of gpt: parameters, names, inputs and outputs.
#include <gtest/gtest.h>

#include <algorithm>

#include "concord/base/error.h"
#include "concord/nn/model.h"
#include "concord/nn/step.h"
#include "concord/passes/dead_code.h"

namespace concord::nn {
namespace {

StepOptions small_gpt() {
  StepOptions options;
  options.model = {.name = "gpt", .width = 12, .layers = 2, .heads = 3};
  options.tokens = true;
  options.sample = {8};
  options.outputs = 7;
  options.microbatch = 2;
  return options;
}

// 124,439,808: the smallest model of Radford et al. 2019, as Hugging Face counts it.
TEST(Gpt, HasAsManyParametersAsThePublishedModel) {
  StepOptions options = small_gpt();
  options.model = {.name = "gpt", .width = 768, .layers = 12, .heads = 12};
  options.sample = {1024};
  options.outputs = 50257;
  const Graph graph = build_prediction(options);
  EXPECT_EQ(parameter_count(graph), 124439808);
  for (const char* name : {"wte.weight", "wpe.weight", "h.0.ln_1.weight", "h.11.attn.c_attn.bias",
                           "h.3.attn.c_proj.weight", "h.3.mlp.c_fc.weight", "ln_f.bias"}) {
    EXPECT_NE(graph.find_state(name), kNoValue) << name;
  }
}

TEST(Gpt, EveryTokenHasALabelAndTheLossIsTheirMean) {
  const Graph graph = build_training_step(small_gpt());
  EXPECT_EQ(graph.type(graph.find_input("tokens")).shape, (Shape{2, 8}));
  EXPECT_EQ(graph.type(graph.find_input("labels")).shape, (Shape{2, 8}));
  const Graph prediction = build_prediction(small_gpt());
  EXPECT_EQ(prediction.type(prediction.find_output("logits")).shape, (Shape{2, 8, 7}));
}

TEST(Gpt, TrainsAndEvaluatesWithoutKeepingItsLogits) {
  for (const bool tied : {false, true}) {
    StepOptions options = small_gpt();
    options.model.tied_embeddings = tied;
    const auto makes_logits = [](const Graph& graph) {
      const Graph live = remove_dead_code(graph);
      return std::ranges::any_of(
          live.values, [](const Value& value) { return value.type.shape.elements() == 2 * 8 * 7; });
    };
    EXPECT_FALSE(makes_logits(build_training_step(options)));
    EXPECT_FALSE(makes_logits(build_evaluation_step(options)));
    EXPECT_TRUE(makes_logits(build_prediction(options)));
  }
}

// Llama's arrangement: per block two norms of w, q and o of w w, k and v of w w / 2 (two of four
// heads each), a feed-forward network of 2 * 4 w w + 5 w, and biases.
TEST(Gpt, TakesRotaryPositionsRmsNormAndSharedKeys) {
  StepOptions options = small_gpt();
  options.model = {.name = "gpt",
                   .width = 16,
                   .layers = 2,
                   .heads = 4,
                   .key_value_heads = 2,
                   .positions = "rotary",
                   .norm = "rms_norm",
                   .tied_embeddings = false};
  const Graph graph = build_training_step(options);
  const std::int64_t w = 16, block = 2 * w + 2 * w * w + w + w + w * w + w + 8 * w * w + 5 * w;
  EXPECT_EQ(parameter_count(graph), 2 * 7 * w + 2 * block + w);
  EXPECT_EQ(graph.find_state("wpe.weight"), kNoValue);
  EXPECT_EQ(graph.find_state("ln_f.bias"), kNoValue);
  EXPECT_NE(graph.find_state("lm_head.weight"), kNoValue);
  EXPECT_EQ(graph.type(graph.find_state("h.0.attn.c_attn.weight")).shape, (Shape{32, 16}));
}

TEST(Gpt, MuonOrthogonalizesTheMatricesOfBlocksAlone) {
  StepOptions options = small_gpt();
  options.optimizer = usual_options("muon");
  const Graph graph = build_training_step(options);
  for (const char* name : {"h.0.attn.c_attn.weight", "h.1.mlp.c_proj.weight"}) {
    EXPECT_NE(graph.find_state(std::string(name) + ".momentum"), kNoValue) << name;
  }
  for (const char* name : {"wte.weight", "wpe.weight", "h.0.ln_1.weight", "h.0.mlp.c_fc.bias"}) {
    EXPECT_NE(graph.find_state(std::string(name) + ".adam_m"), kNoValue) << name;
  }
}

TEST(Gpt, RefusesWhatDoesNotFit) {
  const auto error = [](const StepOptions& options) -> std::string {
    try {
      build_prediction(options);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  StepOptions options = small_gpt();
  options.model.heads = 5;
  EXPECT_NE(error(options).find("model.heads = 5"), std::string::npos);
  options = small_gpt();
  options.model.key_value_heads = 2;
  EXPECT_NE(
      error(options).find("model.key_value_heads = 2 does not divide the model.heads = 3: set it"),
      std::string::npos);
  options = small_gpt();
  options.model.width = 9;
  options.model.positions = "rotary";
  EXPECT_NE(error(options).find("model.width / model.heads = 3 is odd: set model.width"),
            std::string::npos);
  options = small_gpt();
  options.tokens = false;
  EXPECT_NE(error(options).find("\"gpt\" takes tokens"), std::string::npos) << error(options);
  options = small_gpt();
  options.model.name = "mlp";
  EXPECT_NE(error(options).find("\"mlp\" takes values"), std::string::npos) << error(options);
}

}  // namespace
}  // namespace concord::nn
