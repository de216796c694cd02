/* Blocks of GGUF files, and int4 and int8 of model/slabs.py, times rows of x in integers: rows are quantised to 8 bits
   first (q8.h).  Compiled for processors with AVX-512 VNNI, whose VPDPBUSD multiplies four columns of x by four codes
   in every lane, for those that have it with 256 bits (AVX-VNNI: Intel's without AVX-512, since 2021), and for those with
   AVX2 only.

   On Sapphire Rapids that is 8.7 times as many multiplications in a second as VDPBF16PS makes.  A panel, 64 rows of the
   matrix by 256 columns, is unpacked into the first-level cache, and all rows of x use it: for one row that takes less
   time than reading its blocks from memory.

   The experts of a layer are one call: SwiGLU of two products, then a third one, each on its own rows.  What lies
   between the products is quantised as it is, in float32.

   M = rows of x, N = rows of the matrix (output channels), K = columns.
   T = rows of a layer's input, A = rows of all its experts, H = hidden, I = intermediate, E = experts. */

#ifdef USE_AVX512
#include "slabs_q8_avx512.h"
#define EXPORTED(name) name##_avx512_q8
#define EXPORTED_FOR(name, format) name##_avx512_q8_##format
#elif defined USE_AVX_VNNI
#include "slabs_q8_avx2.h"
#define EXPORTED(name) name##_avxvnni_q8
#define EXPORTED_FOR(name, format) name##_avxvnni_q8_##format
#else
#include "slabs_q8_avx2.h"
#define EXPORTED(name) name##_avx2_q8
#define EXPORTED_FOR(name, format) name##_avx2_q8_##format
#endif
#include "pool.h"

#define MC 256            /* rows of x that use a panel: their totals take 64 KB */
#define MC_EXPERT 128     /* the same for an expert, whose gate and up have totals */
#define QUANTISED_ROWS 16 /* rows of x in a task */
#define COMBINED_ROWS 4   /* rows of a layer's output in a task */
#define AHEAD 3           /* groups of GROUP_ROWS rows of a matrix are prefetched so far ahead */

/* ---- rows of x ---- */

struct quantised {
  enum ggml_type type;
  const number *x;
  struct x_unit *units;
  long M, K;
};

/* A row -> its units, M apart. */
static void quantise_row(const struct quantised *p, long m) {
  for (long k = 0; k < p->K; k += UNIT) {
    struct x_unit *unit = p->units + k / UNIT * p->M + m;
    const int parts = (int)min_long(p->K - k, UNIT) / PART;
    if (parts < PARTS_K) memset(unit, 0, sizeof *unit);
    for (int part = 0; part < parts; part++)
      quantise_part(X_FORMAT, p->type, (const char *)(p->x + m * p->K + k + part * PART), unit, part);
  }
}

static void quantise_task(void *context, long task) {
  const struct quantised *p = context;
  for (long m = task * QUANTISED_ROWS; m < min_long((task + 1) * QUANTISED_ROWS, p->M); m++) quantise_row(p, m);
}

/* x [M, K] -> units [K / 256, M] of 384 bytes, for matrices of a ggml type.  K is a multiple of 32. */
void EXPORTED(quantise)(const number *x, struct x_unit *units, long M, long K, long type, int threads) {
  struct quantised p = {(enum ggml_type)type, x, units, M, K};
  parallel_for(div_up(M, QUANTISED_ROWS), quantise_task, &p, threads);
}

/* ---- a matrix ---- */

/* How matrices [N, K] are stored. */
struct layout {
  enum ggml_type type;
  long N, K;
  long group, scale_rows; /* of int4: columns that share a pair, pairs of a group */
  enum format pair;       /* of int4 */
};

/* A matrix: its blocks, or its codes and scales: pairs [K / group, scale_rows, 2] of int4, [N] of int8. */
struct matrix {
  const struct layout *layout;
  const uint8_t *blocks;
  const char *scales;
};

