/* A few rows of bf16 times a stored matrix, for processors that multiply bf16 in registers (AVX-512 BF16).

   Such a product takes as long as reading its weights from memory, as long as little else is done with them: each
   weight is loaded once, in pairs of columns, while the next rows of the matrix are prefetched.

   M = rows of x, N = rows of the matrix (output channels), K = columns.  Formats: model/slabs.py. */

#include "ggml_avx512bf16.h"
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

/* ---- blocks of GGUF files: products of codes are scaled and added up, 32 columns at a time ---- */

#define UNIT (PART * PARTS_K) /* columns whose scales are computed at once: one block or eight */
#define MR_GGML 8
#define UNIT_SCALES (2 * PARTS_K)

struct product_ggml {
  enum ggml_type type;
  const uint8_t *blocks;
  const uint16_t *x;
  float *x_sums; /* [M, K / UNIT, UNIT_SCALES]: of 16 columns each in Q6_K, of 32 otherwise, and then zeros */
  uint16_t *out;
  long M, N, K, out_stride;
};

/* Scales of a unit, and what they and the offsets make of a code of 0; both are 0 where there is no part. */
struct unit {
  uint16_t codes[UNIT];
  float scale[UNIT_SCALES], zero[UNIT_SCALES];
} __attribute__((aligned(64)));

INLINE void scales_of_unit(enum ggml_type type, const uint8_t *blocks, int parts, struct unit *u) {
  struct scales s;
  if (block_parts(type) > 1) scales_of(type, blocks, &s);
  else if (parts == PARTS_K) scales_of_blocks(type, blocks, &s);
  else scales_of_few_blocks(type, blocks, parts, &s);
  if (type == Q6_K) {
    const __m512 scale = _mm512_loadu_ps(s.scale);
    _mm512_store_ps(u->scale, scale);
    _mm512_store_ps(u->zero, _mm512_mul_ps(scale, _mm512_set1_ps(-CODE_BIAS - 32)));
    return;
  }
  const __m256 scale = _mm256_loadu_ps(s.scale), bias = _mm256_set1_ps(CODE_BIAS);
  _mm256_store_ps(u->scale, scale);
  if (!has_bias(type)) return;
  _mm256_store_ps(u->zero, _mm256_fnmadd_ps(scale, bias, _mm256_loadu_ps(s.offset)));
  _mm256_store_ps(u->zero + PARTS_K, _mm256_setzero_ps());
}

/* A unit of a row -> its scales, and codes as bf16. */
INLINE void unpack_as(enum ggml_type type, const uint8_t *blocks, int parts, struct unit *u) {
  scales_of_unit(type, blocks, parts, u);
  if (block_parts(type) == 1) {
    for (int part = 0; part < parts; part++, blocks += block_nbytes(type))
      _mm512_store_si512(u->codes + part * PART, codes_as_bf16(type, blocks, 0));
    return;
  }
#pragma GCC unroll 8
  for (int part = 0; part < PARTS_K; part++)
    _mm512_store_si512(u->codes + part * PART, codes_as_bf16(type, blocks, part));
}

__attribute__((noinline)) static void unpack(enum ggml_type type, const uint8_t *blocks, int parts, struct unit *u) {
  switch (type) {
    case Q4_0: unpack_as(Q4_0, blocks, parts, u); break;
    case Q4_1: unpack_as(Q4_1, blocks, parts, u); break;
    case Q8_0: unpack_as(Q8_0, blocks, parts, u); break;
    case Q4_K: unpack_as(Q4_K, blocks, parts, u); break;
    case Q5_K: unpack_as(Q5_K, blocks, parts, u); break;
    case Q6_K: unpack_as(Q6_K, blocks, parts, u); break;
    case MXFP4: unpack_as(MXFP4, blocks, parts, u);
  }
}

/* The scale of every lane, which is a pair of columns. */
INLINE __m512 scale_lanes(int has_halves, const struct unit *u, int part) {
  if (!has_halves) return _mm512_set1_ps(u->scale[part]);
  const __m512i lane_halves = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m512i places = _mm512_add_epi32(lane_halves, _mm512_set1_epi32(2 * part));
  return _mm512_permutexvar_ps(places, _mm512_load_ps(u->scale));
}

/* `outputs` rows of the matrix times `rows` rows of x, or as many as there are of both: the last one stands for those
   behind it. */
