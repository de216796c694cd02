/* The instructions of AVX-512 (F, BW, VBMI, BF16, VNNI) that the kernels use, for processors with AVX2: compiled with
   -include.

   The types are the compiler's, which supports vectors of 64 bytes without the instructions for them. */

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"

#define EMULATED static inline __attribute__((always_inline, unused))

typedef uint32_t emulated_u32 __attribute__((vector_size(64)));
typedef uint64_t emulated_u64 __attribute__((vector_size(64)));
typedef uint16_t emulated_u16 __attribute__((vector_size(64)));
typedef uint8_t emulated_u8 __attribute__((vector_size(64)));

EMULATED __m512i emulated_load(const void *place) {
  __m512i v;
  memcpy(&v, place, 64);
  return v;
}
EMULATED void emulated_store(void *place, __m512i v) { memcpy(place, &v, 64); }
EMULATED __m512 emulated_load_ps(const void *place) { return (__m512)emulated_load(place); }
EMULATED void emulated_store_ps(void *place, __m512 v) { emulated_store(place, (__m512i)v); }

/* An address that is not a multiple of 64 raises an exception. */
EMULATED const void *aligned(const void *place) {
  if ((uintptr_t)place % 64) abort();
  return place;
}
EMULATED __m512i emulated_load_aligned(const void *place) { return emulated_load(aligned(place)); }
EMULATED void emulated_store_aligned(void *place, __m512i v) { emulated_store((void *)aligned(place), v); }
EMULATED __m512 emulated_load_ps_aligned(const void *place) { return emulated_load_ps(aligned(place)); }
EMULATED void emulated_store_ps_aligned(void *place, __m512 v) { emulated_store_ps((void *)aligned(place), v); }

EMULATED __m512i emulated_set1(int x) {
  emulated_u32 v;
  for (int n = 0; n < 16; n++) v[n] = (uint32_t)x;
  return (__m512i)v;
}
EMULATED __m512 emulated_set1_ps(float x) {
  __m512 v;
  for (int n = 0; n < 16; n++) v[n] = x;
  return v;
}
#define emulated_set(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) \
  ((__m512i)(emulated_u32){p, o, n, m, l, k, j, i, h, g, f, e, d, c, b, a})

EMULATED __m512i emulated_add(__m512i a, __m512i b) { return (__m512i)((emulated_u32)a + (emulated_u32)b); }
EMULATED __m512i emulated_and(__m512i a, __m512i b) { return (__m512i)((emulated_u32)a & (emulated_u32)b); }
EMULATED __m512i emulated_or(__m512i a, __m512i b) { return (__m512i)((emulated_u32)a | (emulated_u32)b); }
EMULATED __m512i emulated_slli(__m512i a, int by) { return (__m512i)((emulated_u32)a << by); }
EMULATED __m512i emulated_srli(__m512i a, int by) { return (__m512i)((emulated_u32)a >> by); }

/* Bit n of `table` is the result for n = 4 a + 2 b + c. */
EMULATED __m512i emulated_ternarylogic(__m512i a, __m512i b, __m512i c, int table) {
  const emulated_u32 x = (emulated_u32)a, y = (emulated_u32)b, z = (emulated_u32)c;
  emulated_u32 v = x & 0;
  for (int n = 0; n < 8; n++)
    if (table >> n & 1) v |= (n & 4 ? x : ~x) & (n & 2 ? y : ~y) & (n & 1 ? z : ~z);
  return (__m512i)v;
}

EMULATED __m512i emulated_permutexvar_epi8(__m512i places, __m512i a) {
  emulated_u8 v;
  for (int n = 0; n < 64; n++) v[n] = ((emulated_u8)a)[((emulated_u8)places)[n] & 63];
  return (__m512i)v;
}

