/* Rows of bf16 times a stored matrix, for processors with tiles (AMX: Intel's servers and workstations since 2023).

   oneDNN wants a matrix unpacked, and packs it anew for its tiles at every call.  Here 64 rows of the matrix by some
   hundred columns become tiles at once, in the caches, and all rows of x go over them: a product of up to some dozen rows
   takes little longer than its weights take to come from memory.

   A tile has 16 rows of 64 bytes.  sums [16, 16] += a [16, 32] times b: a has rows of x, b has 16 pairs of columns in rows,
   each of 16 rows of the matrix.  M = rows of x, N = rows of the matrix (output channels), K = columns.
   Formats: model/slabs.py. */

#include "native.h"

#if KNOWS_BF16

#include <sys/syscall.h>
#include <unistd.h>

#define AMX AVX512_BF16 ",avx512vbmi,amx-tile,amx-bf16"
/* clang takes such a function into a parallel region, but would compile its code there without the features. */
#define KERNEL __attribute__((noinline, target(AMX)))
#define REMEMBER(place) __asm__ volatile("" : : "r"(place) : "memory") /* not all headers say that tiles read memory */
#define TILES static inline __attribute__((always_inline, target(AMX)))

#define SIDE 16            /* rows of a tile */
#define STEP 32            /* columns of a tile */
#define TILE (SIDE * SIDE) /* pairs in it, or sums */
#define PANEL 64           /* rows of the matrix in tiles at once; in int4 byte j of a column is rows j and j + 32 */
#define SIDES (PANEL / SIDE)
#define HALF (PANEL / 2)
#define STEPS 16        /* tiles of columns at once: with those of rows 64 KB */
#define MANY 256        /* rows of x that go over tiles of weights before those are dropped: their sums are 64 KB */
#define AHEAD 512       /* bytes of a row that are on their way, */
#define AHEAD_INT4 2048 /* and of a panel in int4, which lies in one piece */

typedef uint32_t pair; /* two numbers in bf16, the first one in the lower half */

/* A product: x as tiles [M / SIDE, K / STEP, TILE], out [M, N]. */
struct product {
  pair *x;
  const float *x_sums; /* [M, K / group], of int4 */
  uint16_t *out;
  long M, N, K;
};

/* ---- tiles of weights: PANEL rows of the matrix by `steps` times STEP columns -> [steps, SIDES, TILE] ---- */

/* 16 registers of 16 pairs, as rows -> as columns. */
TILES void turn_pairs(__m512i r[SIDE]) {
  __m512i t[SIDE];
  for (int n = 0; n < SIDE; n += 2) {
    t[n] = _mm512_unpacklo_epi32(r[n], r[n + 1]);
    t[n + 1] = _mm512_unpackhi_epi32(r[n], r[n + 1]);
  }
  for (int n = 0; n < SIDE; n += 4)
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

TILES void unpack_rows(enum kind kind, const char *weights, pair *tiles, long steps, long K) {
  for (int side = 0; side < SIDES; side++)
    for (long step = 0; step < steps; step++) {
      __m512i r[SIDE];
      for (int n = 0; n < SIDE; n++) {
        const char *place = weights + ((side * SIDE + n) * K + step * STEP) * size_of(kind);
        __builtin_prefetch(place + AHEAD);
        r[n] = pairs_of(kind, place);
      }
      turn_pairs(r);
      for (int n = 0; n < SIDE; n++) _mm512_store_si512(tiles + (step * SIDES + side) * TILE + n * SIDE, r[n]);
    }
}

/* A nibble n as the bf16 128 + n is 0x4300 + n, and exact: one operation unpacks 32 of them. */
#define EXPONENT 0x43004300
#define NIBBLE 0x000f000f
#define SURPLUS 136.0f /* 128, and the 8 that a nibble is less */
#define AND_OR 0xea    /* (a & b) | c */

TILES __m512i unpacked(__m512i both) {
  return _mm512_ternarylogic_epi32(both, _mm512_set1_epi32(NIBBLE), _mm512_set1_epi32(EXPONENT), AND_OR);
}

/* What a weight is beside its scale and zero, and SURPLUS more. */
TILES void unpack_int4(const uint8_t *nibbles, pair *tiles, long steps) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i bytes = _mm512_or_si512(lane, _mm512_slli_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(HALF)), 16));
  const __m512i later_bytes = _mm512_add_epi32(bytes, _mm512_set1_epi32(SIDE << 16 | SIDE));
  for (long step = 0; step < steps; step++, tiles += SIDES * TILE)
    for (int n = 0; n < SIDE; n++, nibbles += 2 * HALF) { /* two columns */
      const __m512i columns = _mm512_loadu_si512(nibbles);
      __builtin_prefetch(nibbles + AHEAD_INT4);
      const __m512i first = _mm512_permutexvar_epi8(bytes, columns);
      const __m512i second = _mm512_permutexvar_epi8(later_bytes, columns);
      pair *row = tiles + n * SIDE;
      _mm512_store_si512(row, unpacked(first));
      _mm512_store_si512(row + TILE, unpacked(second));
      _mm512_store_si512(row + 2 * TILE, unpacked(_mm512_srli_epi32(first, 4)));
      _mm512_store_si512(row + 3 * TILE, unpacked(_mm512_srli_epi32(second, 4)));
    }
}

