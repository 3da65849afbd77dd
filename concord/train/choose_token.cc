#include "concord/train/choose_token.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "concord/base/error.h"

namespace concord::train {

std::int32_t choose_token(std::span<const float> logits, const ChoiceOptions& options,
                          double uniform) {
  if (!std::ranges::all_of(logits, [](float logit) { return std::isfinite(logit); })) {
    fail("the model's logits are not finite: its training diverged, take an earlier checkpoint");
  }
  const auto largest = std::ranges::max_element(logits);
  if (options.temperature == 0) return static_cast<std::int32_t>(largest - logits.begin());

  std::vector<std::int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  if (options.top_k > 0 && static_cast<std::size_t>(options.top_k) < ids.size()) {
    const auto logit = [&](std::int32_t id) { return logits[static_cast<std::size_t>(id)]; };
    const auto likelier = [&](std::int32_t a, std::int32_t b) {
      return logit(a) > logit(b) || (logit(a) == logit(b) && a < b);
    };
    std::ranges::partial_sort(ids, ids.begin() + options.top_k, likelier);
    ids.resize(static_cast<std::size_t>(options.top_k));
  }

  std::vector<double> sums;  // of the probabilities so far, up to a factor
  double sum = 0;
  for (const std::int32_t id : ids) {
    const double below = static_cast<double>(logits[static_cast<std::size_t>(id)]) - *largest;
    sums.push_back(sum += std::exp(below / options.temperature));
  }
  const auto chosen = std::ranges::upper_bound(sums, uniform * sum) - sums.begin();
  return ids[std::min(static_cast<std::size_t>(chosen), ids.size() - 1)];
}

}  // namespace concord::train