EMULATED __m512i emulated_permutexvar_epi16(__m512i places, __m512i a) {
  emulated_u16 v;
  for (int n = 0; n < 32; n++) v[n] = ((emulated_u16)a)[((emulated_u16)places)[n] & 31];
  return (__m512i)v;
}
/* 32 numbers: those of a, then those of b. */
EMULATED __m512 emulated_permutex2var_ps(__m512 a, __m512i places, __m512 b) {
  __m512 v;
  for (int n = 0; n < 16; n++) {
    const uint32_t place = ((emulated_u32)places)[n] & 31;
    v[n] = place < 16 ? a[place] : b[place - 16];
  }
  return v;
}

/* Within each 16 bytes: interleaves the lower (from = 0) or the upper (from = 1) halves of a and b. */
EMULATED __m512i emulated_unpack_epi32(__m512i a, __m512i b, int from) {
  const emulated_u32 x = (emulated_u32)a, y = (emulated_u32)b;
  emulated_u32 v;
  for (int n = 0; n < 16; n++) v[n] = (n & 1 ? y : x)[(n & 12) + 2 * from + (n >> 1 & 1)];
  return (__m512i)v;
}
EMULATED __m512i emulated_unpack_epi64(__m512i a, __m512i b, int from) {
  const emulated_u64 x = (emulated_u64)a, y = (emulated_u64)b;
  emulated_u64 v;
  for (int n = 0; n < 8; n++) v[n] = (n & 1 ? y : x)[(n & 6) + from];
  return (__m512i)v;
}

/* 16 bytes at a time: two of a, then two of b, each chosen by two bits. */
EMULATED __m512i emulated_shuffle_i32x4(__m512i a, __m512i b, int chosen) {
  const emulated_u64 x = (emulated_u64)a, y = (emulated_u64)b;
  emulated_u64 v;
  for (int n = 0; n < 8; n++) v[n] = (n < 4 ? x : y)[2 * (chosen >> (n & 6) & 3) + (n & 1)];
  return (__m512i)v;
}

