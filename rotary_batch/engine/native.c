/* Rows of float32 times a stored matrix, for processors with AVX2 and no products in bf16.

   torch's ways there: unpack the matrix into float32 first (a pass over memory that costs as much as 50 rows of
   products), or weight-only operators made for other processors.  Here weights are unpacked in registers, or 16 KB of
   them at a time, which stay in the first-level cache.  Tasks are small and are taken one by one: a reader thread that
   takes a core for a moment delays one task and not the product.

   M = rows of x, N = rows of the matrix (output channels), K = columns.  Formats: model/slabs.py. */

#include "native.h"

#define FEW 48       /* rows of x up to which weights are unpacked in registers */
#define MANY 192     /* rows of x that go over unpacked weights before those are dropped: they stay in the second cache */
#define OUTPUTS 4    /* rows of a matrix in registers */
#define COLUMNS 1024 /* of OUTPUTS rows at once: 8 KB of bf16 stay in the first cache for the next rows of x */
#define BLOCK 64     /* rows of a matrix that are unpacked together; in int4 byte j of a column is rows j and j + 32 */
#define HALF (BLOCK / 2)
#define STEP 64      /* columns that are unpacked together */

INLINE float total(__m256 v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

/* ---- few rows: OUTPUTS rows of the matrix at a time, sums over columns in the lanes of a register ---- */

/* `rows` rows of x over `count` columns; sums are set, or added to. */
INLINE void dots(enum kind kind, int rows, const char *weights, const float *x, float *out, long count, long N, long K,
                 int add) {
  __m256 sums[OUTPUTS][ROWS];
  for (int n = 0; n < OUTPUTS; n++)
    for (int m = 0; m < rows; m++) sums[n][m] = _mm256_setzero_ps();
  for (long k = 0; k < count; k += 8) {
    __m256 each[ROWS];
    for (int m = 0; m < rows; m++) each[m] = _mm256_loadu_ps(x + m * K + k);
    for (int n = 0; n < OUTPUTS; n++) {
      const __m256 wide = widen(kind, weights + (n * K + k) * size_of(kind));
      for (int m = 0; m < rows; m++) sums[n][m] = _mm256_fmadd_ps(wide, each[m], sums[n][m]);
    }
  }
  for (int m = 0; m < rows; m++)
    for (int n = 0; n < OUTPUTS; n++) out[m * N + n] = total(sums[n][m]) + (add ? out[m * N + n] : 0);
}

INLINE void few_rows(enum kind kind, const char *weights, const float *x, float *out, long M, long N, long K) {
  for (long k = 0; k < K; k += COLUMNS) {
    const long count = K - k < COLUMNS ? K - k : COLUMNS;
    const char *part = weights + k * size_of(kind);
    long m = 0;
    for (; m + ROWS <= M; m += ROWS) dots(kind, 3, part, x + m * K + k, out + m * N, count, N, K, k > 0);
    if (M - m == 2) dots(kind, 2, part, x + m * K + k, out + m * N, count, N, K, k > 0);
    if (M - m == 1) dots(kind, 1, part, x + m * K + k, out + m * N, count, N, K, k > 0);
  }
}

/* ---- many rows: BLOCK rows of the matrix are unpacked, turned, and every row of x goes over them ---- */

/* BLOCK rows by `count` columns -> wide [count, BLOCK]; the next columns are on their way meanwhile. */
INLINE void unpack(enum kind kind, const char *weights, long count, long K, float *wide) {
  for (int n = 0; n < BLOCK; n += 8) {
    for (int row = n; row < n + 8; row++)
      for (long line = 0; line < STEP * size_of(kind); line += 64)
        __builtin_prefetch(weights + (row * K + STEP) * size_of(kind) + line);
    for (long k = 0; k < count; k += 8) {
      const char *rows[8];
      for (int row = 0; row < 8; row++) rows[row] = weights + ((n + row) * K + k) * size_of(kind);
      turn(kind, rows, wide + k * BLOCK + n, BLOCK);
    }
  }
}

/* bf16 is the upper half of float32: of 8 pairs, the first and the second ones. */
INLINE __m256 first_of_pairs(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
INLINE __m256 second_of_pairs(__m256i pairs) {
  return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000)));
}

