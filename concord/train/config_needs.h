// What is said of keys of a configuration beside their row in config_schema.cc: which are read with
// some values of another key alone, and which a resumed run may change.
#pragma once

#include <optional>
#include <string_view>

#include "concord/train/config_schema.h"

namespace concord {

// Of the key of this name.
std::optional<ConfigNeed> need_of(std::string_view name);

// Whether a resumed run may have another value. model.weights counts at the start alone; the number
// of threads is compared by the trainer, which knows what 0 means.
bool is_free_on_resume(std::string_view name);

}  // namespace concord
