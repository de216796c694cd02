/* Slabs that a pack quantised itself (model/slabs.py) -> panels of codes and scales (q8.h), by AVX2. */

#ifndef ROTARY_BATCH_SLABS_Q8_AVX2_H
#define ROTARY_BATCH_SLABS_Q8_AVX2_H

#include "ggml_q8_avx2.h"
#include "pairs_avx2.h"

/* 8 rows of a step, from their first columns on: those of the lower halves of `first` and `second`, or of the upper. */
INLINE void store_rows(__m256i first, __m256i second, int upper, uint8_t *codes) {
  const __m256i rows =
      upper ? _mm256_permute2x128_si256(first, second, 0x31) : _mm256_permute2x128_si256(first, second, 0x20);
  _mm256_store_si256((__m256i *)codes, low_nibbles(rows));
  _mm256_store_si256((__m256i *)(codes + GROUPS / 2 * 4 * GROUP_ROWS), low_nibbles(_mm256_srli_epi16(rows, 4)));
}

/* int4: `parts` parts of a block of 64 rows, of which each column has 32 bytes. Four columns are a step. */
static void unpack_int4(const uint8_t *nibbles, int parts, struct panel *w) {
  for (int step = 0; step < parts * STEPS; step++, nibbles += 4 * HALF) {
    __m256i columns[4];
    for (int n = 0; n < 4; n++) columns[n] = _mm256_loadu_si256((const __m256i *)(nibbles + n * HALF));
    for (int n = 0; n < 2; n++) { /* of each 16 rows the first 8, then the others */
      const __m256i a = n ? _mm256_unpackhi_epi8(columns[0], columns[1]) : _mm256_unpacklo_epi8(columns[0], columns[1]);
      const __m256i b = n ? _mm256_unpackhi_epi8(columns[2], columns[3]) : _mm256_unpacklo_epi8(columns[2], columns[3]);
      const __m256i first = _mm256_unpacklo_epi16(a, b), second = _mm256_unpackhi_epi16(a, b);
      store_rows(first, second, 0, w->codes[step][0] + n * 4 * LANES);
      store_rows(first, second, 1, w->codes[step][1] + n * 4 * LANES);
    }
  }
}

/* The pairs of NC rows -> scales and offsets of a part. */
INLINE void unpack_pairs(enum format pair, const char *scale_zero, struct panel *w, int part) {
  for (int v = 0; v < NC; v += LANES) {
    const struct pairs pairs = load_pairs(pair, scale_zero + 2 * v * itemsize(pair));
    _mm256_store_ps(w->scale[part] + v, pairs.scale);
    _mm256_store_ps(w->offset[part] + v, _mm256_fnmadd_ps(pairs.scale, _mm256_set1_ps(INT4_ZERO), pairs.zero));
  }
}

/* int8: GROUP_ROWS rows from a column on. */
static void unpack_int8(const struct lanes *l, struct panel *w, int group, int parts) {
  for (int part = 0; part < parts; part++)
    for (int first = 0; first < GROUP_ROWS; first += LANES) {
      __m256i r[LANES];
      for (int n = 0; n < LANES; n++)
        r[n] = biased_bytes(_mm256_loadu_si256((const __m256i *)(l->rows[first + n] + part * PART)));
      transpose8x8_bytes(r);
      for (int n = 0; n < LANES; n++)
        _mm256_store_si256((__m256i *)(w->codes[part * STEPS + n][group] + 4 * first), r[n]);
    }
}

#endif
