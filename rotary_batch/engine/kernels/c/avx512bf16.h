/* What the kernels for AVX-512 BF16 share: 32 registers of 32 numbers in bf16. */

#ifndef ROTARY_BATCH_AVX512BF16_H
#define ROTARY_BATCH_AVX512BF16_H

#include "common.h"

/* 32 numbers in a row, in bf16, as pairs. */
INLINE __m512i load_bf16(enum format format, const char *stored) {
  if (format == BF16) return _mm512_loadu_si512(stored);
  const __m512 first = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)stored)));
  const __m512 second = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)stored + 1)));
  return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}
#endif