INLINE void gemv_ggml_rows(const struct product_ggml *p, int has_halves, int outputs, int rows, long first) {
  const long row_nbytes = blocks_nbytes(p->type, p->K), x_units = div_up(p->K, UNIT);
  const uint16_t *x[MR_GGML];
  struct unit units[NR];
  __m512 sums[NR][MR_GGML];
  for (int m = 0; m < rows; m++) x[m] = p->x + min_long(m, p->M - 1) * p->K;
  for (int n = 0; n < outputs; n++)
    for (int m = 0; m < rows; m++) sums[n][m] = _mm512_setzero_ps();
  for (long k = 0; k < p->K; k += UNIT) {
    const int parts = (int)min_long(p->K - k, UNIT) / PART;
    const long nbytes = blocks_nbytes(p->type, parts * PART);
    for (int n = 0; n < outputs; n++) {
      const uint8_t *blocks = p->blocks + min_long(first + n, p->N - 1) * row_nbytes + blocks_nbytes(p->type, k);
      prefetch_blocks(blocks + outputs * row_nbytes, nbytes);
      unpack(p->type, blocks, parts, units + n);
    }
    for (int m = 0; m < rows && has_bias(p->type); m++) {
      const __m512 x_sums = _mm512_loadu_ps(p->x_sums + (min_long(m, p->M - 1) * x_units + k / UNIT) * UNIT_SCALES);
      for (int n = 0; n < outputs; n++) sums[n][m] = _mm512_fmadd_ps(_mm512_load_ps(units[n].zero), x_sums, sums[n][m]);
    }
    for (int part = 0; part < parts; part++)
      for (int n = 0; n < outputs; n++) {
        const __m512 scale = scale_lanes(has_halves, units + n, part);
        const __m512i codes = _mm512_load_si512(units[n].codes + part * PART);
        for (int m = 0; m < rows; m++) {
          const __m512i x_pairs = _mm512_loadu_si512(x[m] + k + part * PART);
          const __m512 sum = _mm512_dpbf16_ps(_mm512_setzero_ps(), (__m512bh)codes, (__m512bh)x_pairs);
          sums[n][m] = _mm512_fmadd_ps(sum, scale, sums[n][m]);
        }
      }
  }
  for (int m = 0; m < rows; m++)
    for (int n = 0; n < outputs && m < p->M; n++)
      store_rounded(_mm512_reduce_add_ps(sums[n][m]), p->out + m * p->out_stride + first + n);
}

/* NR rows of the matrix.  For 5 to 8 rows of x two at a time, so that the sums stay in registers. */
INLINE void gemv_ggml(const struct product_ggml *p, int has_halves, long n) {
  if (p->M == 1) gemv_ggml_rows(p, has_halves, NR, 1, n);
  else if (p->M == 2) gemv_ggml_rows(p, has_halves, NR, 2, n);
  else if (p->M == 3) gemv_ggml_rows(p, has_halves, NR, 3, n);
  else if (p->M == 4) gemv_ggml_rows(p, has_halves, NR, 4, n);
  else
    for (int half = 0; half < NR; half += NR / 2)
      if (p->M <= 6) gemv_ggml_rows(p, has_halves, NR / 2, 6, n + half);
      else gemv_ggml_rows(p, has_halves, NR / 2, MR_GGML, n + half);
}

static void gemv_ggml_task(void *context, long task) {
  const struct product_ggml *p = context;
  for (long n = task * GROUP; n < min_long((task + 1) * GROUP, p->N); n += NR)
    if (p->type == Q6_K) gemv_ggml(p, 1, n);
    else gemv_ggml(p, 0, n);
}

INLINE float sum_of_8(const float *at) {
  const __m128 four = _mm_add_ps(_mm_loadu_ps(at), _mm_loadu_ps(at + 4));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static void sum_x(const struct product_ggml *p) {
  const long units = div_up(p->K, UNIT);
  memset(p->x_sums, 0, p->M * units * UNIT_SCALES * sizeof(float));
  for (long m = 0; m < p->M; m++)
    for (long k = 0; k < p->K; k += PART) {
      float pairs[TILE_ROWS] __attribute__((aligned(64))), *sums = p->x_sums + (m * units + k / UNIT) * UNIT_SCALES;
      const __m512i ones = _mm512_set1_epi32(0x3f803f80), x = _mm512_loadu_si512(p->x + m * p->K + k);
      _mm512_store_ps(pairs, _mm512_dpbf16_ps(_mm512_setzero_ps(), (__m512bh)ones, (__m512bh)x));
      const float first = sum_of_8(pairs), second = sum_of_8(pairs + 8);
      const long part = k % UNIT / PART;
      if (p->type == Q6_K) sums[2 * part] = first, sums[2 * part + 1] = second;
      else sums[part] = first + second;
    }
}

/* blocks [N, K] of a ggml type -> the first N columns of out [M, N in whole 64].  M is 1 to 4, K is whole blocks. */
void gemv_avx512bf16_ggml(const uint8_t *blocks, const uint16_t *x, float *x_sums, uint16_t *out, long M, long N,
                          long K, long type, int threads) {
  struct product_ggml p = {(enum ggml_type)type, blocks, x, x_sums, out, M, N, K, div_up(N, NC) * NC};
  if (has_bias(p.type)) sum_x(&p);
  parallel_for(div_up(N, GROUP), gemv_ggml_task, &p, threads);
}
