// The list of schemes.
#include "quant/scheme.h"

namespace nibble {

#define NIBBLE_SCHEME(folder)  \
  namespace folder {           \
  extern const Scheme kScheme; \
  }
#include "quant/schemes.def"
#undef NIBBLE_SCHEME

std::span<const Scheme* const> all_schemes() {
#define NIBBLE_SCHEME(folder) &folder::kScheme,
  // The closing null keeps an empty list legal C++.
  static constexpr const Scheme* list[] = {
#include "quant/schemes.def"
      nullptr};
#undef NIBBLE_SCHEME
  return {list, std::size(list) - 1};
}

}  // namespace nibble
