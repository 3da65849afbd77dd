// What training, `concord eval` and `concord predict` share: a job's test set evaluated, weights
// taken from a checkpoint, and their hash.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "concord/train/checkpoint.h"
#include "concord/train/job.h"
#include "concord/train/trainer.h"

namespace concord::train {

// Loss and accuracy over the whole test set, every sample once, with the states as they are.
// `loader` is a new one of the job's test set. nullopt when `stop`, asked before each batch, said
// so.
std::optional<Evaluation> evaluate_test_set(
    Job& job, data::Loader& loader, const std::function<bool()>& stop = [] { return false; });

// Probabilities of classes.
std::vector<double> softmax(std::span<const float> logits);

// weights_hash (weights_hash.h) of the engine's parameters, or of their averages where it has some.
std::string hash_of_weights(const Engine& engine);

// What the model of the checkpoint has learned to do.
data::Task task_of(const Checkpoint& checkpoint);

// The configuration of the run that wrote the checkpoint.
Config config_of(const Checkpoint& checkpoint);

// The kernel choices of the run that wrote the checkpoint.
KernelChoices choices_of(const Checkpoint& checkpoint);

}  // namespace concord::train
