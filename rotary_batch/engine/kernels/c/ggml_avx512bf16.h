/* Blocks of GGUF files -> bf16, by AVX-512 BF16.

   Codes of 4 or 5 bits are looked up in a table of the part's 16 or 32 weights, which one or two multiplications and a
   rounding make: that takes 9 operations for 32 weights, where multiplying and rounding each takes 12. */

#ifndef ROTARY_BATCH_GGML_AVX512BF16_H
#define ROTARY_BATCH_GGML_AVX512BF16_H

#include "avx512bf16.h"
#include "ggml.h"

/* 16 bytes as float32. */
INLINE __m512 floats(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }

INLINE __m512i rounded(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

/* The weights of codes 0 to 31, or of 0 to 15 twice. */
INLINE __m512i table_of(enum ggml_type type, const struct scales *s, int part) {
  const __m128i first_codes = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512 scale = _mm512_set1_ps(s->scale[part]);
  if (type == MXFP4) {
    const __m512 weights = _mm512_mul_ps(floats(mxfp4_values()), scale);
    return rounded(weights, weights);
  }
  const __m512 offset = _mm512_set1_ps(s->offset[part]);
  const __m512 weights = _mm512_fmadd_ps(floats(first_codes), scale, offset);
  if (type != Q5_K) return rounded(weights, weights);
  const __m128i other_codes = _mm_add_epi8(first_codes, _mm_set1_epi8(16));
  return rounded(weights, _mm512_fmadd_ps(floats(other_codes), scale, offset));
}

INLINE __m512i decode_part(enum ggml_type type, const uint8_t *block, const struct scales *s, int part) {
  const __m256i codes = codes_of(type, block, part);
  if (type != Q8_0 && type != Q6_K)
    return _mm512_permutexvar_epi16(_mm512_cvtepu8_epi16(codes), table_of(type, s, part));
  const __m512 first_scale = _mm512_set1_ps(s->scale[scale_index(type, part, 0)]);
  const __m512 second_scale = _mm512_set1_ps(s->scale[scale_index(type, part, 1)]);
  return rounded(_mm512_mul_ps(floats(_mm256_castsi256_si128(codes)), first_scale),
                 _mm512_mul_ps(floats(_mm256_extracti128_si256(codes, 1)), second_scale));
}

INLINE void decode_blocks(enum ggml_type type, const uint8_t *blocks, long columns, uint16_t *out) {
  for (; columns > 0; columns -= PART * block_parts(type), blocks += block_nbytes(type)) {
    struct scales s;
    scales_of(type, blocks, &s);
#pragma GCC unroll 8
    for (int part = 0; part < block_parts(type); part++, out += PART)
      _mm512_storeu_si512(out, decode_part(type, blocks, &s, part));
  }
}

/* Whole blocks of a row, `columns` columns in all. */
INLINE void decode(enum ggml_type type, const uint8_t *blocks, long columns, uint16_t *out) {
  switch (type) {
    case Q4_0: decode_blocks(Q4_0, blocks, columns, out); break;
    case Q4_1: decode_blocks(Q4_1, blocks, columns, out); break;
    case Q8_0: decode_blocks(Q8_0, blocks, columns, out); break;
    case Q4_K: decode_blocks(Q4_K, blocks, columns, out); break;
    case Q5_K: decode_blocks(Q5_K, blocks, columns, out); break;
    case Q6_K: decode_blocks(Q6_K, blocks, columns, out); break;
    case MXFP4: decode_blocks(MXFP4, blocks, columns, out);
  }
}

#endif
