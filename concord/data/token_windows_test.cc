#include "concord/data/token_windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/data/loader.h"
#include "concord/data/test_files.h"

namespace concord::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TokenStream stream_of(const std::vector<std::int32_t>& tokens) {
  TokenStream stream(70001);
  stream.append(tokens);
  return stream;
}

TEST(TokenWindows, LabelsAreTheNextTokens) {
  const auto windows = token_windows(stream_of({0, 1, 2, 3, 4, 5, 6, 7}), 3, 8, "text");
  EXPECT_EQ(windows->size(), 2);
  EXPECT_EQ(windows->classes(), 8);
  EXPECT_EQ(windows->labels_per_sample(), 3);
  std::vector<std::int32_t> tokens(3), labels(3);
  windows->read_tokens(1, tokens, labels);
  EXPECT_THAT(tokens, ElementsAre(3, 4, 5));
  EXPECT_THAT(labels, ElementsAre(4, 5, 6));
}

TEST(TokenWindows, ExactlyOneWindowNeedsOneTokenMore) {
  const auto windows = [](const std::vector<std::int32_t>& tokens) {
    return token_windows(stream_of(tokens), 3, 70001, "text");
  };
  EXPECT_EQ(windows({70000, 1, 2, 3})->size(), 1);
  EXPECT_THAT(error_of([&] {
                windows({1, 2, 3});
              }),
              HasSubstr("text has 3 tokens: expected at least 4"));
  EXPECT_THAT(error_of([&] { windows({}); }), HasSubstr("0 tokens"));
}

TEST(TokenWindows, TheLoaderBringsEveryWindowOnce) {
  std::vector<std::int32_t> row;
  for (std::int32_t i = 0; i < 101; ++i) row.push_back(i);
  const auto windows = token_windows(stream_of(row), 10, 101, "text");
  const Sampler sampler(windows->size(), 4, 1, true);
  Loader loader(*windows, sampler, Augmentation::none({}, windows->sample_shape()),
                {.threads = 2, .end_step = sampler.steps_per_epoch()});
  std::vector<int> seen(101, 0);
  while (loader.has_next()) {
    const Batch& batch = loader.next();
    EXPECT_TRUE(batch.features.empty());
    ASSERT_EQ(batch.tokens.size(), static_cast<std::size_t>(batch.count) * 10);
    ASSERT_EQ(batch.labels.size(), batch.tokens.size());
    for (std::size_t i = 0; i < batch.tokens.size(); ++i) {
      EXPECT_EQ(batch.labels[i], batch.tokens[i] + 1);
      ++seen[static_cast<std::size_t>(batch.tokens[i])];
    }
  }
  EXPECT_EQ(std::ranges::count(seen, 1), 100);
}

}  // namespace
}  // namespace concord::data
