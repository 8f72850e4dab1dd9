// Tensors and configs of any content, read as aqlm: weights that decode and store, or one error line.
#include "fuzz/scheme_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return nibble::fuzz::try_scheme(data, size, "aqlm");
}
