// Networks of fully connected layers, and the two classical convolutional ones before them.
#include <string>

#include "concord/nn/zoo.h"

namespace concord::nn {
namespace {

// A fully connected layer and its activation.
ValueId hidden_layer(const ModelCall& call, std::string_view name, ValueId x, std::int64_t units) {
  return activation(call.builder, call.options.activation, linear(call.builder, name, x, units));
}

// A convolution's activation, pooled. The largest of what a function that never falls makes of some
// numbers is what it makes of the largest, so there is less to compute the other way round.
ValueId pooled_activation(const ModelCall& call, ValueId x) {
  GraphBuilder& b = call.builder;
  const std::string& kind = call.options.activation;
  if (kind != "relu") return max_pool2d(b, activation(b, kind, x), 2);
  return activation(b, kind, max_pool2d(b, x, 2));
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
  ValueId x = pooled_activation(call, conv2d(b, "conv1", call.x, 6, 5, {.padding = {2, 2}}));
  x = flatten(b, pooled_activation(call, conv2d(b, "conv2", x, 16, 5)));
  x = hidden_layer(call, "fc1", x, 120);
  x = hidden_layer(call, "fc2", x, 84);
  return linear(b, "fc3", x, call.outputs);
}

ValueId build_cnn(const ModelCall& call) {
  GraphBuilder& b = call.builder;
  ValueId x = activation(b, call.options.activation, conv2d(b, "conv1", call.x, 32, 3));
  x = flatten(b, pooled_activation(call, conv2d(b, "conv2", x, 64, 3)));
  x = dropout(b, "dropout1", x, call.options.dropout, call.context);
  x = hidden_layer(call, "fc1", x, 128);
  x = dropout(b, "dropout2", x, call.options.dropout, call.context);
  return linear(b, "fc2", x, call.outputs);
}

}  // namespace concord::nn
