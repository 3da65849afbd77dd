#include "concord/comm/coded_sum.h"

#include <algorithm>
#include <cstring>

#include "concord/base/error.h"
#include "concord/comm/communicator.h"

namespace concord::comm {
namespace {

constexpr int kToAll = -1;
constexpr std::size_t kPrefix = sizeof(std::uint32_t);

std::size_t aligned(std::size_t bytes) { return (bytes + 3) / 4 * 4; }

std::int64_t chunks_of(std::int64_t count) { return (count + kCodecChunk - 1) / kCodecChunk; }

}  // namespace

CodedSum::CodedSum(std::vector<Tensor> tensors, const Encoders& of, bool by_shares)
    : EncodedSum(of, tensors.size()),
      tensors_(std::move(tensors)),
      by_shares_(by_shares),
      has_fixed_sizes_(std::ranges::all_of(tensors_,
                                           [](const Tensor& tensor) {
                                             return tensor.codec->has_fixed_size() &&
                                                    tensor.of_sum->has_fixed_size();
                                           })),
      lengths_(static_cast<std::size_t>(of.ranks)),
      taken_(static_cast<std::size_t>(of.ranks)),
      sum_(kCodecChunk),
      zeros_(kCodecChunk) {
  for (std::size_t t = 0; t < tensors_.size(); ++t) {
    const std::int64_t all = chunks_of(tensors_[t].count);
    const std::int64_t each = (all + encoders().ranks - 1) / encoders().ranks;
    for (std::int64_t c = 0; c < all; ++c) {
      const std::int64_t begin = c * kCodecChunk;
      chunks_.push_back({.tensor = t,
                         .begin = begin,
                         .count = std::min(kCodecChunk, tensors_[t].count - begin),
                         .owner = static_cast<int>(c / each),
                         .of_share = c % each * kCodecChunk});
    }
  }
  const auto ranks = static_cast<std::size_t>(encoders().ranks);
  if (!by_shares_) {
    most_of_piece_ = most_bytes_of_piece(kToAll, encoders().own());
    sent_ = Buffer(most_of_piece_);
  } else {
    for (int r = 0; r < encoders().ranks; ++r) {
      most_of_piece_ = std::max(most_of_piece_, most_bytes_of_piece(r, encoders().own()));
    }
    sent_ = Buffer(ranks * most_of_piece_);
  }
  received_ = Buffer(ranks * most_of_piece_);
}

bool CodedSum::is_in_piece(const Chunk& chunk, int to) const {
  return to == kToAll || chunk.owner == to;
}

std::size_t CodedSum::most_bytes_of_piece(int to, std::int64_t encoders) const {
  std::size_t bytes = 0;
  for (const Chunk& chunk : chunks_) {
    if (!is_in_piece(chunk, to)) continue;
    const Tensor& tensor = tensors_[chunk.tensor];
    const std::size_t frame =
        std::max(tensor.codec->most_bytes(chunk.count), tensor.of_sum->most_bytes(chunk.count));
    bytes += (has_fixed_sizes_ ? 0 : kPrefix) + aligned(frame);
  }
  return bytes * static_cast<std::size_t>(encoders);
}

std::optional<Operation> CodedSum::next() {
  const auto ranks = static_cast<std::size_t>(encoders().ranks);
  switch (stage_) {
    case Stage::kEncode:
      for (const Tensor& tensor : tensors_) join_leaves(tensor.offset, tensor.count);
      encode_all();
      stage_ = Stage::kExchange;
      if (!has_fixed_sizes_) return tell_lengths();
      [[fallthrough]];
    case Stage::kExchange:
      agree_on_length(most_of_piece_);
      if (!by_shares_) {
        stage_ = Stage::kDecode;
        return all_gather({sent_.data(), length_}, {received_.data(), ranks * length_});
      }
      for (std::size_t r = 1; r < ranks; ++r) {
        std::memmove(sent_.data() + r * length_, sent_.data() + r * most_of_piece_, length_);
      }
      stage_ = Stage::kAddUp;
      return all_to_all({sent_.data(), ranks * length_}, {received_.data(), ranks * length_});
    case Stage::kAddUp:
      add_up_share();
      stage_ = Stage::kSpread;
      if (!has_fixed_sizes_) return tell_lengths();
      [[fallthrough]];
    case Stage::kSpread:
      agree_on_length(most_of_piece_);
      stage_ = Stage::kTake;
      return all_gather({sent_.data(), length_}, {received_.data(), ranks * length_});
    case Stage::kDecode:
    case Stage::kTake:
      take_sums();
      return std::nullopt;
  }
  return std::nullopt;
}

Operation CodedSum::tell_lengths() {
  return all_gather(std::as_bytes(std::span(&length_, 1)),
                    std::as_writable_bytes(std::span(lengths_)));
}

// Pieces are as long as the longest.
void CodedSum::agree_on_length(std::size_t most) {
  if (has_fixed_sizes_) return;
  const auto longest = std::ranges::max_element(lengths_);
  if (*longest > most) {
    fail("rank {} has {} bytes of encodings; expected at most {}", longest - lengths_.begin(),
         *longest, most);
  }
  length_ = *longest;
}

std::span<const float> CodedSum::values_of(const Chunk& chunk, std::int64_t own_encoder) const {
  const float* const all = EncodedSum::values_of(own_encoder, tensors_[chunk.tensor].offset);
  return {all == nullptr ? zeros_.data() : all + chunk.begin,
          static_cast<std::size_t>(chunk.count)};
}

void CodedSum::encode_all() {
  length_ = 0;
  if (!by_shares_) {
    length_ = encode_piece(kToAll, sent_.data());
    return;
  }
  for (int r = 0; r < encoders().ranks; ++r) {
    std::byte* const piece = sent_.data() + static_cast<std::size_t>(r) * most_of_piece_;
    length_ = std::max<std::uint64_t>(length_, encode_piece(r, piece));
  }
  if (has_fixed_sizes_) length_ = most_of_piece_;
}

// Of a chunk the encodings of all of this rank's encoders, then those of the next.
std::size_t CodedSum::encode_piece(int to, std::byte* out) {
  std::size_t bytes = 0;
  for (const Chunk& chunk : chunks_) {
    if (!is_in_piece(chunk, to)) continue;
    const Tensor& tensor = tensors_[chunk.tensor];
    for (std::int64_t e = 0; e < encoders().own(); ++e) {
      const std::int64_t encoder = encoders().rank * encoders().own() + e;
      memory_.clear();
      for (float* const all : memories()[chunk.tensor].own) {
        memory_.push_back(all + e * tensor.count + chunk.begin);
      }
      const CodecPlace place{
          .random = {.seed = encoders().seed,
                     .stream = tensor.stream,
                     .step = static_cast<std::uint32_t>(step())},
          .first = static_cast<std::uint64_t>(encoder * tensor.count + chunk.begin),
          .step = step()};
      bytes += append(*tensor.codec, chunk, values_of(chunk, e), place, out + bytes);
    }
  }
  return bytes;
}

std::size_t CodedSum::append(const Codec& codec, const Chunk& chunk, std::span<const float> values,
                             const CodecPlace& place, std::byte* out) const {
  std::byte* const frame = out + (has_fixed_sizes_ ? 0 : kPrefix);
  const std::size_t bytes = codec.encode(values, memory_, place, frame);
  if (!has_fixed_sizes_) {
    const auto prefix = static_cast<std::uint32_t>(bytes);
    std::memcpy(out, &prefix, kPrefix);
  }
  for (float* const kept : memory_) clear_padding(chunk, kept);
  return aligned(static_cast<std::size_t>(frame - out) + bytes);
}

// The next frame of what this rank has sent, which is of the chunk.
std::span<const std::byte> CodedSum::take_frame(const Codec& codec, const Chunk& chunk, int from) {
  std::size_t& taken = taken_[static_cast<std::size_t>(from)];
  const std::byte* const piece = received_.data() + static_cast<std::size_t>(from) * length_;
  std::size_t bytes = codec.most_bytes(chunk.count);
  if (!has_fixed_sizes_) {
    std::uint32_t prefix = 0;
    if (taken + kPrefix <= length_) std::memcpy(&prefix, piece + taken, kPrefix);
    taken += kPrefix;
    if (prefix <= bytes) bytes = prefix;
  }
  if (taken + bytes > length_) {
    fail("rank {} has sent {} bytes of encodings, which end in the middle of one", from, length_);
  }
  const std::span<const std::byte> frame{piece + taken, bytes};
  taken += aligned(bytes);
  return frame;
}

void CodedSum::clear_padding(const Chunk& chunk, float* numbers) const {
  for (const auto& [first, count] : tensors_[chunk.tensor].padding) {
    const std::int64_t begin = std::max(first, chunk.begin);
    const std::int64_t end = std::min(first + count, chunk.begin + chunk.count);
    if (begin < end) std::fill(numbers + begin - chunk.begin, numbers + end - chunk.begin, 0.0f);
  }
}

float* CodedSum::place_of(const Chunk& chunk) const {
  return out(tensors_[chunk.tensor].offset) + chunk.begin;
}

void CodedSum::begin_taking() { std::ranges::fill(taken_, std::size_t{0}); }

void CodedSum::take(const Codec& codec, const Chunk& chunk, int from, bool adds, float* sum) {
  try {
    codec.decode(take_frame(codec, chunk, from), adds,
                 {sum, static_cast<std::size_t>(chunk.count)});
  } catch (const Error& error) {
    fail("an encoding from rank {}: {}", from, error.what());
  }
}

// What the encoders say of the chunk, added up in their order.
void CodedSum::decode(const Chunk& chunk, float* sum) {
  for (std::int64_t encoder = 0; encoder < encoders().count; ++encoder) {
    take(*tensors_[chunk.tensor].codec, chunk, static_cast<int>(encoder / encoders().own()),
         /*adds=*/encoder > 0, sum);
  }
  clear_padding(chunk, sum);
}

void CodedSum::add_up_share() {
  begin_taking();
  std::size_t bytes = 0;
  for (const Chunk& chunk : chunks_) {
    if (chunk.owner != encoders().rank) continue;
    decode(chunk, sum_.data());
    const Tensor& tensor = tensors_[chunk.tensor];
    memory_.clear();
    for (float* const all : memories()[chunk.tensor].of_sum)
      memory_.push_back(all + chunk.of_share);
    const CodecPlace place{
        .random = {.seed = encoders().seed,
                   .stream = tensor.stream,
                   .step = static_cast<std::uint32_t>(step())},
        .first = static_cast<std::uint64_t>(encoders().count * tensor.count + chunk.begin),
        .step = step()};
    bytes += append(*tensor.of_sum, chunk, {sum_.data(), static_cast<std::size_t>(chunk.count)},
                    place, sent_.data() + bytes);
  }
  length_ =
      has_fixed_sizes_ ? most_bytes_of_piece(0, 1) : bytes;  // the first has the largest share
}

void CodedSum::take_sums() {
  begin_taking();
  for (const Chunk& chunk : chunks_) {
    float* const sum = place_of(chunk);
    if (!by_shares_) {
      decode(chunk, sum);
      continue;
    }
    take(*tensors_[chunk.tensor].of_sum, chunk, chunk.owner, /*adds=*/false, sum);
    clear_padding(chunk, sum);
  }
}

}  // namespace concord::comm
