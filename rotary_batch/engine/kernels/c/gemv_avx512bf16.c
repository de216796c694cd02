/* A few rows of bf16 times a stored matrix, for processors that multiply bf16 in registers (AVX-512 BF16).

   Such a product takes as long as reading its weights from memory, as long as little else is done with them: each
   weight is loaded once, in pairs of columns, while the next rows of the matrix are prefetched.

   M = rows of x, N = rows of the matrix (output channels), K = columns.  Formats: model/slabs.py. */

#include "avx512bf16.h"
#include "pool.h"

#define NR 4     /* rows of a matrix in registers */
#define MR 4     /* rows of x in registers, at most */
#define LANES 32 /* columns in a register */
#define GROUP 32 /* rows of a matrix in a task */

INLINE void store_rounded(float sum, uint16_t *out) {
  *out = (uint16_t)_mm_extract_epi16((__m128i)_mm_cvtneps_pbh(_mm_set_ss(sum)), 0);
}

INLINE void gemv_rows(enum format format, int rows, const char *weights, const float *scale, const uint16_t *x,
                      uint16_t *out, long N, long K) {
  __m512 sums[NR][MR];
  for (int n = 0; n < NR; n++)
    for (int m = 0; m < rows; m++) sums[n][m] = _mm512_setzero_ps();
  for (long k = 0; k < K; k += LANES) {
    __m512i x_pairs[MR];
    for (int m = 0; m < rows; m++) x_pairs[m] = _mm512_loadu_si512(x + m * K + k);
    for (int n = 0; n < NR; n++) {
      const char *row = weights + (n * K + k) * itemsize(format);
      __builtin_prefetch(row + NR * K * itemsize(format));
      const __m512i pairs = load_bf16(format, row);
      for (int m = 0; m < rows; m++) sums[n][m] = _mm512_dpbf16_ps(sums[n][m], (__m512bh)pairs, (__m512bh)x_pairs[m]);
    }
  }
  for (int m = 0; m < rows; m++)
    for (int n = 0; n < NR; n++) {
      const float sum = _mm512_reduce_add_ps(sums[n][m]) * (format == INT8 ? scale[n] : 1);
      store_rounded(sum, out + m * N + n);
    }
}

INLINE void gemv(enum format format, const char *weights, const float *scale, const uint16_t *x, uint16_t *out, long M,
                 long N, long K) {
  switch (M) {
    case 4: gemv_rows(format, 4, weights, scale, x, out, N, K); break;
    case 3: gemv_rows(format, 3, weights, scale, x, out, N, K); break;
    case 2: gemv_rows(format, 2, weights, scale, x, out, N, K); break;
    case 1: gemv_rows(format, 1, weights, scale, x, out, N, K);
  }
}

struct product {
  enum format format;
  const char *weights;
  const float *scale;
  const uint16_t *x;
  uint16_t *out;
  long M, N, K;
};

INLINE void gemv_group(struct product p, enum format format, long task) {
  for (long n = task * GROUP; n < min_long((task + 1) * GROUP, p.N); n += NR)
    gemv(format, p.weights + n * p.K * itemsize(format), p.scale ? p.scale + n : 0, p.x, p.out + n, p.M, p.N, p.K);
}

static void gemv_task(void *context, long task) {
  const struct product *p = context;
  if (p->format == BF16) gemv_group(*p, BF16, task);
  else gemv_group(*p, INT8, task);
}

/* weights [N, K] bf16, x [M, K] bf16 -> out [M, N] bf16.  M is 1 to 4, N a multiple of 4, K of 32. */
void gemv_avx512bf16_bf16(const char *weights, const uint16_t *x, uint16_t *out, long M, long N, long K, int threads) {
  struct product p = {BF16, weights, 0, x, out, M, N, K};
  parallel_for(div_up(N, GROUP), gemv_task, &p, threads);
}

/* weights [N, K] int8, scale [N]; the same. */
void gemv_avx512bf16_int8(const char *weights, const float *scale, const uint16_t *x, uint16_t *out, long M, long N,
                          long K, int threads) {
  struct product p = {INT8, weights, scale, x, out, M, N, K};
  parallel_for(div_up(N, GROUP), gemv_task, &p, threads);
}
