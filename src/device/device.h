// Devices: where arithmetic runs. `ref` is scalar, accumulates in double and is the oracle of every test; `cpu` is
// fast. A device is a table of operators; an entry that is null falls back to `ref`. Kernels of weight layouts live
// with the layout.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/arena.h"
#include "base/dtype.h"
#include "base/thread_pool.h"
#include "tensor/view.h"

namespace nibble {

enum class Target : std::uint8_t { ref, cpu };
inline constexpr std::size_t kTargets = 2;

struct Exec;

/// One sequence's part of an attention call: its `q_rows` new positions, the last of which is position `kv_rows` - 1.
/// Keys and values lie in pages of `page_rows` positions; page p of them starts at k_pages[p] (layout [page_rows,
/// kv_heads, head_dim]).
struct AttentionSeq {
  const float* q = nullptr;  ///< [q_rows, heads, head_dim]
  float* out = nullptr;      ///< [q_rows, heads, head_dim]
  std::int64_t q_rows = 0;
  std::int64_t kv_rows = 0;
  std::span<const std::byte* const> k_pages;
  std::span<const std::byte* const> v_pages;
};

inline constexpr std::int64_t kDistanceSlack = 64;

struct AttentionArgs {
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0, page_rows = 0;
  DType kv_dtype = DType::f32;      ///< f32, f16 or bf16
  float scale = 1;                  ///< q . k is multiplied by this
  std::int64_t sliding_window = 0;  ///< a position sees itself and the window - 1 before it; 0: everything before it
  float softcap = 0;                ///< cap * tanh(score / cap); 0: none
  bool causal = true;               ///< false: every position sees all kv_rows positions (encoders)
  const float* alibi_slopes =
      nullptr;  ///< [heads] or null: slope * (key position - query position) is added to the score
  /// Or null: what is added to a score by how far the key is from the query (T5). Head h's value for the distance
  /// key position - query position is distance_bias[h * distance_stride + distance_origin + distance]; readable up to
  /// kDistanceSlack elements beyond the largest distance, so that kernels may read whole tiles.
  const float* distance_bias = nullptr;
  std::int64_t distance_stride = 0, distance_origin = 0;
};

/// Cosine and sine of rotary embedding for consecutive positions: [rows, head_dim / 2] each (scaled, where the variant
/// scales).
struct RopeTable {
  const float* cos = nullptr;
  const float* sin = nullptr;
  std::int64_t rotary_dim = 0;  ///< leading dimensions of a head that are rotated; pairs are (i, i + rotary_dim / 2)
};

enum class Activation : std::uint8_t { silu, gelu, gelu_tanh, gelu_quick, relu, tanh, identity };

/// All matrices are row major f32 in memory; `rows` are independent, so threads split by rows (or heads) only.
struct Ops {
  /// y = x / sqrt(mean(x^2) + eps) * weight (f32 [cols]); y may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t cols, float* y,
                   Exec&) = nullptr;
  /// y = (x - mean) / sqrt(var + eps) * weight + bias; weight and bias may be null; y may be x.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, std::int64_t rows,
                     std::int64_t cols, float* y, Exec&) = nullptr;
  /// Rotates x [rows, heads, head_dim] in place by the table's row of each row.
  void (*rope)(float* x, const RopeTable& table, std::int64_t rows, std::int64_t heads, std::int64_t head_dim,
               Exec&) = nullptr;
  /// Softmax attention of several sequences.
  void (*attention)(std::span<const AttentionSeq> seqs, const AttentionArgs& args, Exec&) = nullptr;
  /// y = act(gate) * up, elementwise over `count` values; y may be gate.
  void (*gated)(Activation act, const float* gate, const float* up, std::int64_t count, float* y, Exec&) = nullptr;
  /// y = act(x), elementwise; y may be x.
  void (*activate)(Activation act, const float* x, std::int64_t count, float* y, Exec&) = nullptr;
  /// y += x, elementwise.
  void (*add)(const float* x, std::int64_t count, float* y, Exec&) = nullptr;
};

/// The operators of one target; every pointer is set (entries a device lacks are those of ref).
const Ops& ops_of(Target target);

/// Scales of a linear's statically quantized activations.
struct StaticScales {
  float input = 1;
  float output = 1;
  bool quantize_output = false;
};

/// Observes a model from outside while it runs (calibration). Called by nn::Linear; x is [m, k], y is [m, n], both f32.
struct Tap {
  virtual ~Tap() = default;
  virtual void linear_input(std::string_view module, const float* x, std::int64_t m, std::int64_t k) = 0;
  virtual void linear_output(std::string_view module, const float* y, std::int64_t m, std::int64_t n) = 0;
  /// Lets a calibration replace the scales of a linear with quantized activations. Asked after linear_input, before the
  /// input is quantized, and again after linear_output, which sees y before it is quantized.
  virtual void static_scales([[maybe_unused]] std::string_view module, [[maybe_unused]] StaticScales& scales) {}
  /// Asked before the work that leads to `module`'s input x [m, k] within an attention or an MLP. True: x now holds
  /// what that work would give, which is left out (a replay that remembers it; the linears left out see nothing).
  virtual bool recall([[maybe_unused]] std::string_view module, [[maybe_unused]] float* x,
                      [[maybe_unused]] std::int64_t m, [[maybe_unused]] std::int64_t k) {
    return false;
  }
};

/// Where and how a computation runs; handed down through every call. One Exec belongs to one thread of control.
struct Exec {
  Target target = Target::cpu;
  ThreadPool& pool;
  Arena& arena;
  DType compute = DType::bf16;  ///< arithmetic of matrix products: f32, bf16 or f16 (inputs rounded to it, sums in f32)
  Tap* tap = nullptr;

  const Ops& ops() const { return ops_of(target); }
};

}  // namespace nibble
