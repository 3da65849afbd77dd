// Sums over blocks of rows, each of which one task has summed.
#pragma once

#include <algorithm>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/elementwise.h"
#include "concord/kernels/cpu/operands.h"

namespace concord::cpu {

// Adds up `blocks` neighbouring blocks of `size` sums, element by element, along a binary tree that
// the number of blocks alone decides. The first block holds the result; the others are used up.
inline void sum_blocks(float* sums, std::int64_t blocks, std::int64_t size) {
  parallel_for(size, std::max<std::int64_t>(16, kGrain / blocks),
               [=](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t step = 1; step < blocks; step *= 2) {
                   for (std::int64_t block = 0; block + step < blocks; block += 2 * step) {
                     float* sum = sums + block * size + begin;
                     add_to(sum, sum + step * size, end - begin);
                   }
                 }
               });
}

}  // namespace concord::cpu
