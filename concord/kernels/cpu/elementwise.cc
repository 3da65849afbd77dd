#include "concord/kernels/cpu/elementwise.h"

#include <algorithm>
#include <limits>
#include <numbers>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/elementwise.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

V constant(double value) { return hn::Set(D(), static_cast<float>(value)); }
V one_minus(V x) { return hn::Sub(constant(1), x); }

// 1 / (1 + e^-x), which for negative x is e^x / (e^x + 1).
V sigmoid(V x) {
  const V e = exp_below_zero(D(), hn::Neg(hn::Abs(x)));
  const V numerator = hn::IfThenElse(hn::Lt(x, hn::Zero(D())), e, constant(1));
  return hn::Div(numerator, hn::Add(constant(1), e));
}

// P(Z <= x) and the density of a standard normal Z at x. The tail is Abramowitz and Stegun 1964,
// equation 7.1.26, whose absolute error is below 7.5e-8 here; e^(-x^2 / 2) serves both.
struct Normal {
  V probability, density;
};
Normal normal(V x) {
  const V t = hn::Div(
      constant(1), hn::MulAdd(constant(0.3275911 / std::numbers::sqrt2), hn::Abs(x), constant(1)));
  V tail = constant(1.061405429);
  for (const double a : {-1.453152027, 1.421413741, -0.284496736, 0.254829592}) {
    tail = hn::MulAdd(tail, t, constant(a));
  }
  const V e = exp(D(), hn::Mul(constant(-0.5), hn::Mul(x, x)));
  tail = hn::Mul(hn::Mul(constant(0.5), hn::Mul(tail, t)), e);
  return {hn::IfThenElse(hn::Lt(x, hn::Zero(D())), tail, one_minus(tail)),
          hn::Mul(constant(std::numbers::inv_sqrtpi / std::numbers::sqrt2), e)};
}

// The approximation's argument doubled, since (1 + tanh(u)) / 2 = sigmoid(2 u), and its derivative.
constexpr double kGeluLinear = 2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi;
constexpr double kGeluCubic = kGeluLinear * 0.044715;
V gelu_argument(V x) {
  return hn::Mul(x, hn::MulAdd(constant(kGeluCubic), hn::Mul(x, x), constant(kGeluLinear)));
}
V gelu_argument_derivative(V x) {
  return hn::MulAdd(constant(3 * kGeluCubic), hn::Mul(x, x), constant(kGeluLinear));
}

struct Neg {
  V operator()(V x) const { return hn::Neg(x); }
};
struct Exp {
  V operator()(V x) const { return exp(D(), x); }
};
struct Log {
  V operator()(V x) const { return log(D(), x); }
};
struct Sqrt {
  V operator()(V x) const { return hn::Sqrt(x); }
};
struct Square {
  V operator()(V x) const { return hn::Mul(x, x); }
};
struct Abs {
  V operator()(V x) const { return hn::Abs(x); }
};
struct Relu {
  V operator()(V x) const { return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(D())), x); }
};
struct Sigmoid {
  V operator()(V x) const { return sigmoid(x); }
};
struct Tanh {
  V operator()(V x) const { return hn::Tanh(D(), x); }
};
struct Silu {
  V operator()(V x) const { return hn::Mul(x, sigmoid(x)); }
};
struct GeluExact {
  V operator()(V x) const { return hn::Mul(x, normal(x).probability); }
};
struct GeluTanh {
  V operator()(V x) const { return hn::Mul(x, sigmoid(gelu_argument(x))); }
};

