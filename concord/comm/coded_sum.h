// CodedSum: an encoded sum (encoded_sum.h) by a codec, chunk by chunk (codec.h). A rank's *share*
// of a tensor are whole chunks of it, equally many as far as that goes.
//
// Two ways to the sum of what the encodings say:
//   gather   every rank gets all encodings, and adds up what they say in the order of the encoders.
//            Of E encoders on as many ranks each sends (E - 1) encodings.
//   shares   each rank gets the encodings of its share, adds them up, encodes the sum, with what it
//            has kept of those before, and sends that to all: 2 (E - 1) / E encodings. (As a
//            reduce-scatter and an all-gather, with error feedback on both sides: H. Tang et al.,
//            "DoubleSqueeze: parallel stochastic gradient descent with double-pass
//            error-compensated compression", ICML 2019.)
//
// On its way the encoding of a chunk begins at a multiple of 4 bytes; where a codec's frames are
// not all of one size, a frame has its size before it, in 4 bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "concord/comm/codec.h"
#include "concord/comm/encoded_sum.h"
#include "concord/tensor/buffer.h"

namespace concord::comm {

class CodedSum final : public EncodedSum {
 public:
  // `count` f32 numbers from `offset` bytes on in each of the parts.
  struct Tensor {
    std::size_t offset = 0;
    std::int64_t count = 0;
    std::shared_ptr<const Codec> codec;
    std::shared_ptr<const Codec> of_sum = codec;  // that encodes the sum
    std::uint32_t stream = 0;                     // of its random numbers
    // Numbers that stand for nothing and stay 0, as {first, count}.
    std::vector<std::pair<std::int64_t, std::int64_t>> padding = {};
  };
  // Of an encoder are kept as many arrays as the codec says, as long as the tensor; of the sum, of
  // this rank's share.
  CodedSum(std::vector<Tensor> tensors, const Encoders& encoders, bool by_shares);

  std::optional<Operation> next() override;
  std::size_t bytes() const override { return sent_.bytes() + received_.bytes(); }

 private:
  struct Chunk {
    std::size_t tensor;
    std::int64_t begin, count;
    int owner;              // whose share it is
    std::int64_t of_share;  // where it begins in that
  };
  // What next() is to do.
  enum class Stage : std::uint8_t { kEncode, kExchange, kDecode, kAddUp, kSpread, kTake };

  void restart() override { stage_ = Stage::kEncode; }
  bool is_in_piece(const Chunk& chunk, int to) const;
  std::size_t most_bytes_of_piece(int to, std::int64_t encoders) const;
  std::span<const float> values_of(const Chunk& chunk, std::int64_t own_encoder) const;
  std::size_t encode_piece(int to, std::byte* out);
  // `memory_` is what is kept of the chunk.
  std::size_t append(const Codec& codec, const Chunk& chunk, std::span<const float> values,
                     const CodecPlace& place, std::byte* out) const;
  void take(const Codec& codec, const Chunk& chunk, int from, bool adds, float* sum);
  std::span<const std::byte> take_frame(const Codec& codec, const Chunk& chunk, int from);
  void clear_padding(const Chunk& chunk, float* numbers) const;
  void decode(const Chunk& chunk, float* sum);
  void encode_all();
  void add_up_share();
  void take_sums();
  void begin_taking();
  float* place_of(const Chunk& chunk) const;
  Operation tell_lengths();
  void agree_on_length(std::size_t most);

  std::vector<Tensor> tensors_;
  bool by_shares_;
  bool has_fixed_sizes_;
  std::vector<Chunk> chunks_;
  std::size_t most_of_piece_ = 0;  // bytes that this rank has for another, or of its share's sums
  Stage stage_ = Stage::kEncode;
  Buffer sent_, received_;
  std::uint64_t length_ = 0;            // bytes of a piece on its way
  std::vector<std::uint64_t> lengths_;  // by rank
  std::vector<std::size_t> taken_;      // by rank: bytes of its piece
  std::vector<float> sum_, zeros_;
  std::vector<float*> memory_;
};

}  // namespace concord::comm