/* ---- products of tiles ---- */

TILES void load_configuration(void) {
  uint8_t shapes[64] __attribute__((aligned(64))) = {1};
  for (int n = 0; n < 8; n++) {
    shapes[16 + 2 * n] = 64; /* bytes of a row */
    shapes[48 + n] = SIDE;
  }
  REMEMBER(shapes);
  _tile_loadconfig(shapes);
}

/* Tiles 0 to 3 hold the sums; a row of those in memory has PANEL. */
TILES void begin_sums(float *const sums[4], int add) {
  if (!add) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    return;
  }
  _tile_loadd(0, sums[0], PANEL * sizeof(float));
  _tile_loadd(1, sums[1], PANEL * sizeof(float));
  _tile_loadd(2, sums[2], PANEL * sizeof(float));
  _tile_loadd(3, sums[3], PANEL * sizeof(float));
}

TILES void end_sums(float *const sums[4]) {
  _tile_stored(0, sums[0], PANEL * sizeof(float));
  _tile_stored(1, sums[1], PANEL * sizeof(float));
  _tile_stored(2, sums[2], PANEL * sizeof(float));
  _tile_stored(3, sums[3], PANEL * sizeof(float));
}

/* x, two tiles of rows `next` pairs apart, times half of a panel: sums [2 SIDE, PANEL] are set, or added to. */
TILES void two_by_two(const pair *x, long next, const pair *tiles, float *sums, long steps, int add) {
  float *const places[4] = {sums, sums + SIDE, sums + SIDE * PANEL, sums + SIDE * PANEL + SIDE};
  begin_sums(places, add);
  for (long step = 0; step < steps; step++, x += TILE, tiles += SIDES * TILE) {
    _tile_loadd(4, x, 64);
    _tile_loadd(6, tiles, 64);
    _tile_loadd(7, tiles + TILE, 64);
    _tile_loadd(5, x + next, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  end_sums(places);
}

/* One tile of rows of x times a panel: sums [SIDE, PANEL]. */
TILES void one_by_four(const pair *x, const pair *tiles, float *sums, long steps, int add) {
  float *const places[4] = {sums, sums + SIDE, sums + 2 * SIDE, sums + 3 * SIDE};
  begin_sums(places, add);
  for (long step = 0; step < steps; step++, x += TILE, tiles += SIDES * TILE) {
    _tile_loadd(4, x, 64);
    _tile_loadd(5, tiles, 64);
    _tile_loadd(6, tiles + TILE, 64);
    _tile_loadd(7, tiles + 2 * TILE, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 6);
    _tile_loadd(5, tiles + 3 * TILE, 64);
    _tile_dpbf16ps(2, 4, 7);
    _tile_dpbf16ps(3, 4, 5);
  }
  end_sums(places);
}

/* Two tiles of rows of x, or the last one, times a panel; the number of rows. */
TILES long some_rows(const pair *x, long next, long rows, const pair *tiles, float *sums, long steps, int add) {
  REMEMBER(tiles);
  if (rows <= SIDE) {
    one_by_four(x, tiles, sums, steps, add);
    return SIDE;
  }
  for (int side = 0; side < SIDES; side += 2)
    two_by_two(x, next, tiles + side * TILE, sums + side * SIDE, steps, add);
  return 2 * SIDE;
}

/* Sums of a group of columns, less what the surplus brought, times scales: added to totals. */
TILES void add_group(const float *found, const uint16_t *scale_zero, const float *x_sums, long groups, float *totals,
                     long rows, int add) {
  for (int side = 0; side < SIDES; side++) {
    const __m512i both = _mm512_loadu_si512(scale_zero + side * 2 * SIDE);
    const __m512 scale = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    const __m512 zero = _mm512_fnmadd_ps(scale, _mm512_set1_ps(SURPLUS),
                                         _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32((int)0xffff0000))));
    for (long m = 0; m < rows; m++) {
      const long place = m * PANEL + side * SIDE;
      const __m512 before = add ? _mm512_load_ps(totals + place) : _mm512_setzero_ps();
      const __m512 moved = _mm512_fmadd_ps(zero, _mm512_set1_ps(x_sums[m * groups]), before);
      _mm512_store_ps(totals + place, _mm512_fmadd_ps(scale, _mm512_load_ps(found + place), moved));
    }
  }
}

