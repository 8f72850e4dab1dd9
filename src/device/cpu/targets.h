// Which instruction sets Highway compiles for. Included before any Highway header, so that every kernel has the same set: each target
// costs compile time, and SSSE3 and AVX3_DL give these kernels nothing over their neighbours. SSE2 stays: it is the x86-64 baseline.
#pragma once
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
