// The CPU kernels of the codebook layout, also for tests that choose the instruction set.
#pragma once
#include "layout/cpu_matmul.h"

namespace nibble::codebook {

CpuRows cpu_rows();
extern const Kernels kCpu;

}  // namespace nibble::codebook
