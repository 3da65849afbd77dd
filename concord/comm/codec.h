// Codec: how a rank writes numbers down in fewer bytes.
//
// A tensor's numbers are taken in chunks, in the order in which they lie; each chunk is encoded by
// itself. So what is sent does not depend on who sends what, and a chunk stays in the cache while
// several passes go over it. The encoding of a chunk is a *frame*.
//
// Error feedback (Seide et al. 2014; Karimireddy et al., "Error feedback fixes SignSGD and other
// gradient compression schemes", ICML 2019): what a frame does not say, the *residual*, is added to
// the numbers of the next step. So nothing is lost but time.
//
// A chunk that holds a number that is not finite, or of 1e30 or more, is sent as one: its frame
// says so, decodes to NaN, and leaves what is kept as it was.
//
// Thread safety: a codec is immutable; encode() and decode() use memory of the calling thread, and
// allocate nothing but in its first call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "concord/base/philox.h"

namespace concord::comm {

inline constexpr std::int64_t kCodecChunk = 32768;  // numbers

// A codec and its parameters, of which those that are not named have their usual values.
struct CodecSpec {
  std::string name;
  std::map<std::string, double> parameters = {};
  friend bool operator==(const CodecSpec&, const CodecSpec&) = default;
};

// Of "topk:density=0.001,momentum=0.9". Throws Error that says what there is.
CodecSpec parse_codec(std::string_view text);
std::string to_string(const CodecSpec& spec);

// The same for sums of what it has encoded: without momentum, which gradients alone have.
CodecSpec codec_of_sums(const CodecSpec& spec);

struct CodecParameter {
  std::string_view name;
  double usual, least, most;
  std::string_view meaning;
  bool is_whole = false;
};
struct CodecInfo {
  std::string_view name, summary;
  std::vector<CodecParameter> parameters;
};
// All that there are.
std::span<const CodecInfo> codecs();

// Where in training an encoding is made: what random numbers depend on.
struct CodecPlace {
  RandomStream random;
  std::uint64_t first = 0;  // a number for each chunk, of which no other is as near as its length
  std::int64_t step = 0;
};

class Codec {
 public:
  virtual ~Codec() = default;

  // Arrays of numbers that are kept from step to step, as long as what is encoded: none, a
  // residual, or a residual and a velocity.
  virtual int memories() const = 0;
  // Of the frame of so many numbers, at most kCodecChunk.
  virtual std::size_t most_bytes(std::int64_t count) const = 0;
  // Whether all frames of so many numbers take so many bytes.
  virtual bool has_fixed_size() const = 0;
  // Writes the frame of `values` with what is kept, which becomes what is kept then; returns its
  // bytes. `memory`: memories() arrays.
  std::size_t encode(std::span<const float> values, std::span<float* const> memory,
                     const CodecPlace& place, std::byte* frame) const;
  // What a frame says of out.size() numbers, or that added to them. Throws Error for a frame of
  // another size, of flags, scales, places or counts that encode() does not write; whatever it is
  // given, it reads and writes no other memory.
  void decode(std::span<const std::byte> frame, bool adds, std::span<float> out) const;

 protected:
  // The same of numbers below 1e30, behind the frame's first four bytes, which are not theirs to
  // write but for the flags that encode_finite() returns beside the bytes.
  struct Encoded {
    std::size_t bytes = 0;
    std::uint32_t flags = 0;  // below kNotFinite
  };
  static constexpr std::uint32_t kNotFinite = 0x80000000;
  virtual Encoded encode_finite(std::span<const float> values, std::span<float* const> memory,
                                const CodecPlace& place, std::byte* body) const = 0;
  virtual void decode_finite(std::span<const std::byte> body, std::uint32_t flags, bool adds,
                             std::span<float> out) const = 0;
};

std::unique_ptr<Codec> make_codec(const CodecSpec& spec);

}  // namespace concord::comm
