/* Rows of bf16 times a stored matrix, for processors with AMX (Intel's servers and workstations since 2023) or with
   AVX-512 BF16 only (AMD since Zen 4).  Compiled for each of them; tiles_*.h multiply tiles.

   oneDNN needs a dequantised matrix, and packs it again at every call.  Here a panel, 64 rows of the matrix by a few
   hundred columns, is converted to tiles in the caches, and all rows of x use it.  With AMX a product of up to a few
   dozen rows takes little longer than reading its weights from memory.

   A tile has 16 rows of 64 bytes.  sums [16, 16] += a [16, 32] times b: `a` holds rows of x.  A row of `b` holds a pair
   of columns for each of 16 rows of the matrix.

   M = rows of x, N = rows of the matrix (output channels), K = columns.  Formats: model/slabs.py. */

#include "ggml_avx512bf16.h"
#include "pairs_avx512.h"
#include "pool.h"

#ifdef USE_AMX
#include "tiles_amx.h"
#define EXPORTED(format) gemm_amx_##format
#else
#include "tiles_avx512bf16.h"
#define EXPORTED(format) gemm_avx512bf16_##format
#endif

#define KC_TILES 16               /* tiles of columns in a panel, which takes 64 KB */
#define MC 256                    /* rows of x that use a panel: their sums take 64 KB */
#define PREFETCH_NBYTES 512       /* how far ahead a row is prefetched */
#define PREFETCH_INT4_NBYTES 2048 /* the same for a panel in int4, which is contiguous */

#define PACK_ROWS 64 /* rows of x that one task packs */

/* A product: x [M, K], packed_x [M / TILE_ROWS, K / TILE_COLUMNS, TILE_SIZE], out [M, N]. */
struct product {
  const char *weights;
  const float *scale;     /* [N], for int8 */
  const char *scale_zero; /* [K / group, N, 2], for int4 */
  const uint16_t *x;
  const float *x_sums; /* [M, K / group], for int4 */
  pair *packed_x;
  uint16_t *out;
  long M, N, K, group; /* group = 0 unless the format is int4 */
  enum format pair;    /* of scale_zero */
  enum ggml_type type; /* of blocks, if there are rows of them */
  long block_rows;     /* N is whole panels */
};

/* ---- weights: NC rows of the matrix by `steps` times TILE_COLUMNS columns -> tiles [steps, TILES, TILE_SIZE] ---- */

/* TILE_ROWS rows, `stride` elements apart -> tiles, of which every one is in another panel of TILES. */
INLINE void transpose_rows(enum format format, const char *rows, long stride, pair *tiles, long steps) {
  for (long step = 0; step < steps; step++) {
    __m512i r[TILE_ROWS];
    for (int n = 0; n < TILE_ROWS; n++) {
      const char *row = rows + (n * stride + step * TILE_COLUMNS) * itemsize(format);
      __builtin_prefetch(row + PREFETCH_NBYTES);
      r[n] = load_bf16(format, row);
    }
    transpose16x16(r);
    for (int n = 0; n < TILE_ROWS; n++) _mm512_store_si512(tiles + step * TILES * TILE_SIZE + n * TILE_ROWS, r[n]);
  }
}

INLINE void dequant_rows(enum format format, const char *weights, pair *tiles, long steps, long K) {
  for (int side = 0; side < TILES; side++)
    transpose_rows(format, weights + side * TILE_ROWS * K * itemsize(format), K, tiles + side * TILE_SIZE, steps);
}

/* The same for blocks of GGUF files, from row n and column k on; they are decoded into the first-level cache first.
   Rows behind the last one are decoded as that one. */
static void dequant_blocks(const struct product *p, long n, long k, pair *tiles, long columns) {
  const long row_nbytes = blocks_nbytes(p->type, p->K);
  uint16_t rows[TILE_ROWS * DECODED] __attribute__((aligned(64)));
  for (int side = 0; side < TILES; side++)
    for (long done = 0; done < columns; done += DECODED) {
      const long count = min_long(columns - done, DECODED), nbytes = blocks_nbytes(p->type, count);
      for (int i = 0; i < TILE_ROWS; i++) {
        const long row = min_long(n + side * TILE_ROWS + i, p->block_rows - 1);
        const uint8_t *blocks = (const uint8_t *)p->weights + row * row_nbytes + blocks_nbytes(p->type, k + done);
        prefetch_blocks(blocks + nbytes * (KC_TILES * TILE_COLUMNS / DECODED), nbytes);
        decode(p->type, blocks, count, rows + i * DECODED);
      }
      transpose_rows(BF16, (const char *)rows, DECODED, tiles + (done / TILE_COLUMNS * TILES + side) * TILE_SIZE,
                     count / TILE_COLUMNS);
    }
}

#define BIAS 136.0f /* 128, which is in a nibble as bf16, and the offset 8 of a nibble */

