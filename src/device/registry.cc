#include "device/device.h"

#include "device/cpu/ops.h"
#include "device/ref/ref.h"

namespace nibble {

const Ops& ops_of(Target target) { return target == Target::cpu ? cpu::ops() : ref::ops(); }

}  // namespace nibble
