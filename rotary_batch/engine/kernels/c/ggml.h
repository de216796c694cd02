/* The blocks of GGUF files, of which a matrix may consist as it is: codes and scales of 32 columns at a time.

   In every type weight = code * scale + offset.  A function for each type gives the codes of a part of a block, another
   one the scales of a block; all else is the same for all types.  The layouts are those of ggml-common.h and of
   dequantize_row_* in ggml-quants.c; engine/kernels/ggml.py has them in torch. */

#ifndef ROTARY_BATCH_GGML_H
#define ROTARY_BATCH_GGML_H

#include "common.h"

enum ggml_type { Q4_0 = 2, Q4_1 = 3, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14, MXFP4 = 39 }; /* ggml's numbers */

#define PART 32     /* columns of a part */
#define PARTS_K 8   /* parts of a block of Q4_K, Q5_K and Q6_K; other blocks are one part */
#define DECODED 256 /* columns that are decoded at once: one block or eight */

INLINE long block_parts(enum ggml_type type) { return type == Q4_K || type == Q5_K || type == Q6_K ? PARTS_K : 1; }

INLINE long block_nbytes(enum ggml_type type) {
  switch (type) {
    case Q4_0: return 18;
    case Q4_1: return 20;
    case Q8_0: return 34;
    case Q4_K: return 144;
    case Q5_K: return 176;
    case Q6_K: return 210;
    case MXFP4: return 17;
  }
  return 0;
}

/* Bytes of `columns` columns, which are whole blocks. */
INLINE long blocks_nbytes(enum ggml_type type, long columns) {
  return columns / (PART * block_parts(type)) * block_nbytes(type);
}

INLINE void prefetch_blocks(const uint8_t *blocks, long nbytes) {
  for (long line = 0; line < nbytes; line += 64) __builtin_prefetch(blocks + line);
}

/* ---- scales of a block ---- */

/* In Q6_K the scale of part p is scale[2 p] for its first 16 columns and scale[2 p + 1] for the others. */
struct scales {
  float scale[2 * PARTS_K], offset[PARTS_K];
};

INLINE int scale_index(enum ggml_type type, long part, int half) {
  return (int)(type == Q6_K ? 2 * part + half : part);
}

INLINE int has_offset(enum ggml_type type) { return type != Q8_0 && type != Q6_K && type != MXFP4; }

INLINE float float_from_half(const uint8_t *bytes) {
  uint16_t half;
  memcpy(&half, bytes, 2);
  return _cvtsh_ss(half);
}

/* 2^(exponent - 128), which may be subnormal: half of what the format says, for its values are stored doubled. */
INLINE float half_power(uint8_t exponent) {
  const uint32_t bits = exponent < 2 ? 0x200000u << exponent : (uint32_t)(exponent - 1) << 23;
  float power;
  memcpy(&power, &bits, 4);
  return power;
}

/* 8 bytes as float32. */
INLINE __m256 floats_from_bytes(uint64_t bytes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes)));
}

/* Q4_K and Q5_K: 12 bytes hold 8 scales and 8 minima of 6 bits.  The lower 6 bits of bytes 0 to 3 and 4 to 7 are the
   first four of each; bytes 8 to 11 hold the lower 4 bits of the last four, and the upper 2 bits of bytes 0 to 7 the
   rest of them. */
INLINE void scales_of_6_bits(const uint8_t *block, struct scales *s) {
  const uint32_t six = 0x3f3f3f3f, four = 0x0f0f0f0f, upper_two = 0x30303030;
  uint32_t first, second, third;
  memcpy(&first, block + 4, 4), memcpy(&second, block + 8, 4), memcpy(&third, block + 12, 4);
  const uint32_t last_scales = (third & four) | (first >> 2 & upper_two);
  const uint32_t last_minima = (third >> 4 & four) | (second >> 2 & upper_two);
  const uint64_t scales = (first & six) | (uint64_t)last_scales << 32;
  const uint64_t minima = (second & six) | (uint64_t)last_minima << 32;
  const __m256 d = _mm256_set1_ps(float_from_half(block)), minus_min = _mm256_set1_ps(-float_from_half(block + 2));
  _mm256_storeu_ps(s->scale, _mm256_mul_ps(floats_from_bytes(scales), d));
  _mm256_storeu_ps(s->offset, _mm256_mul_ps(floats_from_bytes(minima), minus_min));
}

