// gpt: the decoder of Radford et al. 2019 (GPT-2): tokens and their positions as vectors, blocks of
// causal attention and a feed-forward network, each behind a norm and added to what it was given,
// and logits of the token that follows each. On request positions turn queries and keys instead (Su
// et al. 2021), and norms leave out the mean (Zhang and Sennrich 2019). State names are those of
// Hugging Face's GPT2Model, but linear layers are stored [out, in].
#include <cmath>
#include <string>

#include "concord/base/error.h"
#include "concord/nn/transformer.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/attention.h"
#include "concord/ops/gather.h"
#include "concord/ops/matmul.h"
#include "concord/ops/rotary_embedding.h"
#include "concord/ops/shape_ops.h"

namespace concord::nn {
namespace {

// Heads of keys and values, each shared by as many heads of queries (Ainslie et al. 2023).
std::int64_t key_value_heads(const ModelOptions& options) {
  return options.key_value_heads == 0 ? options.heads : options.key_value_heads;
}

class Gpt : Transformer {
 public:
  explicit Gpt(const ModelCall& call) : Transformer(call, call.builder.shape(call.x)[1]) {
    const std::int64_t groups = key_value_heads(options_);
    if (options_.heads % groups != 0) {
      fail(
          "model.key_value_heads = {} does not divide the model.heads = {}: set it to a number "
          "that does, or to 0 for as many",
          groups, options_.heads);
    }
    if (is_rotary() && options_.width / options_.heads % 2 != 0) {
      fail(
          "rotary positions turn pairs of numbers, but model.width / model.heads = {} is odd: set "
          "model.width to an even multiple of the heads, or model.positions to \"learned\"",
          options_.width / options_.heads);
    }
  }

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
    return ops::reshape(builder_, logits, {samples_, length_, call_.outputs});
  }

 private:
  // For each of the tokens given.
  ValueId vectors_of_positions() {
    if (!continues()) return vectors("wpe", length_);
    return ops::dynamic_slice(builder_, vectors("wpe", call_.context.positions),
                              call_.context.first_position, 0, length_);
  }

  // Radford et al. 2019, section 2.3: weights that end a branch start smaller, by the root of the
  // number of branches.
  ValueId end_branch(ValueId x) {
    const double branches = 2.0 * static_cast<double>(options_.layers);
    x = linear(builder_, "c_proj", x, options_.width,
               {kNormal.kind, kNormal.value / std::sqrt(branches)});
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
    const std::int64_t groups = key_value_heads(options_);
    const std::int64_t head = options_.width / options_.heads;
    ValueId qkv = heads(project("c_attn", x, (options_.heads + 2 * groups) * head));
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
        ops::gelu(builder_, project("c_fc", x, hidden_units()), ops::GeluForm::kTanh));
  }
};

}  // namespace

ValueId build_gpt(const ModelCall& call) { return Gpt(call).logits(); }

}  // namespace concord::nn
