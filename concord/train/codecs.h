// What a configuration says of compression, as a plan has it.
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "concord/parallel/plan.h"
#include "concord/train/config.h"

namespace concord {

bool has_codecs(const ParallelConfig& config);

// Throws Error for a codec that there is not.
std::vector<parallel::CodecRule> codec_rules(const ParallelConfig& config, std::int64_t encoders);

}  // namespace concord
