// The model zoo: networks by name, built into a graph.
//
//   mlp            fully connected layers fc1, fc2, ...; any sample, taken as one row of features
//   lenet          LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998) as it is built today: first
//                  convolution padded by 2 for 28x28 images, max-pooling, no partial connections
//   cnn            two 3x3 convolutions of 32 and 64 channels, max-pooling, fc1 of 128 units, fc2
//   vgg11, vgg13, vgg16, vgg19
//                  Simonyan, Zisserman 2015, configurations A, B, D, E
//   resnet18, resnet34, resnet50
//                  He, Zhang, Ren, Sun 2016; in resnet50 the 3x3 convolution has the stride
//   resnet_small   the same with basic blocks, of any width and number of blocks: small images
//
//   gpt            Radford et al. 2019 (GPT-2), or with rotary positions, RMSNorm and grouped
//                  queries as in Llama 2 (Touvron et al. 2023); tokens [N, length]
//   bert           Devlin et al. 2019, the masked language model; tokens [N, length]
//   bert_base      the same in the paper's size, with positions for 512 tokens
//   vit            Dosovitskiy et al. 2021, of any size
//   vit_b_16, vit_l_16
//                  the same in two of the paper's sizes
//
// State names and shapes of vgg, resnet and vit are torchvision's, those of bert, and the names of
// gpt, Hugging Face's. Images are [N, C, H, W].
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "concord/nn/layers.h"

namespace concord::nn {

struct ModelOptions {
  std::string name = "mlp";
  std::vector<std::int64_t> hidden = {128};  // mlp: units of each hidden layer
  std::string activation = "relu";           // mlp, lenet, cnn
  // Rate of dropout. mlp, vgg: after each hidden layer of neurons, in vgg without any before the
  // classifier; cnn: before fc1 and fc2.
  double dropout = 0;
  bool batch_norm = true;  // vgg: after each convolution
  // resnet18, 34 and 50: "imagenet" starts with a 7x7 convolution of stride 2 and a max-pooling,
  // "cifar" with a 3x3 convolution of stride 1. vgg: "imagenet" ends with three layers of neurons,
  // "cifar" with the mean of each channel and one layer.
  std::string stem = "cifar";
  std::int64_t channels = 64;  // vgg, resnet18, 34 and 50: of the first stage; 64 in the papers
  std::int64_t width = 16;     // resnet_small: channels of the first stage;
                               // gpt, bert, vit: numbers that stand for a token
                               // or a patch
  std::vector<std::int64_t> blocks = {3, 3, 3};  // resnet_small: blocks of each stage; each stage
                                                 // after the first halves H and W, doubles channels
  // resnet: the last norm of each block starts at 0, so that blocks start as the identity (Goyal et
  // al. 2017, section 5.1).
  bool zero_residual = false;
  std::int64_t layers = 6;            // gpt, bert, vit: blocks
  std::int64_t heads = 6;             // gpt, bert, vit: heads of attention, which divide the width
  std::int64_t mlp = 0;               // gpt, bert, vit: units of a feed-forward network; 0: 4 width
  std::int64_t key_value_heads = 0;   // gpt: heads of keys and values, which divide heads; 0: heads
  std::string positions = "learned";  // gpt: or "rotary"
  std::string norm = "layer_norm";    // gpt: or "rms_norm"
  bool tied_embeddings = true;        // gpt: the vectors of tokens are the classifier's weights too
  std::int64_t patch = 4;             // vit: pixels on a side, which divide height and width
  std::int64_t max_length = 0;        // bert: positions; 0: as many as a sample has tokens
};

// Adds the model applied to `x` [N, ...] and returns its logits (or predictions), [N, outputs]; of
// tokens [N, length, outputs], or, by a model that fills masks, [R, outputs] where context.rows
// names R of them.
// Throws Error for an unknown name or option, or a sample shape that the model does not take.
ValueId build_model(GraphBuilder& builder, const ModelOptions& options, const StepContext& context,
                    ValueId x, std::int64_t outputs);

std::vector<std::string_view> model_names();

// Whether the model of this name sees the tokens on both sides of a place, and so learns to fill
// places whose token is hidden, and not to continue a text.
bool fills_masks(std::string_view name);

// Elements of all parameters of a graph.
std::int64_t parameter_count(const Graph& graph);

}  // namespace concord::nn