INLINE long row_nbytes(const struct layout *l, long columns) {
  return l->type == OWN_INT8 ? columns : blocks_nbytes(l->type, columns);
}

/* Prefetches what is unpacked AHEAD groups after a group of a unit: of the same panel, or of the next one.  Behind the
   last row there often is the next matrix.  (The next unit of the same rows instead: a fifth slower.) */
INLINE void prefetch_ahead(const struct matrix *w, long n, long k, int group) {
  const struct layout *l = w->layout;
  const long later = k / UNIT * GROUPS + group + AHEAD, units = div_up(l->K, UNIT), unit = later / GROUPS;
  const long row = n + unit / units * NC + later % GROUPS * GROUP_ROWS, nbytes = row_nbytes(l, UNIT);
  const uint8_t *blocks = w->blocks + row * row_nbytes(l, l->K) + unit % units * nbytes;
  for (int i = 0; i < GROUP_ROWS; i++, blocks += row_nbytes(l, l->K))
    for (long line = 0; line < nbytes; line += 64) __builtin_prefetch(blocks + line, 0, 2);
}

/* NC rows from row n on, or the last one instead of those behind it, by UNIT columns from column k on -> a panel. */
static void unpack_panel(const struct matrix *w, long n, long k, int parts, struct panel *panel) {
  const struct layout *l = w->layout;
  if (l->type == OWN_INT4) {
    unpack_int4(w->blocks + (n / NC * l->K + k) * HALF, parts, panel);
    for (int part = 0; part < parts; part++) {
      const long place = (k + part * PART) / l->group * l->scale_rows + n;
      unpack_pairs(l->pair, w->scales + 2 * place * itemsize(l->pair), panel, part);
    }
    return;
  }
  for (int group = 0; group < GROUPS; group++) {
    struct lanes lanes;
    prefetch_ahead(w, n, k, group);
    for (int i = 0; i < GROUP_ROWS; i++)
      lanes.rows[i] =
          w->blocks + min_long(n + group * GROUP_ROWS + i, l->N - 1) * row_nbytes(l, l->K) + row_nbytes(l, k);
    if (l->type == OWN_INT8) unpack_int8(&lanes, panel, group, parts);
    else unpack(l->type, &lanes, panel, group, parts);
  }
}

/* The scales of the same rows in int8, which all parts share. */
static void set_row_scales(const struct matrix *w, long n, struct panel *panel) {
  for (int i = 0; i < NC; i++)
    memcpy(&panel->scale[0][i], w->scales + min_long(n + i, w->layout->N - 1) * sizeof(float), sizeof(float));
  for (int part = 1; part < PARTS_K; part++) memcpy(panel->scale[part], panel->scale[0], sizeof panel->scale[0]);
}

/* The same rows of the matrix times `count` rows of x -> totals [count, NC]; units of x are `stride` apart. */
static void multiply_matrix(const struct matrix *w, long n, struct x_rows x, long stride, long count, float *totals) {
  struct panel panel;
  memset(totals, 0, count * NC * sizeof(float));
  if (w->layout->type == OWN_INT8) set_row_scales(w, n, &panel);
  for (long k = 0; k < w->layout->K; k += UNIT, x.units += stride) {
    const int parts = (int)min_long(w->layout->K - k, UNIT) / PART;
    unpack_panel(w, n, k, parts, &panel);
    multiply(w->layout->type, count, x, &panel, parts, totals);
  }
}

struct product {
  struct matrix matrix;
  const struct x_unit *units; /* [K / UNIT, M] */
  number *out;
  long M, out_stride;
};

/* A panel of the matrix times MC rows of x. */
static void gemm_task(void *context, long task) {
  const struct product *p = context;
  const long n = task / div_up(p->M, MC) * NC, first = task % div_up(p->M, MC) * MC, count = min_long(p->M - first, MC);
  float totals[MC * NC] __attribute__((aligned(64)));
  int64_t places[MC];
  for (long m = 0; m < count; m++) places[m] = first + m;
  multiply_matrix(&p->matrix, n, (struct x_rows){p->units, places}, p->M, count, totals);
  for (long m = 0; m < count; m++) store_numbers(totals + m * NC, p->out + (first + m) * p->out_stride + n);
}

