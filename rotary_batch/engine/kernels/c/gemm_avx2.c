/* Rows of float32 times a stored matrix, for processors with AVX2 that do not multiply bf16.

   torch either dequantises the matrix to float32 first (a pass over memory that costs as much as 50 rows of products),
   or uses weight-only operators made for other processors.  Here weights are dequantised in registers, or 16 KB of them
   at a time, which stay in the first-level cache.  Tasks are small and are taken one by one: a reader thread that takes
   a core for a moment delays one task and not the product.

   M = rows of x, N = rows of the matrix (output channels), K = columns.  Formats: model/slabs.py. */

#include "avx2.h"
#include "pairs_avx2.h"
#include "pool.h"

#define GEMV_ROWS 48  /* up to N rows of x weights are dequantised in registers */
#define MC 192        /* rows of x that use a dequantised tile: they stay in the second-level cache */
#define GEMV_NR 4     /* rows of a matrix in registers */
#define GEMV_GROUP 32 /* rows of a matrix in a task */
#define GEMV_KC 1024  /* columns at once: for GEMV_NR rows, 8 KB of bf16, which stay in the first-level cache */
#define NC 64         /* rows of a tile; in int4, byte j of a column holds rows j and j + 32 */
#define HALF (NC / 2)
#define KC 64 /* columns of a tile */

INLINE float horizontal_sum(__m256 v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

/* ---- few rows of x: GEMV_NR rows of the matrix at a time, the lanes of a register sum over columns ---- */

/* Columns of GEMV_NR rows of a matrix, whose rows are `stride` elements apart. */
struct strip {
  enum format format;
  const char *weights;
  long stride, count;
};

/* `rows` rows of x, K apart, times a strip; adds to out, whose rows are N apart, or sets it. */
INLINE void gemv_rows(struct strip w, int rows, const float *x, float *out, long N, long K, int add) {
  __m256 sums[GEMV_NR][MR];
  for (int n = 0; n < GEMV_NR; n++)
    for (int m = 0; m < rows; m++) sums[n][m] = _mm256_setzero_ps();
  for (long k = 0; k < w.count; k += 8) {
    __m256 x_lanes[MR];
    for (int m = 0; m < rows; m++) x_lanes[m] = _mm256_loadu_ps(x + m * K + k);
    for (int n = 0; n < GEMV_NR; n++) {
      const __m256 lanes = load_f32(w.format, w.weights + (n * w.stride + k) * itemsize(w.format));
      for (int m = 0; m < rows; m++) sums[n][m] = _mm256_fmadd_ps(lanes, x_lanes[m], sums[n][m]);
    }
  }
  for (int m = 0; m < rows; m++)
    for (int n = 0; n < GEMV_NR; n++) out[m * N + n] = horizontal_sum(sums[n][m]) + (add ? out[m * N + n] : 0);
}

INLINE void gemv_strip(struct strip w, const float *x, float *out, long M, long N, long K, int add) {
  long m = 0;
  for (; m + MR <= M; m += MR) gemv_rows(w, 3, x + m * K, out + m * N, N, K, add);
  if (M - m == 2) gemv_rows(w, 2, x + m * K, out + m * N, N, K, add);
  if (M - m == 1) gemv_rows(w, 1, x + m * K, out + m * N, N, K, add);
}

INLINE void gemv(enum format format, const char *weights, const float *x, float *out, long M, long N, long K) {
  for (long k = 0; k < K; k += GEMV_KC) {
    const struct strip strip = {format, weights + k * itemsize(format), K, min_long(K - k, GEMV_KC)};
    gemv_strip(strip, x + k, out, M, N, K, k > 0);
  }
}

/* ---- many rows of x: a tile of the matrix is dequantised and transposed, and every row of x uses it ---- */

/* NC rows by `count` columns -> f32_tile [count, NC]; prefetches the next columns. */
INLINE void dequant(enum format format, const char *weights, long count, long K, float *f32_tile) {
  for (int n = 0; n < NC; n += 8) {
    for (int row = n; row < n + 8; row++)
      for (long line = 0; line < KC * itemsize(format); line += 64)
        __builtin_prefetch(weights + (row * K + KC) * itemsize(format) + line);
    for (long k = 0; k < count; k += 8) {
      const char *rows[8];
      for (int row = 0; row < 8; row++) rows[row] = weights + ((n + row) * K + k) * itemsize(format);
      transpose8x8(format, rows, f32_tile + k * NC + n, NC);
    }
  }
}

/* `count` columns of one group: weight = (nibble - 8) * scale + zero. */
INLINE void dequant_int4(const uint8_t *nibbles, enum format pair, const char *scale_zero, long count,
                         float *f32_tile) {
  const __m256 offset = _mm256_set1_ps(8);
  for (int j = 0; j < HALF; j += 8) {
    const struct pairs low_pairs = load_pairs(pair, scale_zero + 2 * j * itemsize(pair));
    const struct pairs high_pairs = load_pairs(pair, scale_zero + 2 * (j + HALF) * itemsize(pair));
    const __m256 low_zero = _mm256_fnmadd_ps(low_pairs.scale, offset, low_pairs.zero);
    const __m256 high_zero = _mm256_fnmadd_ps(high_pairs.scale, offset, high_pairs.zero);
    for (long k = 0; k < count; k++) {
      const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(nibbles + k * HALF + j)));
      const __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(15)));
      const __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(bytes, 4));
      _mm256_storeu_ps(f32_tile + k * NC + j, _mm256_fmadd_ps(low, low_pairs.scale, low_zero));
      _mm256_storeu_ps(f32_tile + k * NC + HALF + j, _mm256_fmadd_ps(high, high_pairs.scale, high_zero));
    }
  }
}

