#include <CLI/CLI.hpp>

#include <string>

#include "cli/commands.h"
#include "cli/common.h"
#include "device/cpu/isa.h"

namespace nibble::cli {

std::string cpu_features() {
  std::string out;
#if defined(__x86_64__)
  const auto add = [&out](bool has, const char* name) {
    if (has) out += (out.empty() ? "" : " ") + std::string(name);
  };
  add(__builtin_cpu_supports("sse4.2"), "sse4.2");
  add(__builtin_cpu_supports("avx2"), "avx2");
  add(__builtin_cpu_supports("fma"), "fma");
  add(__builtin_cpu_supports("avx512f"), "avx512f");
  add(__builtin_cpu_supports("avx512vbmi"), "avx512vbmi");
  add(__builtin_cpu_supports("avx512vnni"), "avx512vnni");
  add(__builtin_cpu_supports("avx512bf16"), "avx512bf16");
  add(has(CpuIsa::amx), "amx");
#endif
  return out.empty() ? "none" : out;
}

void add_version_flag(CLI::App& app) {
  app.set_version_flag("--version", [] {
    return std::string("nibble " NIBBLE_VERSION "\ncpu features: ") + cpu_features() + "\ntargets: cpu, ref";
  });
}

}  // namespace nibble::cli
