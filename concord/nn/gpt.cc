// gpt: the decoder of Radford et al. 2019 (GPT-2): tokens and their positions as vectors, blocks of
// causal attention and a feed-forward network, each behind a norm and added to what it was given,
// and logits of the token that follows each. State names are those of Hugging Face's GPT2Model, but
// linear layers are stored [out, in].
#include <cmath>
#include <string>

#include "concord/base/error.h"
#include "concord/nn/zoo.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/attention.h"
#include "concord/ops/gather.h"
#include "concord/ops/matmul.h"
#include "concord/ops/shape_ops.h"

namespace concord::nn {
namespace {

// Radford et al. 2019, section 2.3: weights are normal with this deviation, and those that end a
// block's branch are divided by the root of the number of branches.
constexpr double kDeviation = 0.02;

Initializer normal(double deviation) { return {Initializer::Kind::kNormal, deviation}; }

struct Sizes {
  std::int64_t samples, length, width, heads, layers;
};

class Gpt {
 public:
  Gpt(const ModelCall& call, const Sizes& sizes)
      : builder_(call.builder), call_(call), sizes_(sizes) {}

  ValueId logits() {
    const ValueId table = vectors("wte", call_.outputs);
    ValueId x = ops::embedding(builder_, table, call_.x);
    x = ops::add(builder_, x, vectors("wpe", sizes_.length));
    x = drop("drop", rows(x));
    for (std::int64_t i = 0; i < sizes_.layers; ++i) {
      const auto scope = builder_.scope("h." + std::to_string(i));
      x = ops::add(builder_, x, attention(layer_norm(builder_, "ln_1", x)));
      x = ops::add(builder_, x, feed_forward(layer_norm(builder_, "ln_2", x)));
    }
    x = layer_norm(builder_, "ln_f", x);
    // The embeddings serve as the classifier too (Press and Wolf 2017).
    const ValueId logits = ops::matmul(builder_, x, table, {.transpose_b = true});
    return ops::reshape(builder_, logits, {sizes_.samples, sizes_.length, call_.outputs});
  }

 private:
  // Vectors for tokens or positions, [entries, width].
  ValueId vectors(std::string_view name, std::int64_t entries) {
    const auto scope = builder_.scope(name);
    return builder_.state("weight", {DType::kF32, {entries, sizes_.width}}, State::Role::kParameter,
                          normal(kDeviation));
  }

  ValueId rows(ValueId x) {
    return ops::reshape(builder_, x, {sizes_.samples * sizes_.length, sizes_.width});
  }

  ValueId drop(std::string_view name, ValueId x) {
    return dropout(builder_, name, x, call_.options.dropout, call_.context);
  }

  ValueId project(std::string_view name, ValueId x, std::int64_t width) {
    return linear(builder_, name, x, width, normal(kDeviation));
  }
  ValueId end_branch(ValueId x) {
    const double branches = 2.0 * static_cast<double>(sizes_.layers);
    x = linear(builder_, "c_proj", x, sizes_.width, normal(kDeviation / std::sqrt(branches)));
    return drop("dropout", x);
  }

  ValueId attention(ValueId x) {
    const auto scope = builder_.scope("attn");
    const std::int64_t head = sizes_.width / sizes_.heads;
    const ValueId qkv = ops::reshape(builder_, project("c_attn", x, 3 * sizes_.width),
                                     {sizes_.samples, sizes_.length, 3 * sizes_.heads, head});
    return end_branch(rows(ops::packed_attention(builder_, qkv, sizes_.heads, {.causal = true}).o));
  }

  ValueId feed_forward(ValueId x) {
    const auto scope = builder_.scope("mlp");
    return end_branch(
        ops::gelu(builder_, project("c_fc", x, 4 * sizes_.width), ops::GeluForm::kTanh));
  }

  GraphBuilder& builder_;
  const ModelCall& call_;
  Sizes sizes_;
};

}  // namespace

ValueId build_gpt(const ModelCall& call) {
  const Shape shape = call.builder.shape(call.x);
  const ModelOptions& options = call.options;
  if (options.heads < 1 || options.width % options.heads != 0) {
    fail("model.width = {} does not fall into model.heads = {} heads of equal size", options.width,
         options.heads);
  }
  return Gpt(call, {shape[0], shape[1], options.width, options.heads, options.layers}).logits();
}

}  // namespace concord::nn
