// The row of the GPTQ scheme.
#include <array>

#include "layout/affine/affine.h"
#include "quant/gptq/gptq.h"

namespace nibble::gptq {
namespace {

bool claims(const Checkpoint& checkpoint) { return QuantConfig(checkpoint).method() == "gptq"; }

std::unique_ptr<SchemeReader> open(std::shared_ptr<const Checkpoint> checkpoint) {
  return std::make_unique<Reader>(std::move(checkpoint));
}

constexpr std::array<SchemeForm, 4> kForms{{{"int2", 2, &affine::kLayout},
                                            {"int3", 3, &affine::kLayout},
                                            {"int4", 4, &affine::kLayout},
                                            {"int8", 8, &affine::kLayout}}};

}  // namespace

extern const Scheme kScheme;
constexpr Scheme kScheme{"gptq",    "GPTQ (AutoGPTQ, GPTQModel, optimum): int2, int3, int4 and int8 weights, act-order",
                         &claims,   &open,
                         &store,    kForms,
                         &kVariants};

}  // namespace nibble::gptq
