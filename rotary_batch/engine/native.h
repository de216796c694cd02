/* What the compiled products and the compiled attention share: unpacking into float32, turning, and the inner loop.

   AVX2 and FMA; 16 registers of 8 numbers. */

#ifndef ROTARY_BATCH_NATIVE_H
#define ROTARY_BATCH_NATIVE_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define ALIGNED __attribute__((aligned(32)))
#define ROWS 3   /* rows of x in registers: with ROWS x PIECE / 8 = 12 sums all 16 registers are in use */
#define PIECE 32 /* columns of a product in registers */

enum kind { BF16, INT8 };

INLINE long size_of(enum kind kind) { return kind == BF16 ? 2 : 1; }
INLINE long at_most(long count, long limit) { return count < limit ? count : limit; }

/* 8 numbers in a row. */
INLINE __m256 widen(enum kind kind, const char *stored) {
  if (kind == INT8) return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)stored)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)stored)), 16));
}

/* 8 rows by 8 columns -> out [8 columns, 8 of stride]. */
INLINE void turn(enum kind kind, const char *const rows[8], float *out, long stride) {
  __m256 r[8], t[8];
  for (int n = 0; n < 8; n++) r[n] = widen(kind, rows[n]);
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

/* A matrix of float32: where it begins and how far its rows are apart. */
struct matrix {
  float *at;
  long stride;
};

INLINE void multiply_few(int rows, const float *x, long x_stride, struct matrix w, struct matrix out, long count) {
  __m256 sums[ROWS][PIECE / 8];
  for (int m = 0; m < rows; m++)
    for (int v = 0; v < PIECE / 8; v++) sums[m][v] = _mm256_loadu_ps(out.at + m * out.stride + 8 * v);
  for (long k = 0; k < count; k++)
    for (int m = 0; m < rows; m++) {
      const __m256 each = _mm256_broadcast_ss(x + m * x_stride + k);
      for (int v = 0; v < PIECE / 8; v++)
        sums[m][v] = _mm256_fmadd_ps(_mm256_loadu_ps(w.at + k * w.stride + 8 * v), each, sums[m][v]);
    }
  for (int m = 0; m < rows; m++)
    for (int v = 0; v < PIECE / 8; v++) _mm256_storeu_ps(out.at + m * out.stride + 8 * v, sums[m][v]);
}

/* x [rows, count] times w [count, PIECE], added to out [rows, PIECE]. */
INLINE void multiply(long rows, const float *x, long x_stride, struct matrix w, struct matrix out, long count) {
  long m = 0;
  for (; m + ROWS <= rows; m += ROWS, x += ROWS * x_stride, out.at += ROWS * out.stride)
    multiply_few(3, x, x_stride, w, out, count);
  if (rows - m == 2) multiply_few(2, x, x_stride, w, out, count);
  if (rows - m == 1) multiply_few(1, x, x_stride, w, out, count);
}

/* Compilers that know AMX and AVX-512 BF16, and a system that has its permission asked for tiles. */
#if !defined(NO_BF16) && defined(__linux__) && defined(__x86_64__) && \
    ((defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11))
#define KNOWS_BF16 1
#include <cpuid.h>

#define AVX512_BF16 "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"
#define WIDE static inline __attribute__((always_inline, target(AVX512_BF16)))

/* A bit of CPUID leaf 7; what the system must know as well, the 512 bits, is `__builtin_cpu_supports`'s to say. */
INLINE int has_bit(int part, char register_name, int bit) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, part, &a, &b, &c, &d)) return 0;
  return (register_name == 'a' ? a : d) >> bit & 1;
}

INLINE int has_avx512_bf16(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && has_bit(1, 'a', 5);
}

/* 32 numbers in a row, in bf16, as pairs. */
WIDE __m512i pairs_of(enum kind kind, const char *stored) {
  if (kind == BF16) return _mm512_loadu_si512(stored);
  const __m512 first = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)stored)));
  const __m512 second = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)stored + 1)));
  return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}
#else
#define KNOWS_BF16 0
#endif

#endif
