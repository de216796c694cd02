/* The blocks of GGUF files that no product reads in place -> float32, by AVX2.

   Weights have the bits of engine/kernels/ggml.py: every product of a code and its scale is exact, or rounded once.  The
   layouts are those of ggml-common.h and of dequantize_row_* in ggml-quants.c. */

#ifndef ROTARY_BATCH_GGML_RARE_H
#define ROTARY_BATCH_GGML_RARE_H

#include "ggml.h"

enum rare_type { Q5_0 = 6, Q5_1 = 7, Q2_K = 10, Q3_K = 11, IQ4_NL = 20, IQ4_XS = 23 }; /* ggml's numbers */

#define NO_OFFSET (-0.0f) /* x + -0 = x, for x = -0 too */

/* 16 signed codes, whose weights are code * scale + offset. */
INLINE void write_16(__m128i codes, float scale, float offset, float *out) {
  const __m256 scales = _mm256_set1_ps(scale), offsets = _mm256_set1_ps(offset);
  const __m256 first = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
  const __m256 second = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(codes, codes)));
  _mm256_storeu_ps(out, _mm256_fmadd_ps(first, scales, offsets));
  _mm256_storeu_ps(out + 8, _mm256_fmadd_ps(second, scales, offsets));
}

INLINE void write_32(__m256i codes, float scale, float offset, float *out) {
  write_16(_mm256_castsi256_si128(codes), scale, offset, out);
  write_16(_mm256_extracti128_si256(codes, 1), scale, offset, out + 16);
}

/* 32 bits -> 32 bytes of 16 or 0. */
INLINE __m256i fifth_bits(const uint8_t *bytes) {
  int bits;
  memcpy(&bits, bytes, 4);
  const __m256i own_byte = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3,
                                            3, 3, 3, 3, 3, 3, 3);
  const __m256i own_bit = _mm256_set1_epi64x((long long)0x8040201008040201);
  const __m256i spread = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), own_byte), own_bit);
  return _mm256_and_si256(_mm256_cmpeq_epi8(spread, own_bit), _mm256_set1_epi8(16));
}

INLINE void decode_q5_0(const uint8_t *block, float *out) {
  const __m256i codes = _mm256_or_si256(nibbles_of_16(block + 6), fifth_bits(block + 2));
  write_32(_mm256_sub_epi8(codes, _mm256_set1_epi8(16)), float_from_half(block), NO_OFFSET, out);
}

INLINE void decode_q5_1(const uint8_t *block, float *out) {
  const __m256i codes = _mm256_or_si256(nibbles_of_16(block + 8), fifth_bits(block + 4));
  write_32(codes, float_from_half(block), float_from_half(block + 2), out);
}

/* The codes of 2 bits of a part: each half of a block has 32 bytes, whose lowest bits come first. */
INLINE __m256i codes_of_2_bits(const uint8_t *bytes, int part) {
  const __m256i all = _mm256_loadu_si256((const __m256i *)(bytes + part / 4 * 32));
  return _mm256_and_si256(_mm256_srl_epi16(all, _mm_cvtsi32_si128(part % 4 * 2)), _mm256_set1_epi8(3));
}

/* 16 bytes have a scale and a minimum of 4 bits each, for 16 columns. */
INLINE void decode_q2_k(const uint8_t *block, float *out) {
  const float d = float_from_half(block + 80), least = float_from_half(block + 82);
  for (int part = 0; part < PARTS_K; part++, out += PART) {
    const __m256i codes = codes_of_2_bits(block + 16, part);
    const uint8_t *own = block + 2 * part;
    write_16(_mm256_castsi256_si128(codes), d * (own[0] & 15), -(least * (own[0] >> 4)), out);
    write_16(_mm256_extracti128_si256(codes, 1), d * (own[1] & 15), -(least * (own[1] >> 4)), out + 16);
  }
}

/* 16 scales of 6 bits, which stand for -32 to 31: the low nibbles of 8 bytes, then their high ones; two upper bits of
   each in the next 4 bytes, in the same way. */
INLINE int scale_of_q3_k(const uint8_t *packed, int n) {
  return ((packed[n % 8] >> n / 8 * 4 & 15) | (packed[8 + n % 4] >> n / 4 * 2 & 3) << 4) - 32;
}

/* Where the high bit is 0, 4 is subtracted. */
INLINE void decode_q3_k(const uint8_t *block, float *out) {
  const float d = float_from_half(block + 108);
  const __m256i high = _mm256_loadu_si256((const __m256i *)block), four = _mm256_set1_epi8(4);
  for (int part = 0; part < PARTS_K; part++, out += PART) {
    const __m256i is_low = _mm256_cmpeq_epi8(_mm256_and_si256(high, _mm256_set1_epi8((char)(1 << part))),
                                             _mm256_setzero_si256());
    const __m256i codes = _mm256_sub_epi8(codes_of_2_bits(block + 32, part), _mm256_and_si256(is_low, four));
    write_16(_mm256_castsi256_si128(codes), d * scale_of_q3_k(block + 96, 2 * part), NO_OFFSET, out);
    write_16(_mm256_extracti128_si256(codes, 1), d * scale_of_q3_k(block + 96, 2 * part + 1), NO_OFFSET, out + 16);
  }
}

/* The 16 levels of IQ4_NL and IQ4_XS. */
INLINE __m256i levels_of(__m256i nibbles) {
  const __m128i levels = _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(levels), nibbles);
}

INLINE void decode_iq4_nl(const uint8_t *block, float *out) {
  write_32(levels_of(nibbles_of_16(block + 2)), float_from_half(block), NO_OFFSET, out);
}

/* 8 scales of 6 bits, which stand for -32 to 31: lower nibbles in bytes 4 to 7, upper two bits in bytes 2 and 3. */
INLINE void decode_iq4_xs(const uint8_t *block, float *out) {
  const float d = float_from_half(block);
  for (int part = 0; part < PARTS_K; part++, out += PART) {
    const int low = block[4 + part / 2] >> part % 2 * 4 & 15, high = block[2 + part / 4] >> part % 4 * 2 & 3;
    write_32(levels_of(nibbles_of_16(block + 8 + 16 * part)), d * ((low | high << 4) - 32), NO_OFFSET, out);
  }
}

/* A function for one block of a type, its columns and its bytes; no function for an unknown type. */
struct rare_blocks {
  void (*decode)(const uint8_t *block, float *out);
  long columns, nbytes;
};

INLINE struct rare_blocks rare_blocks_of(long type) {
  switch (type) {
    case Q5_0: return (struct rare_blocks){decode_q5_0, 32, 22};
    case Q5_1: return (struct rare_blocks){decode_q5_1, 32, 24};
    case Q2_K: return (struct rare_blocks){decode_q2_k, 256, 84};
    case Q3_K: return (struct rare_blocks){decode_q3_k, 256, 110};
    case IQ4_NL: return (struct rare_blocks){decode_iq4_nl, 32, 18};
    case IQ4_XS: return (struct rare_blocks){decode_iq4_xs, 256, 136};
  }
  return (struct rare_blocks){0, 0, 0};
}

#endif
