// The outcome of training and evaluation, as JSON and for people.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "concord/train/trainer.h"

namespace concord::cli {

// step, epoch, loss, accuracy (null where it does not apply), train_loss, samples_per_second,
// seconds, peak_rss_bytes, weights_hash, interrupted.
nlohmann::json to_json(const train::Summary& summary);

// A few lines: what was reached and what it took.
std::string format_summary(const train::Summary& summary);

}  // namespace concord::cli
