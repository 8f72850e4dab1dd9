// The CPU kernels of the dense layout, also for tests that choose the instruction set.
#pragma once
#include "layout/cpu_matmul.h"

namespace nibble::dense {

CpuRows cpu_rows();
extern const Kernels kCpu;

}  // namespace nibble::dense
