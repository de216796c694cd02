/* int4 weights -> bf16, for processors whose matrix units want it: one pass where torch's operators take six. */

#include "native.h"

#define SIDE 8        /* weights are turned in squares of SIDE rows by SIDE columns */
#define BLOCK_ROWS 64 /* byte j of a column holds rows j (low half) and j + 32 */

/* 8 numbers, rounded to nearest, ties to even. */
INLINE __m128i to_bf16(__m256 wide) {
  const __m256i bits = _mm256_castps_si256(wide);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}

/* columns [SIDE] of SIDE rows each -> out [SIDE rows, SIDE columns of stride]. */
INLINE void turn_and_store(const __m128i columns[SIDE], uint16_t *out, long stride) {
  __m128i a[SIDE], b[SIDE];
  for (int n = 0; n < SIDE; n += 2) {
    a[n] = _mm_unpacklo_epi16(columns[n], columns[n + 1]);
    a[n + 1] = _mm_unpackhi_epi16(columns[n], columns[n + 1]);
  }
  for (int n = 0; n < SIDE; n += 4)
    for (int h = 0; h < 2; h++) {
      b[n + 2 * h] = _mm_unpacklo_epi32(a[n + h], a[n + h + 2]);
      b[n + 2 * h + 1] = _mm_unpackhi_epi32(a[n + h], a[n + h + 2]);
    }
  for (int n = 0; n < 4; n++) {
    _mm_storeu_si128((__m128i *)(out + 2 * n * stride), _mm_unpacklo_epi64(b[n], b[n + 4]));
    _mm_storeu_si128((__m128i *)(out + (2 * n + 1) * stride), _mm_unpackhi_epi64(b[n], b[n + 4]));
  }
}

/* SIDE columns of 32 bytes -> SIDE rows of the low or the high halves. */
INLINE void square(const uint8_t *nibbles, int shift, __m256 scale, __m256 zero, uint16_t *out, long stride) {
  __m128i columns[SIDE];
  for (int n = 0; n < SIDE; n++) {
    const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(nibbles + n * (BLOCK_ROWS / 2))));
    const __m256i nibble = _mm256_and_si256(_mm256_srli_epi32(bytes, shift), _mm256_set1_epi32(15));
    const __m256 centred = _mm256_sub_ps(_mm256_cvtepi32_ps(nibble), _mm256_set1_ps(8));
    columns[n] = to_bf16(_mm256_fmadd_ps(centred, scale, zero));
  }
  turn_and_store(columns, out, stride);
}

/* SIDE pairs of scale and zero in bf16 -> two vectors. */
INLINE void pairs(const uint16_t *scale_zero, __m256 *scale, __m256 *zero) {
  const __m256i both = _mm256_loadu_si256((const __m256i *)scale_zero);
  *scale = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
  *zero = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32((int)0xffff0000)));
}

/* nibbles [rows / 64, K, 32], scale_zero [K / group, of N its first rows, 2] bf16 -> out [rows, K] bf16.
   `group` is a multiple of 8. */
void unpack_int4_bf16(const uint8_t *nibbles, const uint16_t *scale_zero, uint16_t *out, long rows, long N, long K,
                      long group, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long first = 0; first < rows; first += BLOCK_ROWS)
    for (long begin = 0; begin < K; begin += group)
      for (int lane = 0; lane < BLOCK_ROWS / 2; lane += SIDE)
        for (int half = 0; half < 2; half++) {
          const long row = first + half * (BLOCK_ROWS / 2) + lane;
          __m256 scale, zero;
          pairs(scale_zero + (begin / group * N + row) * 2, &scale, &zero);
          for (long k = begin; k < begin + group; k += SIDE)
            square(nibbles + (first / BLOCK_ROWS * K + k) * (BLOCK_ROWS / 2) + lane, 4 * half, scale, zero,
                   out + row * K + k, K);
        }
}
