/* Blocks of GGUF files -> float32, by AVX2. */

#ifndef ROTARY_BATCH_GGML_AVX2_H
#define ROTARY_BATCH_GGML_AVX2_H

#include "ggml.h"

INLINE void decode_part(enum ggml_type type, const uint8_t *block, const struct scales *s, int part, float *out) {
  __m256i codes = codes_of(type, block, part);
  if (type == MXFP4) codes = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(mxfp4_values()), codes);
  for (int half = 0; half < 2; half++) {
    const __m256 scale = _mm256_broadcast_ss(s->scale + scale_index(type, part, half));
    const __m128i bytes = half ? _mm256_extracti128_si256(codes, 1) : _mm256_castsi256_si128(codes);
    for (int v = 0; v < 2; v++) {
      const __m256i integers = _mm256_cvtepi8_epi32(v ? _mm_unpackhi_epi64(bytes, bytes) : bytes);
      const __m256 values = _mm256_cvtepi32_ps(integers);
      _mm256_storeu_ps(out + 16 * half + 8 * v,
                       has_offset(type) ? _mm256_fmadd_ps(values, scale, _mm256_broadcast_ss(s->offset + part))
                                        : _mm256_mul_ps(values, scale));
    }
  }
}

INLINE void decode_blocks(enum ggml_type type, const uint8_t *blocks, long columns, float *out) {
  for (; columns > 0; columns -= PART * block_parts(type), blocks += block_nbytes(type)) {
    struct scales s;
    scales_of(type, blocks, &s);
#pragma GCC unroll 8
    for (int part = 0; part < block_parts(type); part++, out += PART) decode_part(type, blocks, &s, part, out);
  }
}

/* Whole blocks of a row, `columns` columns in all. */
static void decode(enum ggml_type type, const uint8_t *blocks, long columns, float *out) {
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