static void gemm(struct matrix w, const number *x, struct x_unit *units, number *out, long M, int threads) {
  const struct layout *l = w.layout;
  struct product p = {w, units, out, M, div_up(l->N, NC) * NC};
  EXPORTED(quantise)(x, units, M, l->K, l->type, threads);
  parallel_for(div_up(l->N, NC) * div_up(M, MC), gemm_task, &p, threads);
}

/* blocks [N, K] of a ggml type, x [M, K], units: scratch [K / 256, M] of 384 bytes -> the first N columns of out [M, N
   in whole 64].  K is whole blocks. */
void EXPORTED_FOR(gemm, ggml)(const uint8_t *blocks, const number *x, struct x_unit *units, number *out, long M, long N,
                              long K, long type, int threads) {
  const struct layout layout = {.type = (enum ggml_type)type, .N = N, .K = K};
  gemm((struct matrix){&layout, blocks, 0}, x, units, out, M, threads);
}

/* The same for nibbles [N / 64, K, 32] and scale_zero [K / group, N, 2] in the format `pair`.  `group` is a multiple of
   32. */
void EXPORTED_FOR(gemm, int4)(const uint8_t *nibbles, const char *scale_zero, const number *x, struct x_unit *units,
                              number *out, long M, long N, long K, long group, long pair, int threads) {
  const struct layout layout = {OWN_INT4, N, K, group, N, (enum format)pair};
  gemm((struct matrix){&layout, nibbles, scale_zero}, x, units, out, M, threads);
}

/* The same for weights [N, K] and scale [N].  K is a multiple of 32. */
void EXPORTED_FOR(gemm, int8)(const uint8_t *weights, const char *scale, const number *x, struct x_unit *units,
                              number *out, long M, long N, long K, int threads) {
  const struct layout layout = {.type = OWN_INT8, .N = N, .K = K};
  gemm((struct matrix){&layout, weights, scale}, x, units, out, M, threads);
}

/* ---- the experts of a layer ---- */

/* An expert: its matrices and their scales or 0, biases or 0, its rows among the A, and where they are in the scratch
   of a call. */
struct expert {
  const uint8_t *gate, *up, *down;
  const char *gate_scales, *up_scales, *down_scales;
  const float *gate_bias, *up_bias, *down_bias;
  int64_t first, count, scratch;
};

struct call {
  const struct expert *experts;
  const struct x_unit *x; /* [H / UNIT, T] */
  const int64_t *rows;    /* [A] of x */
  struct x_unit *middle;  /* [I / UNIT, scratch_rows] */
  number *out;            /* [A, H] */
  long E, T, scratch_rows, H, I;
  struct layout gate_up, down;
  float limit, alpha; /* 0, or those of gpt-oss */
};

/* Totals [count, NC] of gate and up, columns from n on -> two parts of the rows of a unit of the middle. */
static void set_middle(const struct call *p, const struct expert *e, long n, long count, float *gate, float *up,
                       struct x_unit *units) {
  float values[NC] __attribute__((aligned(64)));
  for (long m = 0; m < count; m++, gate += NC, up += NC) {
    if (e->gate_bias) add_bias(gate, e->gate_bias + n), add_bias(up, e->up_bias + n);
    activate(gate, up, p->limit, p->alpha, values);
    for (int i = 0; i < NC; i += PART)
      quantise_part(F32, p->down.type, (const char *)(values + i), units + m, (int)((n + i) % UNIT / PART));
  }
}

