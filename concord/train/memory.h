// What a rank of a job will need of memory, read off the programs that would run, and what its host
// has. A job that does not fit is refused before anything of it is allocated.
#pragma once

#include <cstddef>
#include <string>

#include "concord/train/job.h"

namespace concord::train {

// Memory that processes of this host may still take, in bytes: what the system has left, or what
// the control group of this process allows, whichever is less.
std::size_t available_bytes();
// Resident now, of this process, in bytes.
std::size_t resident_bytes();

// Of a rank whose programs are compiled (Engine, only_planned). `config`: what the engine was made
// from; it may differ from the job's in what is computed at once.
MemoryReport memory_report(const Job& job, const Config& config, const Engine& engine);

// Throws Error when the ranks of this host, whatever stages they have, would need more than
// train.memory_limit or, where that is 0, than is available: with the numbers of the rank that
// needs most, and the first of these that fits: train.recompute, parallel.zero, more ranks along
// "tensor", parallel.offload, smaller microbatches, these with recomputing and offloading.
void check_memory(const Job& job);

}  // namespace concord::train
