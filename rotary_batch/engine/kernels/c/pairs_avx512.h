/* Pairs of scale and zero of int4, by AVX-512. */

#ifndef ROTARY_BATCH_PAIRS_AVX512_H
#define ROTARY_BATCH_PAIRS_AVX512_H

#include "common.h"

/* 16 pairs of scale and zero. */
struct pairs {
  __m512 scale, zero;
};

INLINE struct pairs pairs_from_f32(__m512 first, __m512 second) {
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  return (struct pairs){_mm512_permutex2var_ps(first, even, second), _mm512_permutex2var_ps(first, odd, second)};
}

INLINE struct pairs load_pairs(enum format format, const char *stored) {
  if (format == F32) return pairs_from_f32(_mm512_loadu_ps(stored), _mm512_loadu_ps(stored + 64));
  if (format == F16)
    return pairs_from_f32(_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)stored)),
                          _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)stored + 1)));
  const __m512i pairs = _mm512_loadu_si512(stored);
  return (struct pairs){_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)), /* bf16 is the upper half of float32 */
                        _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000)))};
}

#endif
