// bert: the masked language model of Devlin et al. 2019. Tokens, their positions and their segment
// as vectors, blocks of attention and a feed-forward network, each added to what it was given with
// a norm behind the sum, and logits of the token that belongs in a place. State names and shapes
// are those of Hugging Face's BertForMaskedLM; every token is of the first of its two segments.
#include <string>

#include "concord/base/error.h"
#include "concord/nn/transformer.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/attention.h"
#include "concord/ops/gather.h"
#include "concord/ops/matmul.h"
#include "concord/ops/shape_ops.h"

namespace concord::nn {
namespace {

constexpr std::int64_t kSegments = 2;

// Devlin et al. 2019, section 3.
ModelOptions with_sizes(ModelOptions options, std::int64_t length) {
  if (options.name == "bert_base") {
    options.width = 768;
    options.layers = 12;
    options.heads = 12;
    options.mlp = 4 * options.width;
    options.max_length = 512;
  }
  if (options.max_length == 0) options.max_length = length;
  return options;
}

class Bert : Transformer {
 public:
  explicit Bert(const ModelCall& call) : Transformer(call, call.builder.shape(call.x)[1]) {
    if (length_ > options_.max_length) {
      fail(
          "samples of {} tokens; the model has positions for {}: set data.length to at most so "
          "many, or, for bert, a larger model.max_length",
          length_, options_.max_length);
    }
  }

  ValueId logits() {
    ValueId x = kNoValue;
    {
      const auto bert = builder_.scope("bert");
      x = embeddings();
      const auto encoder = builder_.scope("encoder");
      for (std::int64_t i = 0; i < options_.layers; ++i) {
        const auto layer = builder_.scope("layer." + std::to_string(i));
        x = feed_forward(attention(x));
      }
    }
    const bool some = call_.context.rows != kNoValue;
    if (some) x = ops::gather(builder_, x, call_.context.rows, 0);
    x = predictions(x);
    return some ? x : ops::reshape(builder_, x, {samples_, length_, call_.outputs});
  }

 private:
  ValueId norm(ValueId x) { return layer_norm(builder_, "LayerNorm", x, /*epsilon=*/1e-12); }

  ValueId embeddings() {
    const auto scope = builder_.scope("embeddings");
    words_ = vectors("word_embeddings", call_.outputs);
    const ValueId positions = vectors("position_embeddings", options_.max_length);
    const ValueId segments = vectors("token_type_embeddings", kSegments);
    const ValueId place = ops::add(builder_, ops::slice(builder_, positions, 0, 0, length_),
                                   ops::slice(builder_, segments, 0, 0, 1));
    const ValueId x = ops::add(builder_, ops::embedding(builder_, words_, call_.x), place);
    return drop("dropout", norm(rows(x)));
  }

  // The end of a block's branch: its last layer, added to what the branch was given.
  ValueId output(ValueId branch, ValueId x) {
    const auto scope = builder_.scope("output");
    return norm(ops::add(builder_, drop("dropout", project("dense", branch, options_.width)), x));
  }

  ValueId attention(ValueId x) {
    const auto scope = builder_.scope("attention");
    return output(self_attention(x), x);
  }

  ValueId self_attention(ValueId x) {
    const auto scope = builder_.scope("self");
    const auto projected = [&](std::string_view name) {
      return heads(project(name, x, options_.width));
    };
    const ValueId q = projected("query"), k = projected("key"), v = projected("value");
    return rows(ops::attention(builder_, q, k, v).o);
  }

  ValueId feed_forward(ValueId x) {
    return output(ops::gelu(builder_, project("intermediate.dense", x, hidden_units())), x);
  }

  // Devlin et al. 2019, section 3.1, as their program has it: one more layer, and the embeddings as
  // the classifier.
  ValueId predictions(ValueId x) {
    const auto scope = builder_.scope("cls.predictions");
    const ValueId bias = builder_.state("bias", {DType::kF32, {call_.outputs}},
                                        State::Role::kParameter, Initializer{}, /*decay=*/false);
    {
      const auto transform = builder_.scope("transform");
      x = norm(ops::gelu(builder_, project("dense", x, options_.width)));
    }
    return ops::matmul(builder_, x, words_, {.transpose_b = true}, bias);
  }

  ValueId words_ = kNoValue;  // the vectors of tokens, which classify too
};

}  // namespace

ValueId build_bert(const ModelCall& call) {
  const ModelOptions options = with_sizes(call.options, call.builder.shape(call.x)[1]);
  return Bert({call.builder, options, call.context, call.x, call.outputs}).logits();
}

}  // namespace concord::nn
