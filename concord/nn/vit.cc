// vit: Dosovitskiy et al. 2021. An image is cut into square patches, each taken as a vector; behind
// one more vector that belongs to no patch they pass through blocks of attention and a feed-forward
// network, and what the first one has become is classified. State names and shapes are those of
// torchvision's VisionTransformer (whose older files call mlp.0 and mlp.3 linear_1 and linear_2).
#include <cmath>
#include <string>

#include "concord/base/error.h"
#include "concord/nn/transformer.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/attention.h"
#include "concord/ops/matmul.h"
#include "concord/ops/shape_ops.h"

namespace concord::nn {
namespace {

// Table 1 of Dosovitskiy et al. 2021.
ModelOptions with_sizes(ModelOptions options) {
  const bool is_large = options.name == "vit_l_16";
  if (!is_large && options.name != "vit_b_16") return options;
  options.patch = 16;
  options.width = is_large ? 1024 : 768;
  options.layers = is_large ? 24 : 12;
  options.heads = is_large ? 16 : 12;
  options.mlp = 4 * options.width;
  return options;
}

std::int64_t patches_of(const Shape& images, std::int64_t patch) {
  if (patch < 1 || images[2] % patch != 0 || images[3] % patch != 0) {
    fail(
        "images of {} x {} pixels do not fall into patches of {} x {}: expected a multiple of {} "
        "on both sides, or, for vit, a model.patch that divides both",
        images[2], images[3], patch, patch, patch);
  }
  return images[2] / patch * (images[3] / patch);
}

// Weights of [outputs, inputs] that keep the variance of what passes either way (Glorot, Bengio
// 2010, equation 16).
Initializer glorot(std::int64_t inputs, std::int64_t outputs) {
  return {Initializer::Kind::kUniform, std::sqrt(6.0 / static_cast<double>(inputs + outputs))};
}

class Vit : Transformer {
 public:
  explicit Vit(const ModelCall& call)
      : Transformer(call, patches_of(call.builder.shape(call.x), call.options.patch) + 1) {}

  ValueId logits() {
    ValueId x = embedded_patches();
    {
      const auto encoder = builder_.scope("encoder");
      x = drop("dropout", rows(ops::add(builder_, x, positions())));
      for (std::int64_t i = 0; i < options_.layers; ++i) {
        const auto scope = builder_.scope("layers.encoder_layer_" + std::to_string(i));
        x = ops::add(builder_, x, attention(norm("ln_1", x)));
        x = ops::add(builder_, x, feed_forward(norm("ln_2", x)));
      }
      x = norm("ln", first_of_each(x));
    }
    const auto scope = builder_.scope("heads");
    return linear(builder_, "head", x, call_.outputs, /*weight=*/Initializer{});
  }

 private:
  ValueId parameter(std::string_view name, Shape shape, const Initializer& start,
                    bool decay = true) {
    return builder_.state(name, {DType::kF32, std::move(shape)}, State::Role::kParameter, start,
                          decay);
  }

  // The patches by a linear map, behind the vector of the class: [N, T, width]. It is a convolution
  // whose windows do not overlap, and so one matrix product of what each of them holds.
  ValueId embedded_patches() {
    const std::int64_t width = options_.width;
    const ValueId token = parameter("class_token", {1, 1, width}, {});
    const Shape images = builder_.shape(call_.x);
    const std::int64_t channels = images[1], patch = options_.patch;
    const std::int64_t down = images[2] / patch, across = images[3] / patch;
    const std::int64_t pixels = channels * patch * patch;

    ValueId x = ops::reshape(builder_, call_.x, {samples_, channels, down, patch, across, patch});
    x = ops::transpose(builder_, x, {0, 2, 4, 1, 3, 5});
    x = ops::reshape(builder_, x, {samples_ * down * across, pixels});
    const auto scope = builder_.scope("conv_proj");
    const double deviation = 1 / std::sqrt(static_cast<double>(pixels));
    const ValueId filters = parameter("weight", {width, channels, patch, patch},
                                      {Initializer::Kind::kNormal, deviation});
    const ValueId bias = parameter("bias", {width}, {}, /*decay=*/false);
    x = ops::matmul(builder_, x, ops::reshape(builder_, filters, {width, pixels}),
                    {.transpose_b = true}, bias);
    return ops::concat(builder_,
                       {ops::broadcast_to(builder_, token, {samples_, 1, width}),
                        ops::reshape(builder_, x, {samples_, down * across, width})},
                       1);
  }

  ValueId positions() { return parameter("pos_embedding", {1, length_, options_.width}, kNormal); }

  ValueId first_of_each(ValueId rows) {
    const ValueId x = ops::reshape(builder_, rows, {samples_, length_, options_.width});
    return ops::reshape(builder_, ops::slice(builder_, x, 1, 0, 1), {samples_, options_.width});
  }

  ValueId norm(std::string_view name, ValueId x) {
    return layer_norm(builder_, name, x, /*epsilon=*/1e-6);
  }

  // A linear layer whose weight starts as Glorot says.
  ValueId map(std::string_view name, ValueId x, std::int64_t width) {
    return linear(builder_, name, x, width, glorot(builder_.shape(x)[1], width));
  }

  ValueId attention(ValueId x) {
    const auto scope = builder_.scope("self_attention");
    const std::int64_t width = options_.width;
    const ValueId weight =
        parameter("in_proj_weight", {3 * width, width}, glorot(width, 3 * width));
    const ValueId bias = parameter("in_proj_bias", {3 * width}, {}, /*decay=*/false);
    const ValueId qkv = ops::matmul(builder_, x, weight, {.transpose_b = true}, bias);
    const ValueId o = ops::packed_attention(builder_, heads(qkv), options_.heads).o;
    return drop("dropout", map("out_proj", rows(o), width));
  }

  ValueId feed_forward(ValueId x) {
    const auto scope = builder_.scope("mlp");
    x = drop("2", ops::gelu(builder_, map("0", x, hidden_units())));
    return drop("4", map("3", x, options_.width));
  }
};

}  // namespace

ValueId build_vit(const ModelCall& call) {
  const ModelOptions options = with_sizes(call.options);
  return Vit({call.builder, options, call.context, call.x, call.outputs}).logits();
}

}  // namespace concord::nn
