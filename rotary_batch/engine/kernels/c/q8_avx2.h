/* Rows of float32 -> 8-bit integers (q8.h), and products of such rows with a panel, by AVX2, and AVX-VNNI.

   Without AVX-VNNI, VPMADDUBSW multiplies unsigned bytes by signed ones and adds pairs in 16 bits: as many steps as fit
   are added up there before they go to 32 bits.  Pairs of codes of 8 bits would not fit, so those of Q8_0 and int8 stay
   signed. */

#ifndef ROTARY_BATCH_Q8_AVX2_H
#define ROTARY_BATCH_Q8_AVX2_H

#include "q8.h"

typedef float number; /* of rows of x and of results */

#define X_FORMAT F32
#ifdef USE_AVX_VNNI
#define Q8_BIAS 128
#else
#define Q8_BIAS 0
#endif
#define LANES 8                      /* rows of a matrix in a register, with 4 columns of each */
#define VECTORS (GROUP_ROWS / LANES) /* registers of a group */
#define MR 4                         /* rows of x at once, at most: with two registers of sums for each */

/* ---- x ---- */

/* The largest absolute value; not a number if one is not: its bits count as an integer, and are the largest. */
INLINE float largest(const __m256 parts[4]) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i most = _mm256_setzero_si256();
  for (int i = 0; i < 4; i++) most = _mm256_max_epu32(most, _mm256_and_si256(_mm256_castps_si256(parts[i]), magnitude));
  __m128i four = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
  four = _mm_max_epu32(four, _mm_unpackhi_epi64(four, four));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 1));
  return _mm_cvtss_f32(_mm_castsi128_ps(four));
}

INLINE uint32_t sum_of_integers(__m256i v) {
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  four = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return (uint32_t)_mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 1)));
}

/* A part of a row -> its codes, scale and sums. */
INLINE void quantise_part(enum format format, enum ggml_type type, const char *x, struct x_unit *unit, int part) {
  (void)format;
  __m256 parts[4];
  __m256i codes[4];
  for (int i = 0; i < 4; i++) parts[i] = _mm256_loadu_ps((const float *)x + 8 * i);
  const __m256 inverse = _mm256_set1_ps(set_scale(unit, part, largest(parts)));
  for (int i = 0; i < 4; i++) codes[i] = _mm256_cvtps_epi32(_mm256_mul_ps(parts[i], inverse));
  /* Packing takes 16 bytes at a time: the codes of all four in turns. */
  const __m256i packed =
      _mm256_packs_epi16(_mm256_packs_epi32(codes[0], codes[1]), _mm256_packs_epi32(codes[2], codes[3]));
  const __m256i in_order = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256((__m256i *)(unit->codes + part * PART), in_order);
  set_sums(type, code_bias(type, Q8_BIAS), unit, part, sum_of_integers(_mm256_add_epi32(codes[0], codes[1])),
           sum_of_integers(_mm256_add_epi32(codes[2], codes[3])));
}

/* ---- products ---- */

#ifdef USE_AVX_VNNI

INLINE void add_steps(int together, int rows, const struct x_unit *const x[MR], const struct panel *w, int group,
                      int step, int count, __m256i sums[MR][VECTORS]) {
  (void)together;
  const int end = step + count;
#pragma GCC unroll 8
  for (; step < end; step++) {
    __m256i codes[VECTORS];
    for (int i = 0; i < VECTORS; i++)
      codes[i] = _mm256_load_si256((const __m256i *)(w->codes[step][group] + 4 * LANES * i));
    for (int m = 0; m < rows; m++) {
      const __m256i x_codes = _mm256_set1_epi32(four_codes(x[m]->codes + 4 * step));
      for (int i = 0; i < VECTORS; i++) sums[m][i] = _mm256_dpbusd_avx_epi32(sums[m][i], codes[i], x_codes);
    }
  }
}

#else

/* 4 columns of 8 rows: sums of pairs in 16 bits. */
INLINE __m256i multiply_pairs(int is_signed, __m256i codes, __m256i x_codes) {
  if (!is_signed) return _mm256_maddubs_epi16(codes, x_codes);
  return _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x_codes, codes));
}

/* `count` steps of `rows` rows of x, added to sums; `together` of them fit into 16 bits. */
INLINE void add_steps(int together, int rows, const struct x_unit *const x[MR], const struct panel *w, int group,
                      int step, int count, __m256i sums[MR][VECTORS]) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (const int end = step + count; step < end; step += together) {
    __m256i pairs[MR][VECTORS];
#pragma GCC unroll 4
    for (int s = 0; s < together; s++) {
      __m256i codes[VECTORS];
      for (int i = 0; i < VECTORS; i++)
        codes[i] = _mm256_load_si256((const __m256i *)(w->codes[step + s][group] + 4 * LANES * i));
      for (int m = 0; m < rows; m++) {
        const __m256i x_codes = _mm256_set1_epi32(four_codes(x[m]->codes + 4 * (step + s)));
        for (int i = 0; i < VECTORS; i++) {
          const __m256i product = multiply_pairs(together == 1, codes[i], x_codes);
          pairs[m][i] = s ? _mm256_add_epi16(pairs[m][i], product) : product;
        }
      }
    }
    for (int m = 0; m < rows; m++)
      for (int i = 0; i < VECTORS; i++) sums[m][i] = _mm256_add_epi32(sums[m][i], _mm256_madd_epi16(pairs[m][i], ones));
  }
}

#endif