/* Columns of one group: weight = (nibble - 8) * scale + zero. */
INLINE void unpack_int4(const uint8_t *nibbles, const uint16_t *scale_zero, long count, float *wide) {
  const __m256 offset = _mm256_set1_ps(8);
  for (int j = 0; j < HALF; j += 8) {
    const __m256i low_pairs = _mm256_loadu_si256((const __m256i *)(scale_zero + 2 * j));
    const __m256i high_pairs = _mm256_loadu_si256((const __m256i *)(scale_zero + 2 * (j + HALF)));
    const __m256 low_scale = first_of_pairs(low_pairs), high_scale = first_of_pairs(high_pairs);
    const __m256 low_zero = _mm256_fnmadd_ps(low_scale, offset, second_of_pairs(low_pairs));
    const __m256 high_zero = _mm256_fnmadd_ps(high_scale, offset, second_of_pairs(high_pairs));
    for (long k = 0; k < count; k++) {
      const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(nibbles + k * HALF + j)));
      const __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(15)));
      const __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(bytes, 4));
      _mm256_storeu_ps(wide + k * BLOCK + j, _mm256_fmadd_ps(low, low_scale, low_zero));
      _mm256_storeu_ps(wide + k * BLOCK + HALF + j, _mm256_fmadd_ps(high, high_scale, high_zero));
    }
  }
}

/* All rows of x (MANY at most) times wide, added to sums [M, BLOCK].

   x is copied first: 3 % of the work at most, where rows 14 KB apart would all fall into a few sets of the cache
   (512 rows of [1024, 3584]: 10.1 ms a million weights without the copy). */
INLINE void all_rows(float *wide, const float *x, float *sums, long count, long M, long K) {
  float near[MANY * STEP] ALIGNED;
  for (long m = 0; m < M; m++) memcpy(near + m * STEP, x + m * K, count * sizeof(float));
  for (int n = 0; n < BLOCK; n += PIECE)
    multiply(M, near, STEP, (struct matrix){wide + n, BLOCK}, (struct matrix){sums + n, BLOCK}, count);
}

INLINE void block(enum kind kind, const char *weights, const float *x, float *out, long M, long N, long K) {
  float wide[STEP * BLOCK] ALIGNED, sums[MANY * BLOCK] ALIGNED;
  memset(sums, 0, M * BLOCK * sizeof(float));
  for (long k = 0; k < K; k += STEP) {
    const long count = at_most(K - k, STEP);
    unpack(kind, weights + k * size_of(kind), count, K, wide);
    all_rows(wide, x + k, sums, count, M, K);
  }
  for (long m = 0; m < M; m++) memcpy(out + m * N, sums + m * BLOCK, BLOCK * sizeof(float));
}

INLINE void block_int4(const uint8_t *nibbles, const uint16_t *scale_zero, const float *x, float *out, long M, long N,
                       long K, long group) {
  float wide[STEP * BLOCK] ALIGNED, sums[MANY * BLOCK] ALIGNED;
  memset(sums, 0, M * BLOCK * sizeof(float));
  for (long k = 0, count; k < K; k += count) {
    count = at_most(group - k % group, STEP);
    unpack_int4(nibbles + k * HALF, scale_zero + k / group * N * 2, count, wide);
    all_rows(wide, x + k, sums, count, M, K);
  }
  for (long m = 0; m < M; m++) memcpy(out + m * N, sums + m * BLOCK, BLOCK * sizeof(float));
}

INLINE void linear(enum kind kind, const char *weights, const float *x, float *out, long M, long N, long K,
                   int threads) {
  const long whole = M <= FEW ? 0 : N / BLOCK * BLOCK;
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(dynamic) nowait
    for (long n = 0; n < whole; n += BLOCK)
      for (long m = 0; m < M; m += MANY)
        block(kind, weights + n * K * size_of(kind), x + m * K, out + m * N + n, at_most(M - m, MANY), N, K);
#pragma omp for schedule(dynamic, 8)
    for (long n = whole; n < N; n += OUTPUTS)
      few_rows(kind, weights + n * K * size_of(kind), x, out + n, M, N, K);
  }
}

/* weights [N, K] bf16, x [M, K] -> out [M, N].  N is a multiple of 4, K of 8. */
void linear_bf16(const char *weights, const float *x, float *out, long M, long N, long K, int threads) {
  linear(BF16, weights, x, out, M, N, K, threads);
}

/* weights [N, K] int8, x [M, K] -> out [M, N], not yet scaled.  N is a multiple of 4, K of 8. */
void linear_int8(const char *weights, const float *x, float *out, long M, long N, long K, int threads) {
  linear(INT8, weights, x, out, M, N, K, threads);
}

/* nibbles [N / 64, K, 32], scale_zero [K / group, N, 2] bf16, x [M, K] -> out [M, N]. */
void linear_int4(const uint8_t *nibbles, const uint16_t *scale_zero, const float *x, float *out, long M, long N, long K,
                 long group, int threads) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (long n = 0; n < N; n += BLOCK)
    for (long m = 0; m < M; m += MANY)
      block_int4(nibbles + n / 2 * K, scale_zero + n * 2, x + m * K, out + m * N + n, at_most(M - m, MANY), N, K, group);
}
