#include "concord/train/config_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>
#include <utility>

#include "concord/base/text.h"
#include "concord/train/config_contradiction.h"
#include "concord/train/config_needs.h"

namespace concord {
namespace {

// Ceilings keep products of a few values within 64 bits. kMaximumCount is the one every integer
// has.
constexpr double kMaximumCount = 2147483647;
constexpr double kMaximumBatch = 16777216;
constexpr double kMaximumExtent = 1048576;
static_assert(kUsualHeadWidth * kMostHeads == kMaximumExtent);
constexpr double kMaximumThreads = 4096;
constexpr double kMaximumPixels = 16384;

const ConfigLimit kAny{};
const ConfigLimit kCount{.minimum = 0, .maximum = kMaximumCount};
const ConfigLimit kPositiveCount{.minimum = 1, .maximum = kMaximumCount};
const ConfigLimit kExtent{.minimum = 1, .maximum = kMaximumExtent};
const ConfigLimit kNonNegative{.minimum = 0};
const ConfigLimit kPositive{.minimum = 0, .open_minimum = true};
const ConfigLimit kFraction{.minimum = 0, .maximum = 1};
const ConfigLimit kBelowOne{.minimum = 0, .maximum = 1, .open_maximum = true};

ConfigLimit between(double minimum, double maximum) {
  return {.minimum = minimum, .maximum = maximum};
}

ConfigLimit one_of(std::vector<std::string_view> choices) {
  return {.choices = std::move(choices)};
}

// A row: the member's path is the key's name, so the two cannot differ.
#define CONCORD_CONFIG_KEY(path, limit, meaning)                                      \
  ConfigKey {                                                                         \
#path, [](const Config& config) -> ConfigValue { return config.path; },             \
        [](Config& config, ConfigValue value) {                                         \
          config.path = std::get<std::decay_t<decltype(config.path)>>(std::move(value)); \
        },                                                                              \
        limit, meaning \
  }

std::vector<ConfigKey> make_keys() {
  return {
      CONCORD_CONFIG_KEY(model.name,
                         one_of({"mlp", "lenet", "cnn", "vgg11", "vgg13", "vgg16", "vgg19",
                                 "resnet18", "resnet34", "resnet50", "resnet_small", "gpt", "bert",
                                 "bert_base", "vit", "vit_b_16", "vit_l_16"}),
                         "the network, from the built-in zoo"),
      CONCORD_CONFIG_KEY(
          model.weights, kAny,
          "a safetensors file from which training starts: every parameter and running "
          "statistic by its name (`concord info`), in f32 and of its shape; empty: "
          "fresh random weights"),
      CONCORD_CONFIG_KEY(model.stem, one_of({"cifar", "imagenet"}),
                         "resnet, its first layers: `cifar` is one 3×3 convolution "
                         "of stride 1, `imagenet` a 7×7 convolution of stride 2 and a max-pooling "
                         "of stride 2; vgg, its end: `imagenet` has three layers of neurons, "
                         "`cifar` one behind the mean of each channel"),
      CONCORD_CONFIG_KEY(model.hidden, kExtent,
                         "units of each hidden layer; empty: a linear model"),
      CONCORD_CONFIG_KEY(model.activation, one_of({"relu", "gelu", "silu", "tanh", "sigmoid"}),
                         "the activation function"),
      CONCORD_CONFIG_KEY(model.dropout, kBelowOne, "the probability that dropout zeroes a value"),
      CONCORD_CONFIG_KEY(model.batch_norm, kAny, "batch normalization after each convolution"),
      CONCORD_CONFIG_KEY(model.width, kExtent,
                         "resnet_small: channels of the first stage; gpt, bert, vit: numbers that "
                         "stand for a token or a patch, where it is not set 64 times model.heads"),
      CONCORD_CONFIG_KEY(model.blocks, between(1, 1000),
                         "residual blocks of each stage; each stage after the "
                         "first halves the image and doubles the channels"),
      CONCORD_CONFIG_KEY(model.zero_residual, kAny,
                         "the last batch norm of each residual block starts at 0, so that blocks "
                         "start as the identity (Goyal et al. 2017)"),
      CONCORD_CONFIG_KEY(model.layers, between(1, 1000),
                         "blocks of attention and feed-forward network"),
      CONCORD_CONFIG_KEY(model.heads, between(1, kMostHeads),
                         "heads of attention; they divide model.width"),
      CONCORD_CONFIG_KEY(model.mlp, between(0, kMaximumExtent),
                         "units of each feed-forward network; 0: four times model.width"),
      CONCORD_CONFIG_KEY(model.patch, between(1, kMaximumPixels),
                         "width and height in pixels of the patches into which an image is cut; it "
                         "divides those of the image"),
      CONCORD_CONFIG_KEY(model.max_length, between(0, kMaximumExtent),
                         "positions that the model knows, at least data.length; 0: as many as "
                         "that. bert_base knows 512"),
      CONCORD_CONFIG_KEY(
          model.key_value_heads, between(0, kMostHeads),
          "heads of keys and values, which divide model.heads and are each shared by "
          "several of these (grouped-query attention); 0: as many"),
      CONCORD_CONFIG_KEY(model.positions, one_of({"learned", "rotary"}),
                         "how a token's position is told: a learned vector added to its own, or a "
                         "rotation of queries and keys (Su et al. 2021)"),
      CONCORD_CONFIG_KEY(model.norm, one_of({"layer_norm", "rms_norm"}), "the normalization"),
      CONCORD_CONFIG_KEY(model.tied_embeddings, kAny,
                         "the classifier's weights are the vectors of the tokens"),
      CONCORD_CONFIG_KEY(model.loss, one_of({"cross_entropy", "mse", "l1", "huber", "bce"}),
                         "`cross_entropy`: of classes, by softmax; all others take targets that "
                         "are numbers. `mse`: mean squared error; `l1`: mean absolute error; "
                         "`huber`: half the square of an error up to model.huber_delta, linear "
                         "beyond; `bce`: binary cross-entropy of outputs that are logits, with "
                         "targets from 0 to 1"),
      CONCORD_CONFIG_KEY(model.huber_delta, kPositive,
                         "the error from which on the loss is linear, in the units of the targets "
                         "after data.normalize_targets"),
      CONCORD_CONFIG_KEY(model.label_smoothing, kBelowOne,
                         "the share of each label's probability that is spread evenly over all "
                         "classes"),

      CONCORD_CONFIG_KEY(
          data.kind,
          one_of({"idx", "cifar10", "cifar100", "images", "csv", "npy", "text", "synthetic"}),
          "the data's format; `images` is a folder of JPEG and PNG files for each class, `text` is "
          "cut into windows of tokens of which each is to be predicted from those before it, or, "
          "by bert, some from all others; `synthetic` needs no files"),
      CONCORD_CONFIG_KEY(data.dir, kAny,
                         "the folder that holds the data; the file names below are relative to it"),
      CONCORD_CONFIG_KEY(data.train_features, kAny,
                         "file of the training features; empty: the format's usual name"),
      CONCORD_CONFIG_KEY(data.train_labels, kAny,
                         "file of the training labels; empty: the format's usual name"),
      CONCORD_CONFIG_KEY(data.test_features, kAny,
                         "file of the test features; empty: the format's usual name"),
      CONCORD_CONFIG_KEY(data.test_labels, kAny,
                         "file of the test labels; empty: the format's usual name"),
      CONCORD_CONFIG_KEY(data.train_file, kAny,
                         "the training table or text; empty: train.csv or train.txt"),
      CONCORD_CONFIG_KEY(data.test_file, kAny,
                         "the test table or text; empty: test.csv, and for text the end of the "
                         "training text"),
      CONCORD_CONFIG_KEY(data.test_fraction, kBelowOne,
                         "the share of the training text that is kept for the test, at its end, "
                         "where data.test_file is empty"),
      CONCORD_CONFIG_KEY(
          data.tokenizer, kAny,
          "what cuts text into tokens: `bytes`, or the path of a tokenizer.json (see "
          "`concord tokenize`)"),
      CONCORD_CONFIG_KEY(data.mask_token, kAny,
                         "for bert: the token of the tokenizer that hides others, such as "
                         "`[MASK]`; empty: one beside the tokenizer's"),
      CONCORD_CONFIG_KEY(data.length, kExtent, "tokens of a sample"),
      CONCORD_CONFIG_KEY(data.target, kAny,
                         "the column that holds the label, or the columns that hold the targets: "
                         "their names, or their indices from 0 where there is no header; empty: "
                         "the last column. The table's order counts, not this list's"),
      CONCORD_CONFIG_KEY(data.categorical, kAny,
                         "the feature columns that hold categories, by name or index: each "
                         "category becomes a feature that is 0 or 1"),
      CONCORD_CONFIG_KEY(data.has_header, kAny, "the first line of the table names its columns"),
      CONCORD_CONFIG_KEY(data.image_size, between(1, 8192),
                         "width and height in pixels to which every picture is brought"),
      CONCORD_CONFIG_KEY(data.normalize, one_of({"auto", "none", "given"}),
                         "features become (x - mean) / std: `auto` measures mean and std of each "
                         "channel or column on the training data, `given` takes data.mean and "
                         "data.std, `none` leaves the features alone. Tokens are not normalized"),
      CONCORD_CONFIG_KEY(data.mean, kAny,
                         "the mean of each channel or column; pixels are scaled to [0, 1] before"),
      CONCORD_CONFIG_KEY(data.std, kPositive,
                         "the standard deviation of each channel or column, in the same units"),
      CONCORD_CONFIG_KEY(data.normalize_targets, one_of({"none", "auto"}),
                         "`auto`: targets become (y - mean) / std, measured on the training data; "
                         "losses are then in those units, predictions in the targets' own"),
      CONCORD_CONFIG_KEY(data.crop_padding, between(0, kMaximumPixels),
                         "pixels of zeros put around a training image before a random crop of its "
                         "old size; 0: no crop"),
      CONCORD_CONFIG_KEY(data.horizontal_flip, kAny,
                         "mirrors each training image with probability one half"),
      CONCORD_CONFIG_KEY(data.cutout, between(0, kMaximumPixels),
                         "side in pixels of a square of zeros at a random place of each training "
                         "image; 0: none"),
      CONCORD_CONFIG_KEY(data.loader_threads, between(1, kMaximumThreads),
                         "threads that read, decode and augment samples"),
      CONCORD_CONFIG_KEY(data.prefetch, between(1, 1024), "batches prepared ahead of the training"),
      CONCORD_CONFIG_KEY(data.limit_train, kCount,
                         "use only the first so many training samples; 0: all"),
      CONCORD_CONFIG_KEY(data.limit_test, kCount,
                         "use only the first so many test samples; 0: all"),
      CONCORD_CONFIG_KEY(data.samples, kPositiveCount, "training samples"),
      CONCORD_CONFIG_KEY(data.shape, kExtent,
                         "the extents of one sample; an image is [channels, "
                         "height, width]"),
      CONCORD_CONFIG_KEY(data.classes, between(2, kMaximumExtent),
                         "classes, where model.loss is cross_entropy"),
      CONCORD_CONFIG_KEY(data.targets, between(0, kMaximumExtent),
                         "numbers to be predicted of a sample, where model.loss compares numbers; "
                         "0: one"),
      CONCORD_CONFIG_KEY(data.tokens, kAny,
                         "samples are windows of data.shape = [length] random tokens out of "
                         "data.classes"),

      CONCORD_CONFIG_KEY(train.batch, between(1, kMaximumBatch),
                         "samples of one step, over all ranks together"),
      CONCORD_CONFIG_KEY(train.leaves, between(0, kMaximumBatch),
                         "fixed parts into which the batch is cut, a power of two; results depend "
                         "on it, and never on the number of ranks; 0: chosen from batch and model"),
      CONCORD_CONFIG_KEY(train.microbatch, between(0, kMaximumBatch),
                         "samples computed at once; smaller takes less memory; 0: a whole leaf"),
      CONCORD_CONFIG_KEY(train.epochs, kPositiveCount, "passes over the training data"),
      CONCORD_CONFIG_KEY(train.max_steps, kCount,
                         "training ends after so many steps, if the epochs do not end before; 0: "
                         "no such limit"),
      CONCORD_CONFIG_KEY(train.seed, kNonNegative,
                         "of every random choice: initial weights, sample order, augmentation, "
                         "masks, dropout"),
      CONCORD_CONFIG_KEY(train.threads, between(0, kMaximumThreads),
                         "compute threads of a rank; 0: every core the process may run on"),
      CONCORD_CONFIG_KEY(
          train.precision, one_of({"f32", "bf16"}),
          "the number format of the computation; with `bf16`, which the processor "
          "must have, weights, statistics and sums stay f32. `predict --prompt` computes "
          "in f32 always: casting the weights for each token would cost more than it saves"),
      CONCORD_CONFIG_KEY(
          train.recompute, one_of({"none", "selective", "full"}),
          "what the backward pass computes again in place of finding it kept, for "
          "less memory: `selective` what costs little, such as normalizations and "
          "activation functions; `full` all but the ends of segments of the network"),
      CONCORD_CONFIG_KEY(train.nonfinite, one_of({"stop", "skip"}),
                         "when the loss or a batch norm's statistic is infinite or not a number: "
                         "`stop` ends the run "
                         "with an error, `skip` leaves the step out and says so"),
      CONCORD_CONFIG_KEY(train.log_every, kCount, "steps between two log lines; 0: none"),
      CONCORD_CONFIG_KEY(train.eval_every_epochs, kCount,
                         "epochs between two evaluations on the test data; 0: only at the end"),
      CONCORD_CONFIG_KEY(train.checkpoint_every_steps, kCount,
                         "steps between two checkpoints; 0: one after each epoch. Another is made "
                         "where the test set shows the best model so far"),
      CONCORD_CONFIG_KEY(train.winograd, kAny,
                         "convolutions may use Winograd's algorithm: faster, with larger rounding "
                         "errors"),
      CONCORD_CONFIG_KEY(train.kernels, one_of({"measure", "default"}),
                         "`measure` times the candidate kernels at the start and keeps the "
                         "fastest, and times what "
                         "stages cost; `default` takes the built-in choice"),
      CONCORD_CONFIG_KEY(
          train.memory_limit, kCount,
          "bytes that the ranks of a host may have resident together, as they are foreseen "
          "(`concord info`); a run that would need more is refused. 0: what the host, or the "
          "process's control group, has available"),

      CONCORD_CONFIG_KEY(
          optimizer.name,
          one_of({"sgd", "adam", "adamw", "lion", "rmsprop", "adagrad", "lars", "lamb", "muon"}),
          "the update rule; adamw is adam with decoupled weight decay; muon updates "
          "hidden matrices and filters, adamw all else"),
      CONCORD_CONFIG_KEY(optimizer.learning_rate, kPositive,
                         "the learning rate that [schedule] varies"),
      CONCORD_CONFIG_KEY(optimizer.momentum, kBelowOne,
                         "the momentum; 0: none. Default for rmsprop: 0, for muon: 0.95"),
      CONCORD_CONFIG_KEY(optimizer.nesterov, kAny,
                         "Nesterov's form of the momentum. Default for muon: true"),
      CONCORD_CONFIG_KEY(optimizer.weight_decay, kNonNegative,
                         "the weight decay λ, of weights w; 0: none"),
      CONCORD_CONFIG_KEY(optimizer.decoupled, kAny,
                         "false: λ·w is added to the gradient; true: learning rate·λ·w is "
                         "subtracted from the weights beside the update. adamw, lion and muon "
                         "set it"),
      CONCORD_CONFIG_KEY(optimizer.decay_norm_and_bias, kAny,
                         "weight decay also for biases and the parameters of normalizations"),
      CONCORD_CONFIG_KEY(optimizer.beta1, kBelowOne,
                         "the decay of the gradient's running mean; lion: the share of the "
                         "momentum in the sum whose sign is the step"),
      CONCORD_CONFIG_KEY(optimizer.beta2, kBelowOne,
                         "the decay of the squared gradient's running mean; lion: the decay of the "
                         "momentum. Default for lion: 0.99"),
      CONCORD_CONFIG_KEY(optimizer.epsilon, kPositive,
                         "added to the root of the squared gradient's mean, or sum. Default for "
                         "adagrad: 1e-10, for lamb: 1e-6"),
      CONCORD_CONFIG_KEY(optimizer.alpha, kBelowOne,
                         "the decay of the squared gradient's running mean"),
      CONCORD_CONFIG_KEY(optimizer.trust_coefficient, kPositive,
                         "the size of a step relative to the size of the parameter"),
      CONCORD_CONFIG_KEY(optimizer.adamw_rate_factor, kPositive,
                         "what multiplies the learning rate of the parameters that adamw updates"),
      CONCORD_CONFIG_KEY(optimizer.clip_norm, kNonNegative,
                         "a gradient whose norm over all parameters is larger is scaled down to "
                         "it; 0: off"),
      CONCORD_CONFIG_KEY(optimizer.ema_decay, kBelowOne,
                         "d of the weights' exponential moving average, which starts as the "
                         "weights do and becomes d·average + (1 - d)·w after each step: what "
                         "evaluations and predictions use, and what checkpoints hold as weights; "
                         "0: none"),
      CONCORD_CONFIG_KEY(optimizer.rates, kAny,
                         "layer-wise learning rates, such as `[\"wte=0.1\", \"h.0=0.5\"]`: the "
                         "learning rate of the parameters called `h.0` or `h.0.` and more is "
                         "multiplied by 0.5; of several beginnings that fit the longest counts"),

      CONCORD_CONFIG_KEY(schedule.name,
                         one_of({"constant", "step", "cosine", "linear", "polynomial",
                                 "inverse_time", "one_cycle"}),
                         "the formula, see above"),
      CONCORD_CONFIG_KEY(schedule.warmup_steps, kCount, "w, steps of linear warm-up"),
      CONCORD_CONFIG_KEY(schedule.milestones, kNonNegative,
                         "epochs, increasing, at which step multiplies by gamma"),
      CONCORD_CONFIG_KEY(schedule.gamma, kPositive, "the factor of step"),
      CONCORD_CONFIG_KEY(schedule.decay_rate, kNonNegative, "d of inverse_time, for one step"),
      CONCORD_CONFIG_KEY(schedule.final_learning_rate_fraction, kFraction,
                         "f, the share of η left at the end of cosine, linear, polynomial and "
                         "one_cycle"),
      CONCORD_CONFIG_KEY(schedule.power, kPositive,
                         "q, the power of polynomial; 1 is the same as linear"),
      CONCORD_CONFIG_KEY(schedule.initial_learning_rate_fraction, kFraction,
                         "i, the share of η with which one_cycle starts"),
      CONCORD_CONFIG_KEY(
          schedule.peak_fraction,
          (ConfigLimit{.minimum = 0, .maximum = 1, .open_minimum = true, .open_maximum = true}),
          "p, the share of the steps after which one_cycle is at its peak"),

      CONCORD_CONFIG_KEY(
          parallel.mesh, between(1, 65536),
          "the ranks by axis, as { data = 2, pipe = 2, tensor = 2 }: `data` divides the leaves of "
          "the batch, `tensor` the weights and what is computed with them (docs/placement.md), "
          "`pipe` the layers (docs/pipeline.md). An axis that is left out has 1 rank, but for "
          "`data`, which has those that are left"),
      CONCORD_CONFIG_KEY(
          parallel.place, kAny,
          "how weights are placed, by name or pattern (`*` stands for anything): "
          "\"h.*.mlp.c_fc.weight\" = \"tensor:split(0)\", or \"tensor:replicate\". What is not "
          "named is placed as costs least (`concord plan show`). One rank along `tensor` holds all "
          "of every weight, whatever is said here"),
      CONCORD_CONFIG_KEY(
          parallel.schedule,
          one_of({"sequential", "gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "pipedream",
                  "pipedream-2bw"}),
          "in which order the ranks along `pipe` compute the parts of their microbatches "
          "(docs/pipeline.md). Results do not depend on it, but for those of `pipedream` and "
          "`pipedream-2bw`, which take gradients of weights that are older"),
      CONCORD_CONFIG_KEY(
          parallel.chunks, between(0, 1024),
          "stages of each rank along `pipe`; 0: as few as the schedule has, which is 2 for "
          "`interleaved` and `zb-v`, else 1. Results do not depend on it"),
      CONCORD_CONFIG_KEY(parallel.vertical_sync, kAny,
                         "all stages take the gradients of a microbatch at the weights of one "
                         "update, as old as the first stage's"),
      CONCORD_CONFIG_KEY(
          parallel.zero, between(0, 3),
          "what the ranks along `data` divide instead of each having all of it (ZeRO; "
          "docs/placement.md): nothing (0), the optimizer's states (1), the gradients too (2), the "
          "parameters too (3). Results do not depend on it, and one rank along `data` divides "
          "nothing"),
      CONCORD_CONFIG_KEY(
          parallel.offload, one_of({"none", "optimizer", "activations", "all"}),
          "what lies in a file on a disk instead of in memory: the optimizer's states, but for "
          "averages (optimizer.ema_decay), which the update brings in by portions; activations, "
          "from the forward pass until the backward pass needs them; or both "
          "(docs/placement.md). Results do not depend on it"),
      CONCORD_CONFIG_KEY(
          parallel.offload_dir, kAny,
          "the folder of that file, which has no name there and is gone when the run ends; empty: "
          "output.dir or, before that is there, the nearest folder above it"),
      CONCORD_CONFIG_KEY(
          parallel.split_sums, kAny,
          "ranks along `tensor` may share the work of a sum, and add up what they have of it. "
          "false: they divide outputs alone, which takes more messages; in f32 any number of them "
          "then computes the same bits (docs/placement.md)"),
      CONCORD_CONFIG_KEY(parallel.codec, kAny,
                         "how gradients are compressed on their way between ranks along `data`: a "
                         "codec and, behind "
                         "a colon, its parameters, such as `topk:density=0.001` "
                         "(docs/compression.md); `none`: not. "
                         "Tensors of fewer than 1024 numbers are not compressed"),
      CONCORD_CONFIG_KEY(parallel.codecs, kAny,
                         "the same of parameters by name or pattern (`*` stands for anything; the "
                         "first that fits counts, in the order of their names): "
                         "`\"fc*\" = \"none\"`"),
      CONCORD_CONFIG_KEY(
          parallel.encoders, between(0, kMaximumExtent),
          "into how many parts the leaves of a step are divided, each of which is compressed by "
          "itself: a power of two and a multiple of the ranks along `data`, which may change while "
          "it stays; 0: as many as ranks when the run begins. Results depend on it"),
      CONCORD_CONFIG_KEY(
          parallel.codec_way, one_of({"auto", "gather", "shares"}),
          "every rank gets what all encoders send (`gather`); or each gets its share of that, adds "
          "it up and sends the sum, compressed once more (`shares`). `auto`: what takes fewer "
          "bytes, "
          "`gather` for up to two encoders"),
      CONCORD_CONFIG_KEY(
          parallel.transport, one_of({"auto", "shm", "gloo", "mpi"}),
          "what carries what ranks tell each other: memory that they share (`shm`), TCP "
          "(`gloo`), or what MPI chooses (`mpi`). `auto`: `shm` on one host, `gloo` on "
          "several. Results do not depend on it"),
      CONCORD_CONFIG_KEY(
          parallel.algorithm,
          one_of({"auto", "direct", "halving_doubling", "chain", "hierarchical", "ring"}),
          "how ranks add up: what is fastest (`auto`), or one way for all sums. `hierarchical` is "
          "for several hosts, `ring` for parallel.deterministic = false; results do not depend on "
          "the others"),
      CONCORD_CONFIG_KEY(
          parallel.deterministic, kAny,
          "sums over ranks that send each other messages have the same bits for any number of "
          "them. false: they may be added in any order, which takes fewer bytes where ranks have "
          "unequal leaves, and results depend on the ranks"),
      CONCORD_CONFIG_KEY(
          parallel.leaves, between(1, kMaximumBatch),
          "the leaves of each rank along `data`, one number for each, train.leaves together: "
          "fewer for a slower one; results do not depend on it where parallel.sync is all_reduce. "
          "Empty: "
          "equally many"),
      CONCORD_CONFIG_KEY(
          parallel.bucket_bytes, between(1, 1099511627776),
          "gradients that ranks sum together, as soon as backpropagation has computed "
          "them, at most where parallel.zero divides them; results do not depend on it"),
      CONCORD_CONFIG_KEY(
          parallel.batch_norm, one_of({"leaf", "batch"}),
          "what a batch norm takes its statistics over while training: a leaf (or microbatch), or "
          "the whole batch of a step, over all ranks. For the latter each rank has one leaf, "
          "computed at once"),
      CONCORD_CONFIG_KEY(
          parallel.sync, one_of({"all_reduce", "local", "diloco"}),
          "`all_reduce`: every step sums the gradients of all ranks, and results do not "
          "depend on their number. Otherwise ranks take parallel.local_steps steps of "
          "their own and go on from the mean of their weights: at once (`local`; SlowMo "
          "with parallel.outer_momentum), or by Nesterov's momentum (`diloco`)"),
      CONCORD_CONFIG_KEY(parallel.local_steps, kPositiveCount,
                         "steps that each rank takes by itself"),
      CONCORD_CONFIG_KEY(parallel.local_after, kCount,
                         "the first so many steps end in the mean each (post-local SGD)"),
      CONCORD_CONFIG_KEY(
          parallel.outer_learning_rate, kPositive,
          "α, the rate at which the weights follow the mean. Default for diloco: 0.7"),
      CONCORD_CONFIG_KEY(parallel.outer_momentum, kBelowOne,
                         "β, the momentum over the means; 0: none. Default for diloco: 0.9"),
      CONCORD_CONFIG_KEY(parallel.timeout_seconds,
                         (ConfigLimit{.minimum = 0, .maximum = 1e6, .open_minimum = true}),
                         "seconds for which ranks wait for one that does not come, or does not go "
                         "on; then the job ends"),

      CONCORD_CONFIG_KEY(output.dir, kAny,
                         "the folder for checkpoints, weights and metrics; empty: `runs/` and the "
                         "configuration file's name without its ending"),
      CONCORD_CONFIG_KEY(output.keep_checkpoints, kPositiveCount,
                         "newest checkpoints that are kept, beside the best"),
      CONCORD_CONFIG_KEY(output.tensorboard, kAny, "writes TensorBoard event files"),
      CONCORD_CONFIG_KEY(
          output.trace_steps, between(0, 1000),
          "steps of which all ops and collectives of all ranks are written, with their "
          "times, into trace.json, which Perfetto and Chrome show; 0: none"),
      CONCORD_CONFIG_KEY(output.trace_after, kCount, "steps of this run before the first of those"),
  };
}

#undef CONCORD_CONFIG_KEY

constexpr std::array kSections = {
    ConfigSection{"model",
                  "What is trained. Input shape and number of classes come from the data."},
    ConfigSection{"data",
                  "What it is trained on. A key that names a kind in brackets is read for "
                  "that kind alone."},
    ConfigSection{"train", "How long, in which portions and how exactly."},
    ConfigSection{"optimizer",
                  "How a gradient changes the weights. The formulas are in "
                  "`concord/ops/optimizer.h`; how muon, lars and lamb treat which parameters is in "
                  "`concord/optim/optimizer.h`."},
    ConfigSection{
        "schedule",
        "The learning rate of step s = 0, 1, ..., S - 1, where S is the number of steps of all "
        "epochs (train.max_steps may end a run before) and η is optimizer.learning_rate. For s < w "
        "it is η·(s + 1) / w. From there on, with "
        "t = (s - w) / (S - w) and the other letters as in the table:\n\n"
        "- constant: η\n"
        "- step: η·gamma^m, m being the number of milestones ≤ s / (steps of an epoch)\n"
        "- cosine: η·(f + (1 - f)·(1 + cos(π·t)) / 2)\n"
        "- linear: η·(1 - (1 - f)·t)\n"
        "- polynomial: η·(f + (1 - f)·(1 - t)^q)\n"
        "- inverse_time: η / (1 + d·(s - w))\n"
        "- one_cycle (w = 0), with u = s / S: η·(i + (1 - i)·(1 - cos(π·u / p)) / 2) for u < p, "
        "then η·(f + (1 - f)·(1 + cos(π·(u - p) / (1 - p))) / 2)"},
    ConfigSection{"parallel", "How several ranks share the work (docs/parallel.md)."},
    ConfigSection{"output", "Where results go."},
};

template <typename T>
constexpr bool is_array_v = false;
template <typename T>
constexpr bool is_array_v<std::vector<T>> = true;
template <typename T>
constexpr bool is_table_v = false;
template <typename T>
constexpr bool is_table_v<std::map<std::string, T>> = true;

bool admits(const ConfigLimit& limit, double number) {
  return std::isfinite(number) &&
         (limit.open_minimum ? number > limit.minimum : number >= limit.minimum) &&
         (limit.open_maximum ? number < limit.maximum : number <= limit.maximum);
}

bool admits(const ConfigLimit& limit, const std::string& text) {
  // A control character is never meant; a zero byte would silently cut a path short.
  const bool plain =
      std::ranges::none_of(text, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  return plain && (limit.choices.empty() || std::ranges::count(limit.choices, text) > 0);
}

bool admits(const ConfigLimit& limit, const ConfigValue& value) {
  return std::visit(
      [&]<typename T>(const T& v) {
        if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          return std::ranges::all_of(v, [&](const std::string& x) { return admits(limit, x); });
        } else if constexpr (std::is_same_v<T, std::map<std::string, std::string>>) {
          return std::ranges::all_of(
              v, [&](const auto& x) { return admits({}, x.first) && admits(limit, x.second); });
        } else if constexpr (is_table_v<T>) {
          return std::ranges::all_of(v, [&](const auto& x) {
            return admits({}, x.first) && admits(limit, static_cast<double>(x.second));
          });
        } else if constexpr (is_array_v<T>) {
          return std::ranges::all_of(v,
                                     [&](auto x) { return admits(limit, static_cast<double>(x)); });
        } else if constexpr (std::is_same_v<T, std::string>) {
          return admits(limit, v);
        } else {
          return std::is_same_v<T, bool> || admits(limit, static_cast<double>(v));
        }
      },
      value);
}

bool above_every_count(const ConfigValue& value) {
  const auto* number = std::get_if<std::int64_t>(&value);
  return number != nullptr && static_cast<double>(*number) > kMaximumCount;
}

std::string format_number(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  std::string text = fmt::format("{}", number);
  // TOML tells a float from an integer by its point or exponent.
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

// "; did you mean "adam"?", where one of them is near enough to be meant.
std::string suggestion(std::string_view word, std::span<const std::string_view> choices) {
  const std::string_view best = nearest(word, choices);
  const std::size_t longer = std::max(word.size(), best.size());
  if (best.empty() || 2 * edit_distance(word.substr(0, 64), best) > longer) return "";
  return fmt::format("; did you mean {}?", quote(best));
}

std::string format_number(std::int64_t number) { return fmt::format("{}", number); }

// The interval in words, around the noun: "positive integer", "numbers in [0, 1)".
std::string describe_interval(const ConfigLimit& limit, bool integer, bool plural) {
  std::string noun = fmt::format("{}{}", integer ? "integer" : "number", plural ? "s" : "");
  const bool capped = std::isfinite(limit.maximum) && !(integer && limit.maximum == kMaximumCount);
  if (!capped) {
    if (!std::isfinite(limit.minimum)) return noun;
    if (integer && limit.minimum == 1) return "positive " + noun;
    if (limit.minimum == 0 && limit.open_minimum) return "positive " + noun;
    if (limit.minimum == 0) return "non-negative " + noun;
  }
  if (integer) return fmt::format("{} from {} to {}", noun, limit.minimum, limit.maximum);
  return fmt::format("{} in {}{}, {}{}", noun, limit.open_minimum ? '(' : '[', limit.minimum,
                     limit.maximum, limit.open_maximum ? ')' : ']');
}

std::string quoted_list(std::span<const std::string_view> words) {
  std::string text;
  for (const std::string_view word : words) text += (text.empty() ? "" : ", ") + quote(word);
  return text;
}

// The meaning, and for what alone the key is: "only for `data.kind` csv: ...".
std::string describe_meaning(const ConfigKey& key) {
  if (!key.need) return std::string(key.meaning);
  return fmt::format("only for `{}` {}: {}", key.need->key, fmt::join(key.need->values, ", "),
                     key.meaning);
}

// The key must exist.
const ConfigKey& key_named(std::string_view name) {
  return *std::ranges::find(config_keys(), name, &ConfigKey::name);
}

// A key that is set although what it is for is not.
std::optional<ConfigProblem> find_unused(const Config& config) {
  static const Config kDefaults;
  for (const ConfigKey& key : config_keys()) {
    if (!key.need || key.get(config) == key.get(kDefaults)) continue;
    const auto decider = std::get<std::string>(key_named(key.need->key).get(config));
    if (std::ranges::count(key.need->values, decider) > 0) continue;
    return ConfigProblem{
        key.name,
        fmt::format(
            "{} = {}: expected it to be left out: it has an effect only where {} is {}, not {}",
            key.name, shortened(format_value(key.get(config))), key.need->key,
            quoted_list(key.need->values), quote(decider))};
  }
  return std::nullopt;
}

}  // namespace

std::span<const ConfigSection> config_sections() { return kSections; }

std::span<const ConfigKey> config_keys() {
  static const std::vector<ConfigKey> keys = [] {
    std::vector<ConfigKey> table = make_keys();
    for (ConfigKey& key : table) {
      key.free_on_resume = is_free_on_resume(key.name);
      key.need = need_of(key.name);
    }
    return table;
  }();
  return keys;
}

std::string expectation(const ConfigKey& key) {
  const ConfigLimit& limit = key.limit;
  const auto article = [](const std::string& words) {
    return (words.starts_with("integer") ? "an " : "a ") + words;
  };
  return std::visit(
      [&]<typename T>(const T&) -> std::string {
        if constexpr (std::is_same_v<T, bool>) {
          return "true or false";
        } else if constexpr (std::is_same_v<T, std::string>) {
          if (limit.choices.empty()) return "a string";
          return (limit.choices.size() > 1 ? "one of " : "") + quoted_list(limit.choices);
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          return "an array of strings, or one string";
        } else if constexpr (std::is_same_v<T, std::map<std::string, std::string>>) {
          return "a table of strings";
        } else if constexpr (is_table_v<T>) {
          return "a table of " + describe_interval(limit, true, true);
        } else if constexpr (is_array_v<T>) {
          constexpr bool kInteger = std::is_same_v<typename T::value_type, std::int64_t>;
          return "an array of " + describe_interval(limit, kInteger, true);
        } else {
          return article(describe_interval(limit, std::is_same_v<T, std::int64_t>, false));
        }
      },
      key.get(Config()));
}

std::string format_value(const ConfigValue& value) {
  return std::visit(
      []<typename T>(const T& v) -> std::string {
        if constexpr (std::is_same_v<T, bool>) {
          return v ? "true" : "false";
        } else if constexpr (std::is_same_v<T, std::string>) {
          return quote(v);
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          std::string text;
          for (const std::string& word : v) text += (text.empty() ? "" : ", ") + quote(word);
          return "[" + text + "]";
        } else if constexpr (is_table_v<T>) {
          std::string text;
          for (const auto& [name, x] : v) {
            text += fmt::format("{}{} = {}", text.empty() ? "" : ", ", quote(name),
                                format_value(ConfigValue(x)));
          }
          return text.empty() ? "{}" : "{ " + text + " }";
        } else if constexpr (is_array_v<T>) {
          std::string text;
          for (const auto x : v) text += (text.empty() ? "" : ", ") + format_number(x);
          return "[" + text + "]";
        } else {
          return format_number(v);
        }
      },
      value);
}

std::optional<ConfigProblem> find_problem(const Config& config) {
  for (const ConfigKey& key : config_keys()) {
    const ConfigValue value = key.get(config);
    if (admits(key.limit, value)) continue;
    std::string message = fmt::format("{} = {}: expected {}", key.name,
                                      shortened(format_value(value)), expectation(key));
    if (key.limit.maximum == kMaximumCount && above_every_count(value)) {
      message += fmt::format(" of at most {}", kMaximumCount);
    }
    if (std::holds_alternative<std::vector<std::string>>(value)) {
      message += " without control characters";
    }
    if (const auto* word = std::get_if<std::string>(&value)) {
      message += key.limit.choices.empty()       ? " without control characters"
                 : key.limit.choices.size() == 1 ? ""
                                                 : suggestion(*word, key.limit.choices);
    }
    return ConfigProblem{key.name, message};
  }
  if (auto unused = find_unused(config)) return unused;
  return find_contradiction(config);
}

std::string configuration_reference() {
  std::string page = fmt::format(
      "# Configuration\n\n"
      "<!-- Printed from concord/train/config_schema.cc; see the end of this page. -->\n\n"
      "A run is described by one TOML file of the sections below. A key that is not given has its\n"
      "default. `--set section.key=value` on the command line, any number of times, overrides the\n"
      "file; the last one wins. Its value is TOML; a string needs no quotes there.\n\n"
      "An unknown key, a value of the wrong type or outside its limits, or two values that\n"
      "contradict each other end the command with one line, such as\n\n"
      "    config.toml:12: unknown key \"train.bacth\"; did you mean \"train.batch\"?\n\n"
      "- Paths (`data.dir`, `data.tokenizer`, `model.weights`, `output.dir`) are relative to the\n"
      "  directory in which the command runs.\n"
      "- A number may be written as an integer (`1`) or a float (`1.0`, `1e-3`); it is finite.\n"
      "- An integer is at most {}, except `train.seed`, which is at most 2^63 - 1.\n"
      "- A key that is only for another key's value, such as `model.hidden` for `model.name` mlp,\n"
      "  must not be set to anything but its default elsewhere.\n"
      "- An array of strings may be given as one string.\n"
      "- The configuration file is at most 1 MiB.\n",
      kMaximumCount);
  for (const ConfigSection& section : config_sections()) {
    page += fmt::format("\n## [{}]\n\n{}\n", section.name, section.meaning);
    bool first = true;
    for (const ConfigKey& key : config_keys()) {
      if (!key.name.starts_with(fmt::format("{}.", section.name))) continue;
      if (first) page += "\n| key | default | value | meaning |\n|---|---|---|---|\n";
      first = false;
      page += fmt::format("| `{}` | `{}` | {} | {} |\n", key.name, format_value(key.get(Config())),
                          expectation(key), describe_meaning(key));
    }
  }
  page +=
      "\n---\n\n"
      "This page is the output of `configuration_reference()`, and a test compares the two.\n"
      "After a change of the table in `concord/train/config_schema.cc`, the train tests run with\n"
      "`CONCORD_UPDATE=1` write it anew.\n";
  return page;
}

}  // namespace concord
