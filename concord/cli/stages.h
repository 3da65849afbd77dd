// The stages of a model that ranks along "pipe" divide, before it is run.
#pragma once

#include <nlohmann/json.hpp>

#include "concord/train/job.h"

namespace concord::cli {

// Null where nothing is divided along "pipe". Compiles the programs of each place along it, one
// after the other. `job`: of rank 0, only planned.
nlohmann::json describe_stages(const train::Job& job);
void print_stages(const nlohmann::json& pipeline);

}  // namespace concord::cli
