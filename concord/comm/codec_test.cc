#include "concord/comm/codec.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "concord/base/error.h"

namespace concord::comm {
namespace {

constexpr const char* kAll[] = {"fp16",
                                "bf16",
                                "qsgd8",
                                "qsgd8:feedback=1",
                                "qsgd4",
                                "qsgd4:feedback=1",
                                "ternary",
                                "ternary:clip=0",
                                "sign",
                                "vote",
                                "topk:density=0.01",
                                "topk:density=0.2",
                                "topk:density=0.01,momentum=0.9",
                                "topk:density=0.01,warmup=10",
                                "randomk:density=0.1",
                                "threshold:value=0.5",
                                "threshold:value=0",
                                "adaptive:density=0.05"};

std::vector<float> normal_numbers(std::size_t count, std::uint32_t stream = 1) {
  std::vector<float> x(count);
  const RandomStream random{.seed = 9, .stream = stream};
  for (std::size_t i = 0; i < count; ++i) {
    x[i] = normal01(random.bits(2 * i), random.bits(2 * i + 1));
  }
  return x;
}

CodecPlace place_at(std::int64_t step) {
  return {.random = {.seed = 4, .stream = 2, .step = static_cast<std::uint32_t>(step)},
          .first = 100,
          .step = step};
}

// An encoder of so many numbers.
class Encoder {
 public:
  Encoder(const std::string& text, std::size_t count)
      : codec_(make_codec(parse_codec(text))), text_(text) {
    memory_.resize(static_cast<std::size_t>(codec_->memories()), std::vector<float>(count));
    for (std::vector<float>& one : memory_) places_.push_back(one.data());
    most_ = codec_->most_bytes(static_cast<std::int64_t>(count));
  }

  std::vector<std::byte> frame(const std::vector<float>& x, std::int64_t step = 0) {
    std::vector<std::byte> bytes(most_ + 64, std::byte{0x5a});
    const std::size_t size = codec_->encode(x, places_, place_at(step), bytes.data());
    EXPECT_LE(size, most_) << text_ << " of " << x.size();
    if (codec_->has_fixed_size()) {
      EXPECT_EQ(size, most_) << text_ << " of " << x.size();
    }
    EXPECT_EQ(std::count(bytes.begin() + static_cast<std::ptrdiff_t>(most_), bytes.end(),
                         std::byte{0x5a}),
              64)
        << text_ << " of " << x.size();
    bytes.resize(size);
    return bytes;
  }
  std::vector<float> sent(const std::vector<float>& x, std::int64_t step = 0) {
    std::vector<float> y(x.size(), 7);
    codec_->decode(frame(x, step), /*adds=*/false, y);
    return y;
  }

  const Codec& codec() const { return *codec_; }
  const std::vector<float>& residual() const { return memory_.at(0); }
  const std::vector<std::vector<float>>& memory() const { return memory_; }

