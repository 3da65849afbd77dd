// gpt: the decoder of Radford et al. 2019 (GPT-2): tokens and their positions as vectors, blocks of
// causal attention and a feed-forward network, each behind a norm and added to what it was given,
// and logits of the token that follows each. On request positions turn queries and keys instead (Su
// et al. 2021), and norms leave out the mean (Zhang and Sennrich 2019). State names are those of
// Hugging Face's GPT2Model, but linear layers are stored [out, in].
#include <cmath>
#include <string>

#include "concord/base/error.h"
#include "concord/nn/zoo.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/attention.h"
#include "concord/ops/gather.h"
#include "concord/ops/matmul.h"
#include "concord/ops/rotary_embedding.h"
#include "concord/ops/shape_ops.h"

namespace concord::nn {
namespace {

// Radford et al. 2019, section 2.3: weights are normal with this deviation, and those that end a
// block's branch are divided by the root of the number of branches.
constexpr double kDeviation = 0.02;

Initializer normal(double deviation) { return {Initializer::Kind::kNormal, deviation}; }

struct Sizes {
  std::int64_t samples, length, width;
};

// Heads of keys and values, each shared by as many heads of queries (Ainslie et al. 2023).
std::int64_t key_value_heads(const ModelOptions& options) {
  return options.key_value_heads == 0 ? options.heads : options.key_value_heads;
}

class Gpt {
 public:
  Gpt(const ModelCall& call, const Sizes& sizes)
      : builder_(call.builder), call_(call), options_(call.options), sizes_(sizes) {}

  ValueId logits() {
    const ValueId table = vectors("wte", call_.outputs);
    ValueId x = ops::embedding(builder_, table, call_.x);
    if (!is_rotary()) x = ops::add(builder_, x, vectors_of_positions());
    x = drop("drop", rows(x));
    for (std::int64_t i = 0; i < options_.layers; ++i) {
      const auto scope = builder_.scope("h." + std::to_string(i));
      x = ops::add(builder_, x, attention(norm("ln_1", x)));
      x = ops::add(builder_, x, feed_forward(norm("ln_2", x)));
    }
    x = norm("ln_f", x);
    // Tied, the embeddings serve as the classifier too (Press and Wolf 2017).
    const ValueId classifier = options_.tied_embeddings ? table : vectors("lm_head", call_.outputs);
    const ValueId logits = ops::matmul(builder_, x, classifier, {.transpose_b = true});
    return ops::reshape(builder_, logits, {sizes_.samples, sizes_.length, call_.outputs});
  }

 private:
  // Vectors for tokens or positions, [entries, width].
  ValueId vectors(std::string_view name, std::int64_t entries) {
    const auto scope = builder_.scope(name);
    return builder_.state("weight", {DType::kF32, {entries, sizes_.width}}, State::Role::kParameter,
                          normal(kDeviation));
  }

  // For each of the tokens given.
  ValueId vectors_of_positions() {
    if (!continues()) return vectors("wpe", sizes_.length);
    return ops::dynamic_slice(builder_, vectors("wpe", call_.context.positions),
                              call_.context.first_position, 0, sizes_.length);
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
    const double branches = 2.0 * static_cast<double>(options_.layers);
    x = linear(builder_, "c_proj", x, sizes_.width, normal(kDeviation / std::sqrt(branches)));
    return drop("dropout", x);
  }

  ValueId norm(std::string_view name, ValueId x) {
    return options_.norm == "rms_norm" ? rms_norm(builder_, name, x)
                                       : layer_norm(builder_, name, x);
  }

  bool is_rotary() const { return options_.positions == "rotary"; }
  // Whether the tokens given continue texts that were read before.
  bool continues() const { return call_.context.first_position != kNoValue; }

  ValueId attention(ValueId x) {
    const auto scope = builder_.scope("attn");
    const std::int64_t head = sizes_.width / options_.heads;
    const std::int64_t groups = key_value_heads(options_);
    const std::int64_t heads = options_.heads + 2 * groups;
    ValueId qkv = ops::reshape(builder_, project("c_attn", x, heads * head),
                               {sizes_.samples, sizes_.length, heads, head});
    if (is_rotary()) {
      qkv = ops::rotary_embedding(
          builder_, qkv,
          {.heads = options_.heads + groups, .position = call_.context.first_position});
    }
    const ValueId o = continues()
                          ? cached_attention(qkv, groups)
                          : ops::packed_attention(builder_, qkv, groups, {.causal = true}).o;
    return end_branch(rows(o));
  }

  // The keys and values of all positions so far are a state; those of the tokens given join them.
  ValueId cached_attention(ValueId qkv, std::int64_t groups) {
    const ValueId position = call_.context.first_position;
    const std::vector<ValueId> parts = ops::split(builder_, qkv, 2, {options_.heads, 2 * groups});
    const Shape shape = builder_.shape(parts[1]).with(1, call_.context.positions);
    const ValueId cache =
        builder_.state("cache", {DType::kF32, shape}, State::Role::kCache, {}, /*decay=*/false);
    const ValueId filled = ops::dynamic_update_slice(builder_, cache, parts[1], position, 1);
    builder_.set_next(cache, filled);
    return ops::cached_attention(builder_, parts[0], filled, position);
  }

  ValueId feed_forward(ValueId x) {
    const auto scope = builder_.scope("mlp");
    return end_branch(
        ops::gelu(builder_, project("c_fc", x, 4 * sizes_.width), ops::GeluForm::kTanh));
  }

  GraphBuilder& builder_;
  const ModelCall& call_;
  const ModelOptions& options_;
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
  const std::int64_t groups = key_value_heads(options);
  if (options.heads % groups != 0) {
    fail("model.key_value_heads = {} does not divide the model.heads = {}", groups, options.heads);
  }
  if (options.positions == "rotary" && options.width / options.heads % 2 != 0) {
    fail("rotary positions turn pairs of numbers, but model.width / model.heads = {} is odd",
         options.width / options.heads);
  }
  return Gpt(call, {shape[0], shape[1], options.width}).logits();
}

}  // namespace concord::nn
