// Networks of fully connected layers, and the two classical convolutional ones before them.
#include <string>

#include "concord/nn/zoo.h"

namespace concord::nn {
namespace {

// A fully connected layer and its activation.
ValueId hidden_layer(const ModelCall& call, std::string_view name, ValueId x, std::int64_t units) {
  return activation(call.builder, call.options.activation, linear(call.builder, name, x, units));
}

}  // namespace

ValueId build_mlp(const ModelCall& call) {
  ValueId x = flatten(call.builder, call.x);
  int layer = 1;
  for (const std::int64_t units : call.options.hidden) {
    x = hidden_layer(call, "fc" + std::to_string(layer), x, units);
    x = dropout(call.builder, "dropout" + std::to_string(layer), x, call.options.dropout,
                call.context);
    ++layer;
  }
  return linear(call.builder, "fc" + std::to_string(layer), x, call.outputs);
}

ValueId build_lenet(const ModelCall& call) {
  GraphBuilder& b = call.builder;
  const std::string& kind = call.options.activation;
  ValueId x = activation(b, kind, conv2d(b, "conv1", call.x, 6, 5, {.padding = {2, 2}}));
  x = max_pool2d(b, x, 2);
  x = activation(b, kind, conv2d(b, "conv2", x, 16, 5));
  x = flatten(b, max_pool2d(b, x, 2));
  x = hidden_layer(call, "fc1", x, 120);
  x = hidden_layer(call, "fc2", x, 84);
  return linear(b, "fc3", x, call.outputs);
}

ValueId build_cnn(const ModelCall& call) {
  GraphBuilder& b = call.builder;
  const std::string& kind = call.options.activation;
  ValueId x = activation(b, kind, conv2d(b, "conv1", call.x, 32, 3));
  x = activation(b, kind, conv2d(b, "conv2", x, 64, 3));
  x = flatten(b, max_pool2d(b, x, 2));
  x = dropout(b, "dropout1", x, call.options.dropout, call.context);
  x = hidden_layer(call, "fc1", x, 128);
  x = dropout(b, "dropout2", x, call.options.dropout, call.context);
  return linear(b, "fc2", x, call.outputs);
}

}  // namespace concord::nn
