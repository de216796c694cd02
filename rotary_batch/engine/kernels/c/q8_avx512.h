/* Rows of bf16 -> 8-bit integers (q8.h), and products of such rows with a panel, by AVX-512 VNNI. */

#ifndef ROTARY_BATCH_Q8_AVX512_H
#define ROTARY_BATCH_Q8_AVX512_H

#include "avx512bf16.h"
#include "q8.h"

typedef uint16_t number; /* of rows of x and of results */

#define X_FORMAT BF16
#define LANES GROUP_ROWS /* rows of a matrix in a register, with 4 columns of each */
#define VECTORS GROUPS   /* registers of a panel */
#define Q8_BIAS 128
#define MR 6 /* rows of x at once, at most: with two registers of sums and two of totals for each */

/* ---- x ---- */

INLINE __m512 load_x(enum format format, const char *x) {
  if (format == F32) return _mm512_loadu_ps(x);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)x)), 16));
}

/* The largest absolute value; not a number if one is not: its bits count as an integer, and are the largest. */
INLINE float largest(__m512 first, __m512 second) {
  const __m512i sign = _mm512_set1_epi32(0x7fffffff);
  const __m512i both = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(first), sign),
                                        _mm512_and_si512(_mm512_castps_si512(second), sign));
  const uint32_t bits = _mm512_reduce_max_epu32(both);
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

/* A part of a row -> its codes, scale and sums. */
INLINE void quantise_part(enum format format, enum ggml_type type, const char *x, struct x_unit *unit, int part) {
  const __m512 halves[2] = {load_x(format, x), load_x(format, x + LANES * itemsize(format))};
  const __m512 inverse = _mm512_set1_ps(set_scale(unit, part, largest(halves[0], halves[1])));
  uint32_t sums[2];
  for (int half = 0; half < 2; half++) {
    const __m512i codes = _mm512_cvtps_epi32(_mm512_mul_ps(halves[half], inverse));
    _mm_storeu_si128((__m128i *)(unit->codes + part * PART + half * LANES), _mm512_cvtepi32_epi8(codes));
    sums[half] = (uint32_t)_mm512_reduce_add_epi32(codes);
  }
  set_sums(type, code_bias(type, Q8_BIAS), unit, part, sums[0], sums[1]);
}

/* ---- products ---- */

/* `rows` rows of x times `vectors` registers of a panel from `v` on: adds to totals [rows, NC]. */
INLINE void multiply_rows(enum kind kind, int rows, int vectors, struct x_rows x_rows, const struct panel *w, int v,
                          int parts, float *totals) {
  const int halves = kind == HALVES ? 2 : 1;
  const struct x_unit *x[MR];
  __m512 acc[MR][VECTORS];
  for (int m = 0; m < rows; m++) x[m] = x_rows.units + x_rows.places[m];
  for (int m = 0; m < rows; m++)
    for (int i = 0; i < vectors; i++) acc[m][i] = _mm512_load_ps(totals + m * NC + (v + i) * LANES);
  for (int part = 0; part < parts; part++)
    for (int half = 0; half < halves; half++) {
      __m512i sums[MR][VECTORS];
      for (int m = 0; m < rows; m++)
        for (int i = 0; i < vectors; i++)
          sums[m][i] =
              kind == WITH_OFFSET ? _mm512_setzero_si512() : _mm512_set1_epi32(x[m]->first[part * halves + half]);
#pragma GCC unroll 8
      for (int step = half * STEPS / 2; step < (half + 1) * STEPS / halves; step++) {
        __m512i codes[VECTORS];
        for (int i = 0; i < vectors; i++) codes[i] = _mm512_load_si512(w->codes[part * STEPS + step][v + i]);
        for (int m = 0; m < rows; m++) {
          const __m512i x_codes = _mm512_set1_epi32(four_codes(x[m]->codes + part * PART + 4 * step));
          for (int i = 0; i < vectors; i++) sums[m][i] = _mm512_dpbusd_epi32(sums[m][i], codes[i], x_codes);
        }
      }
      for (int i = 0; i < vectors; i++) {
        const __m512 scale = _mm512_load_ps(w->scale[part * halves + half] + (v + i) * LANES);
        for (int m = 0; m < rows; m++) {
          __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[m][i]), scale);
          if (kind == WITH_OFFSET)
            product = _mm512_fmadd_ps(_mm512_load_ps(w->offset[part] + (v + i) * LANES),
                                      _mm512_set1_ps(x[m]->sums[part]), product);
          acc[m][i] = _mm512_fmadd_ps(product, _mm512_set1_ps(x[m]->scale[part]), acc[m][i]);
        }
      }
    }
  for (int m = 0; m < rows; m++)
    for (int i = 0; i < vectors; i++) _mm512_store_ps(totals + m * NC + (v + i) * LANES, acc[m][i]);
}

