// The functions of archs.def.
#pragma once
#include "models/arch.h"

namespace nibble::models {

#define NIBBLE_ARCH(family) ArchSpec family();
#include "models/archs.def"
#undef NIBBLE_ARCH

}  // namespace nibble::models
