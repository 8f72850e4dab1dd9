// The row of the Quanto scheme.
#include <filesystem>

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

}  // namespace

extern const Scheme kScheme;
constexpr Scheme kScheme{"quanto", "optimum-quanto: int8, int4, int2 and float8 weights, int8 and float8 activations",
                         &claims, &open, &store};

}  // namespace nibble::quanto
