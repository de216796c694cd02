/* A few rows of bf16 times a stored matrix, for processors that multiply bf16 in registers (AVX-512 BF16).

   Such a product takes as long as its weights take to come from memory, if little else is done with them: each is loaded
   once, as pairs of columns, while the next rows of the matrix are on their way.

   M = rows of x, N = rows of the matrix (output channels), K = columns.  Formats: model/slabs.py. */

#include "native.h"

#if KNOWS_BF16

/* clang takes such a function into a parallel region, but would compile its code there without the features. */
#define KERNEL __attribute__((noinline, target(AVX512_BF16)))

#define OUTPUTS 4 /* rows of a matrix in registers */
#define FEW 4     /* rows of x in registers, at most */
#define STEP 32   /* columns in a register */

WIDE void dots(enum kind kind, int rows, const char *weights, const float *scale, const uint16_t *x, uint16_t *out,
               long N, long K) {
  __m512 sums[OUTPUTS][FEW];
  for (int n = 0; n < OUTPUTS; n++)
    for (int m = 0; m < rows; m++) sums[n][m] = _mm512_setzero_ps();
  for (long k = 0; k < K; k += STEP) {
    __m512i each[FEW];
    for (int m = 0; m < rows; m++) each[m] = _mm512_loadu_si512(x + m * K + k);
    for (int n = 0; n < OUTPUTS; n++) {
      const char *place = weights + (n * K + k) * size_of(kind);
      __builtin_prefetch(place + OUTPUTS * K * size_of(kind));
      const __m512i pairs = pairs_of(kind, place);
      for (int m = 0; m < rows; m++) sums[n][m] = _mm512_dpbf16_ps(sums[n][m], (__m512bh)pairs, (__m512bh)each[m]);
    }
  }
  for (int m = 0; m < rows; m++)
    for (int n = 0; n < OUTPUTS; n++) {
      const float sum = _mm512_reduce_add_ps(sums[n][m]) * (kind == INT8 ? scale[n] : 1);
      out[m * N + n] = (uint16_t)_mm_extract_epi16((__m128i)_mm_cvtneps_pbh(_mm_set_ss(sum)), 0);
    }
}

WIDE void some_rows(enum kind kind, const char *weights, const float *scale, const uint16_t *x, uint16_t *out, long M,
                    long N, long K) {
  switch (M) {
    case 4: dots(kind, 4, weights, scale, x, out, N, K); break;
    case 3: dots(kind, 3, weights, scale, x, out, N, K); break;
    case 2: dots(kind, 2, weights, scale, x, out, N, K); break;
    case 1: dots(kind, 1, weights, scale, x, out, N, K);
  }
}

KERNEL static void share_bf16(const char *weights, const uint16_t *x, uint16_t *out, long M, long N, long K) {
#pragma omp for schedule(dynamic, 8)
  for (long n = 0; n < N; n += OUTPUTS) some_rows(BF16, weights + n * K * 2, 0, x, out + n, M, N, K);
}

KERNEL static void share_int8(const char *weights, const float *scale, const uint16_t *x, uint16_t *out, long M, long N,
                              long K) {
#pragma omp for schedule(dynamic, 8)
  for (long n = 0; n < N; n += OUTPUTS) some_rows(INT8, weights + n * K, scale + n, x, out + n, M, N, K);
}

/* weights [N, K] bf16, x [M, K] bf16 -> out [M, N] bf16.  M is 1 to 4, N a multiple of 4, K of 32. */
void few_bf16(const char *weights, const uint16_t *x, uint16_t *out, long M, long N, long K, int threads) {
#pragma omp parallel num_threads(threads)
  share_bf16(weights, x, out, M, N, K);
}

/* weights [N, K] int8, scale [N]; the same. */
void few_int8(const char *weights, const float *scale, const uint16_t *x, uint16_t *out, long M, long N, long K,
              int threads) {
#pragma omp parallel num_threads(threads)
  share_int8(weights, scale, x, out, M, N, K);
}

/* Whether this processor has all that is used here. */
int multiplies_bf16(void) { return has_avx512_bf16(); }

#else

int multiplies_bf16(void) { return 0; }

#endif
