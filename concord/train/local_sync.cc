#include "concord/train/local_sync.h"

#include <algorithm>

namespace concord::train {
namespace {

std::size_t floats_of(const StateStore::Entry& entry) {
  return static_cast<std::size_t>(entry.layout.stored_elements(entry.type.shape));
}

}  // namespace

LocalSync::LocalSync(StateStore& states, comm::Communicator& ranks, const LocalSyncOptions& options)
    : states_(states),
      ranks_(ranks),
      options_(options),
      before_(states.bytes() / sizeof(float)),
      momentum_(has_momentum() ? before_.size() : 0) {}

std::span<float> LocalSync::momentum_of(const StateStore::Entry& parameter) {
  return std::span(momentum_).subspan(parameter.offset / sizeof(float), floats_of(parameter));
}

void LocalSync::begin() {
  std::copy_n(reinterpret_cast<const float*>(states_.data()), before_.size(), before_.data());
}

void LocalSync::run(double learning_rate) {
  auto* const values = reinterpret_cast<float*>(states_.data());
  const std::span<float> all(values, before_.size());
  ranks_.run(comm::all_reduce(all, all, "weights of the ranks"));
  const auto ranks = static_cast<float>(ranks_.size());
  for (float& value : all) value /= ranks;

  const bool is_nesterov = options_.outer == LocalSyncOptions::Outer::kNesterov;
  const auto beta = static_cast<float>(options_.momentum);
  // SlowMo's momentum is in units of steps, as far as any were taken.
  const bool in_steps = !is_nesterov && has_momentum() && learning_rate > 0;
  const auto rate = static_cast<float>(in_steps ? learning_rate : 1.0);
  const auto alpha = static_cast<float>(options_.learning_rate);
  const bool is_mean = !is_nesterov && beta == 0 && alpha == 1;
  for (const StateStore::Entry& entry : states_.entries()) {
    if (is_mean || entry.role != State::Role::kParameter) continue;
    const std::size_t first = entry.offset / sizeof(float);
    for (std::size_t i = first; i < first + floats_of(entry); ++i) {
      const float change = (before_[i] - values[i]) / rate;
      float step = change;
      if (has_momentum()) {
        momentum_[i] = beta * momentum_[i] + change;
        step = is_nesterov ? change + beta * momentum_[i] : momentum_[i];
      }
      values[i] = before_[i] - alpha * rate * step;
    }
  }
  states_.changed();
  begin();
}

}  // namespace concord::train
