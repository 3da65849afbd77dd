// The decoder against the model's prediction of whole texts.
#include "concord/train/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "concord/base/philox.h"
#include "concord/train/engine.h"

namespace concord::train {
namespace {

constexpr std::int64_t kPositions = 100, kVocabulary = 37;

nn::StepOptions gpt(nn::ModelOptions model) {
  model.name = "gpt";
  model.width = 24;
  model.layers = 2;
  model.heads = 4;
  return {.model = model, .tokens = true, .sample = {kPositions}, .outputs = kVocabulary};
}

// Parameters large enough for attention to prefer some positions.
void fill(StateStore& states) {
  std::uint32_t stream = 0;
  for (const StateStore::Entry& entry : states.entries()) {
    if (entry.role != State::Role::kParameter) continue;
    OwnedTensor tensor(entry.type);
    const RandomStream random{.seed = 3, .stream = stream++};
    for (std::size_t i = 0; i < tensor.as<float>().size(); ++i) {
      tensor.as<float>()[i] = 0.3f * normal01(random.bits(2 * i), random.bits(2 * i + 1));
    }
    states.write(entry, tensor.view().data);
  }
}

class DecoderTest : public testing::TestWithParam<nn::ModelOptions> {
 protected:
  DecoderTest()
      : decoder_(gpt(GetParam()), {.measure = false}),
        engine_(model_graphs(gpt(GetParam())),
                {.use = EngineUse::kPrediction, .batch = 1, .leaves = 1}) {
    fill(decoder_.states());
    fill(engine_.states());
    for (std::int32_t i = 0; i < kPositions; ++i) text_.push_back((i * i + 3 * i) % kVocabulary);
  }

  // The logits after each of the first tokens of the text.
  std::vector<float> whole() {
    std::vector<float> logits(kPositions * kVocabulary);
    engine_.predict({.count = 1, .tokens = text_}, logits);
    return logits;
  }

  void expect_logits_after(std::int64_t count, std::span<const float> given,
                           const std::vector<float>& whole) {
    ASSERT_EQ(given.size(), kVocabulary);
    for (std::size_t i = 0; i < given.size(); ++i) {
      const auto at = static_cast<std::size_t>((count - 1) * kVocabulary) + i;
      EXPECT_NEAR(given[i], whole[at], 1e-4) << "after " << count << ", token " << i;
    }
  }

  // The decoder reads the text in parts that end at these places.
  void read(std::initializer_list<std::int64_t> ends) {
    decoder_.begin_text();
    const std::vector<float> expected = whole();
    std::int64_t begin = 0;
    for (const std::int64_t end : ends) {
      const auto part = std::span(text_).subspan(begin, end - begin);
      expect_logits_after(end, decoder_.read(part), expected);
      begin = end;
    }
  }

  Decoder decoder_;
  Engine engine_;
  std::vector<std::int32_t> text_;
};

TEST_P(DecoderTest, HasTheLogitsOfTheWholeText) {
  read({1, 2, 3, 4});
  read({40, 41, 42, 45});
  read({97, 100});  // blocks are of 32 tokens: the last ends with the positions
  read({99, 100});
  read({7, 100});
}

TEST_P(DecoderTest, GreedyTokensAreTheLikeliestOfTheWholeText) {
  std::vector<std::int32_t> own(text_.begin(), text_.begin() + 5);
  std::span<const float> logits = decoder_.read(own);
  while (own.size() < kPositions) {
    const auto likeliest = std::ranges::max_element(logits) - logits.begin();
    own.push_back(static_cast<std::int32_t>(likeliest));
    logits = decoder_.read(std::span(own).last(1));
  }
  text_ = own;
  const std::vector<float> expected = whole();
  for (std::size_t t = 4; t + 1 < own.size(); ++t) {
    const auto row = expected.begin() + static_cast<std::ptrdiff_t>(t * kVocabulary);
    EXPECT_EQ(std::max_element(row, row + kVocabulary) - row, own[t + 1]) << "after " << t;
  }
}

INSTANTIATE_TEST_SUITE_P(Gpt, DecoderTest,
                         testing::Values(nn::ModelOptions{},
                                         nn::ModelOptions{.key_value_heads = 2,
                                                          .positions = "rotary",
                                                          .norm = "rms_norm",
                                                          .tied_embeddings = false}),
                         [](const auto& test) { return test.param.positions; });

TEST(Decoder, ReadsTextsOfFewerPositionsThanABlock) {
  nn::StepOptions options = gpt({});
  options.sample = {3};
  Decoder decoder(options, {.measure = false});
  fill(decoder.states());
  const std::vector<std::int32_t> text = {5, 6, 7};
  const std::span<const float> at_once = decoder.read(text);
  const std::vector<float> expected(at_once.begin(), at_once.end());
  decoder.begin_text();
  std::span<const float> logits;
  for (const std::int32_t token : text) logits = decoder.read({&token, 1});
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(logits[i], expected[i], 1e-5);
}

}  // namespace
}  // namespace concord::train
