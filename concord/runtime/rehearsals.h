// Rehearsals of a step (Executor::rehearse) by the ranks of a job.
#pragma once

#include <vector>

#include "concord/comm/communicator.h"
#include "concord/runtime/executor.h"

namespace concord {

// Collective. By rank, what each gives: equally many.
std::vector<std::vector<Executor::Rehearsal>> gather_rehearsals(
    comm::Communicator& ranks, const std::vector<Executor::Rehearsal>& own);

}  // namespace concord