/* Nibbles + 128 in bf16, before scale and zero. */
INLINE void dequant_int4(const uint8_t *nibbles, pair *tiles, long steps) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i bytes = _mm512_or_si512(lane, _mm512_slli_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(HALF)), 16));
  const __m512i later_bytes = _mm512_add_epi32(bytes, _mm512_set1_epi32(TILE_ROWS << 16 | TILE_ROWS));
  for (long step = 0; step < steps; step++, tiles += TILES * TILE_SIZE)
    for (int n = 0; n < TILE_ROWS; n++, nibbles += 2 * HALF) { /* two columns of 32 bytes */
      const __m512i columns = _mm512_loadu_si512(nibbles);
      __builtin_prefetch(nibbles + PREFETCH_INT4_NBYTES);
      const __m512i first = _mm512_permutexvar_epi8(bytes, columns);
      const __m512i second = _mm512_permutexvar_epi8(later_bytes, columns);
      pair *row = tiles + n * TILE_ROWS;
      _mm512_store_si512(row, nibbles_to_bf16(first));
      _mm512_store_si512(row + TILE_SIZE, nibbles_to_bf16(second));
      _mm512_store_si512(row + 2 * TILE_SIZE, nibbles_to_bf16(_mm512_srli_epi32(first, 4)));
      _mm512_store_si512(row + 3 * TILE_SIZE, nibbles_to_bf16(_mm512_srli_epi32(second, 4)));
    }
}

/* ---- groups of int4, and rounding ---- */

/* Scales the sums of a group of columns, subtracts the bias, and adds the result to totals [rows, NC], or sets them. */
INLINE void add_scaled_group(const float *group_sums, enum format pair, const char *scale_zero, const float *x_sums,
                             long groups, float *totals, long rows, int add) {
  for (int side = 0; side < TILES; side++) {
    const struct pairs pairs = load_pairs(pair, scale_zero + side * 2 * TILE_ROWS * itemsize(pair));
    const __m512 zero = _mm512_fnmadd_ps(pairs.scale, _mm512_set1_ps(BIAS), pairs.zero);
    for (long m = 0; m < rows; m++) {
      const long offset = m * NC + side * TILE_ROWS;
      const __m512 total = add ? _mm512_load_ps(totals + offset) : _mm512_setzero_ps();
      const __m512 shifted = _mm512_fmadd_ps(zero, _mm512_set1_ps(x_sums[m * groups]), total);
      _mm512_store_ps(totals + offset, _mm512_fmadd_ps(pairs.scale, _mm512_load_ps(group_sums + offset), shifted));
    }
  }
}

/* sums [rows, NC], times scale for int8 -> out, rounded. */
INLINE void store_bf16(const float *sums, const float *scale, uint16_t *out, long rows, long N) {
  for (long m = 0; m < rows; m++)
    for (int n = 0; n < NC; n += 2 * TILE_ROWS) {
      __m512 first = _mm512_load_ps(sums + m * NC + n), second = _mm512_load_ps(sums + m * NC + n + TILE_ROWS);
      if (scale) {
        first = _mm512_mul_ps(first, _mm512_loadu_ps(scale + n));
        second = _mm512_mul_ps(second, _mm512_loadu_ps(scale + n + TILE_ROWS));
      }
      _mm512_storeu_si512(out + m * N + n, (__m512i)_mm512_cvtne2ps_pbh(second, first));
    }
}

/* ---- a matrix ---- */

struct scratch {
  pair tiles[KC_TILES * TILES * TILE_SIZE];
  float sums[(MC + TILE_ROWS) * NC], group_sums[2 * TILE_ROWS * NC];
} __attribute__((aligned(64)));

/* The columns of a panel from k on, and rows of the matrix from n on. */
INLINE void dequant_panel(const struct product *p, long n, long k, pair *tiles, long steps) {
  if (p->block_rows) dequant_blocks(p, n, k, tiles, steps * TILE_COLUMNS);
  else if (p->scale) dequant_rows(INT8, p->weights + n * p->K + k, tiles, steps, p->K);
  else dequant_rows(BF16, p->weights + (n * p->K + k) * 2, tiles, steps, p->K);
}

/* Rows `begin` to `end` of x times a panel of NC rows of the matrix, from row n on. */
INLINE void gemm_panel(const struct product *p, long n, long begin, long end, struct scratch *s) {
  for (long k = 0; k < p->K; k += KC_TILES * TILE_COLUMNS) {
    const long steps = min_long(p->K - k, KC_TILES * TILE_COLUMNS) / TILE_COLUMNS;
    dequant_panel(p, n, k, s->tiles, steps);
    const pair *x = p->packed_x + (begin * p->K + k * TILE_ROWS) / 2;
    for (long m = begin; m < end;) {
      float *sums = s->sums + (m - begin) * NC;
      m += tile_gemm(x + (m - begin) * p->K / 2, TILE_ROWS * p->K / 2, end - m, s->tiles, sums, steps, k > 0);
    }
  }
}

