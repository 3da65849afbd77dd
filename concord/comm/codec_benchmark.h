// How fast one core encodes and decodes, and what is lost by it.
#pragma once

#include <cstddef>
#include <span>

#include "concord/comm/codec.h"

namespace concord::comm {

struct CodecBenchmark {
  int repetitions = 0;
  // Of all numbers, by one thread: the median. Bytes a second are of the f32 numbers that go in.
  double encode_seconds = 0, decode_seconds = 0;
  double encode_bytes_per_second = 0, decode_bytes_per_second = 0;
  std::size_t frame_bytes = 0;  // of the first encoding, as is what follows
  double ratio = 0;             // the numbers' bytes over those
  double relative_error = 0;    // ||decoded - values|| / ||values||, in 2-norms; 0 where all are 0
};

// Takes about `seconds` for each of both, and at least 3 repetitions. Allocates memory as large as
// the numbers for each array that the codec keeps, for what is decoded, and for the frames.
CodecBenchmark benchmark_codec(const Codec& codec, std::span<const float> values,
                               double seconds = 0.5);

}  // namespace concord::comm
