#include "concord/comm/codec.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "concord/base/error.h"
#include "concord/base/text.h"
#include "concord/comm/codec_families.h"
#include "concord/comm/codec_vectors.h"

namespace concord::comm {
namespace {

constexpr std::size_t kHeader = sizeof(std::uint32_t);
// Sums of a chunk of such numbers, and of a residual, are far below the largest that f32 has.
constexpr float kLargest = 1e30f;

const std::vector<CodecInfo>& all_codecs() {
  static const CodecParameter kDensity{"density", 0.001, 1e-5, 0.5, "the share that is sent"};
  static const CodecParameter kFeedback{"feedback",       0, 0, 1, "1: what is lost is kept",
                                        /*is_whole=*/true};
  static const std::vector<CodecInfo> codecs = {
      {"fp16", "16-bit floating point, 11 bits of it precise; up to 65504", {}},
      {"bf16", "16-bit floating point, 8 bits of it precise", {}},
      {"qsgd8",
       "8 bits, rounded at random, by the largest of 256 numbers (QSGD, Alistarh et al. 2017)",
       {kFeedback}},
      {"qsgd4", "the same with 4 bits", {kFeedback}},
      {"ternary",
       "-s, 0 or s at random, s the largest of a chunk (TernGrad, Wen et al. 2017)",
       {{"clip", 2.5, 0, 100,
         "numbers are cut off at so many times their root mean square; 0: not, as it has to be for "
         "encodings that are right in the mean"}}},
      {"sign",
       "the sign, times the mean magnitude of a chunk, and what is lost is kept (Seide et al. "
       "2014; "
       "EF-signSGD, Karimireddy et al. 2019)",
       {}},
      {"vote", "the sign alone; the sum is the sign of most (Bernstein et al. 2018)", {}},
      {"topk",
       "the largest of a chunk, and what is lost is kept (Aji and Heafield 2017; with momentum, "
       "Deep "
       "Gradient Compression, Lin et al. 2018)",
       {kDensity,
        {"momentum", 0, 0, 0.999, "of the velocity that is sent in the place of gradients"},
        {"warmup", 0, 0, 1e9, "steps in which the density falls from a quarter", true}}},
      {"randomk", "some of a chunk, drawn anew in each step (Stich et al. 2018)", {kDensity}},
      {"threshold",
       "all of at least a magnitude, and what is lost is kept (Strom 2015)",
       {{"value", 0.001, 0, 1e30, "the magnitude"}}},
      {"adaptive",
       "all of at least a magnitude for which a sample of 1024 has the share (Aji and Heafield "
       "2017)",
       {kDensity}},
  };
  return codecs;
}

const CodecInfo& info_of(std::string_view name) {
  std::vector<std::string_view> names;
  for (const CodecInfo& info : all_codecs()) {
    if (info.name == name) return info;
    names.push_back(info.name);
  }
  fail("codec {}: expected one of none, powersgd, {}; the nearest is {}", quote(shortened(name)),
       fmt::join(names, ", "), nearest(name, names));
}

const CodecParameter& parameter_of(const CodecInfo& info, std::string_view name) {
  std::vector<std::string_view> names;
  for (const CodecParameter& parameter : info.parameters) {
    if (parameter.name == name) return parameter;
    names.push_back(parameter.name);
  }
  fail("codec {} has no parameter {}: expected {}", info.name, quote(shortened(name)),
       names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
}

}  // namespace

std::span<const CodecInfo> codecs() { return all_codecs(); }

CodecSpec parse_codec(std::string_view text) {
  const std::size_t colon = text.find(':');
  const CodecInfo& info = info_of(text.substr(0, colon));
  CodecSpec spec{std::string(info.name)};
  std::string_view rest = colon == text.npos ? "" : text.substr(colon + 1);
  if (colon != text.npos && rest.empty())
    fail("codec {}: expected parameters behind the colon", quote(text));
  while (!rest.empty()) {
    const std::size_t comma = rest.find(',');
    const std::string_view one = rest.substr(0, comma);
    rest = comma == rest.npos ? "" : rest.substr(comma + 1);
    const std::size_t equals = std::min(one.find('='), one.size());
    const CodecParameter& parameter = parameter_of(info, one.substr(0, equals));
    const std::string_view number = one.substr(std::min(equals + 1, one.size()));
    double value = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    if (error != std::errc() || end != number.data() + number.size() ||
        !(value >= parameter.least && value <= parameter.most) ||
        (parameter.is_whole && value != std::floor(value))) {
      fail("codec {}: {} = {}: expected {} number from {} to {}", info.name, parameter.name,
           quote(shortened(number)), parameter.is_whole ? "a whole" : "a", parameter.least,
           parameter.most);
    }
    if (!spec.parameters.emplace(parameter.name, value).second) {
      fail("codec {}: {} is there twice", info.name, parameter.name);
    }
  }
  std::erase_if(spec.parameters,
                [&](const auto& one) { return one.second == parameter_of(info, one.first).usual; });
  return spec;
}

std::string to_string(const CodecSpec& spec) {
  std::string text = spec.name;
  for (const auto& [name, value] : spec.parameters) {
    text += fmt::format("{}{}={}", text.size() == spec.name.size() ? ":" : ",", name, value);
  }
  return text;
}

CodecSpec codec_of_sums(const CodecSpec& spec) {
  CodecSpec of_sums = spec;
  of_sums.parameters.erase("momentum");
  return of_sums;
}

std::unique_ptr<Codec> make_codec(const CodecSpec& spec) {
  CodecParameters parameters = spec.parameters;
  for (const CodecParameter& one : info_of(spec.name).parameters) {
    parameters.try_emplace(std::string(one.name), one.usual);
  }
  if (spec.name == "fp16" || spec.name == "bf16") return make_half(spec.name == "bf16");
  if (spec.name == "qsgd8" || spec.name == "qsgd4") {
    return make_levels(spec.name == "qsgd8" ? 8 : 4, parameters);
  }
  if (spec.name == "ternary") return make_ternary(parameters);
  if (spec.name == "sign") return make_sign();
  if (spec.name == "vote") return make_vote();
  if (spec.name == "topk") return make_topk(parameters);
  if (spec.name == "randomk") return make_randomk(parameters);
  if (spec.name == "threshold") return make_threshold(parameters);
  return make_adaptive(parameters);
}

std::size_t Codec::encode(std::span<const float> values, std::span<float* const> memory,
                          const CodecPlace& place, std::byte* frame) const {
  CONCORD_CHECK(std::ssize(values) <= kCodecChunk && std::ssize(memory) == memories());
  Encoded encoded{.bytes = 0, .flags = kNotFinite};
  if (all_below(values.data(), kLargest, values.size())) {
    encoded = encode_finite(values, memory, place, frame + kHeader);
  } else if (has_fixed_size()) {
    encoded.bytes = most_bytes(std::ssize(values)) - kHeader;
    std::memset(frame + kHeader, 0, encoded.bytes);
  }
  std::memcpy(frame, &encoded.flags, kHeader);
  return kHeader + encoded.bytes;
}

void Codec::decode(std::span<const std::byte> frame, bool adds, std::span<float> out) const {
  const std::size_t most = most_bytes(std::ssize(out));
  if (frame.size() < kHeader || frame.size() > most || (has_fixed_size() && frame.size() != most)) {
    fail("{} bytes for {} numbers: expected {}{}", frame.size(), out.size(),
         has_fixed_size() ? "" : "at most ", most);
  }
  std::uint32_t flags;
  std::memcpy(&flags, frame.data(), kHeader);
  if (flags == kNotFinite) {
    std::ranges::fill(out, std::numeric_limits<float>::quiet_NaN());
    return;
  }
  decode_finite(frame.subspan(kHeader), flags, adds, out);
}

}  // namespace concord::comm
