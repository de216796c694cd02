/* Blocks of GGUF files -> panels of codes and scales (q8.h), by AVX2: 8 rows of a matrix at a time, of which 32 bytes
   each are transposed, so that a register then has 4 columns of every row. */

#ifndef ROTARY_BATCH_GGML_Q8_AVX2_H
#define ROTARY_BATCH_GGML_Q8_AVX2_H

#include "q8_avx2.h"

/* 8 registers of 8 times 4 bytes. */
INLINE void transpose8x8_bytes(__m256i r[LANES]) {
  __m256i t[LANES];
  for (int n = 0; n < LANES; n += 2) {
    t[n] = _mm256_unpacklo_epi32(r[n], r[n + 1]);
    t[n + 1] = _mm256_unpackhi_epi32(r[n], r[n + 1]);
  }
  for (int n = 0; n < LANES; n += 4)
    for (int h = 0; h < 2; h++) {
      r[n + 2 * h] = _mm256_unpacklo_epi64(t[n + h], t[n + h + 2]);
      r[n + 2 * h + 1] = _mm256_unpackhi_epi64(t[n + h], t[n + h + 2]);
    }
  for (int n = 0; n < 4; n++) {
    t[n] = _mm256_permute2x128_si256(r[n], r[n + 4], 0x20);
    t[n + 4] = _mm256_permute2x128_si256(r[n], r[n + 4], 0x31);
  }
  for (int n = 0; n < LANES; n++) r[n] = t[n];
}

INLINE __m256i biased_bytes(__m256i codes) { return _mm256_xor_si256(codes, _mm256_set1_epi8((char)Q8_BIAS)); }

/* The codes of a part plus their bias. */
INLINE __m256i biased_codes(enum ggml_type type, const uint8_t *block, int part) {
  const __m256i codes = codes_of(type, block, part);
  if (type == Q6_K) return _mm256_add_epi8(codes, _mm256_set1_epi8(32));
  if (type == Q8_0) return biased_bytes(codes);
  if (type != MXFP4) return codes;
  const __m128i biased = _mm_add_epi8(mxfp4_values(), _mm_set1_epi8(12));
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(biased), codes);
}

/* The scales of a row: `count` parts from `part` on. */
INLINE void unpack_scales(enum ggml_type type, const uint8_t *block, int part, int count, struct panel *w, int lane) {
  struct scales s;
  scales_of(type, block, &s);
  const int per_part = type == Q6_K ? 2 : 1;
  for (int n = 0; n < count * per_part; n++) w->scale[part * per_part + n][lane] = s.scale[n];
  for (int n = 0; n < count && kind_of(type) == WITH_OFFSET; n++) w->offset[part + n][lane] = s.offset[n];
}

INLINE void unpack_as(enum ggml_type type, const struct lanes *l, struct panel *w, int group, int parts) {
  const int together = (int)block_parts(type);
  for (int part = 0; part < parts; part += together) {
    const long at = part / together * block_nbytes(type);
    for (int n = 0; n < GROUP_ROWS; n++)
      unpack_scales(type, l->rows[n] + at, part, together, w, group * GROUP_ROWS + n);
    for (int first = 0; first < GROUP_ROWS; first += LANES)
#pragma GCC unroll 8
      for (int own = 0; own < together; own++) {
        __m256i r[LANES];
        for (int n = 0; n < LANES; n++) r[n] = biased_codes(type, l->rows[first + n] + at, own);
        transpose8x8_bytes(r);
        for (int n = 0; n < LANES; n++)
          _mm256_store_si256((__m256i *)(w->codes[(part + own) * STEPS + n][group] + 4 * first), r[n]);
      }
  }
}

static void unpack(enum ggml_type type, const struct lanes *l, struct panel *w, int group, int parts) {
  switch (type) {
    case Q4_0: unpack_as(Q4_0, l, w, group, parts); break;
    case Q4_1: unpack_as(Q4_1, l, w, group, parts); break;
    case Q8_0: unpack_as(Q8_0, l, w, group, parts); break;
    case Q4_K: unpack_as(Q4_K, l, w, group, parts); break;
    case Q5_K: unpack_as(Q5_K, l, w, group, parts); break;
    case Q6_K: unpack_as(Q6_K, l, w, group, parts); break;
    case MXFP4: unpack_as(MXFP4, l, w, group, parts);
  }
}

#endif