/* sums [rows, PANEL] -> out, rounded. */
TILES void give_out(const float *sums, const float *scale, uint16_t *out, long rows, long N) {
  for (long m = 0; m < rows; m++)
    for (int n = 0; n < PANEL; n += 2 * SIDE) {
      __m512 first = _mm512_load_ps(sums + m * PANEL + n), second = _mm512_load_ps(sums + m * PANEL + n + SIDE);
      if (scale) {
        first = _mm512_mul_ps(first, _mm512_loadu_ps(scale + n));
        second = _mm512_mul_ps(second, _mm512_loadu_ps(scale + n + SIDE));
      }
      _mm512_storeu_si512(out + m * N + n, (__m512i)_mm512_cvtne2ps_pbh(second, first));
    }
}

/* ---- a matrix ---- */

struct scratch {
  pair tiles[STEPS * SIDES * TILE];
  float sums[(MANY + SIDE) * PANEL], found[2 * SIDE * PANEL];
} __attribute__((aligned(64)));

/* Rows `begin` to `end` of x times PANEL rows of the matrix. */
TILES void panel(struct product p, enum kind kind, const char *weights, const float *scale, uint16_t *out, long begin,
                 long end, struct scratch *s) {
  for (long k = 0; k < p.K; k += STEPS * STEP) {
    const long steps = at_most(p.K - k, STEPS * STEP) / STEP;
    unpack_rows(kind, weights + k * size_of(kind), s->tiles, steps, p.K);
    const pair *x = p.x + (begin * p.K + k * SIDE) / 2;
    for (long m = begin; m < end;) {
      float *sums = s->sums + (m - begin) * PANEL;
      m += some_rows(x + (m - begin) * p.K / 2, SIDE * p.K / 2, end - m, s->tiles, sums, steps, k > 0);
    }
  }
  give_out(s->sums, scale, out + begin * p.N, end - begin, p.N);
}

TILES void panel_int4(struct product p, const uint8_t *nibbles, const uint16_t *scale_zero, long group, uint16_t *out,
                      long begin, long end, struct scratch *s) {
  const long groups = p.K / group;
  for (long k = 0; k < p.K; k += group) {
    unpack_int4(nibbles + k * HALF, s->tiles, group / STEP);
    const pair *x = p.x + (begin * p.K + k * SIDE) / 2;
    for (long m = begin, done; m < end; m += done) {
      done = some_rows(x + (m - begin) * p.K / 2, SIDE * p.K / 2, end - m, s->tiles, s->found, group / STEP, 0);
      add_group(s->found, scale_zero + k / group * p.N * 2, p.x_sums + m * groups + k / group, groups,
                s->sums + (m - begin) * PANEL, at_most(end - m, done), k > 0);
    }
  }
  give_out(s->sums, 0, out + begin * p.N, end - begin, p.N);
}

