// The CPU kernels of the lut4 layout, also for tests that choose the instruction set.
#pragma once
#include "layout/cpu_matmul.h"

namespace nibble::lut4 {

CpuRows cpu_rows();
extern const Kernels kCpu;

}  // namespace nibble::lut4
