// Which steps of a program's update use which offloaded states.
#pragma once

#include <vector>

#include "concord/runtime/program.h"

namespace concord {

// Of a program whose operands are bound.
std::vector<OffloadedUse> offloaded_uses(const Program& program);

}  // namespace concord
