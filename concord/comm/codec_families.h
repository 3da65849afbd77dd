// The codecs by family, for make_codec(): each given all its parameters.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "concord/comm/codec.h"

namespace concord::comm {

using CodecParameters = std::map<std::string, double>;

// codec_dense.cc: every number has a place in the frame.
std::unique_ptr<Codec> make_half(bool is_bf16);
std::unique_ptr<Codec> make_levels(int bits, const CodecParameters& parameters);
std::unique_ptr<Codec> make_ternary(const CodecParameters& parameters);
std::unique_ptr<Codec> make_sign();
std::unique_ptr<Codec> make_vote();

// codec_sparse.cc: some numbers, and where they are.
std::unique_ptr<Codec> make_topk(const CodecParameters& parameters);
std::unique_ptr<Codec> make_randomk(const CodecParameters& parameters);
std::unique_ptr<Codec> make_threshold(const CodecParameters& parameters);
std::unique_ptr<Codec> make_adaptive(const CodecParameters& parameters);

}  // namespace concord::comm