INLINE void gemm_panel_int4(const struct product *p, long n, long begin, long end, struct scratch *s) {
  const uint8_t *nibbles = (const uint8_t *)p->weights + n * p->K / 2;
  const long groups = p->K / p->group, steps = p->group / TILE_COLUMNS;
  for (long k = 0; k < p->K; k += p->group) {
    dequant_int4(nibbles + k * HALF, s->tiles, steps);
    const pair *x = p->packed_x + (begin * p->K + k * TILE_ROWS) / 2;
    const char *scale_zero = p->scale_zero + (k / p->group * p->N + n) * 2 * itemsize(p->pair);
    for (long m = begin, done; m < end; m += done) {
      done = tile_gemm(x + (m - begin) * p->K / 2, TILE_ROWS * p->K / 2, end - m, s->tiles, s->group_sums, steps, 0);
      add_scaled_group(s->group_sums, p->pair, scale_zero, p->x_sums + m * groups + k / p->group, groups,
                       s->sums + (m - begin) * NC, min_long(end - m, done), k > 0);
    }
  }
}

/* Rows `begin` to `end` of x [M, K] -> tiles; the last one is padded with zeros. */
static void pack_x(const uint16_t *x, pair *tiles, long begin, long end, long K) {
  for (long m = begin; m < end; m += TILE_ROWS)
    for (long k = 0; k < K; k += TILE_COLUMNS)
      for (int n = 0; n < TILE_ROWS; n++) {
        const __m512i row = m + n < end ? _mm512_loadu_si512(x + (m + n) * K + k) : _mm512_setzero_si512();
        _mm512_storeu_si512(tiles + (m * K + k * TILE_ROWS) / 2 + n * TILE_ROWS, row);
      }
}

static void pack_task(void *context, long task) {
  const struct product *p = context;
  pack_x(p->x, p->packed_x, task * PACK_ROWS, min_long(p->M, (task + 1) * PACK_ROWS), p->K);
}

/* A panel of the matrix times MC rows of x. */
static void gemm_task(void *context, long task) {
  const struct product *p = context;
  const long n = task / div_up(p->M, MC) * NC, m = task % div_up(p->M, MC) * MC, end = min_long(p->M, m + MC);
  struct scratch scratch;
  configure_tiles();
  if (p->group) gemm_panel_int4(p, n, m, end, &scratch);
  else gemm_panel(p, n, m, end, &scratch);
  release_tiles();
  store_bf16(scratch.sums, p->scale ? p->scale + n : 0, p->out + m * p->N + n, end - m, p->N);
}

static void gemm(struct product p, int threads) {
  parallel_for(div_up(p.M, PACK_ROWS), pack_task, &p, threads);
  parallel_for(p.N / NC * div_up(p.M, MC), gemm_task, &p, threads);
}

/* weights [N, K] bf16, x [M, K] bf16, packed_x: scratch for x in whole tiles -> out [M, N] bf16.
   N is a multiple of 64, K of 32. */
void EXPORTED(bf16)(const char *weights, const uint16_t *x, pair *packed_x, uint16_t *out, long M, long N, long K,
                    int threads) {
  gemm((struct product){.weights = weights, .x = x, .packed_x = packed_x, .out = out, .M = M, .N = N, .K = K}, threads);
}

#ifdef USE_AMX /* without it, gemm_q8.c is faster */
/* weights [N, K] int8, scale [N]; the same. */
void gemm_amx_int8(const char *weights, const float *scale, const uint16_t *x, pair *packed_x, uint16_t *out, long M,
                   long N, long K, int threads) {
  struct product p = {.weights = weights, .x = x, .packed_x = packed_x, .out = out, .M = M, .N = N, .K = K};
  p.scale = scale;
  gemm(p, threads);
}

/* nibbles [N / 64, K, 32], scale_zero [K / group, N, 2] in the format `pair`, x_sums [M, K / group] float32; the
   same. */
void gemm_amx_int4(const char *nibbles, const char *scale_zero, const uint16_t *x, pair *packed_x, uint16_t *out,
                   const float *x_sums, long M, long N, long K, long group, long pair, int threads) {
  struct product p = {.weights = nibbles, .x = x, .packed_x = packed_x, .out = out, .M = M, .N = N, .K = K};
  p.scale_zero = scale_zero, p.x_sums = x_sums, p.group = group, p.pair = (enum format)pair;
  gemm(p, threads);
}

/* blocks [N, K] of a ggml type; the same, but N is any number, and out is [M, N in whole 64]. */
void gemm_amx_ggml(const char *blocks, const uint16_t *x, pair *packed_x, uint16_t *out, long M, long N, long K,
                   long type, int threads) {
  struct product p = {.weights = blocks, .x = x, .packed_x = packed_x, .out = out, .M = M, .K = K};
  p.N = div_up(N, NC) * NC, p.block_rows = N, p.type = (enum ggml_type)type;
  gemm(p, threads);
}
#endif
