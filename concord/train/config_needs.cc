#include "concord/train/config_needs.h"

#include <algorithm>
#include <vector>

namespace concord {

bool is_free_on_resume(std::string_view name) {
  constexpr std::string_view kFree[] = {"model.weights",           "data.dir",
                                        "data.loader_threads",     "data.prefetch",
                                        "data.limit_test",         "train.epochs",
                                        "train.max_steps",         "train.threads",
                                        "train.recompute",         "train.memory_limit",
                                        "train.nonfinite",         "train.log_every",
                                        "train.eval_every_epochs", "train.checkpoint_every_steps"};
  return name.starts_with("output.") || name == "parallel.leaves" || name == "parallel.mesh" ||
         name == "parallel.place" || name == "parallel.zero" || name == "parallel.schedule" ||
         name == "parallel.chunks" || name.starts_with("parallel.offload") ||
         name == "parallel.bucket_bytes" || name == "parallel.transport" ||
         name == "parallel.algorithm" || name == "parallel.deterministic" ||
         std::ranges::find(kFree, name) != std::end(kFree);
}

std::optional<ConfigNeed> need_of(std::string_view name) {
  struct Row {
    std::vector<std::string_view> keys;
    ConfigNeed need;
  };
  static const std::vector<Row> rows = {
      {{"model.hidden"}, {"model.name", {"mlp"}}},
      {{"model.activation"}, {"model.name", {"mlp", "lenet", "cnn"}}},
      {{"model.dropout"},
       {"model.name",
        {"mlp", "cnn", "vgg11", "vgg13", "vgg16", "vgg19", "gpt", "bert", "bert_base", "vit",
         "vit_b_16", "vit_l_16"}}},
      {{"model.layers", "model.heads", "model.mlp"}, {"model.name", {"gpt", "bert", "vit"}}},
      {{"model.key_value_heads", "model.positions", "model.norm", "model.tied_embeddings"},
       {"model.name", {"gpt"}}},
      {{"model.patch"}, {"model.name", {"vit"}}},
      {{"model.max_length"}, {"model.name", {"bert"}}},
      {{"model.batch_norm"}, {"model.name", {"vgg11", "vgg13", "vgg16", "vgg19"}}},
      {{"model.stem"},
       {"model.name", {"resnet18", "resnet34", "resnet50", "vgg11", "vgg13", "vgg16", "vgg19"}}},
      {{"model.width"}, {"model.name", {"resnet_small", "gpt", "bert", "vit"}}},
      {{"model.blocks"}, {"model.name", {"resnet_small"}}},
      {{"model.zero_residual"},
       {"model.name", {"resnet18", "resnet34", "resnet50", "resnet_small"}}},
      {{"model.huber_delta"}, {"model.loss", {"huber"}}},
      {{"model.label_smoothing"}, {"model.loss", {"cross_entropy"}}},
      {{"data.train_features", "data.train_labels", "data.test_features", "data.test_labels"},
       {"data.kind", {"idx", "npy"}}},
      {{"data.train_file", "data.test_file"}, {"data.kind", {"csv", "text"}}},
      {{"data.target", "data.categorical", "data.has_header"}, {"data.kind", {"csv"}}},
      {{"data.tokenizer", "data.mask_token", "data.length", "data.test_fraction"},
       {"data.kind", {"text"}}},
      {{"data.image_size"}, {"data.kind", {"images"}}},
      {{"data.samples", "data.shape", "data.classes", "data.targets", "data.tokens"},
       {"data.kind", {"synthetic"}}},
      {{"data.normalize_targets"}, {"model.loss", {"mse", "l1", "huber"}}},
      {{"optimizer.momentum"}, {"optimizer.name", {"sgd", "rmsprop", "lars", "muon"}}},
      {{"optimizer.decoupled"},
       {"optimizer.name", {"sgd", "adam", "adamw", "lion", "rmsprop", "adagrad", "muon"}}},
      {{"optimizer.trust_coefficient"}, {"optimizer.name", {"lars"}}},
      {{"optimizer.adamw_rate_factor"}, {"optimizer.name", {"muon"}}},
      {{"optimizer.nesterov"}, {"optimizer.name", {"sgd", "muon"}}},
      {{"optimizer.beta1", "optimizer.beta2"},
       {"optimizer.name", {"adam", "adamw", "lion", "lamb", "muon"}}},
      {{"optimizer.epsilon"},
       {"optimizer.name", {"adam", "adamw", "rmsprop", "adagrad", "lamb", "muon"}}},
      {{"optimizer.alpha"}, {"optimizer.name", {"rmsprop"}}},
      {{"schedule.milestones", "schedule.gamma"}, {"schedule.name", {"step"}}},
      {{"schedule.decay_rate"}, {"schedule.name", {"inverse_time"}}},
      {{"schedule.final_learning_rate_fraction"},
       {"schedule.name", {"cosine", "linear", "polynomial", "one_cycle"}}},
      {{"schedule.power"}, {"schedule.name", {"polynomial"}}},
      {{"parallel.local_steps", "parallel.local_after", "parallel.outer_learning_rate",
        "parallel.outer_momentum"},
       {"parallel.sync", {"local", "diloco"}}},
      {{"parallel.vertical_sync"}, {"parallel.schedule", {"pipedream"}}},
      {{"parallel.offload_dir"}, {"parallel.offload", {"optimizer", "activations", "all"}}},
      {{"schedule.initial_learning_rate_fraction", "schedule.peak_fraction"},
       {"schedule.name", {"one_cycle"}}},
  };
  for (const auto& [keys, need] : rows) {
    if (std::ranges::count(keys, name) > 0) return need;
  }
  return std::nullopt;
}

}  // namespace concord