/* NC rows of gate and up of an expert. */
static void gate_up_task(void *context, long task) {
  const struct call *p = context;
  const struct expert *e = p->experts + task / (p->I / NC);
  const struct matrix gate = {&p->gate_up, e->gate, e->gate_scales}, up = {&p->gate_up, e->up, e->up_scales};
  const long n = task % (p->I / NC) * NC;
  float gate_totals[MC_EXPERT * NC] __attribute__((aligned(64))),
      up_totals[MC_EXPERT * NC] __attribute__((aligned(64)));
  for (long m = 0; m < e->count; m += MC_EXPERT) {
    const long count = min_long(e->count - m, MC_EXPERT);
    const struct x_rows x = {p->x, p->rows + e->first + m};
    multiply_matrix(&gate, n, x, p->T, count, gate_totals);
    multiply_matrix(&up, n, x, p->T, count, up_totals);
    set_middle(p, e, n, count, gate_totals, up_totals, p->middle + n / UNIT * p->scratch_rows + e->scratch + m);
  }
}

/* NC rows of down of an expert. */
static void down_task(void *context, long task) {
  const struct call *p = context;
  const struct expert *e = p->experts + task / (p->H / NC);
  const struct matrix down = {&p->down, e->down, e->down_scales};
  const long n = task % (p->H / NC) * NC;
  float totals[MC_EXPERT * NC] __attribute__((aligned(64)));
  int64_t places[MC_EXPERT];
  for (long first = 0; first < e->count; first += MC_EXPERT) {
    const long count = min_long(e->count - first, MC_EXPERT);
    for (long m = 0; m < count; m++) places[m] = e->scratch + first + m;
    multiply_matrix(&down, n, (struct x_rows){p->middle, places}, p->scratch_rows, count, totals);
    for (long m = 0; m < count; m++) {
      float *total = totals + m * NC;
      if (e->down_bias) add_bias(total, e->down_bias + n);
      store_numbers(total, p->out + (e->first + first + m) * p->H + n);
    }
  }
}

/* x [T, H] quantised, rows [A], middle: scratch [I / 256, scratch_rows] of 384 bytes -> the rows of these experts in
   out [A, H].  H and I are multiples of 64; type, group, pair and scale_rows are those of gate and up. */
void EXPORTED(experts)(const struct expert *experts, const struct x_unit *x, const int64_t *rows, struct x_unit *middle,
                       number *out, long E, long T, long scratch_rows, long H, long I, long type, long group, long pair,
                       long scale_rows, long down_type, long down_group, long down_pair, float limit, float alpha,
                       int threads) {
  struct call p = {
      .experts = experts, .x = x, .rows = rows, .middle = middle, .out = out, .E = E, .T = T, .H = H, .I = I};
  p.gate_up = (struct layout){(enum ggml_type)type, I, H, group, scale_rows, (enum format)pair};
  p.down = (struct layout){(enum ggml_type)down_type, H, I, down_group, H, (enum format)down_pair};
  p.scratch_rows = scratch_rows, p.limit = limit, p.alpha = alpha;
  parallel_for(E * (I / NC), gate_up_task, &p, threads);
  parallel_for(E * (H / NC), down_task, &p, threads);
}

struct combined {
  const number *experts_out;
  const int64_t *places;
  const float *weights;
  number *out;
  long T, H, K;
};

static void combine_task(void *context, long task) {
  const struct combined *p = context;
  for (long m = task * COMBINED_ROWS; m < min_long((task + 1) * COMBINED_ROWS, p->T); m++)
    for (long n = 0; n < p->H; n += NC) {
      float totals[NC] __attribute__((aligned(64))) = {0};
      for (long k = m * p->K; k < (m + 1) * p->K; k++)
        add_weighted(totals, p->experts_out + p->places[k] * p->H + n, p->weights[k]);
      store_numbers(totals, p->out + m * p->H + n);
    }
}

/* experts_out [A, H], places [T, K] in it, weights [T, K] -> out [T, H]: weighted sums in the order of places.  H is a
   multiple of 64. */
void EXPORTED(combine)(const number *experts_out, const int64_t *places, const float *weights, number *out, long T,
                       long H, long K, int threads) {
  struct combined p = {experts_out, places, weights, out, T, H, K};
  parallel_for(div_up(T, COMBINED_ROWS), combine_task, &p, threads);
}
