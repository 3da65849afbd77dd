// What a rank reaches of the memory of others.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "concord/base/share.h"
#include "concord/runtime/program.h"

namespace concord {

// Bytes of the arenas of the other ranks along `axis`, all together, that a rank reads or writes
// where they lie in the collectives of programs that use one arena in turns: resident in its
// process, too. `own`: which of these ranks it is. All of them have the same programs. Halos and
// prologues are not counted: they are small.
std::size_t reached_bytes(std::span<const Program* const> programs, std::string_view axis,
                          Share own);

}  // namespace concord
