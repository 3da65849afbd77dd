// A row times a matrix: what a language model that writes token by token spends its time on. The
// matrix is read once and nothing is read twice, so it is a matter of memory alone; oneDNN's
// matmul, made for many rows, reads it at a third of the cache's speed (docs/performance.md).
#pragma once

#include <memory>

#include "concord/kernels/kernel.h"

namespace concord::cpu {

// Whether the matmul is x w^T, or x w^T + b, of a row x and a matrix w, all f32.
bool is_row_matmul(const Signature& signature);

// Its kernel. The bits do not depend on the number of threads.
std::unique_ptr<Kernel> make_row_matmul(const Signature& signature);

}  // namespace concord::cpu