INLINE void scales_of_q6(const uint8_t *block, struct scales *s) {
  const __m256 d = _mm256_set1_ps(float_from_half(block + 208));
  for (int n = 0; n < 2 * PARTS_K; n += 8) {
    const __m256i scales = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(block + 192 + n)));
    _mm256_storeu_ps(s->scale + n, _mm256_mul_ps(_mm256_cvtepi32_ps(scales), d));
  }
}

INLINE void scales_of(enum ggml_type type, const uint8_t *block, struct scales *s) {
  switch (type) {
    case Q4_0: s->scale[0] = float_from_half(block), s->offset[0] = -8 * s->scale[0]; break;
    case Q4_1: s->scale[0] = float_from_half(block), s->offset[0] = float_from_half(block + 2); break;
    case Q8_0: s->scale[0] = float_from_half(block); break;
    case Q4_K:
    case Q5_K: scales_of_6_bits(block, s); break;
    case Q6_K: scales_of_q6(block, s); break;
    case MXFP4: s->scale[0] = half_power(block[0]);
  }
}

/* ---- codes of a part: 32 bytes ---- */

INLINE __m256i low_nibbles(__m256i bytes) { return _mm256_and_si256(bytes, _mm256_set1_epi8(15)); }

/* The low nibbles of 16 bytes, then their high ones. */
INLINE __m256i nibbles_of_16(const uint8_t *bytes) {
  const __m128i low = _mm_loadu_si128((const __m128i *)bytes);
  return low_nibbles(_mm256_inserti128_si256(_mm256_castsi128_si256(low), _mm_srli_epi16(low, 4), 1));
}

/* The low nibbles of 32 bytes in even parts, the high ones in odd parts. */
INLINE __m256i nibbles_of_32(const uint8_t *bytes, int high) {
  const __m256i both = _mm256_loadu_si256((const __m256i *)bytes);
  return low_nibbles(high ? _mm256_srli_epi16(both, 4) : both);
}

/* Bits from `bit` on of each byte moved to bit 4 on; the bits that `mask` names remain. */
INLINE __m256i bits_at_4(const uint8_t *bytes, int bit, char mask) {
  const __m256i all = _mm256_loadu_si256((const __m256i *)bytes);
  const __m256i moved = bit < 4 ? _mm256_slli_epi16(all, 4 - bit) : _mm256_srli_epi16(all, bit - 4);
  return _mm256_and_si256(moved, _mm256_set1_epi8(mask));
}

INLINE __m256i codes_of_q5(const uint8_t *block, int part) {
  return _mm256_or_si256(nibbles_of_32(block + 48 + part / 2 * 32, part & 1), bits_at_4(block + 16, part, 16));
}

/* Each half of the block has 64 bytes of nibbles, whose low ones come first, and 32 bytes of upper bits. */
INLINE __m256i codes_of_q6(const uint8_t *block, int part) {
  const int half = part / 4, quarter = part % 4;
  const __m256i nibbles = nibbles_of_32(block + 64 * half + 32 * (quarter & 1), quarter & 2);
  const __m256i upper = bits_at_4(block + 128 + 32 * half, 2 * quarter, 48);
  return _mm256_sub_epi8(_mm256_or_si256(nibbles, upper), _mm256_set1_epi8(32));
}

/* Signed only in Q8_0 and Q6_K; those of MXFP4 are places in a table. */
INLINE __m256i codes_of(enum ggml_type type, const uint8_t *block, int part) {
  switch (type) {
    case Q4_0: return nibbles_of_16(block + 2);
    case Q4_1: return nibbles_of_16(block + 4);
    case Q8_0: return _mm256_loadu_si256((const __m256i *)(block + 2));
    case Q4_K: return nibbles_of_32(block + 16 + part / 2 * 32, part & 1);
    case Q5_K: return codes_of_q5(block, part);
    case Q6_K: return codes_of_q6(block, part);
    case MXFP4: return nibbles_of_16(block + 1);
  }
  return _mm256_setzero_si256();
}

/* The doubled values of MXFP4 (4 bits of floating point: E2M1). */
INLINE __m128i mxfp4_values(void) { return _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12); }

#endif