/* For up to MR rows: up to 3 with all registers of a panel, more with half of them at a time. */
INLINE void multiply_few(enum kind kind, long rows, struct x_rows x, const struct panel *w, int parts, float *totals) {
  switch (rows) {
    case 1: multiply_rows(kind, 1, VECTORS, x, w, 0, parts, totals); return;
    case 2: multiply_rows(kind, 2, VECTORS, x, w, 0, parts, totals); return;
    case 3: multiply_rows(kind, 3, VECTORS, x, w, 0, parts, totals); return;
  }
  for (int v = 0; v < VECTORS; v += VECTORS / 2) switch (rows) {
      case 4: multiply_rows(kind, 4, VECTORS / 2, x, w, v, parts, totals); break;
      case 5: multiply_rows(kind, 5, VECTORS / 2, x, w, v, parts, totals); break;
      case 6: multiply_rows(kind, 6, VECTORS / 2, x, w, v, parts, totals);
    }
}

/* One unit of `rows` rows of x times a panel: adds to totals [rows, NC].  Groups of rows are of equal size. */
INLINE void multiply_as(enum kind kind, long rows, struct x_rows x, const struct panel *w, int parts, float *totals) {
  for (long m = 0, groups = div_up(rows, MR), count; m < rows; m += count, groups--) {
    count = div_up(rows - m, groups);
    multiply_few(kind, count, (struct x_rows){x.units, x.places + m}, w, parts, totals + m * NC);
  }
}

static void multiply(enum ggml_type type, long rows, struct x_rows x, const struct panel *w, int parts, float *totals) {
  switch (kind_of(type)) {
    case HALVES: multiply_as(HALVES, rows, x, w, parts, totals); break;
    case WITH_OFFSET: multiply_as(WITH_OFFSET, rows, x, w, parts, totals); break;
    case WHOLE: multiply_as(WHOLE, rows, x, w, parts, totals);
  }
}

/* ---- what is done with products ---- */

/* exp with an error of up to 2 units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes). */
INLINE __m512 exp_f32(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-87), x); /* in this order a NaN stays a NaN */
  x = _mm512_min_ps(_mm512_set1_ps(88), x);
  const __m512i n = _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)));
  __m512 r = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(n), _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(n), _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
  p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1)));
  const __m512i power = _mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23);
  return _mm512_mul_ps(p, _mm512_castsi512_ps(power));
}

/* silu(gate) * up, or gpt-oss's clamped variant. */
INLINE __m512 swiglu(__m512 gate, __m512 up, float limit, float alpha) {
  if (limit > 0) {
    gate = _mm512_min_ps(_mm512_set1_ps(limit), gate);
    up = _mm512_max_ps(_mm512_set1_ps(-limit), _mm512_min_ps(_mm512_set1_ps(limit), up));
    up = _mm512_add_ps(up, _mm512_set1_ps(1));
  }
  const __m512 exponent = _mm512_mul_ps(gate, _mm512_set1_ps(limit > 0 ? -alpha : -1));
  return _mm512_mul_ps(_mm512_div_ps(gate, _mm512_add_ps(exp_f32(exponent), _mm512_set1_ps(1))), up);
}

/* The same for NC numbers. */
INLINE void activate(const float *gate, const float *up, float limit, float alpha, float *values) {
  for (int n = 0; n < NC; n += LANES)
    _mm512_store_ps(values + n, swiglu(_mm512_load_ps(gate + n), _mm512_load_ps(up + n), limit, alpha));
}

/* Adds NC numbers of a bias. */
INLINE void add_bias(float *totals, const float *bias) {
  for (int n = 0; n < NC; n += LANES)
    _mm512_store_ps(totals + n, _mm512_add_ps(_mm512_load_ps(totals + n), _mm512_loadu_ps(bias + n)));
}

/* Adds NC numbers of a row times its weight. */
INLINE void add_weighted(float *totals, const number *row, float weight) {
  for (int n = 0; n < NC; n += LANES)
    _mm512_store_ps(totals + n, _mm512_fmadd_ps(load_x(X_FORMAT, (const char *)(row + n)), _mm512_set1_ps(weight),
                                                _mm512_load_ps(totals + n)));
}

/* NC totals -> numbers. */
INLINE void store_numbers(const float *totals, number *out) {
  for (int n = 0; n < NC; n += 2 * LANES)
    _mm512_storeu_si512(out + n,
                        (__m512i)_mm512_cvtne2ps_pbh(_mm512_load_ps(totals + n + LANES), _mm512_load_ps(totals + n)));
}

#endif
