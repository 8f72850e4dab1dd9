#include "models/arch.h"

#include "models/families.h"

namespace nibble::models {

const Name* ArchSpec::find(Slot slot) const {
  for (const Name& name : names) {
    if (name.slot == slot) return &name;
  }
  return nullptr;
}

std::span<const ArchSpec> all_archs() {
  static const std::vector<ArchSpec> archs{
#define NIBBLE_ARCH(family) family(),
#include "models/archs.def"
#undef NIBBLE_ARCH
  };
  return archs;
}

const ArchSpec* find_arch(std::string_view hf_class) {
  for (const ArchSpec& arch : all_archs()) {
    if (arch.hf_class == hf_class) return &arch;
  }
  return nullptr;
}

}  // namespace nibble::models
