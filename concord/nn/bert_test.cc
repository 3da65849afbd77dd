// The shape of bert: parameters, names, inputs and outputs.
#include <gtest/gtest.h>

#include "concord/base/error.h"
#include "concord/nn/model.h"
#include "concord/nn/step.h"

namespace concord::nn {
namespace {

StepOptions small_bert() {
  StepOptions options;
  options.model = {.name = "bert", .width = 12, .layers = 2, .heads = 3, .mlp = 20};
  options.tokens = true;
  options.labelled = 3;
  options.sample = {8};
  options.outputs = 7;
  options.microbatch = 2;
  return options;
}

// 109,514,298: BertForMaskedLM in the size and with the vocabulary of bert-base-uncased, as Hugging
// Face counts it.
TEST(Bert, HasAsManyParametersAsThePublishedModel) {
  StepOptions options = small_bert();
  options.model = {.name = "bert_base"};
  options.outputs = 30522;
  EXPECT_EQ(parameter_count(build_prediction(options)), 109514298);
}

TEST(Bert, NamesAndShapesAreHuggingFaces) {
  StepOptions options = small_bert();
  options.model.max_length = 10;
  const Graph graph = build_prediction(options);
  EXPECT_EQ(graph.states.size(), 5u + 2 * 16 + 5);
  const auto shape = [&](const std::string& name) -> Shape {
    const ValueId state = graph.find_state(name);
    return state == kNoValue ? Shape{} : graph.type(state).shape;
  };
  EXPECT_EQ(shape("bert.embeddings.word_embeddings.weight"), (Shape{7, 12}));
  EXPECT_EQ(shape("bert.embeddings.position_embeddings.weight"), (Shape{10, 12}));
  EXPECT_EQ(shape("bert.embeddings.token_type_embeddings.weight"), (Shape{2, 12}));
  EXPECT_EQ(shape("bert.embeddings.LayerNorm.bias"), (Shape{12}));
  const std::string layer = "bert.encoder.layer.1.";
  for (const char* name : {"attention.self.query.weight", "attention.self.key.weight",
                           "attention.self.value.weight", "attention.output.dense.weight"}) {
    EXPECT_EQ(shape(layer + name), (Shape{12, 12})) << name;
  }
  EXPECT_EQ(shape(layer + "attention.output.LayerNorm.weight"), (Shape{12}));
  EXPECT_EQ(shape(layer + "intermediate.dense.weight"), (Shape{20, 12}));
  EXPECT_EQ(shape(layer + "output.dense.weight"), (Shape{12, 20}));
  EXPECT_EQ(shape(layer + "output.LayerNorm.bias"), (Shape{12}));
  EXPECT_EQ(shape("cls.predictions.transform.dense.weight"), (Shape{12, 12}));
  EXPECT_EQ(shape("cls.predictions.transform.LayerNorm.weight"), (Shape{12}));
  EXPECT_EQ(shape("cls.predictions.bias"), (Shape{7}));
}

// While training the vocabulary is searched for the hidden tokens alone: three of each sample.
TEST(Bert, TrainsByLogitsOfLabelledTokensAndPredictsThoseOfAll) {
  const Graph training = build_training_step(small_bert());
  EXPECT_EQ(training.type(training.find_input("labels")).shape, (Shape{2, 8}));
  for (const Node& node : training.nodes) {
    if (node.op != "softmax_cross_entropy") continue;
    EXPECT_EQ(training.type(node.inputs[0]).shape, (Shape{6, 7}));
  }
  const Graph prediction = build_prediction(small_bert());
  EXPECT_EQ(prediction.type(prediction.find_output("logits")).shape, (Shape{2, 8, 7}));
}

TEST(Bert, RefusesWhatDoesNotFit) {
  const auto error = [](const StepOptions& options) -> std::string {
    try {
      build_training_step(options);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  StepOptions options = small_bert();
  options.model.max_length = 7;
  EXPECT_NE(
      error(options).find("samples of 8 tokens; the model has positions for 7: set data.length"),
      std::string::npos);
  options = small_bert();
  options.labelled = 9;
  EXPECT_NE(error(options).find("9 labels of each sample"), std::string::npos) << error(options);
  options = small_bert();
  options.network = [](GraphBuilder& b, const StepContext&, ValueId) {
    return b.input("logits", {DType::kF32, {2, 8, 7}});
  };
  EXPECT_NE(error(options).find("expected [6, 7], one row for each label"), std::string::npos)
      << error(options);
}

}  // namespace
}  // namespace concord::nn
