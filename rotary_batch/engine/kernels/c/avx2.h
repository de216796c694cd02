/* What the kernels for AVX2 share: conversion to float32, transposition, and the inner loop of a product.

   AVX2 has 16 registers of 8 floats. */

#ifndef ROTARY_BATCH_AVX2_H
#define ROTARY_BATCH_AVX2_H

#include "common.h"

#define ALIGNED __attribute__((aligned(32)))
#define MR 3  /* rows of x in registers: MR x NR / 8 = 12 registers of sums, and all 16 are in use */
#define NR 32 /* columns of a product in registers */

/* 8 consecutive elements as float32. */
INLINE __m256 load_f32(enum format format, const char *stored) {
  if (format == F32) return _mm256_loadu_ps((const float *)stored);
  if (format == INT8) return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)stored)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)stored)), 16));
}

/* 8 rows by 8 columns -> 8 columns in out, `stride` apart. */
INLINE void transpose8x8(enum format format, const char *const rows[8], float *out, long stride) {
  __m256 r[8], t[8];
  for (int n = 0; n < 8; n++) r[n] = load_f32(format, rows[n]);
  for (int n = 0; n < 8; n += 2) {
    t[n] = _mm256_unpacklo_ps(r[n], r[n + 1]);
    t[n + 1] = _mm256_unpackhi_ps(r[n], r[n + 1]);
  }
  for (int n = 0; n < 8; n += 4) {
    r[n] = _mm256_shuffle_ps(t[n], t[n + 2], 0x44);
    r[n + 1] = _mm256_shuffle_ps(t[n], t[n + 2], 0xee);
    r[n + 2] = _mm256_shuffle_ps(t[n + 1], t[n + 3], 0x44);
    r[n + 3] = _mm256_shuffle_ps(t[n + 1], t[n + 3], 0xee);
  }
  for (int n = 0; n < 4; n++) {
    _mm256_storeu_ps(out + n * stride, _mm256_permute2f128_ps(r[n], r[n + 4], 0x20));
    _mm256_storeu_ps(out + (n + 4) * stride, _mm256_permute2f128_ps(r[n], r[n + 4], 0x31));
  }
}

/* A float32 matrix: its first element, and the distance between its rows. */
struct matrix {
  float *data;
  long stride;
};

INLINE void gemm_f32_rows(int rows, const float *x, long x_stride, struct matrix w, struct matrix out, long count) {
  __m256 sums[MR][NR / 8];
  for (int m = 0; m < rows; m++)
    for (int v = 0; v < NR / 8; v++) sums[m][v] = _mm256_loadu_ps(out.data + m * out.stride + 8 * v);
  for (long k = 0; k < count; k++)
    for (int m = 0; m < rows; m++) {
      const __m256 x_lanes = _mm256_broadcast_ss(x + m * x_stride + k);
      for (int v = 0; v < NR / 8; v++)
        sums[m][v] = _mm256_fmadd_ps(_mm256_loadu_ps(w.data + k * w.stride + 8 * v), x_lanes, sums[m][v]);
    }
  for (int m = 0; m < rows; m++)
    for (int v = 0; v < NR / 8; v++) _mm256_storeu_ps(out.data + m * out.stride + 8 * v, sums[m][v]);
}

/* x [rows, count] times w [count, NR], added to out [rows, NR]. */
INLINE void gemm_f32(long rows, const float *x, long x_stride, struct matrix w, struct matrix out, long count) {
  long m = 0;
  for (; m + MR <= rows; m += MR, x += MR * x_stride, out.data += MR * out.stride)
    gemm_f32_rows(3, x, x_stride, w, out, count);
  if (rows - m == 2) gemm_f32_rows(2, x, x_stride, w, out, count);
  if (rows - m == 1) gemm_f32_rows(1, x, x_stride, w, out, count);
}

#endif
