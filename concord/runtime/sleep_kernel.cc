#include "concord/runtime/sleep_kernel.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <thread>

#include "concord/base/error.h"

namespace concord {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

// Of the kernels of a program: by how much those before slept too long.
struct Overslept {
  Seconds time{0};
};

class SleepKernel final : public Kernel {
 public:
  SleepKernel(double seconds, std::shared_ptr<Overslept> overslept)
      : seconds_(seconds), overslept_(std::move(overslept)) {}

  void run(std::span<std::byte* const>) override {
    if (seconds_ <= Seconds(0)) return;
    const Seconds left = seconds_ - overslept_->time;
    const Clock::time_point due = Clock::now() + std::chrono::duration_cast<Clock::duration>(left);
    if (left > Seconds(0)) std::this_thread::sleep_until(due);
    // More is not the clock's doing: then others had the core, as they might have while it
    // computed.
    overslept_->time = std::min(Seconds(Clock::now() - due), seconds_ / 10);
  }

 private:
  Seconds seconds_;
  std::shared_ptr<Overslept> overslept_;
};

using Steps = std::vector<ProgramStep>;

// `seconds`: by step. `ends`: where something else happens than steps.
void replace_kernels(Steps& steps, std::span<const double> seconds,
                     const std::set<std::size_t>& ends,
                     const std::shared_ptr<Overslept>& overslept) {
  double together = 0;
  for (std::size_t s = 0; s < steps.size(); ++s) {
    if (steps[s].kernel == nullptr) continue;
    together += seconds[s];
    const bool goes_on = s + 1 < steps.size() && !ends.contains(s + 1) &&
                         steps[s + 1].kernel != nullptr && steps[s + 1].awaits == steps[s].awaits;
    steps[s].kernel = std::make_unique<SleepKernel>(goes_on ? 0 : together, overslept);
    if (!goes_on) together = 0;
  }
}

std::set<std::size_t> ends_within(const Program& program) {
  std::set<std::size_t> ends;
  for (const ProgramHalf& half : program.halves) {
    ends.insert(half.end);
    ends.insert(half.bucket_ends.begin(), half.bucket_ends.end());
  }
  return ends;
}

// The last kernel before what a half sends first, or of all its kernels; `end` where it has none.
std::size_t last_before_sending(const Steps& steps, std::size_t begin, std::size_t end) {
  std::size_t last = end;
  for (std::size_t s = begin; s < end; ++s) {
    if (steps[s].kernel != nullptr) last = s;
    if (steps[s].message && steps[s].message->is_send && last != end) break;
  }
  return last;
}

}  // namespace

void pretend(Program& program, const std::function<double(const ProgramStep&)>& seconds_of) {
  const auto overslept = std::make_shared<Overslept>();
  const auto replace = [&](Steps& steps, const std::set<std::size_t>& ends) {
    std::vector<double> seconds;
    for (const ProgramStep& step : steps) {
      seconds.push_back(step.kernel == nullptr ? 0 : seconds_of(step));
    }
    replace_kernels(steps, seconds, ends, overslept);
  };
  replace(program.prologue, {});
  replace(program.microbatch, ends_within(program));
  replace(program.update, {});
}

void pretend_halves(Program& program, std::span<const double> seconds) {
  CONCORD_CHECK(seconds.size() >= program.halves.size());
  const auto overslept = std::make_shared<Overslept>();
  std::vector<double> of_steps(program.microbatch.size(), 0);
  std::size_t begin = 0;
  for (std::size_t h = 0; h < program.halves.size(); ++h) {
    const std::size_t end = program.halves[h].end;
    const std::size_t at = last_before_sending(program.microbatch, begin, end);
    if (at < end) of_steps[at] = seconds[h];
    begin = end;
  }
  replace_kernels(program.microbatch, of_steps, ends_within(program), overslept);
  for (Steps* steps : {&program.prologue, &program.update}) {
    replace_kernels(*steps, std::vector<double>(steps->size(), 0), {}, overslept);
  }
}

bool computes(const Program& program, std::size_t half) {
  const std::size_t begin = half == 0 ? 0 : program.halves[half - 1].end;
  const std::size_t end = program.halves[half].end;
  return last_before_sending(program.microbatch, begin, end) < end;
}

}  // namespace concord
