/* A few rows of bf16 times a matrix in bf16, for processors that multiply bf16 in registers (AVX-512 BF16).

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

INLINE void gemv_rows(int rows, const uint16_t *weights, const uint16_t *x, uint16_t *out, long N, long K) {
  __m512 sums[NR][MR];
  for (int n = 0; n < NR; n++)
    for (int m = 0; m < rows; m++) sums[n][m] = _mm512_setzero_ps();
  for (long k = 0; k < K; k += LANES) {
    __m512i x_pairs[MR];
    for (int m = 0; m < rows; m++) x_pairs[m] = _mm512_loadu_si512(x + m * K + k);
    for (int n = 0; n < NR; n++) {
      const uint16_t *row = weights + n * K + k;
      __builtin_prefetch(row + NR * K);
      const __m512i pairs = _mm512_loadu_si512(row);
      for (int m = 0; m < rows; m++) sums[n][m] = _mm512_dpbf16_ps(sums[n][m], (__m512bh)pairs, (__m512bh)x_pairs[m]);
    }
  }
  for (int m = 0; m < rows; m++)
    for (int n = 0; n < NR; n++) store_rounded(_mm512_reduce_add_ps(sums[n][m]), out + m * N + n);
}

struct product {
  const uint16_t *weights, *x;
  uint16_t *out;
  long M, N, K;
};

static void gemv_task(void *context, long task) {
  const struct product *p = context;
  for (long n = task * GROUP; n < min_long((task + 1) * GROUP, p->N); n += NR) {
    const uint16_t *weights = p->weights + n * p->K;
    uint16_t *out = p->out + n;
    switch (p->M) {
      case 4: gemv_rows(4, weights, p->x, out, p->N, p->K); break;
      case 3: gemv_rows(3, weights, p->x, out, p->N, p->K); break;
      case 2: gemv_rows(2, weights, p->x, out, p->N, p->K); break;
      case 1: gemv_rows(1, weights, p->x, out, p->N, p->K);
    }
  }
}

/* weights [N, K] bf16, x [M, K] bf16 -> out [M, N] bf16.  M is 1 to 4, N a multiple of 4, K of 32. */
void gemv_avx512bf16_bf16(const uint16_t *weights, const uint16_t *x, uint16_t *out, long M, long N, long K,
                          int threads) {
  struct product p = {weights, x, out, M, N, K};
  parallel_for(div_up(N, GROUP), gemv_task, &p, threads);
}
