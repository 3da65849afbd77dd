// Steps: a model, its loss, backpropagation and the optimizer as one graph, written for one
// microbatch (graph/graph.h). Inputs and outputs by name:
//
//   features       f32 [microbatch, sample...]      batch; samples of values
//   tokens         i32 [microbatch, length]         batch; samples of tokens
//                  i32 [microbatch, count]          step; those that continue texts
//   labels         i32 [microbatch]                 batch; cross-entropy
//                  i32 [microbatch, length]         of tokens: what each is to be taken for
//   targets        f32 [microbatch, outputs]        batch; the other losses (ops/loss.h)
//   position       i64 [2]                          batch; step, and index of the first sample
//   batch_weight   f32 []                           step; 1 / samples of the whole batch
//   learning_rate  f32 []                           step
//   first_position i64 []                           step; of the tokens that continue texts
//
//   loss     f32 []   the mean over the batch; a sample of tokens counts as the mean over them,
//                     or over those with a label
//   correct  f32 []   cross-entropy: samples whose largest logit is their label's; a sample of
//                     tokens counts as the share of them, or of those with a label. Binary
//                     cross-entropy: a sample counts as the share of its outputs whose probability
//                     is on its target's side of 1/2. Other losses: no such output
//   logits   f32 [microbatch, outputs]              of a prediction; [microbatch, length, outputs]
//
// The parameters have the same names and shapes in all graphs of a model.
// Errors: options out of range, or that do not fit each other, throw Error.
#pragma once

#include <functional>

#include "concord/graph/graph.h"
#include "concord/nn/model.h"
#include "concord/optim/optimizer.h"

namespace concord::nn {

// A network of one's own: adds it to the graph, applied to `x` [N, sample...], and returns its
// logits (or predictions) [N, outputs]; of tokens, [N, length, outputs], or [R, outputs] of the R
// tokens that `context.rows` names.
using Network =
    std::function<ValueId(GraphBuilder& builder, const StepContext& context, ValueId x)>;

struct StepOptions {
  // All but the first compare numbers; the last those in [0, 1], with the logits' sigmoids.
  enum class Loss { kCrossEntropy, kMeanSquaredError, kL1, kHuber, kBinaryCrossEntropy };

  ModelOptions model;    // from the zoo
  Network network = {};  // in place of `model` where given
  bool tokens = false;   // whether samples are tokens, and not values
  // Of tokens: how many of each sample have a label, the label of all others being negative; 0:
  // every one has. That the number is fixed makes a leaf's loss independent of other leaves.
  std::int64_t labelled = 0;
  Shape sample;              // [C, H, W], [features], or [length] of tokens
  std::int64_t outputs = 0;  // classes, or targets of a sample
  std::int64_t microbatch = 1;
  Loss loss = Loss::kCrossEntropy;
  double huber_delta = 1;
  double label_smoothing = 0;  // cross-entropy while training (ops/softmax.h)
  // Statistics of batch norm while training: of each microbatch, or of the whole batch of the step,
  // for which each leaf is computed at once and by a rank of its own (ops/step.h, leaf_total).
  bool batch_norm_over_leaves = false;
  OptimizerOptions optimizer;
  std::uint64_t seed = 0;  // the job's, for dropout
};

// Forward, loss, backward, update. Inputs: all; outputs: loss and correct, before the update.
Graph build_training_step(const StepOptions& options);

// Forward and loss with running statistics and without dropout or label smoothing. Inputs:
// features, labels or targets, batch_weight; outputs: loss and correct.
Graph build_evaluation_step(const StepOptions& options);

// Forward as in evaluation, without leaves. Input: features; output: logits.
Graph build_prediction(const StepOptions& options);

// The next `count` tokens of texts, given the keys and values of those before them, which states of
// the role kCache hold for options.sample[0] positions; those of the `count` tokens are added. So
// each token is computed once. Inputs: tokens, first_position; output, unless they are only to be
// read: logits [microbatch, count, outputs]. Throws Error where the model has no such states.
Graph build_continuation(const StepOptions& options, std::int64_t count, bool only_read = false);

}  // namespace concord::nn