 private:
  std::unique_ptr<Codec> codec_;
  std::string text_;
  std::vector<std::vector<float>> memory_;
  std::vector<float*> places_;
  std::size_t most_;
};

double squares(const std::vector<float>& x) {
  return std::inner_product(x.begin(), x.end(), x.begin(), 0.0);
}

TEST(Codec, EveryLengthIsSentAndAdded) {
  for (const char* text : kAll) {
    for (std::size_t count = 0; count <= 70; ++count) {
      const std::vector<float> x = normal_numbers(count);
      Encoder encoder(text, count), again(text, count);
      const std::vector<std::byte> frame = encoder.frame(x);
      std::vector<float> y(count, 7), sum(count, 7);
      encoder.codec().decode(frame, false, y);
      encoder.codec().decode(frame, true, sum);
      for (std::size_t i = 0; i < count; ++i)
        ASSERT_EQ(sum[i], 7 + y[i]) << text << " of " << count;
      EXPECT_EQ(again.frame(x), frame) << text;
    }
  }
}

TEST(Codec, FramesTakeTheBytesOfTheirFormula) {
  const auto bytes_of = [](const char* text) {
    return make_codec(parse_codec(text))->most_bytes(kCodecChunk);
  };
  constexpr std::size_t n = kCodecChunk;
  EXPECT_EQ(bytes_of("fp16"), 4 + 2 * n);
  EXPECT_EQ(bytes_of("qsgd8"), 4 + n + n / 256 * 4);
  EXPECT_EQ(bytes_of("qsgd4"), 4 + n / 2 + n / 256 * 4);
  EXPECT_EQ(bytes_of("ternary"), 8 + n / 4);
  EXPECT_EQ(bytes_of("sign"), 8 + n / 8);
  EXPECT_EQ(bytes_of("topk:density=0.001"), 4 + 34 * 2 + 33 * 4);
}

TEST(Codec, HalvesAreTheNearest) {
  const std::vector<float> x = normal_numbers(20000);
  const std::vector<float> f16 = Encoder("fp16", x.size()).sent(x);
  const std::vector<float> bf16 = Encoder("bf16", x.size()).sent(x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (std::abs(x[i]) >= 0x1p-14f) {
      ASSERT_LE(std::abs(f16[i] - x[i]), std::abs(x[i]) * 0x1p-11f) << x[i];
    }
    ASSERT_LE(std::abs(bf16[i] - x[i]), std::abs(x[i]) * 0x1p-8f) << x[i];
  }
  EXPECT_EQ(Encoder("fp16", 3).sent({1e6f, -9e29f, 65504}),
            (std::vector<float>{65504, -65504, 65504}));
  // Of two as near the even one.
  EXPECT_EQ(Encoder("bf16", 2).sent({1 + 0x1p-8f, 1 + 0x3p-8f}),
            (std::vector<float>{1, 1 + 0x1p-6f}));
}

TEST(Codec, LevelsAreNotFarAway) {
  const std::vector<float> x = normal_numbers(1000);
  for (const auto& [text, levels] : {std::pair("qsgd8", 127.0f), std::pair("qsgd4", 7.0f)}) {
    const std::vector<float> y = Encoder(text, x.size()).sent(x);
    for (std::size_t begin = 0; begin < x.size(); begin += 256) {
      const std::size_t end = std::min(x.size(), begin + 256);
      float largest = 0;
      for (std::size_t i = begin; i < end; ++i) largest = std::max(largest, std::abs(x[i]));
      for (std::size_t i = begin; i < end; ++i) {
        ASSERT_LE(std::abs(y[i] - x[i]), largest / levels * 1.0001f) << text << " " << i;
      }
    }
  }
}

// The mean of many encodings: its deviation is that of one by the square root of their number.
TEST(Codec, RandomRoundingHasNoBias) {
  const std::vector<float> x = normal_numbers(512);
  constexpr int kTimes = 4000;
  for (const auto& [text, most] : {std::pair("qsgd8", 0.5f / 127), std::pair("qsgd4", 0.5f / 7),
                                   std::pair("ternary:clip=0", 0.5f)}) {
    Encoder encoder(text, x.size());
    std::vector<double> means(x.size());
    for (int step = 0; step < kTimes; ++step) {
      const std::vector<float> y = encoder.sent(x, step);
      for (std::size_t i = 0; i < x.size(); ++i) means[i] += double{y[i]} / kTimes;
    }
    const double deviation = most * 4.0 / std::sqrt(kTimes);  // of numbers of at most 4
    double bias = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      ASSERT_NEAR(means[i], x[i], 5 * deviation) << text << " " << i;
      bias += (means[i] - x[i]) / static_cast<double>(x.size());
    }
    EXPECT_NEAR(bias, 0, 5 * deviation / std::sqrt(x.size())) << text;
  }
}

TEST(Codec, SignsHaveTheMeanMagnitude) {
  const std::vector<float> x = {1, -2, 3, -0.0f, 0, -6};
  Encoder encoder("sign", x.size());
  EXPECT_EQ(encoder.sent(x), (std::vector<float>{2, -2, 2, 2, 2, -2}));
  EXPECT_EQ(encoder.residual(), (std::vector<float>{-1, 0, 1, -2, -2, -4}));
  EXPECT_EQ(Encoder("vote", x.size()).sent(x), (std::vector<float>{1, -1, 1, 1, 1, -1}));
}

// EF-signSGD, lemma 8.
TEST(Codec, SignsLoseNoMoreThanTheirDensitySays) {
  const std::vector<float> x = normal_numbers(30000);
  double ones = 0;
  for (const float one : x) ones += std::abs(one);
  Encoder encoder("sign", x.size());
  encoder.sent(x);
  const double density = ones * ones / (static_cast<double>(x.size()) * squares(x));
  EXPECT_NEAR(squares(encoder.residual()), (1 - density) * squares(x), 1e-4 * squares(x));
}

// Beside a stable sort.
TEST(Codec, TopKSendsExactlyTheLargest) {
  for (const std::size_t count : {1, 63, 1000, 4097, 32768}) {
    for (const double density : {0.001, 0.01, 0.05, 0.3}) {
      for (const bool many_are_equal : {false, true}) {
        std::vector<float> x = normal_numbers(count);
        if (many_are_equal) {
          for (float& one : x) one = std::round(one);
        }
        const auto k = std::max<std::size_t>(
            1, static_cast<std::size_t>(std::ceil(density * static_cast<double>(count))));
        std::vector<std::size_t> order(count);
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::ranges::stable_sort(order, std::greater(),
                                 [&](std::size_t i) { return std::abs(x[i]); });
        std::vector<float> expected(count), left = x;
        for (std::size_t i = 0; i < k; ++i) {
          expected[order[i]] = x[order[i]];
          left[order[i]] = 0;
        }
        Encoder encoder(fmt::format("topk:density={}", density), count);
        ASSERT_EQ(encoder.sent(x), expected) << count << " " << density << many_are_equal;
        ASSERT_EQ(encoder.residual(), left) << count << " " << density << many_are_equal;
      }
    }
  }
}

// Deep Gradient Compression, equation 7 and section 3.2.
TEST(Codec, TopKSendsAVelocity) {
  Encoder encoder("topk:density=0.25,momentum=0.5", 4);
  EXPECT_EQ(encoder.sent({4, 3, 2, 1}), (std::vector<float>{4, 0, 0, 0}));
  EXPECT_EQ(encoder.memory()[0], (std::vector<float>{0, 3, 2, 1}));
  EXPECT_EQ(encoder.memory()[1], (std::vector<float>{0, 3, 2, 1}));
  // u = 0.5 u + g = {1, 2.5, 2, 1.5}; v = v + u = {1, 5.5, 4, 2.5}.
  EXPECT_EQ(encoder.sent({1, 1, 1, 1}), (std::vector<float>{0, 5.5, 0, 0}));
  EXPECT_EQ(encoder.memory()[0], (std::vector<float>{1, 0, 4, 2.5}));
  EXPECT_EQ(encoder.memory()[1], (std::vector<float>{1, 0, 2, 1.5}));
}

TEST(Codec, WarmupBeginsWithAQuarter) {
  Encoder encoder("topk:density=0.001,warmup=4", 32768);
  const std::vector<float> x = normal_numbers(32768);
  std::vector<double> shares;
  for (const std::int64_t step : {0, 1, 2, 3, 4, 100}) {
    shares.push_back(static_cast<double>(encoder.frame(x, step).size()) / 6 / 32768);
  }
  const double expected[] = {0.25, 0.0629, 0.0158, 0.00398, 0.001, 0.001};  // 0.25 * 0.004^(s / 4)
  for (std::size_t i = 0; i < shares.size(); ++i) {
    EXPECT_NEAR(shares[i], expected[i], 0.04 * expected[i]) << i;  // whole numbers, and a header
  }
}

TEST(Codec, RandomKTakesEachPlaceEquallyOften) {
  const std::vector<float> ones(50, 1);
  std::vector<int> counts(ones.size());
  for (int step = 0; step < 5000; ++step) {
    const std::vector<float> y = Encoder("randomk:density=0.1", ones.size()).sent(ones, step);
    EXPECT_EQ(std::ranges::count(y, 1.0f), 5);
    for (std::size_t i = 0; i < y.size(); ++i) counts[i] += y[i] == 1 ? 1 : 0;
  }
  // Binomial: 500 with a deviation of 21.
  for (const int count : counts) EXPECT_NEAR(count, 500, 5 * 21.3);
}

TEST(Codec, ThresholdsSendAllThatReachThem) {
  const std::vector<float> x = normal_numbers(10000);
  Encoder fixed("threshold:value=1.5", x.size());
  const std::vector<float> y = fixed.sent(x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(y[i], std::abs(x[i]) >= 1.5f ? x[i] : 0);
    ASSERT_LT(std::abs(fixed.residual()[i]), 1.5f);
  }
  // 1024 of 10000 in the sample: the share has a deviation of 0.0068.
  const std::vector<float> z = Encoder("adaptive:density=0.05", x.size()).sent(x);
  const auto sent =
      static_cast<double>(z.size()) - static_cast<double>(std::ranges::count(z, 0.0f));
  EXPECT_NEAR(sent / 10000, 0.05, 5 * 0.0068);
}

// What was sent of all steps and what is kept make up what there was.
TEST(Codec, ErrorFeedbackTelescopes) {
  for (const char* text : kAll) {
    constexpr std::size_t kCount = 5000;
    Encoder encoder(text, kCount);
    if (encoder.codec().memories() != 1) continue;
    std::vector<double> given(kCount), sent(kCount);
    for (int step = 0; step < 12; ++step) {
      const std::vector<float> x = normal_numbers(kCount, static_cast<std::uint32_t>(step));
      const std::vector<float> y = encoder.sent(x, step);
      for (std::size_t i = 0; i < kCount; ++i) {
        given[i] += x[i];
        sent[i] += y[i];
      }
    }
    for (std::size_t i = 0; i < kCount; ++i) {
      ASSERT_NEAR(sent[i] + encoder.residual()[i], given[i], 2e-5) << text << " " << i;
    }
  }
}

TEST(Codec, WhatIsNotFiniteIsSentAsThat) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const char* text : kAll) {
    for (const float bad : {infinity, -infinity, std::nanf(""), 1e30f, -3e38f}) {
      for (const std::size_t at : {0, 17, 36}) {
        Encoder encoder(text, 37);
        encoder.sent(normal_numbers(37));
        const auto kept = encoder.memory();
        std::vector<float> x = normal_numbers(37, 2);
        x[at] = bad;
        for (const float one : encoder.sent(x)) EXPECT_TRUE(std::isnan(one)) << text;
        EXPECT_EQ(encoder.memory(), kept) << text;
      }
    }
  }
}

