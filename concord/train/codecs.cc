#include "concord/train/codecs.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "concord/base/error.h"
#include "concord/base/text.h"
#include "concord/comm/codec.h"
#include "concord/parallel/compress.h"

namespace concord {
namespace {

static_assert(parallel::kCodecChunk == comm::kCodecChunk);

// Of E encoders on a rank each, a gather takes E - 1 encodings and shares 2 (E - 1) / E.
bool encodes_sum(const std::string& way, std::int64_t encoders) {
  return way == "shares" || (way == "auto" && encoders > 2);
}

// Of "powersgd:rank=4"; nothing where it is another codec.
std::optional<int> rank_of_factors(std::string_view text) {
  constexpr std::string_view kName = "powersgd", kRank = ":rank=";
  constexpr int kDefault = 4, kMost = 64;
  if (text == kName) return kDefault;
  if (!text.starts_with(kName)) return std::nullopt;
  const std::string_view parameters = text.substr(kName.size());
  int rank = 0;
  const char* const end = parameters.data() + parameters.size();
  const bool is_rank = parameters.starts_with(kRank) &&
                       std::from_chars(parameters.data() + kRank.size(), end, rank).ptr == end;
  if (!is_rank || rank < 1 || rank > kMost) {
    fail("{}: expected powersgd:rank=R, with R from 1 to {}", quote(text), kMost);
  }
  return rank;
}

parallel::SumCodec codec_of(const std::string& text, const std::string& way,
                            std::int64_t encoders) {
  if (text == "none") return {};
  if (const std::optional<int> rank = rank_of_factors(text)) {
    return {.text = text, .rank = *rank, .memories = 1};
  }
  const comm::CodecSpec spec = comm::parse_codec(text);
  const auto codec = comm::make_codec(spec);
  if (spec.name == "vote" && way == "gather") {
    fail(
        "vote with parallel.codec_way = \"gather\": who adds up the votes says which sign most "
        "have; "
        "expected \"auto\" or \"shares\"");
  }
  return {.text = to_string(spec),
          .memories = codec->memories(),
          .sum_memories = comm::make_codec(comm::codec_of_sums(spec))->memories(),
          // Of votes that of most counts, which whoever adds them up knows.
          .encodes_sum = spec.name == "vote" || encodes_sum(way, encoders),
          .bits = 8 * static_cast<double>(codec->most_bytes(comm::kCodecChunk)) /
                  static_cast<double>(comm::kCodecChunk)};
}

}  // namespace

bool has_codecs(const ParallelConfig& config) {
  return config.codec != "none" ||
         std::ranges::any_of(config.codecs, [](const auto& one) { return one.second != "none"; });
}

std::vector<parallel::CodecRule> codec_rules(const ParallelConfig& config, std::int64_t encoders) {
  if (!has_codecs(config)) return {};
  std::vector<parallel::CodecRule> rules;
  for (const auto& [pattern, text] : config.codecs) {
    rules.push_back({pattern, codec_of(text, config.codec_way, encoders)});
  }
  rules.push_back({"*", codec_of(config.codec, config.codec_way, encoders)});
  return rules;
}

}  // namespace concord
