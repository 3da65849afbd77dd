// The shape of the zoo: parameter counts, state names and logits, without computing anything.
#include "concord/nn/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "concord/base/error.h"
#include "concord/graph/verifier.h"

namespace concord::nn {
namespace {

using testing::HasSubstr;

Graph inference_graph(const ModelOptions& options, const Shape& sample, std::int64_t outputs) {
  Graph graph;
  GraphBuilder builder(graph);
  std::vector<std::int64_t> dims = {2};
  dims.insert(dims.end(), sample.begin(), sample.end());
  const ValueId x = builder.input("features", {DType::kF32, Shape(dims)});
  const StepContext context{.mode = Mode::kEvaluate};
  const ValueId logits = build_model(builder, options, context, x, outputs);
  EXPECT_EQ(builder.shape(logits), (Shape{2, outputs}));
  builder.output("logits", logits);
  verify(graph);
  return graph;
}

struct Published {
  std::string name;  // of the test case
  ModelOptions options;
  Shape sample;
  std::int64_t outputs;
  std::int64_t parameters;
};

void PrintTo(const Published& model, std::ostream* out) { *out << model.name; }

class ParameterCount : public testing::TestWithParam<Published> {};

TEST_P(ParameterCount, IsTheKnownOne) {
  const Published& model = GetParam();
  EXPECT_EQ(parameter_count(inference_graph(model.options, model.sample, model.outputs)),
            model.parameters);
}

// VGG, ImageNet ResNets and vision transformers: torchvision's documentation. CIFAR ResNets: the
// models of He et al. with the stem that is in common use. LeNet, CNN and MLP: counted by hand.
INSTANTIATE_TEST_SUITE_P(
    Zoo, ParameterCount,
    testing::Values(
        Published{"mlp", {.name = "mlp", .hidden = {512, 512}}, {784}, 10, 669706},
        Published{"mlp_of_images", {.name = "mlp", .hidden = {512, 512}}, {1, 28, 28}, 10, 669706},
        Published{"linear_model", {.name = "mlp", .hidden = {}}, {13}, 1, 14},
        Published{"lenet", {.name = "lenet"}, {1, 28, 28}, 10, 61706},
        Published{"cnn", {.name = "cnn"}, {1, 28, 28}, 10, 1199882},
        Published{"vgg11",
                  {.name = "vgg11", .batch_norm = false, .stem = "imagenet"},
                  {3, 224, 224},
                  1000,
                  132863336},
        Published{"vgg13",
                  {.name = "vgg13", .batch_norm = false, .stem = "imagenet"},
                  {3, 224, 224},
                  1000,
                  133047848},
        Published{"vgg16",
                  {.name = "vgg16", .batch_norm = false, .stem = "imagenet"},
                  {3, 224, 224},
                  1000,
                  138357544},
        Published{"vgg16_bn",
                  {.name = "vgg16", .batch_norm = true, .stem = "imagenet"},
                  {3, 224, 224},
                  1000,
                  138365992},
        Published{"vgg19",
                  {.name = "vgg19", .batch_norm = false, .stem = "imagenet"},
                  {3, 224, 224},
                  1000,
                  143667240},
        Published{"vgg16_bn_cifar", {.name = "vgg16"}, {3, 32, 32}, 10, 14728266},
        Published{
            "resnet18", {.name = "resnet18", .stem = "imagenet"}, {3, 224, 224}, 1000, 11689512},
        Published{
            "resnet34", {.name = "resnet34", .stem = "imagenet"}, {3, 224, 224}, 1000, 21797672},
        Published{
            "resnet50", {.name = "resnet50", .stem = "imagenet"}, {3, 224, 224}, 1000, 25557032},
        Published{"vit_b_16", {.name = "vit_b_16"}, {3, 224, 224}, 1000, 86567656},
        Published{"vit_l_16", {.name = "vit_l_16"}, {3, 224, 224}, 1000, 304326632},
        Published{"resnet18_cifar", {.name = "resnet18"}, {3, 32, 32}, 10, 11173962},
        Published{"resnet50_cifar", {.name = "resnet50"}, {3, 32, 32}, 10, 23520842}),
    [](const auto& info) { return info.param.name; });

std::set<std::string> state_names(const Graph& graph) {
  std::set<std::string> names;
  for (const State& state : graph.states) names.insert(graph.value(state.value).name);
  return names;
}

TEST(Model, ResnetNamesAreTorchvisions) {
  const auto names =
      state_names(inference_graph({.name = "resnet50", .stem = "imagenet"}, {3, 224, 224}, 1000));
  EXPECT_EQ(names.size(), 267u);  // of torchvision's 320, the 53 counters num_batches_tracked
  for (const char* name :
       {"conv1.weight", "bn1.running_mean", "layer1.0.conv3.weight", "layer1.0.bn3.bias",
        "layer1.0.downsample.0.weight", "layer1.0.downsample.1.running_var",
        "layer4.2.conv1.weight", "fc.weight", "fc.bias"}) {
    EXPECT_EQ(names.count(name), 1u) << name;
  }
}

TEST(Model, VggNamesAreTorchvisions) {
  const ModelOptions plain{.name = "vgg11", .batch_norm = false, .stem = "imagenet"};
  const auto names = state_names(inference_graph(plain, {3, 224, 224}, 1000));
  std::set<std::string> expected;
  for (const char* layer :
       {"features.0", "features.3", "features.6", "features.8", "features.11", "features.13",
        "features.16", "features.18", "classifier.0", "classifier.3", "classifier.6"}) {
    expected.insert(std::string(layer) + ".weight");
    expected.insert(std::string(layer) + ".bias");
  }
  EXPECT_EQ(names, expected);
  const auto with_norm = state_names(inference_graph({.name = "vgg11"}, {3, 32, 32}, 10));
  EXPECT_EQ(with_norm.count("features.1.running_var"), 1u);
  EXPECT_EQ(with_norm.count("features.25.weight"), 1u);
  EXPECT_EQ(with_norm.count("features.26.weight"), 1u);
}

TEST(Model, VitNamesAndShapesAreTorchvisions) {
  const ModelOptions options{.name = "vit", .width = 24, .layers = 2, .heads = 3, .mlp = 40};
  const Graph graph = inference_graph(options, {1, 28, 20}, 10);
  EXPECT_EQ(graph.states.size(), 4u + 2 * 12 + 4);
  const auto shape = [&](const char* name) -> Shape {
    const ValueId state = graph.find_state(name);
    return state == kNoValue ? Shape{} : graph.type(state).shape;
  };
  EXPECT_EQ(shape("class_token"), (Shape{1, 1, 24}));
  EXPECT_EQ(shape("conv_proj.weight"), (Shape{24, 1, 4, 4}));
  EXPECT_EQ(shape("conv_proj.bias"), (Shape{24}));
  EXPECT_EQ(shape("encoder.pos_embedding"), (Shape{1, 36, 24}));
  EXPECT_EQ(shape("encoder.layers.encoder_layer_0.ln_1.weight"), (Shape{24}));
  EXPECT_EQ(shape("encoder.layers.encoder_layer_0.self_attention.in_proj_weight"), (Shape{72, 24}));
  EXPECT_EQ(shape("encoder.layers.encoder_layer_0.self_attention.in_proj_bias"), (Shape{72}));
  EXPECT_EQ(shape("encoder.layers.encoder_layer_1.self_attention.out_proj.weight"),
            (Shape{24, 24}));
  EXPECT_EQ(shape("encoder.layers.encoder_layer_1.mlp.0.weight"), (Shape{40, 24}));
  EXPECT_EQ(shape("encoder.layers.encoder_layer_1.mlp.3.bias"), (Shape{24}));
  EXPECT_EQ(shape("encoder.ln.bias"), (Shape{24}));
  EXPECT_EQ(shape("heads.head.weight"), (Shape{10, 24}));
}

TEST(Model, SmallResnetHasTheStagesAskedFor) {
  const ModelOptions options{.name = "resnet_small", .width = 24, .blocks = {1, 2}};
  const Graph graph = inference_graph(options, {1, 28, 28}, 10);
  EXPECT_EQ(graph.type(graph.find_state("layer2.1.conv2.weight")).shape, (Shape{48, 48, 3, 3}));
  EXPECT_EQ(graph.find_state("layer2.2.conv1.weight"), kNoValue);
  EXPECT_EQ(graph.find_state("layer3.0.conv1.weight"), kNoValue);
}

TEST(Model, ZeroResidualStartsTheLastNormOfEachBlockAtZero) {
  const ModelOptions options{.name = "resnet18", .zero_residual = true};
  const Graph graph = inference_graph(options, {3, 32, 32}, 10);
  int zeros = 0;
  for (const State& state : graph.states) {
    const std::string& name = graph.value(state.value).name;
    if (!name.ends_with("bn2.weight") && !name.ends_with("bn1.weight")) continue;
    EXPECT_EQ(state.initializer.value, name.ends_with("bn2.weight") ? 0.0 : 1.0) << name;
    zeros += state.initializer.value == 0.0;
  }
  EXPECT_EQ(zeros, 8);
}

TEST(Model, DecaysWeightsAlone) {
  const Graph graph = inference_graph({.name = "vgg11"}, {3, 32, 32}, 10);
  for (const State& state : graph.states) {
    EXPECT_EQ(state.decay, graph.type(state.value).shape.rank() > 1)
        << graph.value(state.value).name;
  }
}

std::string error_of(const ModelOptions& options, const Shape& sample) {
  try {
    inference_graph(options, sample, 10);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Model, ErrorsSayWhatIsExpected) {
  EXPECT_THAT(error_of({.name = "resnet19"}, {3, 32, 32}),
              testing::AllOf(HasSubstr("\"resnet19\""), HasSubstr("did you mean \"resnet18\""),
                             HasSubstr("lenet")));
  EXPECT_THAT(error_of({.name = "lenet"}, {784}),
              testing::AllOf(HasSubstr("lenet"), HasSubstr("[2, 784]"), HasSubstr("images")));
  EXPECT_THAT(error_of({.name = "mlp", .activation = "step"}, {784}), HasSubstr("\"step\""));
  EXPECT_THAT(error_of({.name = "resnet18", .stem = "mnist"}, {3, 32, 32}), HasSubstr("\"mnist\""));
  EXPECT_THAT(error_of({.name = "vgg11", .stem = "imagenet"}, {3, 96, 96}), HasSubstr("224"));
  EXPECT_THAT(error_of({.name = "resnet_small", .blocks = {}}, {3, 32, 32}), HasSubstr("stages"));
  EXPECT_THAT(error_of({.name = "resnet_small", .blocks = {2, 0}}, {3, 32, 32}),
              HasSubstr("0 blocks"));
  EXPECT_THAT(error_of({.name = "resnet_small", .width = 0}, {3, 32, 32}), HasSubstr("conv1"));
  EXPECT_THAT(error_of({.name = "mlp", .hidden = {-3}}, {784}), HasSubstr("fc1"));
  EXPECT_THAT(error_of({.name = "cnn"}, {1, 2, 2}), HasSubstr("conv1"));
  EXPECT_THAT(error_of({.name = "vgg11"}, {3, 16, 16}), HasSubstr("max_pool2d"));
  EXPECT_THAT(error_of({.name = "vit_b_16"}, {3, 32, 40}),
              testing::AllOf(HasSubstr("32 x 40 pixels"), HasSubstr("a multiple of 16")));
  EXPECT_THAT(error_of({.name = "vit", .width = 32, .heads = 6}, {3, 32, 32}),
              HasSubstr("model.width = 32 does not fall into model.heads = 6"));
}

}  // namespace
}  // namespace concord::nn
