// Which instruction sets Highway compiles for. Included before any Highway header, so that every kernel has the same
// set: each target costs compile time, and SSSE3 and AVX3_DL give these kernels nothing over their neighbours. What
// remains on x86-64: Highway's portable 128-bit emulation as the baseline (1.0.3 has no SSE2 target), SSE4, AVX2 and
// AVX3.
#pragma once
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
