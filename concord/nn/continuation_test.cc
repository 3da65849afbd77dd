// Texts continued token by token have the logits of the whole text at once, in double precision.
#include <gtest/gtest.h>

#include "concord/base/error.h"
#include "concord/base/philox.h"
#include "concord/graph/verifier.h"
#include "concord/kernels/ref/reference.h"
#include "concord/nn/initialize.h"
#include "concord/nn/step.h"

namespace concord::nn {
namespace {

using ref::Array;
using ref::Bindings;

constexpr std::int64_t kTexts = 2, kPositions = 7, kVocabulary = 11;

StepOptions gpt(ModelOptions model) {
  model.name = "gpt";
  model.width = 16;
  model.layers = 2;
  model.heads = 4;
  return {.model = model,
          .tokens = true,
          .sample = {kPositions},
          .outputs = kVocabulary,
          .microbatch = kTexts};
}

// Draws large enough for attention to prefer some positions; caches start with zeros.
Bindings random_states(const Graph& graph) {
  Bindings bindings;
  for (const State& state : graph.states) {
    const Value& value = graph.value(state.value);
    Array& array = bindings[value.name] = Array(value.type.shape);
    if (state.role == State::Role::kCache) continue;
    const RandomStream random{.seed = 3, .stream = random_stream(value.name)};
    for (std::size_t i = 0; i < array.data.size(); ++i) {
      array.data[i] = 0.4 * normal01(random.bits(2 * i), random.bits(2 * i + 1));
    }
  }
  return bindings;
}

Array tokens(std::int64_t first, std::int64_t count) {
  Array array({kTexts, count});
  for (std::int64_t i = 0; i < kTexts * count; ++i) {
    const std::int64_t position = first + i % count;
    array[i] = static_cast<double>((i / count * 5 + position * position + 3) % kVocabulary);
  }
  return array;
}

class Continuation : public testing::TestWithParam<ModelOptions> {
 protected:
  Continuation() {
    const Graph graph = build_prediction(options_);
    Bindings bindings = random_states(graph);
    bindings["tokens"] = tokens(0, kPositions);
    whole_ = ref::evaluate_step(graph, bindings, {{bindings}}).outputs.at("logits");
    states_ = random_states(build_continuation(options_, 1));
  }

  // Reads `count` tokens from position `first` on, and compares the logits of each.
  void read(std::int64_t first, std::int64_t count) {
    const Graph graph = build_continuation(options_, count);
    verify(graph);
    states_["tokens"] = tokens(first, count);
    states_["first_position"] = Array({}, {static_cast<double>(first)});
    ref::StepResult step = ref::evaluate_step(graph, states_, {{{}}});
    states_ = std::move(step.next_states);
    const Array& logits = step.outputs.at("logits");
    ASSERT_EQ(logits.shape, (Shape{kTexts, count, kVocabulary}));
    for (std::int64_t i = 0; i < logits.shape.elements(); ++i) {
      const std::int64_t text = i / (count * kVocabulary), rest = i % (count * kVocabulary);
      EXPECT_NEAR(logits[i], whole_[(text * kPositions + first) * kVocabulary + rest], 1e-12)
          << "text " << text << ", token " << rest / kVocabulary << " after " << first;
    }
  }

  StepOptions options_ = gpt(GetParam());
  Array whole_;
  Bindings states_;
};

TEST_P(Continuation, TokenByToken) {
  for (std::int64_t t = 0; t < kPositions; ++t) read(t, 1);
}

TEST_P(Continuation, ByBlocksThatMayBeReadAgain) {
  read(0, 4);
  read(4, 1);
  read(3, 3);  // two of them anew
  read(6, 1);
}

INSTANTIATE_TEST_SUITE_P(
    Gpt, Continuation,
    testing::Values(ModelOptions{}, ModelOptions{.positions = "rotary", .norm = "rms_norm"},
                    ModelOptions{.key_value_heads = 2, .tied_embeddings = false},
                    ModelOptions{
                        .key_value_heads = 1, .positions = "rotary", .tied_embeddings = false}),
    [](const auto& test) {
      const ModelOptions& o = test.param;
      return o.positions + (o.tied_embeddings ? "Tied" : "Untied") +
             std::to_string(o.key_value_heads);
    });

TEST(ContinuationGraph, KeepsOnlyTheHeadsOfKeysAndValues) {
  const Graph graph = build_continuation(gpt({.key_value_heads = 2}), 1);
  EXPECT_EQ(graph.type(graph.find_state("h.1.attn.cache")).shape,
            (Shape{kTexts, kPositions, 4, 4}));
}

TEST(ContinuationGraph, RefusesModelsWithoutCachesAndTooManyTokens) {
  const auto error = [](const StepOptions& options, std::int64_t count) -> std::string {
    try {
      build_continuation(options, count);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error(gpt({}), 8), "8 tokens of 7 positions");
  StepOptions own = gpt({});
  own.model.name = "of one's own";
  own.network = [](GraphBuilder& b, const StepContext&, ValueId x) {
    const Shape shape = b.shape(x);
    return b.state("logits", {DType::kF32, {shape[0], shape[1], kVocabulary}},
                   State::Role::kParameter, {});
  };
  EXPECT_NE(error(own, 1).find("\"of one's own\" cannot continue a text"), std::string::npos);
}

}  // namespace
}  // namespace concord::nn
