// Element-wise functions on runs of f32, vectorised for the instruction set of the processor.
//
// A function gives an element the same bits wherever the element lies in a run, so results do not
// depend on how work is cut over threads. Another instruction set may round otherwise (fused
// multiply-add). NaN in gives NaN out. Outputs may lie exactly over inputs. Called by any thread.
#pragma once

#include <cstdint>

namespace concord::cpu {

enum class UnaryFunction {
  kNeg,
  kExp,
  kLog,
  kSqrt,
  kSquare,
  kAbs,
  kRelu,
  kSigmoid,
  kTanh,
  kSilu,
  kGeluExact,
  kGeluTanh,
};

// The backward functions take (dL/dy, y or x), see ops/activation.h; the cross-entropy takes
// (logit, target), see ops/loss.h.
enum class BinaryFunction {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kEqual,
  kMin,
  kMax,
  kBinaryCrossEntropy,
  kAbsBackward,
  kReluBackward,
  kSigmoidBackward,
  kTanhBackward,
  kSiluBackward,
  kGeluExactBackward,
  kGeluTanhBackward,
};

// y[i] = f(x[i]) for i in [0, count).
void apply(UnaryFunction f, const float* x, float* y, std::int64_t count);

// An operand of `apply`: `stride` 1 for a run of elements, 0 for one element that repeats.
struct Run {
  const float* data;
  std::int64_t stride;
};

// y[i] = f(a[i], b[i]) for i in [0, count). At most one operand repeats, and none of a backward
// function or a cross-entropy.
void apply(BinaryFunction f, Run a, Run b, float* y, std::int64_t count);

}  // namespace concord::cpu