TEST(Codec, ConstantsZerosAndDenormals) {
  const float tiny = std::numeric_limits<float>::denorm_min();
  for (const char* text : kAll) {
    for (const float value : {0.0f, -0.0f, 0.75f, tiny, -1e-40f, 9e29f}) {
      const std::vector<float> x(300, value);
      Encoder encoder(text, x.size());
      for (int step = 0; step < 3; ++step) {
        for (const float one : encoder.sent(x, step)) {
          ASSERT_TRUE(std::isfinite(one)) << text << " of " << value;
        }
      }
      for (const std::vector<float>& kept : encoder.memory()) {
        for (const float one : kept) ASSERT_TRUE(std::isfinite(one)) << text << " of " << value;
      }
    }
  }
  // Zeros are zeros to all but signs, which have none to say.
  for (const char* text : kAll) {
    if (std::string(text) == "vote") continue;
    const std::vector<float> x(300);
    for (const float one : Encoder(text, x.size()).sent(x)) ASSERT_EQ(one, 0) << text;
  }
}

TEST(Codec, FramesThatNoEncoderMakesAreRefused) {
  for (const char* text : kAll) {
    const std::vector<float> x = normal_numbers(100);
    Encoder encoder(text, x.size());
    const std::vector<std::byte> frame = encoder.frame(x);
    std::vector<float> y(x.size());
    // Cut short, and too long.
    for (std::size_t size = 0; size < frame.size(); ++size) {
      EXPECT_THROW(encoder.codec().decode(std::span(frame).first(size), false, y), Error)
          << text << " " << size;
    }
    std::vector<std::byte> longer = frame;
    longer.resize(frame.size() + 1);
    EXPECT_THROW(encoder.codec().decode(longer, false, y), Error) << text;
    // Flags that there are not.
    std::vector<std::byte> other = frame;
    other[3] = std::byte{0x11};
    EXPECT_THROW(encoder.codec().decode(other, false, y), Error) << text;
  }
  // Places out of order, out of the chunk.
  Encoder encoder("topk:density=0.02", 100);
  std::vector<std::byte> frame = encoder.frame(normal_numbers(100));
  std::vector<float> y(100);
  for (const auto& [first, second] : {std::pair(5, 5), std::pair(9, 3), std::pair(1, 100)}) {
    const std::uint16_t places[] = {static_cast<std::uint16_t>(first),
                                    static_cast<std::uint16_t>(second)};
    std::memcpy(frame.data() + 4, places, sizeof places);
    EXPECT_THROW(encoder.codec().decode(frame, false, y), Error) << first << " " << second;
  }
}

