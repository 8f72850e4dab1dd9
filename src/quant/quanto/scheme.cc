// The row of the Quanto scheme.
#include <array>
#include <filesystem>

#include "layout/affine/affine.h"
#include "layout/rows8/rows8.h"
#include "quant/quanto/reader.h"

namespace nibble::quanto {
namespace {

bool claims(const Checkpoint& checkpoint) {
  const std::string name(kMapFile);
  std::error_code failed;
  return checkpoint.files().contains(name) || std::filesystem::is_regular_file(checkpoint.folder() / name, failed);
}

std::unique_ptr<SchemeReader> open(std::shared_ptr<const Checkpoint> checkpoint) {
  return std::make_unique<Reader>(std::move(checkpoint));
}

constexpr std::array<SchemeForm, 4> kForms{{{"int8", 8, &rows8::kLayout},
                                            {"float8", 8, &rows8::kLayout},
                                            {"int4", 4, &affine::kLayout},
                                            {"int2", 2, &affine::kLayout}}};

}  // namespace

extern const Scheme kScheme;
constexpr Scheme kScheme{"quanto", "optimum-quanto: int8, int4, int2 and float8 weights, int8 and float8 activations",
                         &claims,  &open,
                         &store,   kForms};

}  // namespace nibble::quanto
