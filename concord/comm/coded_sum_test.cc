#include "concord/comm/coded_sum.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "concord/base/error.h"
#include "concord/comm/test_communicators.h"
#include "concord/comm/test_ranks.h"

namespace concord::comm {
namespace {

constexpr std::int64_t kLeaves = 8, kEncoders = 4, kSteps = 3;
constexpr int kHeight = 1;  // of an encoder's two leaves
// One tensor of several chunks, one that ends in the middle of one, and a small one.
constexpr std::int64_t kCounts[] = {3 * kCodecChunk, kCodecChunk + 77, 70};

std::int64_t all_numbers() { return kCounts[0] + kCounts[1] + kCounts[2]; }

struct Outcome {
  std::vector<float> sums;       // of all steps, one after another
  std::vector<float> residuals;  // at the end, of all encoders; the memory of the sum is not there
};

// What a leaf of a step contributes.
float number(std::int64_t step, std::int64_t leaf, std::int64_t i) {
  return 0.01f * (uniform01(RandomStream{.stream = static_cast<std::uint32_t>(leaf),
                                         .step = static_cast<std::uint32_t>(step)}
                                .bits(static_cast<std::uint64_t>(i))) -
                  0.4f);
}

// `leaves`: of each step, of which the last encoders may have none.
Outcome sum_over(const std::string& transport, int size, const std::string& codec, bool by_shares,
                 std::int64_t leaves = kLeaves) {
  const std::shared_ptr<const Codec> made = make_codec(parse_codec(codec));
  std::vector<Outcome> outcomes(static_cast<std::size_t>(size));
  const auto body = [&](Communicator& ranks) {
    std::vector<CodedSum::Tensor> tensors;
    std::size_t offset = 0;
    for (const std::int64_t count : kCounts) {
      tensors.push_back({.offset = offset, .count = count, .codec = made, .stream = 7});
      offset += static_cast<std::size_t>(count) * sizeof(float);
    }
    CodedSum sum(tensors,
                 {.rank = ranks.rank(),
                  .ranks = ranks.size(),
                  .count = kEncoders,
                  .height = kHeight,
                  .seed = 3},
                 by_shares);
    const std::int64_t own = kEncoders / ranks.size(), first = ranks.rank() * own;
    std::vector<std::vector<float>> memory;
    for (std::size_t t = 0; t < std::size(kCounts); ++t) {
      for (int m = 0; m < made->memories(); ++m) {
        for (std::vector<float*>* lies : {&sum.memories()[t].own, &sum.memories()[t].of_sum}) {
          memory.emplace_back(static_cast<std::size_t>(own * kCounts[t] + kCodecChunk));
          lies->push_back(memory.back().data());
        }
      }
    }
    std::byte* const data = ranks.share(static_cast<std::size_t>(own + 1) * offset);
    Outcome& outcome = outcomes[static_cast<std::size_t>(ranks.rank())];
    for (std::int64_t step = 0; step < kSteps; ++step) {
      std::vector<Part> parts;
      for (std::int64_t e = first; e < first + own; ++e) {
        // A whole node, or the leaf that there is of it.
        const std::int64_t begin = 2 * e, end = std::min(leaves, begin + 2);
        if (begin >= end) continue;
        std::byte* const place = data + static_cast<std::size_t>(e - first) * offset;
        parts.push_back({end - begin == 2 ? Subtree{1, e} : Subtree{0, begin}, place});
        auto* values = reinterpret_cast<float*>(place);
        for (std::int64_t i = 0; i < all_numbers(); ++i) {
          values[i] = number(step, begin, i) + (end - begin == 2 ? number(step, begin + 1, i) : 0);
        }
      }
      std::byte* const out = parts.empty() ? data : parts[0].data;
      sum.begin(parts, step, out);
      ranks.wait(ranks.start(in_rounds(sum, "gradients")));
      const auto* sums = reinterpret_cast<const float*>(out);
      outcome.sums.insert(outcome.sums.end(), sums, sums + all_numbers());
    }
    for (std::size_t t = 0; t < std::size(kCounts) && made->memories() > 0; ++t) {
      const float* kept = sum.memories()[t].own[0];
      outcome.residuals.insert(outcome.residuals.end(), kept, kept + own * kCounts[t]);
    }
  };
  if (size == 1) {
    Alone alone;
    body(alone);
  } else {
    run_ranks(transport, size, body);
  }
  for (const Outcome& outcome : outcomes) {
    EXPECT_EQ(outcome.sums.size(), outcomes[0].sums.size());
    expect_equal(outcome.sums, outcomes[0].sums, codec + " on another rank");
  }
  return outcomes[0];
}

TEST(CodedSum, HasTheSameBitsOnAnyNumberOfRanks) {
  for (const char* codec : {"qsgd4", "topk:density=0.01", "threshold"}) {
    for (const bool by_shares : {false, true}) {
      for (const std::int64_t leaves : {8, 5}) {
        const Outcome alone = sum_over("", 1, codec, by_shares, leaves);
        for (const char* transport : {"shm", "gloo"}) {
          for (const int ranks : {2, 4}) {
            const Outcome outcome = sum_over(transport, ranks, codec, by_shares, leaves);
            expect_equal(outcome.sums, alone.sums,
                         fmt::format("{} on {} ranks over {}", codec, ranks, transport));
          }
        }
      }
    }
  }
}

// What was sent of all steps and what is left make up what there was, with one encoding on the way.
TEST(CodedSum, NothingIsLost) {
  for (const char* codec : {"sign", "topk:density=0.01", "threshold"}) {
    const Outcome outcome = sum_over("", 1, codec, /*by_shares=*/false);
    std::vector<std::int64_t> first_of;  // of each tensor, in the residuals
    std::int64_t begin = 0, kept = 0;
    for (const std::int64_t count : kCounts) {
      for (std::int64_t i = 0; i < count; i += 997) {
        double sent = 0, given = 0;
        for (std::int64_t step = 0; step < kSteps; ++step) {
          sent += outcome.sums[static_cast<std::size_t>(step * all_numbers() + begin + i)];
          for (std::int64_t leaf = 0; leaf < kLeaves; ++leaf) {
            given += number(step, leaf, begin + i);
          }
        }
        for (std::int64_t e = 0; e < kEncoders; ++e) {
          sent += outcome.residuals[static_cast<std::size_t>(kept + e * count + i)];
        }
        ASSERT_NEAR(sent, given, 1e-6) << codec << " of number " << begin + i;
      }
      begin += count;
      kept += kEncoders * count;
    }
  }
}

// What the transport has counted.
TEST(CodedSum, SendsTheBytesOfTheCodecsFormula) {
  constexpr std::int64_t kCount = 3 * kCodecChunk + 1000;
  for (const char* text : {"sign", "fp16", "topk:density=0.01"}) {
    const std::shared_ptr<const Codec> codec = make_codec(parse_codec(text));
    const auto aligned = [&](std::int64_t count) { return (codec->most_bytes(count) + 3) / 4 * 4; };
    // Of 4 ranks each has a chunk, the last the shorter one, which takes no less on its way.
    const std::uint64_t chunk = aligned(kCodecChunk), all = 3 * chunk + aligned(1000);
    for (const bool by_shares : {false, true}) {
      run_ranks("gloo", 4, [&](Communicator& ranks) {
        CodedSum sum({{.count = kCount, .codec = codec}},
                     {.rank = ranks.rank(), .ranks = 4, .count = 4}, by_shares);
        std::vector<float> own(kCount), of_sum(kCodecChunk);
        if (codec->memories() > 0)
          sum.memories()[0] = {.own = {own.data()}, .of_sum = {of_sum.data()}};
        std::byte* const data = ranks.share(kCount * sizeof(float));
        const Part part{{0, ranks.rank()}, data};
        const std::uint64_t before = ranks.usage().sent;
        sum.begin({&part, 1}, 0, data);
        ranks.run(in_rounds(sum, "gradients"));
        EXPECT_EQ(ranks.usage().sent - before, by_shares ? 3 * (chunk + chunk) : 3 * all)
            << text << (by_shares ? " by shares" : "");
      });
    }
  }
}

// Says that there are more numbers than there are.
class Broken final : public Codec {
 public:
  int memories() const override { return 0; }
  std::size_t most_bytes(std::int64_t) const override { return 64; }
  bool has_fixed_size() const override { return false; }

