// What is wrong between keys of a configuration that are fine each by itself.
#pragma once

#include <optional>

#include "concord/train/config_schema.h"

namespace concord {

// The first contradiction; nullopt where there is none. Every key is within its limits.
std::optional<ConfigProblem> find_contradiction(const Config& config);

}  // namespace concord
