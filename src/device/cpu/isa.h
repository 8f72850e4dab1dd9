// Instruction sets that kernels are written for by hand, beside what Highway chooses by itself.
#pragma once
#include <cstdint>

namespace nibble {

enum class CpuIsa : std::uint8_t {
  simd,  ///< Highway only: works everywhere
  amx,   ///< tiles of bf16 (Sapphire Rapids and later) for products with many tokens
};

/// Whether this machine and its operating system let us use `isa`.
bool has(CpuIsa isa);

/// The best set this machine has; found out once.
CpuIsa best_isa();

}  // namespace nibble
