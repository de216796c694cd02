/* int4 weights -> bf16, for processors whose matrix units want it: one pass where torch's operators take six. */

#include "avx2.h"
#include "pool.h"

#define SQUARE 8 /* weights are turned in squares of SQUARE rows by SQUARE columns */
#define NC 64    /* byte j of a column holds rows j (low half) and j + 32 */

/* 8 numbers, rounded to nearest, ties to even. */
INLINE __m128i to_bf16(__m256 wide) {
  const __m256i bits = _mm256_castps_si256(wide);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}

/* columns [SQUARE] of SQUARE rows each -> out [SQUARE rows, SQUARE columns of stride]. */
INLINE void transpose_and_store(const __m128i columns[SQUARE], uint16_t *out, long stride) {
  __m128i a[SQUARE], b[SQUARE];
  for (int n = 0; n < SQUARE; n += 2) {
    a[n] = _mm_unpacklo_epi16(columns[n], columns[n + 1]);
    a[n + 1] = _mm_unpackhi_epi16(columns[n], columns[n + 1]);
  }
  for (int n = 0; n < SQUARE; n += 4)
    for (int h = 0; h < 2; h++) {
      b[n + 2 * h] = _mm_unpacklo_epi32(a[n + h], a[n + h + 2]);
      b[n + 2 * h + 1] = _mm_unpackhi_epi32(a[n + h], a[n + h + 2]);
    }
  for (int n = 0; n < 4; n++) {
    _mm_storeu_si128((__m128i *)(out + 2 * n * stride), _mm_unpacklo_epi64(b[n], b[n + 4]));
    _mm_storeu_si128((__m128i *)(out + (2 * n + 1) * stride), _mm_unpackhi_epi64(b[n], b[n + 4]));
  }
}

/* SQUARE columns of 32 bytes -> SQUARE rows of the low or the high halves. */
INLINE void dequant_square(const uint8_t *nibbles, int shift, __m256 scale, __m256 zero, uint16_t *out, long stride) {
  __m128i columns[SQUARE];
  for (int n = 0; n < SQUARE; n++) {
    const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(nibbles + n * (NC / 2))));
    const __m256i nibble = _mm256_and_si256(_mm256_srli_epi32(bytes, shift), _mm256_set1_epi32(15));
    const __m256 centred = _mm256_sub_ps(_mm256_cvtepi32_ps(nibble), _mm256_set1_ps(8));
    columns[n] = to_bf16(_mm256_fmadd_ps(centred, scale, zero));
  }
  transpose_and_store(columns, out, stride);
}

/* SQUARE pairs of scale and zero in bf16 -> two vectors. */
INLINE void load_scale_zero(const uint16_t *scale_zero, __m256 *scale, __m256 *zero) {
  const __m256i both = _mm256_loadu_si256((const __m256i *)scale_zero);
  *scale = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
  *zero = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32((int)0xffff0000)));
}

struct dequant {
  const uint8_t *nibbles;
  const uint16_t *scale_zero;
  uint16_t *out;
  long N, K, group;
};

/* NC rows. */
static void dequant_task(void *context, long task) {
  const struct dequant d = *(const struct dequant *)context;
  for (long begin = 0; begin < d.K; begin += d.group)
    for (int lane = 0; lane < NC / 2; lane += SQUARE)
      for (int half = 0; half < 2; half++) {
        const long row = task * NC + half * (NC / 2) + lane;
        __m256 scale, zero;
        load_scale_zero(d.scale_zero + (begin / d.group * d.N + row) * 2, &scale, &zero);
        for (long k = begin; k < begin + d.group; k += SQUARE)
          dequant_square(d.nibbles + (task * d.K + k) * (NC / 2) + lane, 4 * half, scale, zero, d.out + row * d.K + k,
                         d.K);
      }
}

/* nibbles [rows / 64, K, 32], scale_zero [K / group, of N its first rows, 2] bf16 -> out [rows, K] bf16.
   `group` is a multiple of 8. */
void dequant_int4_avx2(const uint8_t *nibbles, const uint16_t *scale_zero, uint16_t *out, long rows, long N, long K,
                       long group, int threads) {
  struct dequant d = {nibbles, scale_zero, out, N, K, group};
  parallel_for(rows / NC, dequant_task, &d, threads);
}
