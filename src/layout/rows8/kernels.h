// The CPU kernels of the rows8 layout, also for tests that choose the instruction set.
#pragma once
#include "layout/cpu_matmul.h"

namespace nibble::rows8 {

CpuRows cpu_rows();
extern const Kernels kCpu;

}  // namespace nibble::rows8
