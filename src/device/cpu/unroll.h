// NIBBLE_UNROLL(n): unroll the next loop n times. A pragma in front of a loop cannot come from a template, hence a
// macro. g++ 12 takes no template parameter as n; with a fixed limit it unrolls loops of known small length whole,
// which is what the kernels' counts are.
#pragma once
#include "hwy/base.h"

#if defined(__clang__)
#define NIBBLE_UNROLL(n) HWY_UNROLL(n)
#else
#define NIBBLE_UNROLL(n) HWY_UNROLL(16)
#endif
