/* What the kernels for AVX-512 BF16 share.  AVX-512 has 32 registers of 32 bf16 elements. */

#ifndef ROTARY_BATCH_AVX512BF16_H
#define ROTARY_BATCH_AVX512BF16_H

#include "common.h"

#define TILE_ROWS 16                      /* rows of a tile */
#define TILE_COLUMNS 32                   /* columns of a tile */
#define TILE_SIZE (TILE_ROWS * TILE_ROWS) /* pairs or sums in a tile */
#define NC 64 /* rows of the matrix in a panel; in int4, byte j of a column holds rows j and j + 32 */
#define TILES (NC / TILE_ROWS)
#define HALF (NC / 2)

typedef uint32_t pair; /* two bf16 elements, the first in the lower half */

/* 32 consecutive elements as bf16 pairs. */
INLINE __m512i load_bf16(enum format format, const char *stored) {
  if (format == BF16) return _mm512_loadu_si512(stored);
  const __m512 first = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)stored)));
  const __m512 second = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)stored + 1)));
  return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

/* The bf16 of 128 + n for a nibble n is 0x4300 + n, which is exact: one operation unpacks 32 nibbles. */
#define EXPONENT 0x43004300
#define NIBBLE 0x000f000f
#define AND_OR 0xea /* (a & b) | c */

INLINE __m512i nibbles_to_bf16(__m512i words) {
  return _mm512_ternarylogic_epi32(words, _mm512_set1_epi32(NIBBLE), _mm512_set1_epi32(EXPONENT), AND_OR);
}

/* 16 registers of 16 pairs, or of four bytes each. */
INLINE void transpose16x16(__m512i r[TILE_ROWS]) {
  __m512i t[TILE_ROWS];
  for (int n = 0; n < TILE_ROWS; n += 2) {
    t[n] = _mm512_unpacklo_epi32(r[n], r[n + 1]);
    t[n + 1] = _mm512_unpackhi_epi32(r[n], r[n + 1]);
  }
  for (int n = 0; n < TILE_ROWS; n += 4)
    for (int h = 0; h < 2; h++) {
      r[n + 2 * h] = _mm512_unpacklo_epi64(t[n + h], t[n + h + 2]);
      r[n + 2 * h + 1] = _mm512_unpackhi_epi64(t[n + h], t[n + h + 2]);
    }
  for (int n = 0; n < 4; n++)
    for (int h = 0; h < 2; h++) {
      t[n + 8 * h] = _mm512_shuffle_i32x4(r[n + 8 * h], r[n + 8 * h + 4], 0x88);
      t[n + 8 * h + 4] = _mm512_shuffle_i32x4(r[n + 8 * h], r[n + 8 * h + 4], 0xdd);
    }
  for (int n = 0; n < 8; n++) {
    r[n] = _mm512_shuffle_i32x4(t[n], t[n + 8], 0x88);
    r[n + 8] = _mm512_shuffle_i32x4(t[n], t[n + 8], 0xdd);
  }
}

#endif
