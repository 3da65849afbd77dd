// What of a program lies in files: what that is of the arena, and when each piece of it is brought
// into memory and given back.
//
// A *stay* is a time, from a step of a phase to another, in which a piece is used again and again.
// Before a stay begins it is asked for, while the steps are run in which the stays before it begin;
// after its end it is given back. Of the optimizer's states each step of the update that uses some
// is a stay. An activation is offloaded when a long time lies between two of its stays, such as
// from the forward pass to the backward pass (Rhu et al. 2016, "vDNN", offload what the layers of
// the forward pass read); what comes back at once, as the last layers' do, is not.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "concord/runtime/program.h"

namespace concord {

struct OffloadedStay {
  std::size_t first = 0, last = 0;  // steps
  OffloadedRange range;
};

// What steps of a phase ask for and give back, so that the pieces of these stays are there.
void schedule(std::vector<ProgramStep>& steps, std::vector<OffloadedStay> stays);

// Of a program whose operands are bound.
std::vector<OffloadedStay> stays_of_states(const Program& program);

// The stays of a value that these steps use, in order, of as many bytes: one where it is not to be
// offloaded. Their offsets are left open.
std::vector<OffloadedStay> stays_of_activation(const std::vector<ProgramStep>& steps,
                                               std::span<const std::size_t> uses,
                                               std::size_t bytes);

// What the pieces of an offloaded arena are multiples of: the system brings in the pages around one
// that is read, up to so many bytes, and giving one piece back is not to touch its neighbour.
inline constexpr std::size_t kOffloadedPiece = std::size_t{1} << 16;

// Most bytes of what is offloaded that steps whose operands are bound have resident at once. What
// is on its way is the system's until it is used.
std::size_t offloaded_window(std::span<const ProgramStep> steps);

// The values behind a step's operands, which a scratchpad may follow.
std::vector<ValueId> values_of(const Program& program, const ProgramStep& step);

}  // namespace concord
