#include "concord/nn/model.h"

#include <fmt/format.h>

#include <array>

#include "concord/base/error.h"
#include "concord/base/text.h"
#include "concord/nn/zoo.h"

namespace concord::nn {
namespace {

struct Entry {
  std::string_view name;
  ValueId (*build)(const ModelCall& call);
  enum class Takes { kImages, kValues, kTokens } takes = Takes::kImages;
};

constexpr std::array kModels = {
    Entry{"mlp", build_mlp, Entry::Takes::kValues},
    Entry{"lenet", build_lenet},
    Entry{"cnn", build_cnn},
    Entry{"vgg11", build_vgg},
    Entry{"vgg13", build_vgg},
    Entry{"vgg16", build_vgg},
    Entry{"vgg19", build_vgg},
    Entry{"resnet18", build_resnet},
    Entry{"resnet34", build_resnet},
    Entry{"resnet50", build_resnet},
    Entry{"resnet_small", build_resnet},
    Entry{"gpt", build_gpt, Entry::Takes::kTokens},
    Entry{"bert", build_bert, Entry::Takes::kTokens},
    Entry{"bert_base", build_bert, Entry::Takes::kTokens},
    Entry{"vit", build_vit},
    Entry{"vit_b_16", build_vit},
    Entry{"vit_l_16", build_vit},
};

}  // namespace

ValueId build_model(GraphBuilder& builder, const ModelOptions& options, const StepContext& context,
                    ValueId x, std::int64_t outputs) {
  for (const Entry& entry : kModels) {
    if (entry.name != options.name) continue;
    const Shape shape = builder.shape(x);
    if (entry.takes == Entry::Takes::kImages && shape.rank() != 4) {
      fail("model \"{}\" takes images [samples, channels, height, width]; the data is {}",
           options.name, to_string(shape));
    }
    const bool tokens = builder.type(x).dtype == DType::kI32;
    if (tokens != (entry.takes == Entry::Takes::kTokens)) {
      fail("model \"{}\" takes {}; the data is {}", options.name,
           entry.takes == Entry::Takes::kTokens ? "tokens i32[samples, length]" : "values",
           to_string(builder.type(x)));
    }
    if (outputs < 1) fail("a model needs at least one output, given {}", outputs);
    return entry.build({builder, options, context, x, outputs});
  }
  const std::vector<std::string_view> names = model_names();
  fail("there is no model {}; did you mean {}? The models are {}", quote(options.name),
       quote(nearest(options.name, names)), fmt::join(names, ", "));
}

bool fills_masks(std::string_view name) { return name == "bert" || name == "bert_base"; }

std::vector<std::string_view> model_names() {
  std::vector<std::string_view> names;
  for (const Entry& entry : kModels) names.push_back(entry.name);
  return names;
}

std::int64_t parameter_count(const Graph& graph) {
  std::int64_t count = 0;
  for (const State& state : graph.states) {
    if (state.role == State::Role::kParameter) count += graph.type(state.value).shape.elements();
  }
  return count;
}

bool has_imagenet_stem(const ModelOptions& options) {
  if (options.stem != "imagenet" && options.stem != "cifar") {
    fail("there is no stem \"{}\"; expected \"cifar\" or \"imagenet\"", options.stem);
  }
  return options.stem == "imagenet";
}

}  // namespace concord::nn