/* Rows of x [M, K] -> tiles; what is missing in the last one is zero. */
KERNEL static void tiles_of_rows(const uint16_t *x, pair *tiles, long M, long K) {
#pragma omp for schedule(static)
  for (long m = 0; m < M; m += SIDE)
    for (long k = 0; k < K; k += STEP)
      for (int n = 0; n < SIDE; n++) {
        const __m512i row = m + n < M ? _mm512_loadu_si512(x + (m + n) * K + k) : _mm512_setzero_si512();
        _mm512_storeu_si512(tiles + (m * K + k * SIDE) / 2 + n * SIDE, row);
      }
}

KERNEL static void share_rows(struct product p, enum kind kind, const char *weights, const float *scale,
                              const uint16_t *x) {
  struct scratch scratch;
  tiles_of_rows(x, p.x, p.M, p.K);
  load_configuration();
#pragma omp for schedule(dynamic)
  for (long n = 0; n < p.N; n += PANEL)
    for (long m = 0; m < p.M; m += MANY) {
      const char *mine = weights + n * p.K * size_of(kind);
      const long end = at_most(p.M, m + MANY);
      if (kind == BF16) panel(p, BF16, mine, 0, p.out + n, m, end, &scratch);
      else panel(p, INT8, mine, scale + n, p.out + n, m, end, &scratch);
    }
  _tile_release();
}

KERNEL static void share_int4(struct product p, const uint8_t *nibbles, const uint16_t *scale_zero, const uint16_t *x,
                              long group) {
  struct scratch scratch;
  tiles_of_rows(x, p.x, p.M, p.K);
  load_configuration();
#pragma omp for schedule(dynamic)
  for (long n = 0; n < p.N; n += PANEL)
    for (long m = 0; m < p.M; m += MANY)
      panel_int4(p, nibbles + n / 2 * p.K, scale_zero + n * 2, group, p.out + n, m, at_most(p.M, m + MANY), &scratch);
  _tile_release();
}

/* weights [N, K] bf16, x [M, K] bf16, room for x in whole tiles -> out [M, N] bf16.  N is a multiple of 64, K of 32. */
void tiles_bf16(const char *weights, const uint16_t *x, pair *room, uint16_t *out, long M, long N, long K, int threads) {
#pragma omp parallel num_threads(threads)
  share_rows((struct product){room, 0, out, M, N, K}, BF16, weights, 0, x);
}

/* weights [N, K] int8, scale [N]; the same. */
void tiles_int8(const char *weights, const float *scale, const uint16_t *x, pair *room, uint16_t *out, long M, long N,
                long K, int threads) {
#pragma omp parallel num_threads(threads)
  share_rows((struct product){room, 0, out, M, N, K}, INT8, weights, scale, x);
}

/* nibbles [N / 64, K, 32], scale_zero [K / group, N, 2] bf16, x_sums [M, K / group] float32; the same. */
void tiles_int4(const uint8_t *nibbles, const uint16_t *scale_zero, const uint16_t *x, pair *room, uint16_t *out,
                const float *x_sums, long M, long N, long K, long group, int threads) {
#pragma omp parallel num_threads(threads)
  share_int4((struct product){room, x_sums, out, M, N, K}, nibbles, scale_zero, x, group);
}

#define REQUEST_PERMISSION 0x1023 /* ARCH_REQ_XCOMP_PERM, for the 8 KB that a thread's tiles take; arch_prctl(2) */
#define TILE_DATA 18

/* Whether this processor has all that is used here, and the system lets this process. */
int has_tiles(void) {
  const int has_amx_bf16 = has_bit(0, 'd', 22), has_amx_tile = has_bit(0, 'd', 24);
  return has_avx512_bf16() && __builtin_cpu_supports("avx512vbmi") && has_amx_bf16 && has_amx_tile &&
         syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

#else

int has_tiles(void) { return 0; }

#endif
