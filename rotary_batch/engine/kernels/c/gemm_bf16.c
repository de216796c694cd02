/* Rows of bf16 times a stored matrix, for processors with AMX (Intel's servers and workstations since 2023) or with
   AVX-512 BF16 alone (AMD's since Zen 4).  Compiled for each of them; what multiplies is in tiles_*.h.

   oneDNN wants a matrix unpacked, and packs it anew at every call.  Here 64 rows of the matrix by some hundred columns
   become tiles at once, in the caches, and all rows of x go over them: with AMX a product of up to some dozen rows
   takes little longer than its weights take to come from memory.

   A tile has 16 rows of 64 bytes.  sums [16, 16] += a [16, 32] times b: a has rows of x, b has 16 pairs of columns in
   rows, each of 16 rows of the matrix.

   M = rows of x, N = rows of the matrix (output channels), K = columns.  Formats: model/slabs.py. */

#include "avx512bf16.h"
#include "pool.h"

#ifdef USE_AMX
#include "tiles_amx.h"
#define EXPORTED(format) gemm_amx_##format
#else
#include "tiles_avx512bf16.h"
#define EXPORTED(format) gemm_avx512bf16_##format
#endif

#define KC_TILES 16         /* tiles of columns at once: with those of rows 64 KB */
#define MC 256              /* rows of x that go over tiles of weights before those are dropped: their sums are 64 KB */
#define PREFETCH_NBYTES 512 /* bytes of a row that are on their way, */
#define PREFETCH_INT4_NBYTES 2048 /* and of a panel in int4, which lies in one piece */

#define PACK_ROWS 64 /* rows of x that one task makes tiles of */

/* A product: x [M, K], and as tiles [M / TILE_ROWS, K / TILE_COLUMNS, TILE_SIZE], out [M, N]. */
struct product {
  const char *weights;
  const float *scale;         /* [N], of int8 */
  const uint16_t *scale_zero; /* [K / group, N, 2], of int4 */
  const uint16_t *x;
  const float *x_sums; /* [M, K / group], of int4 */
  pair *packed_x;
  uint16_t *out;
  long M, N, K, group; /* group = 0 when the format has none */
};

/* ---- weights: NC rows of the matrix by `steps` times TILE_COLUMNS columns -> tiles [steps, TILES, TILE_SIZE] ---- */

/* 16 registers of 16 pairs, as rows -> as columns. */
INLINE void transpose16x16(__m512i r[TILE_ROWS]) {
  __m512i t[TILE_ROWS];
  for (int n = 0; n < TILE_ROWS; n += 2) {
    t[n] = _mm512_unpacklo_epi32(r[n], r[n + 1]);
    t[n + 1] = _mm512_unpackhi_epi32(r[n], r[n + 1]);
  }
  for (int n = 0; n < TILE_ROWS; n += 4)
    for (int h = 0; h < 2; h++) {
      r[n + 2 * h] = _mm512_unpacklo_epi64(t[n + h], t[n + h + 2]);
      r[n + 2 * h + 1] = _mm512_unpackhi_epi64(t[n + h], t[n + h + 2]);
    }
  for (int n = 0; n < 4; n++)
    for (int h = 0; h < 2; h++) {
      t[n + 8 * h] = _mm512_shuffle_i32x4(r[n + 8 * h], r[n + 8 * h + 4], 0x88);
      t[n + 8 * h + 4] = _mm512_shuffle_i32x4(r[n + 8 * h], r[n + 8 * h + 4], 0xdd);
    }
  for (int n = 0; n < 8; n++) {
    r[n] = _mm512_shuffle_i32x4(t[n], t[n + 8], 0x88);
    r[n + 8] = _mm512_shuffle_i32x4(t[n], t[n + 8], 0xdd);
  }
}

INLINE void dequant_rows(enum format format, const char *weights, pair *tiles, long steps, long K) {
  for (int side = 0; side < TILES; side++)
    for (long step = 0; step < steps; step++) {
      __m512i r[TILE_ROWS];
      for (int n = 0; n < TILE_ROWS; n++) {
        const char *place = weights + ((side * TILE_ROWS + n) * K + step * TILE_COLUMNS) * itemsize(format);
        __builtin_prefetch(place + PREFETCH_NBYTES);
        r[n] = load_bf16(format, place);
      }
      transpose16x16(r);
      for (int n = 0; n < TILE_ROWS; n++)
        _mm512_store_si512(tiles + (step * TILES + side) * TILE_SIZE + n * TILE_ROWS, r[n]);
    }
}

/* A nibble n as the bf16 128 + n is 0x4300 + n, and exact: one operation unpacks 32 of them. */
#define EXPONENT 0x43004300
#define NIBBLE 0x000f000f
#define SURPLUS 136.0f /* 128, and the 8 that a nibble is less */
#define AND_OR 0xea    /* (a & b) | c */

INLINE __m512i nibbles_to_bf16(__m512i both) {
  return _mm512_ternarylogic_epi32(both, _mm512_set1_epi32(NIBBLE), _mm512_set1_epi32(EXPONENT), AND_OR);
}

