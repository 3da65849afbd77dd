#include "concord/train/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/base/error.h"

namespace concord::train {
namespace {

using testing::HasSubstr;

Manifest sample() {
  Manifest manifest;
  manifest.info = {
      .step = 7, .epoch = 2, .score = 0.1, .metrics = {{"loss", 1e-7}}, .state = {1, 2}};
  manifest.weights = {100, formats::checksum("weights")};
  manifest.optimizer = {200, formats::checksum("optimizer")};
  return manifest;
}

std::string error_of(std::string_view text) {
  try {
    parse_manifest(text, "m.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Manifest, RoundTrips) {
  const Manifest read = parse_manifest(to_text(sample()), "m.json");
  EXPECT_EQ(read.info.step, 7);
  EXPECT_EQ(read.info.epoch, 2);
  EXPECT_EQ(read.info.score, 0.1);
  EXPECT_EQ(read.info.metrics, sample().info.metrics);
  EXPECT_EQ(read.info.state, sample().info.state);
  EXPECT_EQ(read.weights, sample().weights);
  EXPECT_EQ(read.optimizer, sample().optimizer);
}

TEST(Manifest, WhatCouldNotBeReadBackIsNotWritten) {
  Manifest deep = sample();
  for (int i = 0; i < 100; ++i) deep.info.state = {{"inner", deep.info.state}};
  EXPECT_THROW(to_text(deep), Error);
  Manifest negative = sample();
  negative.info.step = -1;
  EXPECT_THROW(to_text(negative), Error);
  Manifest not_utf8 = sample();
  not_utf8.info.metrics = "\xff";
  EXPECT_THROW(to_text(not_utf8), Error);
}

TEST(Manifest, EveryFlippedBitAndEveryTruncationIsDetected) {
  const std::string text = to_text(sample());
  for (std::size_t i = 0; i < text.size(); ++i) {
    EXPECT_THROW(parse_manifest(text.substr(0, i), "m.json"), Error);
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = text;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      EXPECT_THROW(parse_manifest(flipped, "m.json"), Error) << "byte " << i << ", bit " << bit;
    }
  }
}

TEST(Manifest, SealedNonsenseIsAnErrorThatSaysWhatIsWrong) {
  EXPECT_THAT(error_of(seal("{\"a\": 1")), HasSubstr("m.json: 'format' is missing"));
  EXPECT_THAT(error_of(seal("[")), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of(seal("{\"a\": 1, \"a\": 2")), HasSubstr("appears twice"));
  const std::string text = to_text(sample());
  const std::string open = text.substr(0, text.size() - seal("").size());
  const auto with = [&](std::string_view from, std::string_view to) {
    std::string changed = open;
    changed.replace(changed.find(from), from.size(), to);
    return error_of(seal(changed));
  };
  EXPECT_EQ(error_of(seal(open)), "no error");
  EXPECT_THAT(with("concord-checkpoint", "other"), HasSubstr("expected \"concord-checkpoint\""));
  EXPECT_THAT(with("\"version\": 1", "\"version\": 2"), HasSubstr("version 2"));
  EXPECT_THAT(with("\"step\": 7", "\"step\": -7"), HasSubstr("'step' is -7"));
  EXPECT_THAT(with("\"step\": 7", "\"step\": 1e30"), HasSubstr("'step' is 1e+30"));
  EXPECT_THAT(with("0.1", "true"), HasSubstr("'score' is true"));
  EXPECT_THAT(with("\"bytes\": 100", "\"bytes\": []"), HasSubstr("'bytes' is []"));
  EXPECT_THAT(with("optimizer.safetensors", "elsewhere"),
              HasSubstr("'optimizer.safetensors' is missing"));
}

}  // namespace
}  // namespace concord::train