EMULATED __m512i emulated_cvtepi8(__m128i bytes) {
  int8_t at[16];
  emulated_u32 v;
  memcpy(at, &bytes, 16);
  for (int n = 0; n < 16; n++) v[n] = (uint32_t)(int32_t)at[n];
  return (__m512i)v;
}
EMULATED __m512i emulated_cvtepu8_epi16(__m256i bytes) {
  uint8_t at[32];
  emulated_u16 v;
  memcpy(at, &bytes, 32);
  for (int n = 0; n < 32; n++) v[n] = at[n];
  return (__m512i)v;
}
EMULATED __m512 emulated_cvtph_ps(__m256i halves) {
  __m256 at[2] = {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
                  _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
  return emulated_load_ps(at);
}
EMULATED __m512 emulated_cvtepi32_ps(__m512i a) {
  __m512 v;
  for (int n = 0; n < 16; n++) v[n] = (float)(int32_t)((emulated_u32)a)[n];
  return v;
}

EMULATED __m512i emulated_cvtepu8(__m128i bytes) {
  uint8_t at[16];
  emulated_u32 v;
  memcpy(at, &bytes, 16);
  for (int n = 0; n < 16; n++) v[n] = at[n];
  return (__m512i)v;
}
EMULATED __m512i emulated_cvtepu16(__m256i words) {
  uint16_t at[16];
  emulated_u32 v;
  memcpy(at, &words, 32);
  for (int n = 0; n < 16; n++) v[n] = at[n];
  return (__m512i)v;
}
EMULATED __m128i emulated_cvtepi32_epi8(__m512i a) {
  uint8_t at[16];
  for (int n = 0; n < 16; n++) at[n] = (uint8_t)((emulated_u32)a)[n];
  return _mm_loadu_si128((const __m128i *)at);
}
EMULATED __m256i emulated_cvtepi32_epi16(__m512i a) {
  uint16_t at[16];
  for (int n = 0; n < 16; n++) at[n] = (uint16_t)((emulated_u32)a)[n];
  return _mm256_loadu_si256((const __m256i *)at);
}
/* To the nearest, ties to even; the smallest integer for what is not in range. */
EMULATED __m512i emulated_cvtps(__m512 a) {
  emulated_u32 v;
  for (int n = 0; n < 16; n++) v[n] = fabsf(a[n]) < 0x1p31f ? (uint32_t)(int32_t)lrintf(a[n]) : 0x80000000u;
  return (__m512i)v;
}

EMULATED __m512i emulated_insert_16(__m512i a, __m128i b, int place) {
  memcpy((char *)&a + 16 * place, &b, 16);
  return a;
}
EMULATED __m512i emulated_insert_32(__m512i a, __m256i b, int place) {
  memcpy((char *)&a + 32 * place, &b, 32);
  return a;
}
EMULATED __m512i emulated_broadcast_16(__m128i a) {
  __m512i v;
  for (int n = 0; n < 4; n++) memcpy((char *)&v + 16 * n, &a, 16);
  return v;
}
EMULATED __m512i emulated_shuffle_epi8(__m512i a, __m512i places) {
  emulated_u8 v;
  for (int n = 0; n < 64; n++) {
    const uint8_t place = ((emulated_u8)places)[n];
    v[n] = place & 128 ? 0 : ((emulated_u8)a)[(n & 48) + (place & 15)];
  }
  return (__m512i)v;
}

EMULATED __m512i emulated_sub(__m512i a, __m512i b) { return (__m512i)((emulated_u32)a - (emulated_u32)b); }
EMULATED __m512i emulated_xor(__m512i a, __m512i b) { return (__m512i)((emulated_u32)a ^ (emulated_u32)b); }
EMULATED __m512i emulated_sllv(__m512i a, __m512i by) {
  emulated_u32 v;
  for (int n = 0; n < 16; n++) {
    const uint32_t bits = ((emulated_u32)by)[n];
    v[n] = bits > 31 ? 0 : ((emulated_u32)a)[n] << bits;
  }
  return (__m512i)v;
}
EMULATED __m512i emulated_srai(__m512i a, int by) {
  emulated_u32 v;
  for (int n = 0; n < 16; n++) v[n] = (uint32_t)((int32_t)((emulated_u32)a)[n] >> by);
  return (__m512i)v;
}
EMULATED __m512i emulated_max_epu32(__m512i a, __m512i b) {
  emulated_u32 v;
  for (int n = 0; n < 16; n++) {
    const uint32_t x = ((emulated_u32)a)[n], y = ((emulated_u32)b)[n];
    v[n] = x > y ? x : y;
  }
  return (__m512i)v;
}
EMULATED uint32_t emulated_reduce_max(__m512i a) {
  uint32_t most = 0;
  for (int n = 0; n < 16; n++)
    if (((emulated_u32)a)[n] > most) most = ((emulated_u32)a)[n];
  return most;
}
EMULATED int emulated_reduce_add_epi32(__m512i a) {
  uint32_t sum = 0;
  for (int n = 0; n < 16; n++) sum += ((emulated_u32)a)[n];
  return (int)sum;
}
/* Bit n of the mask: whether a is greater than b as a signed number; and choosing by such a mask. */
EMULATED uint16_t emulated_cmpgt(__m512i a, __m512i b) {
  unsigned mask = 0;
  for (int n = 0; n < 16; n++) mask |= (unsigned)((int32_t)((emulated_u32)a)[n] > (int32_t)((emulated_u32)b)[n]) << n;
  return (uint16_t)mask;
}
EMULATED __m512i emulated_mask_mov(__m512i a, uint16_t mask, __m512i b) {
  emulated_u32 v;
  for (int n = 0; n < 16; n++) v[n] = (mask >> n & 1 ? (emulated_u32)b : (emulated_u32)a)[n];
  return (__m512i)v;
}

/* Four unsigned bytes times four signed ones. */
EMULATED __m512i emulated_dpbusd(__m512i sums, __m512i a, __m512i b) {
  uint8_t x[64];
  int8_t y[64];
  emulated_u32 v = (emulated_u32)sums;
  memcpy(x, &a, 64), memcpy(y, &b, 64);
  for (int n = 0; n < 64; n++) v[n / 4] += (uint32_t)(x[n] * y[n]);
  return (__m512i)v;
}

EMULATED __m512 emulated_fmadd(__m512 a, __m512 b, __m512 c) {
  __m512 v;
  for (int n = 0; n < 16; n++) v[n] = fmaf(a[n], b[n], c[n]);
  return v;
}
EMULATED __m512 emulated_fnmadd(__m512 a, __m512 b, __m512 c) { return emulated_fmadd(-a, b, c); }
EMULATED __m512 emulated_add_ps(__m512 a, __m512 b) { return a + b; }
EMULATED __m512 emulated_div_ps(__m512 a, __m512 b) { return a / b; }
/* b where one of them is not a number. */
EMULATED __m512 emulated_max_ps(__m512 a, __m512 b) {
  for (int n = 0; n < 16; n++) b[n] = a[n] > b[n] ? a[n] : b[n];
  return b;
}
EMULATED __m512 emulated_min_ps(__m512 a, __m512 b) {
  for (int n = 0; n < 16; n++) b[n] = a[n] < b[n] ? a[n] : b[n];
  return b;
}
EMULATED __m512 emulated_sub_ps(__m512 a, __m512 b) { return a - b; }
EMULATED __m512 emulated_mul(__m512 a, __m512 b) { return a * b; }

EMULATED float emulated_reduce_add(__m512 a) {
  float at[16];
  memcpy(at, &a, 64);
  for (int half = 8; half; half /= 2)
    for (int n = 0; n < half; n++) at[n] += at[n + half];
  return at[0];
}

/* The upper elements of the pairs first; each product is added separately. */
EMULATED __m512 emulated_dpbf16(__m512 sums, __m512bh a, __m512bh b) {
  const emulated_u32 x = (emulated_u32)a, y = (emulated_u32)b;
  for (int n = 0; n < 16; n++) {
    const float one = flushed(fmaf(high_bf16(x[n]), high_bf16(y[n]), flushed(sums[n])));
    sums[n] = flushed(fmaf(low_bf16(x[n]), low_bf16(y[n]), one));
  }
  return sums;
}

/* b in the lower half, a in the upper one. */
EMULATED __m512bh emulated_cvtne2ps(__m512 a, __m512 b) {
  uint16_t at[32];
  __m512bh v;
  for (int n = 0; n < 16; n++) at[n] = to_bf16(b[n]), at[n + 16] = to_bf16(a[n]);
  memcpy(&v, at, 64);
  return v;
}
EMULATED __m128bh emulated_cvtneps_128(__m128 a) {
  uint16_t at[8] = {0};
  __m128bh v;
  for (int n = 0; n < 4; n++) at[n] = to_bf16(a[n]);
  memcpy(&v, at, 16);
  return v;
}

#undef _mm512_shuffle_i32x4
#undef _mm512_slli_epi32
#undef _mm512_srli_epi32
#undef _mm512_srai_epi32
#undef _mm512_cmpgt_epi32_mask
#undef _mm512_inserti32x4
#undef _mm512_inserti64x4
#undef _mm512_ternarylogic_epi32
#define _mm512_loadu_si512 emulated_load
#define _mm512_load_si512 emulated_load_aligned
#define _mm512_storeu_si512 emulated_store
#define _mm512_store_si512 emulated_store_aligned
#define _mm512_loadu_ps emulated_load_ps
#define _mm512_load_ps emulated_load_ps_aligned
#define _mm512_store_ps emulated_store_ps_aligned
#define _mm512_setzero_si512() emulated_set1(0)
#define _mm512_setzero_ps() emulated_set1_ps(0)
#define _mm512_set1_epi32 emulated_set1
#define _mm512_set1_ps emulated_set1_ps
#define _mm512_set_epi32 emulated_set
#define _mm512_add_epi32 emulated_add
#define _mm512_and_si512 emulated_and
#define _mm512_or_si512 emulated_or
#define _mm512_slli_epi32 emulated_slli
#define _mm512_srli_epi32 emulated_srli
#define _mm512_ternarylogic_epi32 emulated_ternarylogic
#define _mm512_permutexvar_epi8 emulated_permutexvar_epi8
#define _mm512_permutexvar_epi16 emulated_permutexvar_epi16
#define _mm512_permutexvar_ps(places, a) emulated_permutex2var_ps(a, places, a)
#define _mm512_permutex2var_ps emulated_permutex2var_ps
#define _mm512_unpacklo_epi32(a, b) emulated_unpack_epi32(a, b, 0)
#define _mm512_unpackhi_epi32(a, b) emulated_unpack_epi32(a, b, 1)
#define _mm512_unpacklo_epi64(a, b) emulated_unpack_epi64(a, b, 0)
#define _mm512_unpackhi_epi64(a, b) emulated_unpack_epi64(a, b, 1)
#define _mm512_shuffle_i32x4 emulated_shuffle_i32x4
#define _mm512_cvtepi8_epi32 emulated_cvtepi8
#define _mm512_cvtepu8_epi16 emulated_cvtepu8_epi16
#define _mm512_cvtph_ps emulated_cvtph_ps
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_castsi512_ps(a) ((__m512)(a))
#define _mm512_castps_si512(a) ((__m512i)(a))
#define _mm512_castsi128_si512(a) emulated_insert_16(emulated_set1(0), a, 0)
#define _mm512_castsi256_si512(a) emulated_insert_32(emulated_set1(0), a, 0)
#define _mm512_inserti32x4 emulated_insert_16
#define _mm512_inserti64x4 emulated_insert_32
#define _mm512_broadcast_i32x4 emulated_broadcast_16
#define _mm512_shuffle_epi8 emulated_shuffle_epi8
#define _mm512_sub_epi32 emulated_sub
#define _mm512_xor_si512 emulated_xor
#define _mm512_sllv_epi32 emulated_sllv
#define _mm512_srai_epi32 emulated_srai
#define _mm512_max_epu32 emulated_max_epu32
#define _mm512_reduce_max_epu32 emulated_reduce_max
#define _mm512_reduce_add_epi32 emulated_reduce_add_epi32
#define _mm512_cmpgt_epi32_mask emulated_cmpgt
#define _mm512_mask_mov_epi32 emulated_mask_mov
#define _mm512_dpbusd_epi32 emulated_dpbusd
#define _mm512_cvtepu8_epi32 emulated_cvtepu8
#define _mm512_cvtepu16_epi32 emulated_cvtepu16
#define _mm512_cvtepi32_epi8 emulated_cvtepi32_epi8
#define _mm512_cvtepi32_epi16 emulated_cvtepi32_epi16
#define _mm512_cvtps_epi32 emulated_cvtps
#define _mm512_add_ps emulated_add_ps
#define _mm512_div_ps emulated_div_ps
#define _mm512_max_ps emulated_max_ps
#define _mm512_min_ps emulated_min_ps
#define _mm512_sub_ps emulated_sub_ps
#define _mm512_fmadd_ps emulated_fmadd
#define _mm512_fnmadd_ps emulated_fnmadd
#define _mm512_mul_ps emulated_mul
#define _mm512_reduce_add_ps emulated_reduce_add
#define _mm512_dpbf16_ps emulated_dpbf16
#define _mm512_cvtne2ps_pbh emulated_cvtne2ps
#define _mm_cvtneps_pbh emulated_cvtneps_128
#undef EMULATED
