#include <array>
#include <string>

#include "concord/base/error.h"
#include "concord/nn/zoo.h"
#include "concord/ops/pooling.h"

namespace concord::nn {
namespace {

// Convolutions of each of the five stages, table 1 of Simonyan and Zisserman 2015.
std::array<int, 5> convolutions(const std::string& name) {
  if (name == "vgg11") return {1, 1, 2, 2, 2};
  if (name == "vgg13") return {2, 2, 2, 2, 2};
  if (name == "vgg16") return {2, 2, 3, 3, 3};
  CONCORD_CHECK(name == "vgg19", "{}", name);
  return {2, 2, 4, 4, 4};
}

// The layers are numbered as they stand in torchvision's list, activations and poolings included.
ValueId features(const ModelCall& call) {
  GraphBuilder& b = call.builder;
  const auto scope = b.scope("features");
  const std::array<int, 5> stages = convolutions(call.options.name);
  constexpr std::array<std::int64_t, 5> kWidening = {1, 2, 4, 8, 8};
  ValueId x = call.x;
  int index = 0;
  for (std::size_t stage = 0; stage < stages.size(); ++stage) {
    for (int i = 0; i < stages[stage]; ++i) {
      x = conv2d(b, std::to_string(index++), x, call.options.channels * kWidening[stage], 3,
                 {.padding = {1, 1}}, /*bias=*/true, Initialization::kFanOut);
      if (call.options.batch_norm) x = batch_norm(b, std::to_string(index++), x, call.context);
      x = activation(b, "relu", x);
      ++index;
    }
    x = max_pool2d(b, x, 2);
    ++index;
  }
  return x;
}

// The mean of each cell of a 7x7 grid.
ValueId pool_to_7x7(GraphBuilder& b, ValueId x) {
  const Shape shape = b.shape(x);
  if (shape[2] % 7 != 0 || shape[3] % 7 != 0) {
    fail(
        "vgg with stem \"imagenet\" takes images whose sides are multiples of 224; choose "
        "model.stem = \"cifar\" for other ones");
  }
  if (shape[2] == 7 && shape[3] == 7) return x;
  const std::array<std::int64_t, 2> cell = {shape[2] / 7, shape[3] / 7};
  return ops::avg_pool2d(b, x, {.kernel = cell, .stride = cell});
}

ValueId hidden_layer(const ModelCall& call, int index, ValueId x) {
  GraphBuilder& b = call.builder;
  x = linear(b, std::to_string(index), x, 4096, /*bias=*/true, Initialization::kSmallNormal);
  return dropout(b, std::to_string(index + 2), activation(b, "relu", x), call.options.dropout,
                 call.context);
}

}  // namespace

ValueId build_vgg(const ModelCall& call) {
  GraphBuilder& b = call.builder;
  const bool imagenet = has_imagenet_stem(call.options);
  ValueId x = features(call);
  if (!imagenet) {
    x = flatten(b, ops::global_average_pool(b, x));
    x = dropout(b, "dropout", x, call.options.dropout, call.context);
    return linear(b, "classifier", x, call.outputs, /*bias=*/true, Initialization::kSmallNormal);
  }
  x = flatten(b, pool_to_7x7(b, x));
  const auto scope = b.scope("classifier");
  x = hidden_layer(call, 0, x);
  x = hidden_layer(call, 3, x);
  return linear(b, "6", x, call.outputs, /*bias=*/true, Initialization::kSmallNormal);
}

}  // namespace concord::nn