struct Add {
  V operator()(V a, V b) const { return hn::Add(a, b); }
};
struct Sub {
  V operator()(V a, V b) const { return hn::Sub(a, b); }
};
struct Mul {
  V operator()(V a, V b) const { return hn::Mul(a, b); }
};
struct Div {
  V operator()(V a, V b) const { return hn::Div(a, b); }
};
struct Equal {
  V operator()(V a, V b) const { return hn::IfThenElseZero(hn::Eq(a, b), constant(1)); }
};
// NaN in a stays.
struct Min {
  V operator()(V a, V b) const { return hn::IfThenElse(hn::Gt(a, b), b, a); }
};
struct Max {
  V operator()(V a, V b) const { return hn::IfThenElse(hn::Lt(a, b), b, a); }
};
struct BinaryCrossEntropy {
  V operator()(V x, V t) const {
    const V linear = hn::NegMulAdd(x, t, Max()(x, hn::Zero(D())));
    return hn::Add(linear, hn::Log1p(D(), exp(D(), hn::Neg(hn::Abs(x)))));
  }
};
struct AbsBackward {
  V operator()(V dy, V x) const {
    const V sign = hn::IfThenZeroElse(hn::Eq(x, hn::Zero(D())), hn::CopySign(constant(1), x));
    return hn::Mul(dy, sign);
  }
};
struct ReluBackward {
  V operator()(V dy, V y) const { return hn::IfThenElseZero(hn::Gt(y, hn::Zero(D())), dy); }
};
struct SigmoidBackward {
  V operator()(V dy, V y) const { return hn::Mul(dy, hn::Mul(y, one_minus(y))); }
};
struct TanhBackward {
  V operator()(V dy, V y) const { return hn::Mul(dy, one_minus(hn::Mul(y, y))); }
};
struct SiluBackward {
  V operator()(V dy, V x) const {
    const V s = sigmoid(x);
    return hn::Mul(dy, hn::Mul(s, hn::MulAdd(x, one_minus(s), constant(1))));
  }
};
struct GeluExactBackward {
  V operator()(V dy, V x) const {
    const Normal z = normal(x);
    return hn::Mul(dy, hn::MulAdd(x, z.density, z.probability));
  }
};
struct GeluTanhBackward {
  V operator()(V dy, V x) const {
    const V s = sigmoid(gelu_argument(x));
    const V slope = hn::Mul(hn::Mul(s, one_minus(s)), gelu_argument_derivative(x));
    return hn::Mul(dy, hn::MulAdd(x, slope, s));
  }
};

template <typename F, typename X, typename Y>
void unary(F f, const X* x, Y* y, std::size_t count) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) store_vector(d, f(load_vector(d, x + i)), y + i);
  if (i < count) store_first(d, f(load_first(d, x + i, count - i)), y + i, count - i);
}

template <typename F, typename A, typename B, typename Y>
void binary(F f, const A* a, const B* b, Y* y, std::size_t count) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    store_vector(d, f(load_vector(d, a + i), load_vector(d, b + i)), y + i);
  }
  if (i == count) return;
  const std::size_t rest = count - i;
  store_first(d, f(load_first(d, a + i, rest), load_first(d, b + i, rest)), y + i, rest);
}

template <typename F, typename T>
void binary(F f, Run<T> a, Run<T> b, T* y, std::size_t count) {
  if (a.data == nullptr) {
    const V repeated = hn::Set(D(), a.repeated);
    return unary([=](V x) { return f(repeated, x); }, b.data, y, count);
  }
  if (b.data == nullptr) {
    const V repeated = hn::Set(D(), b.repeated);
    return unary([=](V x) { return f(x, repeated); }, a.data, y, count);
  }
  binary(f, a.data, b.data, y, count);
}

template <typename T>
void apply_unary(UnaryFunction f, const T* x, T* y, std::size_t count) {
  switch (f) {
    case UnaryFunction::kNeg:
      return unary(Neg(), x, y, count);
    case UnaryFunction::kExp:
      return unary(Exp(), x, y, count);
    case UnaryFunction::kLog:
      return unary(Log(), x, y, count);
    case UnaryFunction::kSqrt:
      return unary(Sqrt(), x, y, count);
    case UnaryFunction::kSquare:
      return unary(Square(), x, y, count);
    case UnaryFunction::kAbs:
      return unary(Abs(), x, y, count);
    case UnaryFunction::kRelu:
      return unary(Relu(), x, y, count);
    case UnaryFunction::kSigmoid:
      return unary(Sigmoid(), x, y, count);
    case UnaryFunction::kTanh:
      return unary(Tanh(), x, y, count);
    case UnaryFunction::kSilu:
      return unary(Silu(), x, y, count);
    case UnaryFunction::kGeluExact:
      return unary(GeluExact(), x, y, count);
    case UnaryFunction::kGeluTanh:
      return unary(GeluTanh(), x, y, count);
  }
}

