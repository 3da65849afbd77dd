#include <string>
#include <vector>

#include "concord/base/error.h"
#include "concord/nn/zoo.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/pooling.h"

namespace concord::nn {
namespace {

constexpr std::size_t kMaximumStages = 8;

struct Plan {
  std::vector<std::int64_t> blocks;  // of each stage
  std::int64_t width = 0;            // channels of the first stage
  bool bottleneck = false;           // blocks of three convolutions, four times as many channels
  bool imagenet_stem = false;
};

// Table 1 of He, Zhang, Ren, Sun 2016.
Plan plan_of(const ModelOptions& options) {
  if (options.name == "resnet_small") {
    if (options.blocks.empty() || options.blocks.size() > kMaximumStages) {
      fail("resnet_small takes 1 to {} stages of blocks, given {}", kMaximumStages,
           options.blocks.size());
    }
    for (const std::int64_t count : options.blocks) {
      if (count < 1) fail("a stage of resnet_small with {} blocks; expected at least 1", count);
    }
    return {.blocks = options.blocks, .width = options.width};
  }
  Plan plan{.width = options.channels, .imagenet_stem = has_imagenet_stem(options)};
  plan.blocks = {3, 4, 6, 3};
  if (options.name == "resnet18") plan.blocks = {2, 2, 2, 2};
  plan.bottleneck = options.name == "resnet50";
  CONCORD_CHECK(plan.bottleneck || options.name == "resnet18" || options.name == "resnet34", "{}",
                options.name);
  return plan;
}

// A convolution that keeps the size (but for its stride), without bias: the norm after it has one.
ValueId convolution(GraphBuilder& b, std::string_view name, ValueId x, std::int64_t channels,
                    std::int64_t kernel, std::int64_t stride) {
  const std::int64_t padding = kernel / 2;
  return conv2d(b, name, x, channels, kernel,
                {.stride = {stride, stride}, .padding = {padding, padding}}, /*bias=*/false,
                Initialization::kFanOut);
}

// Convolution number `index` of a block and its norm.
ValueId branch_layer(const ModelCall& call, int index, ValueId x, std::int64_t channels,
                     std::int64_t kernel, std::int64_t stride, bool last) {
  const std::string number = std::to_string(index);
  x = convolution(call.builder, "conv" + number, x, channels, kernel, stride);
  x = batch_norm(call.builder, "bn" + number, x, call.context,
                 {.zero_scale = last && call.options.zero_residual});
  return last ? x : ops::relu(call.builder, x);
}

// x where the block keeps its shape, otherwise a 1x1 convolution to the new shape.
ValueId shortcut(const ModelCall& call, ValueId x, std::int64_t channels, std::int64_t stride) {
  GraphBuilder& b = call.builder;
  if (stride == 1 && b.shape(x)[1] == channels) return x;
  const auto scope = b.scope("downsample");
  return batch_norm(b, "1", convolution(b, "0", x, channels, 1, stride), call.context);
}

ValueId block(const ModelCall& call, const Plan& plan, ValueId x, std::int64_t width,
              std::int64_t stride) {
  GraphBuilder& b = call.builder;
  ValueId y = kNoValue;
  if (plan.bottleneck) {
    y = branch_layer(call, 1, x, width, 1, 1, false);
    y = branch_layer(call, 2, y, width, 3, stride, false);
    y = branch_layer(call, 3, y, 4 * width, 1, 1, true);
  } else {
    y = branch_layer(call, 1, x, width, 3, stride, false);
    y = branch_layer(call, 2, y, width, 3, 1, true);
  }
  return ops::relu(b, ops::add(b, y, shortcut(call, x, b.shape(y)[1], stride)));
}

ValueId stem(const ModelCall& call, const Plan& plan) {
  GraphBuilder& b = call.builder;
  const std::int64_t kernel = plan.imagenet_stem ? 7 : 3;
  ValueId x = convolution(b, "conv1", call.x, plan.width, kernel, plan.imagenet_stem ? 2 : 1);
  x = ops::relu(b, batch_norm(b, "bn1", x, call.context));
  if (!plan.imagenet_stem) return x;
  return ops::max_pool2d(b, x, {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}});
}

}  // namespace

ValueId build_resnet(const ModelCall& call) {
  GraphBuilder& b = call.builder;
  const Plan plan = plan_of(call.options);
  ValueId x = stem(call, plan);
  std::int64_t width = plan.width;
  for (std::size_t stage = 0; stage < plan.blocks.size(); ++stage, width *= 2) {
    const auto stage_scope = b.scope("layer" + std::to_string(stage + 1));
    for (std::int64_t i = 0; i < plan.blocks[stage]; ++i) {
      const auto block_scope = b.scope(std::to_string(i));
      x = block(call, plan, x, width, stage > 0 && i == 0 ? 2 : 1);
    }
  }
  return linear(b, "fc", flatten(b, ops::global_average_pool(b, x)), call.outputs);
}

}  // namespace concord::nn