TEST(Codec, TextsAreReadAndWritten) {
  for (const char* text : {"sign", "topk:density=0.01,momentum=0.9", "qsgd4:feedback=1"}) {
    EXPECT_EQ(to_string(parse_codec(text)), text);
  }
  EXPECT_EQ(to_string(parse_codec("topk:density=0.001")), "topk");  // as usual
  const auto error_of = [](const char* text) {
    try {
      parse_codec(text);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("none");
  };
  using testing::HasSubstr;
  EXPECT_THAT(error_of("zip"), HasSubstr("expected one of none, powersgd, fp16, bf16"));
  EXPECT_THAT(error_of("topk:"), HasSubstr("behind the colon"));
  EXPECT_THAT(error_of("topk:size=3"), HasSubstr("expected density, momentum, warmup"));
  EXPECT_THAT(error_of("topk:density=2"), HasSubstr("expected a number from 1e-05 to 0.5"));
  EXPECT_THAT(error_of("topk:density=nan"), HasSubstr("expected a number"));
  EXPECT_THAT(error_of("topk:density=0.1x"), HasSubstr("expected a number"));
  EXPECT_THAT(error_of("topk:density"), HasSubstr("expected a number"));
  EXPECT_THAT(error_of("topk:density=0.1,density=0.2"), HasSubstr("twice"));
  EXPECT_THAT(error_of("sign:a=1"), HasSubstr("expected none"));
  EXPECT_THAT(error_of("qsgd8:feedback=0.5"), HasSubstr("expected a whole number from 0 to 1"));
}

}  // namespace
}  // namespace concord::comm
