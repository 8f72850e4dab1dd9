// Rounds the input once, splits the rows over the threads, picks the kernel by the number of tokens.
#include "layout/cpu_matmul.h"

#include "device/cpu/targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layout/cpu_matmul.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include "device/cpu/simd-inl.h"
#include "layout/gemm_amx.h"
#include "layout/gemm_simd.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
void RoundOne(DType dtype, const float* in, std::int64_t count, float* out, std::int64_t padded_count) {
  RoundRow(dtype, in, count, out, padded_count);
}
}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
namespace {
HWY_EXPORT(RoundOne);
}

void round_row(DType dtype, const float* in, std::int64_t count, float* out, std::int64_t padded_count) {
  HWY_DYNAMIC_DISPATCH(RoundOne)(dtype, in, count, out, padded_count);
}

namespace {

#if defined(__x86_64__)
/// From this many tokens on tiles are faster than vectors.
constexpr std::int64_t kTileTokens = 12;

void tile_matmul(const CpuRows& rows, const QTensor& w, const MatArgs& args, Exec& exec) {
  const Arena::Scope scope(exec.arena);
  const std::int64_t each = amx::scratch_bytes(args.m);
  const std::span<std::byte> packed = exec.arena.take<std::byte>(amx::packed_bytes(args.m, w.cols));
  const std::span<std::byte> scratch = exec.arena.take<std::byte>(each * exec.pool.size());
  exec.pool.run(amx::padded_tokens(args.m) / 16, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t)
      amx::pack_tokens(args.x, args.m, args.ldx, w.cols, 16 * t, packed.data());
  });
  exec.pool.run(w.rows, 32, [&](std::int64_t begin, std::int64_t end, int worker) {
    amx::matmul({&rows, &w, packed.data(), args.m, args.y, args.ldy, args.bias, scratch.data() + worker * each}, begin,
                end);
  });
}
#endif

void gemm_matmul(const CpuRows& rows, const QTensor& w, const MatArgs& args, Exec& exec) {
  const Arena::Scope scope(exec.arena);
  const std::int64_t each = gemm::scratch_floats(args.m);
  const std::span<float> packed = exec.arena.take<float>(gemm::packed_floats(args.m, w.cols));
  const std::span<float> scratch = exec.arena.take<float>(each * exec.pool.size());
  exec.pool.run(gemm::groups_of(args.m), 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t g = begin; g < end; ++g) gemm::pack(args, w.cols, exec.compute, g, packed.data());
  });
  exec.pool.run(w.rows, kRowBlock, [&](std::int64_t begin, std::int64_t end, int worker) {
    gemm::matmul(
        {&rows, &w, exec.compute, packed.data(), args.m, args.y, args.ldy, args.bias, scratch.data() + worker * each},
        begin, end);
  });
}

}  // namespace

void cpu_matmul(const CpuRows& rows, CpuIsa isa, const QTensor& w, const MatArgs& args, Exec& exec) {
#if defined(__x86_64__)
  if (isa == CpuIsa::amx && exec.compute == DType::bf16 && args.m >= kTileTokens)
    return tile_matmul(rows, w, args, exec);
#endif
  (void)isa;
  if (args.m >= gemm::kTokens) return gemm_matmul(rows, w, args, exec);
  const Arena::Scope scope(exec.arena);
  const std::int64_t ldx = padded(w.cols), each = scratch_floats(args.m);
  const std::span<float> x = exec.arena.take<float>(args.m * ldx);
  const std::span<float> scratch = exec.arena.take<float>(each * exec.pool.size());
  exec.pool.run(args.m, 4, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i)
      round_row(exec.compute, args.x + i * args.ldx, w.cols, x.data() + i * ldx, ldx);
  });
  exec.pool.run(w.rows, kRowBlock, [&](std::int64_t begin, std::int64_t end, int worker) {
    rows.matmul({.w = &w,
                 .x = x.data(),
                 .m = args.m,
                 .ldx = ldx,
                 .y = args.y,
                 .ldy = args.ldy,
                 .bias = args.bias,
                 .compute = exec.compute,
                 .scratch = scratch.data() + worker * each},
                begin, end);
  });
}

void cpu_decode(const CpuRows& layout, const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec) {
  exec.pool.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) layout.values(w, row0 + r, out + r * w.cols);
  });
}

}  // namespace nibble
#endif
