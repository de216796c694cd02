/* What all kernels share: the formats of stored elements.  model/slabs.py specifies the formats of matrices. */

#ifndef ROTARY_BATCH_COMMON_H
#define ROTARY_BATCH_COMMON_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum format { BF16, INT8, F32, F16 };

INLINE long itemsize(enum format format) { return format == F32 ? 4 : format == INT8 ? 1 : 2; }
INLINE long min_long(long a, long b) { return a < b ? a : b; }
INLINE long div_up(long a, long b) { return (a + b - 1) / b; }

#endif