template <typename T>
void apply_binary(BinaryFunction f, Run<T> a, Run<T> b, T* y, std::size_t count) {
  switch (f) {
    case BinaryFunction::kAdd:
      return binary(Add(), a, b, y, count);
    case BinaryFunction::kSub:
      return binary(Sub(), a, b, y, count);
    case BinaryFunction::kMul:
      return binary(Mul(), a, b, y, count);
    case BinaryFunction::kDiv:
      return binary(Div(), a, b, y, count);
    case BinaryFunction::kEqual:
      return binary(Equal(), a, b, y, count);
    case BinaryFunction::kMin:
      return binary(Min(), a, b, y, count);
    case BinaryFunction::kMax:
      return binary(Max(), a, b, y, count);
    case BinaryFunction::kBinaryCrossEntropy:
      return binary(BinaryCrossEntropy(), a.data, b.data, y, count);
    case BinaryFunction::kAbsBackward:
      return binary(AbsBackward(), a.data, b.data, y, count);
    case BinaryFunction::kReluBackward:
      return binary(ReluBackward(), a.data, b.data, y, count);
    case BinaryFunction::kSigmoidBackward:
      return binary(SigmoidBackward(), a.data, b.data, y, count);
    case BinaryFunction::kTanhBackward:
      return binary(TanhBackward(), a.data, b.data, y, count);
    case BinaryFunction::kSiluBackward:
      return binary(SiluBackward(), a.data, b.data, y, count);
    case BinaryFunction::kGeluExactBackward:
      return binary(GeluExactBackward(), a.data, b.data, y, count);
    case BinaryFunction::kGeluTanhBackward:
      return binary(GeluTanhBackward(), a.data, b.data, y, count);
  }
}

void ApplyUnary(UnaryFunction f, const float* x, float* y, std::size_t count) {
  apply_unary(f, x, y, count);
}
void ApplyUnaryBF16(UnaryFunction f, const BF16* x, BF16* y, std::size_t count) {
  apply_unary(f, x, y, count);
}
void ApplyBinary(BinaryFunction f, Run<float> a, Run<float> b, float* y, std::size_t count) {
  apply_binary(f, a, b, y, count);
}
void ApplyBinaryBF16(BinaryFunction f, Run<BF16> a, Run<BF16> b, BF16* y, std::size_t count) {
  apply_binary(f, a, b, y, count);
}

void AddTo(float* sums, const BF16* x, std::size_t count) { binary(Add(), sums, x, sums, count); }

struct Same {
  V operator()(V x) const { return x; }
};
void Narrow(const float* x, BF16* y, std::size_t count) { unary(Same(), x, y, count); }
void Widen(const BF16* x, float* y, std::size_t count) { unary(Same(), x, y, count); }

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(ApplyUnary);
HWY_EXPORT(ApplyUnaryBF16);
HWY_EXPORT(ApplyBinary);
HWY_EXPORT(ApplyBinaryBF16);
HWY_EXPORT(AddTo);
HWY_EXPORT(Narrow);
HWY_EXPORT(Widen);

void apply(UnaryFunction f, const float* x, float* y, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(ApplyUnary)(f, x, y, static_cast<std::size_t>(count));
}
void apply(UnaryFunction f, const BF16* x, BF16* y, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(ApplyUnaryBF16)(f, x, y, static_cast<std::size_t>(count));
}

void apply(BinaryFunction f, Run<float> a, Run<float> b, float* y, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(ApplyBinary)(f, a, b, y, static_cast<std::size_t>(count));
}
void apply(BinaryFunction f, Run<BF16> a, Run<BF16> b, BF16* y, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(ApplyBinaryBF16)(f, a, b, y, static_cast<std::size_t>(count));
}

void add_to(float* sums, const float* x, std::int64_t count) {
  apply(BinaryFunction::kAdd, {sums, 1}, {x, 1}, sums, count);
}
void add_to(float* sums, const BF16* x, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(AddTo)(sums, x, static_cast<std::size_t>(count));
}

void convert(const float* x, BF16* y, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(Narrow)(x, y, static_cast<std::size_t>(count));
}
void convert(const BF16* x, float* y, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(Widen)(x, y, static_cast<std::size_t>(count));
}

}  // namespace concord::cpu
#endif