/* `rows` rows of x times a group of a panel: adds to totals [rows, NC]. */
INLINE void multiply_rows(enum kind kind, int together, int rows, struct x_rows x_rows, const struct panel *w,
                          int group, int parts, float *totals) {
  const int halves = kind == HALVES ? 2 : 1;
  const struct x_unit *x[MR];
  for (int m = 0; m < rows; m++) x[m] = x_rows.units + x_rows.places[m];
  for (int n = 0; n < parts * halves; n++) {
    __m256i sums[MR][VECTORS];
    for (int m = 0; m < rows; m++)
      for (int i = 0; i < VECTORS; i++)
        sums[m][i] = kind == WITH_OFFSET ? _mm256_setzero_si256() : _mm256_set1_epi32(x[m]->first[n]);
    add_steps(together, rows, x, w, group, n * STEPS / halves, STEPS / halves, sums);
    for (int i = 0; i < VECTORS; i++) {
      const int lane = group * GROUP_ROWS + i * LANES, part = n / halves;
      const __m256 scale = _mm256_load_ps(w->scale[n] + lane);
      for (int m = 0; m < rows; m++) {
        __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[m][i]), scale);
        if (kind == WITH_OFFSET)
          product = _mm256_fmadd_ps(_mm256_load_ps(w->offset[part] + lane), _mm256_set1_ps(x[m]->sums[part]), product);
        float *total = totals + m * NC + lane;
        _mm256_store_ps(total, _mm256_fmadd_ps(product, _mm256_set1_ps(x[m]->scale[part]), _mm256_load_ps(total)));
      }
    }
  }
}

/* One unit of `rows` rows of x times a panel: adds to totals [rows, NC]. */
INLINE void multiply_as(enum kind kind, int together, long rows, struct x_rows x, const struct panel *w, int parts,
                        float *totals) {
  for (long m = 0, groups = div_up(rows, MR), count; m < rows; m += count, groups--, totals += count * NC) {
    count = div_up(rows - m, groups);
    const struct x_rows own = {x.units, x.places + m};
    for (int group = 0; group < GROUPS; group++) switch (count) {
        case 4: multiply_rows(kind, together, 4, own, w, group, parts, totals); break;
        case 3: multiply_rows(kind, together, 3, own, w, group, parts, totals); break;
        case 2: multiply_rows(kind, together, 2, own, w, group, parts, totals); break;
        case 1: multiply_rows(kind, together, 1, own, w, group, parts, totals);
      }
  }
}

/* Codes are below 16, in Q5_K 32, in MXFP4 25, in Q6_K 64: together * 2 * code * 127 < 2^15. */
static void multiply(enum ggml_type type, long rows, struct x_rows x, const struct panel *w, int parts, float *totals) {
  switch (kind_of(type)) {
    case HALVES: multiply_as(HALVES, 2, rows, x, w, parts, totals); break;
    case WITH_OFFSET: multiply_as(WITH_OFFSET, 4, rows, x, w, parts, totals); break;
    case WHOLE:
      if (type == Q8_0 || type == OWN_INT8) multiply_as(WHOLE, 1, rows, x, w, parts, totals);
      else multiply_as(WHOLE, 4, rows, x, w, parts, totals);
  }
}

/* ---- what is done with products ---- */

/* exp with an error of up to 2 units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes). */
INLINE __m256 exp_f32(__m256 x) {
  x = _mm256_max_ps(_mm256_set1_ps(-87), x); /* in this order a NaN stays a NaN */
  x = _mm256_min_ps(_mm256_set1_ps(88), x);
  const __m256i n = _mm256_cvtps_epi32(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)));
  __m256 r = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(n), _mm256_set1_ps(0.693359375f), x);
  r = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(n), _mm256_set1_ps(-2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.9875691500e-4f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
  p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1)));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(p, _mm256_castsi256_ps(power));
}

/* silu(gate) * up, or gpt-oss's clamped variant. */
INLINE __m256 swiglu(__m256 gate, __m256 up, float limit, float alpha) {
  if (limit > 0) {
    gate = _mm256_min_ps(_mm256_set1_ps(limit), gate);
    up = _mm256_max_ps(_mm256_set1_ps(-limit), _mm256_min_ps(_mm256_set1_ps(limit), up));
    up = _mm256_add_ps(up, _mm256_set1_ps(1));
  }
  const __m256 exponent = _mm256_mul_ps(gate, _mm256_set1_ps(limit > 0 ? -alpha : -1));
  return _mm256_mul_ps(_mm256_div_ps(gate, _mm256_add_ps(exp_f32(exponent), _mm256_set1_ps(1))), up);
}

/* The same for NC numbers. */
INLINE void activate(const float *gate, const float *up, float limit, float alpha, float *values) {
  for (int n = 0; n < NC; n += LANES)
    _mm256_store_ps(values + n, swiglu(_mm256_load_ps(gate + n), _mm256_load_ps(up + n), limit, alpha));
}

/* Adds NC numbers of a bias. */
INLINE void add_bias(float *totals, const float *bias) {
  for (int n = 0; n < NC; n += LANES)
    _mm256_store_ps(totals + n, _mm256_add_ps(_mm256_load_ps(totals + n), _mm256_loadu_ps(bias + n)));
}

/* Adds NC numbers of a row times its weight. */
INLINE void add_weighted(float *totals, const number *row, float weight) {
  for (int n = 0; n < NC; n += LANES)
    _mm256_store_ps(totals + n,
                    _mm256_fmadd_ps(_mm256_loadu_ps(row + n), _mm256_set1_ps(weight), _mm256_load_ps(totals + n)));
}

/* NC totals -> numbers. */
INLINE void store_numbers(const float *totals, number *out) { memcpy(out, totals, NC * sizeof(float)); }

#endif
