#include "device/device.h"
#include "device/ref/ref.h"

namespace nibble {

const Ops& ops_of(Target) { return ref::ops(); }

}  // namespace nibble