 private:
  Encoded encode_finite(std::span<const float>, std::span<float* const>, const CodecPlace&,
                        std::byte*) const override {
    return {.bytes = 0, .flags = 9};
  }
  void decode_finite(std::span<const std::byte>, std::uint32_t, bool,
                     std::span<float>) const override {}
};

TEST(CodedSum, NamesTheRankWhoseEncodingIsNone) {
  const std::shared_ptr<const Codec> codec = make_codec(parse_codec("threshold"));
  std::string errors[2];
  run_ranks("gloo", 2, [&](Communicator& ranks) {
    std::shared_ptr<const Codec> own = codec;
    if (ranks.rank() == 1) own = std::make_shared<Broken>();
    // What rank 1 sends is read by rank 0, which knows the codec; rank 1 reads no others'.
    CodedSum sum({{.count = 5000, .codec = own}}, {.rank = ranks.rank(), .ranks = 2, .count = 2},
                 /*by_shares=*/false);
    std::vector<float> kept(5000);
    if (ranks.rank() == 0) sum.memories()[0].own = {kept.data()};
    std::byte* const data = ranks.share(5000 * sizeof(float));
    const Part part{{0, ranks.rank()}, data};
    sum.begin({&part, 1}, 0, data);
    try {
      ranks.run(in_rounds(sum, "gradients"));
    } catch (const Error& error) {
      errors[ranks.rank()] = error.what();
    }
  });
  EXPECT_THAT(errors[0], testing::HasSubstr("an encoding from rank 1"));
}

}  // namespace
}  // namespace concord::comm
