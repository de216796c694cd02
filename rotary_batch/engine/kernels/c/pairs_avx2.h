/* Pairs of scale and zero of int4, by AVX2. */

#ifndef ROTARY_BATCH_PAIRS_AVX2_H
#define ROTARY_BATCH_PAIRS_AVX2_H

#include "common.h"

/* 8 pairs of scale and zero. */
struct pairs {
  __m256 scale, zero;
};

/* The first elements of 8 pairs in `first`, which has 4 of them, and `second`; then the second ones. */
INLINE struct pairs pairs_from_f32(__m256 first, __m256 second) {
  const __m256 low = _mm256_permute2f128_ps(first, second, 0x20), high = _mm256_permute2f128_ps(first, second, 0x31);
  return (struct pairs){_mm256_shuffle_ps(low, high, 0x88), _mm256_shuffle_ps(low, high, 0xdd)};
}

INLINE struct pairs load_pairs(enum format format, const char *stored) {
  if (format == F32)
    return pairs_from_f32(_mm256_loadu_ps((const float *)stored), _mm256_loadu_ps((const float *)stored + 8));
  const __m256i pairs = _mm256_loadu_si256((const __m256i *)stored);
  if (format == F16)
    return pairs_from_f32(_mm256_cvtph_ps(_mm256_castsi256_si128(pairs)),
                          _mm256_cvtph_ps(_mm256_extracti128_si256(pairs, 1)));
  return (struct pairs){_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)), /* bf16 is the upper half of float32 */
                        _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000)))};
}

#endif