/* Adds the product of M rows of x (MC at most) and f32_tile to sums [M, NC].

   x is copied first, at most 3 % of the work: rows that are 14 KB apart would all map to a few sets of the cache
   (512 rows of [1024, 3584]: 10.1 ms a million weights without the copy). */
INLINE void gemm_tile(float *f32_tile, const float *x, float *sums, long count, long M, long K) {
  float packed_x[MC * KC] ALIGNED;
  for (long m = 0; m < M; m++) memcpy(packed_x + m * KC, x + m * K, count * sizeof(float));
  for (int n = 0; n < NC; n += NR)
    gemm_f32(M, packed_x, KC, (struct matrix){f32_tile + n, NC}, (struct matrix){sums + n, NC}, count);
}

INLINE void gemm_block(enum format format, const char *weights, const float *x, float *out, long M, long N, long K) {
  float f32_tile[KC * NC] ALIGNED, sums[MC * NC] ALIGNED;
  memset(sums, 0, M * NC * sizeof(float));
  for (long k = 0; k < K; k += KC) {
    const long count = min_long(K - k, KC);
    dequant(format, weights + k * itemsize(format), count, K, f32_tile);
    gemm_tile(f32_tile, x + k, sums, count, M, K);
  }
  for (long m = 0; m < M; m++) memcpy(out + m * N, sums + m * NC, NC * sizeof(float));
}

/* A product.  Its tasks are NC of the first `blocked_rows` rows of the matrix with MC rows of x, then groups of the
   other rows of the matrix with all rows of x. */
struct product {
  enum format format;
  const char *weights;
  const float *x;
  float *out;
  long M, N, K, blocked_rows;
};

INLINE void gemm_part(struct product p, enum format format, long task) {
  const long blocks = p.blocked_rows / NC * div_up(p.M, MC);
  if (task < blocks) {
    const long n = task / div_up(p.M, MC) * NC, m = task % div_up(p.M, MC) * MC;
    gemm_block(format, p.weights + n * p.K * itemsize(format), p.x + m * p.K, p.out + m * p.N + n,
               min_long(p.M - m, MC), p.N, p.K);
    return;
  }
  const long begin = p.blocked_rows + (task - blocks) * GEMV_GROUP, end = min_long(begin + GEMV_GROUP, p.N);
  for (long n = begin; n < end; n += GEMV_NR)
    gemv(format, p.weights + n * p.K * itemsize(format), p.x, p.out + n, p.M, p.N, p.K);
}

static void gemm_task(void *context, long task) {
  const struct product *p = context;
  if (p->format == BF16) gemm_part(*p, BF16, task);
  else gemm_part(*p, INT8, task);
}

static void gemm(enum format format, const char *weights, const float *x, float *out, long M, long N, long K,
                 int threads) {
  struct product p = {format, weights, x, out, M, N, K, M <= GEMV_ROWS ? 0 : N / NC * NC};
  parallel_for(p.blocked_rows / NC * div_up(M, MC) + div_up(N - p.blocked_rows, GEMV_GROUP), gemm_task, &p, threads);
}

/* weights [N, K] bf16, x [M, K] -> out [M, N].  N is a multiple of 4, K of 8. */
void gemm_avx2_bf16(const char *weights, const float *x, float *out, long M, long N, long K, int threads) {
  gemm(BF16, weights, x, out, M, N, K, threads);
}

/* weights [N, K] int8, x [M, K] -> out [M, N], which the caller multiplies by the scale.
   N is a multiple of 4, K of 8. */
void gemm_avx2_int8(const char *weights, const float *x, float *out, long M, long N, long K, int threads) {
  gemm(INT8, weights, x, out, M, N, K, threads);
}

/* ---- int4 ---- */

struct product_int4 {
  const uint8_t *nibbles;
  enum format pair; /* of scale_zero */
  const char *scale_zero;
  const float *x;
  float *out;
  long M, N, K, group;
};

/* NC rows of the matrix from row n on, and MC rows of x from row m on. */
static void gemm_int4_task(void *context, long task) {
  const struct product_int4 p = *(const struct product_int4 *)context;
  const long n = task / div_up(p.M, MC) * NC, m = task % div_up(p.M, MC) * MC, rows = min_long(p.M - m, MC);
  float f32_tile[KC * NC] ALIGNED, sums[MC * NC] ALIGNED;
  memset(sums, 0, rows * NC * sizeof(float));
  for (long k = 0, count; k < p.K; k += count) {
    count = min_long(p.group - k % p.group, KC);
    dequant_int4(p.nibbles + n / 2 * p.K + k * HALF, p.pair,
                 p.scale_zero + (k / p.group * p.N + n) * 2 * itemsize(p.pair), count, f32_tile);
    gemm_tile(f32_tile, p.x + m * p.K + k, sums, count, rows, p.K);
  }
  for (long i = 0; i < rows; i++) memcpy(p.out + (m + i) * p.N + n, sums + i * NC, NC * sizeof(float));
}

/* nibbles [N / 64, K, 32], scale_zero [K / group, N, 2] in the format `pair`, x [M, K] -> out [M, N]. */
void gemm_avx2_int4(const uint8_t *nibbles, const char *scale_zero, const float *x, float *out, long M, long N, long K,
                    long group, long pair, int threads) {
  struct product_int4 p = {nibbles, (enum format)pair, scale_zero, x, out, M, N, K, group};
  parallel_for(N / NC * div_up(M, MC), gemm_int4_task, &p, threads);
}
