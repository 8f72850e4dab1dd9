// The CPU kernels of the affine layout, also for tests that choose the instruction set.
#pragma once
#include "layout/cpu_matmul.h"

namespace nibble::affine {

CpuRows cpu_rows();
extern const Kernels kCpu;

}  // namespace nibble::affine
