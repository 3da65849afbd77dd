// The families of models that build_model chooses from; private to nn/.
#pragma once

#include "concord/nn/model.h"

namespace concord::nn {

// What every family is given.
struct ModelCall {
  GraphBuilder& builder;
  const ModelOptions& options;
  const StepContext& context;
  ValueId x;
  std::int64_t outputs;
};

ValueId build_mlp(const ModelCall& call);
ValueId build_lenet(const ModelCall& call);
ValueId build_cnn(const ModelCall& call);
ValueId build_vgg(const ModelCall& call);
ValueId build_resnet(const ModelCall& call);
ValueId build_gpt(const ModelCall& call);
ValueId build_vit(const ModelCall& call);
ValueId build_bert(const ModelCall& call);

// Whether the model is asked for ImageNet-sized images; throws Error unless options.stem is
// "imagenet" or "cifar".
bool has_imagenet_stem(const ModelOptions& options);

}  // namespace concord::nn
