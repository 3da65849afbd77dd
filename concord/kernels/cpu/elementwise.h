// Element-wise functions on runs of f32 or bf16, vectorised for the instruction set of the
// processor. Of bf16 they compute in f32 and round the result.
//
// A function gives an element the same bits wherever the element lies in a run, so results do not
// depend on how work is cut over threads. Another instruction set may round otherwise (fused
// multiply-add). NaN in gives NaN out. Outputs may lie exactly over inputs. Called by any thread.
#pragma once

#include <cstdint>

#include "concord/tensor/dtype.h"

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
void apply(UnaryFunction f, const BF16* x, BF16* y, std::int64_t count);

// An operand of `apply`: a run of elements, or one number that repeats.
template <typename T>
struct Run {
  const T* data;  // null where a number repeats
  float repeated = 0;
};

// y[i] = f(a[i], b[i]) for i in [0, count). At most one operand repeats, and none of a backward
// function or a cross-entropy.
void apply(BinaryFunction f, Run<float> a, Run<float> b, float* y, std::int64_t count);
void apply(BinaryFunction f, Run<BF16> a, Run<BF16> b, BF16* y, std::int64_t count);

// sums[i] += x[i] for i in [0, count).
void add_to(float* sums, const float* x, std::int64_t count);
void add_to(float* sums, const BF16* x, std::int64_t count);

// y[i] = x[i] for i in [0, count).
void convert(const float* x, BF16* y, std::int64_t count);
void convert(const BF16* x, float* y, std::int64_t count);

}  // namespace concord::cpu
