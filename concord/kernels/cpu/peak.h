// What this machine can do at best, measured: the yardstick for speeds. Pure measurement; nothing
// is kept between calls. Both functions use compute_threads() threads and take them all while they
// run, so call them when nothing else computes.
#pragma once

#include <cstddef>
#include <string>

namespace concord::cpu {

// Additions and multiplications per second of f32 fused multiply-adds on registers alone, two for
// each lane, in the widest vectors that the processor and Highway share. All compute threads run at
// once; the number is the sum of their best short runs. Takes about 50 ms.
double measure_peak_flops();

// Bytes per second of a[i] = b[i] + s * c[i] over arrays that together hold at least four times
// `cache_bytes` (and 96 MiB), on all compute threads. Counts 12 bytes for each element, as the
// STREAM benchmark does (McCalpin 1995); the reading of a's lines before they are written, which
// plain stores cause, is not counted. Best of several runs; takes up to a second.
double measure_memory_bandwidth(std::size_t cache_bytes);

// The instruction set that Concord's own vector kernels use here: "AVX2", "AVX3" (Highway's name
// for AVX-512), "NEON" and so on.
std::string vector_instruction_set();

}  // namespace concord::cpu
