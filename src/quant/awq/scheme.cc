// The row of the AWQ scheme.
#include <array>

#include "quant/awq/awq.h"

namespace nibble::awq {
namespace {

bool claims(const Checkpoint& checkpoint) {
  const std::string method = QuantConfig(checkpoint).method();
  return method == "awq" || (method.empty() && !modules_with(checkpoint, {"scaled_zeros"}).empty());
}

std::unique_ptr<SchemeReader> open(std::shared_ptr<const Checkpoint> checkpoint) {
  return std::make_unique<Reader>(std::move(checkpoint));
}

constexpr std::array<SchemeForm, 1> kForms{{{"int4", 4, &affine::kLayout}}};

}  // namespace

extern const Scheme kScheme;
constexpr Scheme kScheme{"awq",     "AWQ (AutoAWQ, GPTQModel, llm-awq): int4 weights, gemm, gemv and gemv_fast",
                         &claims,   &open,
                         &store,    kForms,
                         &kVariants};

}  // namespace nibble::awq