/* What a weight is beside its scale and zero, and SURPLUS more. */
INLINE void dequant_int4(const uint8_t *nibbles, pair *tiles, long steps) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i bytes = _mm512_or_si512(lane, _mm512_slli_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(HALF)), 16));
  const __m512i later_bytes = _mm512_add_epi32(bytes, _mm512_set1_epi32(TILE_ROWS << 16 | TILE_ROWS));
  for (long step = 0; step < steps; step++, tiles += TILES * TILE_SIZE)
    for (int n = 0; n < TILE_ROWS; n++, nibbles += 2 * HALF) { /* two columns */
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

/* Sums of a group of columns, less what the surplus brought, times scales: added to totals. */
INLINE void add_scaled_group(const float *found, const uint16_t *scale_zero, const float *x_sums, long groups,
                             float *totals, long rows, int add) {
  for (int side = 0; side < TILES; side++) {
    const __m512i both = _mm512_loadu_si512(scale_zero + side * 2 * TILE_ROWS);
    const __m512 scale = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    const __m512 zero =
        _mm512_fnmadd_ps(scale, _mm512_set1_ps(SURPLUS),
                         _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32((int)0xffff0000))));
    for (long m = 0; m < rows; m++) {
      const long place = m * NC + side * TILE_ROWS;
      const __m512 before = add ? _mm512_load_ps(totals + place) : _mm512_setzero_ps();
      const __m512 moved = _mm512_fmadd_ps(zero, _mm512_set1_ps(x_sums[m * groups]), before);
      _mm512_store_ps(totals + place, _mm512_fmadd_ps(scale, _mm512_load_ps(found + place), moved));
    }
  }
}

/* sums [rows, NC] -> out, rounded. */
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
  float sums[(MC + TILE_ROWS) * NC], found[2 * TILE_ROWS * NC];
} __attribute__((aligned(64)));

/* Rows `begin` to `end` of x times NC rows of the matrix. */
INLINE void gemm_panel(struct product p, enum format format, const char *weights, const float *scale, uint16_t *out,
                       long begin, long end, struct scratch *s) {
  for (long k = 0; k < p.K; k += KC_TILES * TILE_COLUMNS) {
    const long steps = min_long(p.K - k, KC_TILES * TILE_COLUMNS) / TILE_COLUMNS;
    dequant_rows(format, weights + k * itemsize(format), s->tiles, steps, p.K);
    const pair *x = p.packed_x + (begin * p.K + k * TILE_ROWS) / 2;
    for (long m = begin; m < end;) {
      float *sums = s->sums + (m - begin) * NC;
      m += tile_gemm(x + (m - begin) * p.K / 2, TILE_ROWS * p.K / 2, end - m, s->tiles, sums, steps, k > 0);
    }
  }
  store_bf16(s->sums, scale, out + begin * p.N, end - begin, p.N);
}

INLINE void gemm_panel_int4(struct product p, const uint8_t *nibbles, const uint16_t *scale_zero, long group,
                            uint16_t *out, long begin, long end, struct scratch *s) {
  const long groups = p.K / group;
  for (long k = 0; k < p.K; k += group) {
    dequant_int4(nibbles + k * HALF, s->tiles, group / TILE_COLUMNS);
    const pair *x = p.packed_x + (begin * p.K + k * TILE_ROWS) / 2;
    for (long m = begin, done; m < end; m += done) {
      done = tile_gemm(x + (m - begin) * p.K / 2, TILE_ROWS * p.K / 2, end - m, s->tiles, s->found,
                       group / TILE_COLUMNS, 0);
      add_scaled_group(s->found, scale_zero + k / group * p.N * 2, p.x_sums + m * groups + k / group, groups,
                       s->sums + (m - begin) * NC, min_long(end - m, done), k > 0);
    }
  }
  store_bf16(s->sums, 0, out + begin * p.N, end - begin, p.N);
}

/* Rows `begin` to `end` of x [M, K] -> tiles; what is missing in the last one is zero. */
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
  const struct product p = *(const struct product *)context;
  const long n = task / div_up(p.M, MC) * NC, m = task % div_up(p.M, MC) * MC, end = min_long(p.M, m + MC);
  struct scratch scratch;
  configure_tiles();
  if (p.group) {
    const uint8_t *nibbles = (const uint8_t *)p.weights + n / 2 * p.K;
    gemm_panel_int4(p, nibbles, p.scale_zero + n * 2, p.group, p.out + n, m, end, &scratch);
  } else if (p.scale) gemm_panel(p, INT8, p.weights + n * p.K, p.scale + n, p.out + n, m, end, &scratch);
  else gemm_panel(p, BF16, p.weights + n * p.K * 2, 0, p.out + n, m, end, &scratch);
  release_tiles();
}

static void gemm(struct product p, int threads) {
  parallel_for(div_up(p.M, PACK_ROWS), pack_task, &p, threads);
  parallel_for(p.N / NC * div_up(p.M, MC), gemm_task, &p, threads);
}

/* weights [N, K] bf16, x [M, K] bf16, packed_x: room for x in whole tiles -> out [M, N] bf16.
   N is a multiple of 64, K of 32. */
void EXPORTED(bf16)(const char *weights, const uint16_t *x, pair *packed_x, uint16_t *out, long M, long N, long K,
                    int threads) {
  gemm((struct product){weights, 0, 0, x, 0, packed_x, out, M, N, K, 0}, threads);
}

/* weights [N, K] int8, scale [N]; the same. */
void EXPORTED(int8)(const char *weights, const float *scale, const uint16_t *x, pair *packed_x, uint16_t *out, long M,
                    long N, long K, int threads) {
  gemm((struct product){weights, scale, 0, x, 0, packed_x, out, M, N, K, 0}, threads);
}

/* nibbles [N / 64, K, 32], scale_zero [K / group, N, 2] bf16, x_sums [M, K / group] float32; the same. */
void EXPORTED(int4)(const char *nibbles, const uint16_t *scale_zero, const uint16_t *x, pair *packed_x,
                    uint16_t *out, const float *x_sums, long M, long N, long K, long group, int threads) {
  gemm((struct product){nibbles, 0, scale_zero, x, x_sums, packed_x, out, M, N, K, group}, threads);
}

