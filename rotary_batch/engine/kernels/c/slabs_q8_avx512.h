/* Slabs that a pack quantised itself (model/slabs.py) -> panels of unsigned codes and scales (q8.h), by AVX-512. */

#ifndef ROTARY_BATCH_SLABS_Q8_AVX512_H
#define ROTARY_BATCH_SLABS_Q8_AVX512_H

#include "ggml_q8_avx512.h"
#include "pairs_avx512.h"

#define AHEAD_INT4_NBYTES 4096 /* how far ahead nibbles are prefetched: they are contiguous */

/* int4: `parts` parts of a block of 64 rows, of which each column has 32 bytes. Four columns are a step. */
static void unpack_int4(const uint8_t *nibbles, int parts, struct panel *w) {
  const __m512i by_rows =
      _mm512_set_epi32(0x3f2f1f0f, 0x3e2e1e0e, 0x3d2d1d0d, 0x3c2c1c0c, 0x3b2b1b0b, 0x3a2a1a0a, 0x39291909, 0x38281808,
                       0x37271707, 0x36261606, 0x35251505, 0x34241404, 0x33231303, 0x32221202, 0x31211101, 0x30201000);
  for (int step = 0; step < parts * STEPS; step++, nibbles += 4 * HALF) {
    const __m512i first = _mm512_loadu_si512(nibbles), second = _mm512_loadu_si512(nibbles + 2 * HALF);
    const __m512i even = _mm512_permutexvar_epi8(by_rows, _mm512_shuffle_i32x4(first, second, 0x88));
    const __m512i odd = _mm512_permutexvar_epi8(by_rows, _mm512_shuffle_i32x4(first, second, 0xdd));
    __builtin_prefetch(nibbles + AHEAD_INT4_NBYTES);
    __builtin_prefetch(nibbles + AHEAD_INT4_NBYTES + 2 * HALF);
    _mm512_store_si512(w->codes[step][0], low_codes(even));
    _mm512_store_si512(w->codes[step][1], low_codes(odd));
    _mm512_store_si512(w->codes[step][2], high_codes(even));
    _mm512_store_si512(w->codes[step][3], high_codes(odd));
  }
}

/* The pairs of NC rows -> scales and offsets of a part. */
INLINE void unpack_pairs(enum format pair, const char *scale_zero, struct panel *w, int part) {
  for (int v = 0; v < NC; v += LANES) {
    const struct pairs pairs = load_pairs(pair, scale_zero + 2 * v * itemsize(pair));
    _mm512_store_ps(w->scale[part] + v, pairs.scale);
    _mm512_store_ps(w->offset[part] + v, _mm512_fnmadd_ps(pairs.scale, _mm512_set1_ps(INT4_ZERO), pairs.zero));
  }
}

/* int8: GROUP_ROWS rows from a column on. */
static void unpack_int8(const struct lanes *l, struct panel *w, int v, int parts) {
  unpack_bytes(l, 0, PART, w, v, parts);
}

#endif
