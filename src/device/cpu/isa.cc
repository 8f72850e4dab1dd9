#include "device/cpu/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace nibble {
namespace {

#if defined(__x86_64__)
/// AMX-TILE and AMX-BF16 with AVX-512 (F, BW, VL, BF16), and the kernel's permission to use tile data.
bool amx_usable() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  const bool tiles = (d >> 22 & 1U) != 0 && (d >> 24 & 1U) != 0;
  const bool avx512 = (b >> 16 & 1U) != 0 && (b >> 30 & 1U) != 0 && (b >> 31 & 1U) != 0;
  if (!tiles || !avx512 || __get_cpuid_count(7, 1, &a, &b, &c, &d) == 0 || (a >> 5 & 1U) == 0) return false;
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#else
bool amx_usable() { return false; }
#endif

}  // namespace

bool has(CpuIsa isa) {
  static const bool amx = amx_usable();  // asking costs microseconds under a hypervisor
  return isa == CpuIsa::simd || amx;
}

CpuIsa best_isa() { return has(CpuIsa::amx) ? CpuIsa::amx : CpuIsa::simd; }

}  // namespace nibble
