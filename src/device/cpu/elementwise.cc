// Activations, gated activations and residual addition.
#include "device/cpu/targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "device/cpu/elementwise.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>

#include "device/cpu/ops.h"
#include "device/ref/ref.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;
using V = hn::Vec<Floats>;

/// x / (1 + exp(-c x)).
HWY_INLINE V Sigmoid(Floats df, V x, float c) {
  return hn::Div(x, hn::Add(hn::Set(df, 1.0F), hn::Exp(df, hn::Mul(x, hn::Set(df, -c)))));
}

/// 0.5 x (1 + tanh(u)) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
HWY_INLINE V GeluTanh(Floats df, V x) {
  const V cube = hn::Mul(hn::Mul(x, x), hn::Mul(x, hn::Set(df, 0.044715F)));
  const V u = hn::Mul(hn::Add(x, cube), hn::Set(df, -2 * 0.7978845608F));
  return hn::Div(x, hn::Add(hn::Set(df, 1.0F), hn::Exp(df, u)));
}

template <Activation kAct>
HWY_INLINE V Act(Floats df, V x) {
  if constexpr (kAct == Activation::silu) return Sigmoid(df, x, 1);
  if constexpr (kAct == Activation::gelu_quick) return Sigmoid(df, x, 1.702F);
  if constexpr (kAct == Activation::gelu_tanh) return GeluTanh(df, x);
  if constexpr (kAct == Activation::relu) return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(df)), x);
  if constexpr (kAct == Activation::tanh) return hn::Tanh(df, x);
  return x;
}

/// y = act(x), times up unless it is null.
template <Activation kAct>
HWY_INLINE void Apply(const float* x, const float* up, std::int64_t count, float* y) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    V v = Act<kAct>(df, hn::LoadU(df, x + i));
    if (up != nullptr) v = hn::Mul(v, hn::LoadU(df, up + i));
    hn::StoreU(v, df, y + i);
  }
  for (; i < count; ++i) {
    const auto value = static_cast<float>(ref::activation(kAct, x[i]));
    y[i] = up != nullptr ? value * up[i] : value;
  }
}

void Activate(Activation act, const float* x, const float* up, std::int64_t count, float* y) {
  switch (act) {
    case Activation::silu: return Apply<Activation::silu>(x, up, count, y);
    case Activation::gelu_quick: return Apply<Activation::gelu_quick>(x, up, count, y);
    case Activation::gelu_tanh: return Apply<Activation::gelu_tanh>(x, up, count, y);
    case Activation::relu: return Apply<Activation::relu>(x, up, count, y);
    case Activation::tanh: return Apply<Activation::tanh>(x, up, count, y);
    case Activation::identity: return Apply<Activation::identity>(x, up, count, y);
    case Activation::gelu: break;
  }
  for (std::int64_t i = 0; i < count; ++i) {  // erf has no vector form here
    const auto value = static_cast<float>(ref::activation(act, x[i]));
    y[i] = up != nullptr ? value * up[i] : value;
  }
}

void Add(const float* x, std::int64_t count, float* y) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(hn::Add(hn::LoadU(df, y + i), hn::LoadU(df, x + i)), df, y + i);
  for (; i < count; ++i) y[i] += x[i];
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::cpu {
namespace {
HWY_EXPORT(Activate);
HWY_EXPORT(Add);

/// A multiple of every vector length, so that the same elements are done by vectors for any number of threads; and
/// enough work to be worth waking a thread.
constexpr std::int64_t kGrain = 4096;
}  // namespace

void gated(Activation act, const float* gate, const float* up, std::int64_t count, float* y, Exec& exec) {
  exec.pool.run(count, kGrain, [&](std::int64_t begin, std::int64_t end, int) {
    HWY_DYNAMIC_DISPATCH(Activate)(act, gate + begin, up + begin, end - begin, y + begin);
  });
}

void activate(Activation act, const float* x, std::int64_t count, float* y, Exec& exec) {
  exec.pool.run(count, kGrain, [&](std::int64_t begin, std::int64_t end, int) {
    HWY_DYNAMIC_DISPATCH(Activate)(act, x + begin, nullptr, end - begin, y + begin);
  });
}

void add(const float* x, std::int64_t count, float* y, Exec& exec) {
  exec.pool.run(count, kGrain, [&](std::int64_t begin, std::int64_t end, int) {
    HWY_DYNAMIC_DISPATCH(Add)(x + begin, end - begin, y + begin);
  });
}

const Ops& ops() {
  static constexpr Ops table{.rms_norm = &rms_norm,
                             .layer_norm = &layer_norm,
                             .rope = &rope,
                             .attention = &attention,
                             .gated = &gated,
                             .activate = &activate,
                             .add = &add};
  return table;
}

}  // namespace nibble::cpu
#endif
