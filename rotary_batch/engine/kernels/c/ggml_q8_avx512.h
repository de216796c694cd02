/* Blocks of GGUF files -> panels of unsigned codes and scales (q8_avx512.h).

   16 rows of a matrix at a time: registers with 64 bytes of each row are transposed, so that each then has 4 bytes of
   every row.  Packed bytes are transposed, not codes: that halves the work for codes of 4 bits. */

#ifndef ROTARY_BATCH_GGML_Q8_AVX512_H
#define ROTARY_BATCH_GGML_Q8_AVX512_H

#include "q8_avx512.h"

INLINE __m512i bytes(uint32_t value) { return _mm512_set1_epi32((int)(value * 0x01010101u)); }
INLINE __m512i low_codes(__m512i r) { return _mm512_and_si512(r, bytes(15)); }
INLINE __m512i high_codes(__m512i r) { return _mm512_and_si512(_mm512_srli_epi32(r, 4), bytes(15)); }

/* The bits of each byte from `bit` on, moved to bit 4 on, those that `mask` names, set in `codes`. */
INLINE __m512i with_bits_at_4(__m512i codes, __m512i r, int bit, uint32_t mask) {
  const __m512i moved = bit < 4 ? _mm512_slli_epi32(r, 4 - bit) : _mm512_srli_epi32(r, bit - 4);
  return _mm512_ternarylogic_epi32(moved, bytes(mask), codes, AND_OR);
}

/* 64 bytes of every row from `at` on: register n then has bytes 4 n to 4 n + 3 of every row. */
INLINE void load_transposed(const struct lanes *l, long at, __m512i r[LANES]) {
  for (int n = 0; n < LANES; n++) r[n] = _mm512_loadu_si512(l->rows[n] + at);
  transpose16x16(r);
}

/* 16 bytes of every row from `at` on, the same. */
INLINE void load_transposed_16(const struct lanes *l, long at, __m512i r[4]) {
  for (int n = 0; n < 4; n++) {
    r[n] = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(l->rows[n] + at)));
    r[n] = _mm512_inserti32x4(r[n], _mm_loadu_si128((const __m128i *)(l->rows[n + 4] + at)), 1);
    r[n] = _mm512_inserti32x4(r[n], _mm_loadu_si128((const __m128i *)(l->rows[n + 8] + at)), 2);
    r[n] = _mm512_inserti32x4(r[n], _mm_loadu_si128((const __m128i *)(l->rows[n + 12] + at)), 3);
  }
  const __m512i a = _mm512_unpacklo_epi32(r[0], r[1]), b = _mm512_unpackhi_epi32(r[0], r[1]);
  const __m512i c = _mm512_unpacklo_epi32(r[2], r[3]), d = _mm512_unpackhi_epi32(r[2], r[3]);
  r[0] = _mm512_unpacklo_epi64(a, c), r[1] = _mm512_unpackhi_epi64(a, c);
  r[2] = _mm512_unpacklo_epi64(b, d), r[3] = _mm512_unpackhi_epi64(b, d);
}

/* The float16 at a byte of every row. */
INLINE __m512 load_halves(const struct lanes *l, long at) {
  uint16_t halves[LANES];
  for (int n = 0; n < LANES; n++) memcpy(halves + n, l->rows[n] + at, 2);
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)halves));
}

/* The float16 in the lower half of every element. */
INLINE __m512 floats_from_halves(__m512i r) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(r)); }

/* ---- scales ---- */

/* As scales_of_6_bits in ggml.h; r are the first 16 bytes. */
INLINE void unpack_scales_of_6_bits(const __m512i r[4], struct panel *w, int v) {
  const __m512 d = floats_from_halves(r[0]);
  const __m512 minus_min = _mm512_sub_ps(_mm512_setzero_ps(), floats_from_halves(_mm512_srli_epi32(r[0], 16)));
  const __m512i six = _mm512_set1_epi32(63), four = _mm512_set1_epi32(15), upper_two = _mm512_set1_epi32(48);
#pragma GCC unroll 8
  for (int part = 0; part < PARTS_K; part++) {
    const int at = part % 4 * 8;
    __m512i scale = _mm512_and_si512(_mm512_srli_epi32(r[1], at), six);
    __m512i min = _mm512_and_si512(_mm512_srli_epi32(r[2], at), six);
    if (part >= 4) {
      scale = _mm512_and_si512(_mm512_srli_epi32(r[3], at), four);
      scale = _mm512_ternarylogic_epi32(_mm512_srli_epi32(r[1], at + 2), upper_two, scale, AND_OR);
      min = _mm512_and_si512(_mm512_srli_epi32(r[3], at + 4), four);
      min = _mm512_ternarylogic_epi32(_mm512_srli_epi32(r[2], at + 2), upper_two, min, AND_OR);
    }
    _mm512_store_ps(w->scale[part] + v * LANES, _mm512_mul_ps(_mm512_cvtepi32_ps(scale), d));
    _mm512_store_ps(w->offset[part] + v * LANES, _mm512_mul_ps(_mm512_cvtepi32_ps(min), minus_min));
  }
}

INLINE void unpack_scales_of_q6(const struct lanes *l, struct panel *w, int v) {
  const __m512 d = load_halves(l, 208);
  __m512i r[4];
  load_transposed_16(l, 192, r);
#pragma GCC unroll 16
  for (int n = 0; n < 2 * PARTS_K; n++) {
    const __m512i scale = _mm512_srai_epi32(_mm512_slli_epi32(r[n / 4], 24 - n % 4 * 8), 24);
    _mm512_store_ps(w->scale[n] + v * LANES, _mm512_mul_ps(_mm512_cvtepi32_ps(scale), d));
  }
}

/* half_power of a byte of every row. */
INLINE __m512 load_half_powers(const struct lanes *l, long at) {
  uint8_t exponents[LANES];
  for (int n = 0; n < LANES; n++) exponents[n] = l->rows[n][at];
  const __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)exponents)), one = _mm512_set1_epi32(1);
  const __m512i subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x200000), e);
  const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, one), 23);
  return _mm512_castsi512_ps(_mm512_mask_mov_epi32(subnormal, _mm512_cmpgt_epi32_mask(e, one), normal));
}

/* Of blocks that are one part. */
INLINE void unpack_scales_of_parts(enum ggml_type type, const struct lanes *l, struct panel *w, int v, int parts) {
  const long nbytes = block_nbytes(type);
  for (int part = 0; part < parts; part++) {
    const __m512 scale = type == MXFP4 ? load_half_powers(l, part * nbytes) : load_halves(l, part * nbytes);
    _mm512_store_ps(w->scale[part] + v * LANES, scale);
    if (type == Q4_1) _mm512_store_ps(w->offset[part] + v * LANES, load_halves(l, part * nbytes + 2));
  }
}

/* ---- codes ---- */

#define CODES(part, step) w->codes[(part)*STEPS + (step)][v]

/* Q4_K, Q5_K: 128 bytes from `at` on; of every 32 the low nibbles are a part, the high ones the next. */
INLINE void unpack_q4(enum ggml_type type, const struct lanes *l, long at, const __m512i *upper, struct panel *w,
                      int v) {
  for (int half = 0; half < 2; half++) {
    __m512i r[LANES];
    load_transposed(l, at + 64 * half, r);
#pragma GCC unroll 16
    for (int n = 0; n < LANES; n++) {
      const int part = 4 * half + n / STEPS * 2, step = n % STEPS;
      __m512i low = low_codes(r[n]), high = high_codes(r[n]);
      if (type == Q5_K) {
        low = with_bits_at_4(low, upper[step], part, 16);
        high = with_bits_at_4(high, upper[step], part + 1, 16);
      }
      _mm512_store_si512(CODES(part, step), low);
      _mm512_store_si512(CODES(part + 1, step), high);
    }
  }
}

INLINE void unpack_q5(const struct lanes *l, struct panel *w, int v) {
  __m512i upper[LANES];
  load_transposed(l, 16, upper);
  unpack_q4(Q5_K, l, 48, upper, w, v);
}

/* Of each half of the columns 64 bytes of nibbles and 32 bytes of upper bits. */
INLINE void unpack_q6(const struct lanes *l, struct panel *w, int v) {
  __m512i upper[LANES];
  load_transposed(l, 128, upper);
#pragma GCC unroll 2
  for (int half = 0; half < 2; half++) {
    __m512i r[LANES];
    load_transposed(l, 64 * half, r);
#pragma GCC unroll 16
    for (int n = 0; n < LANES; n++) {
      const int odd = n / STEPS, step = n % STEPS, part = 4 * half + odd;
      const __m512i bits = upper[STEPS * half + step];
      _mm512_store_si512(CODES(part, step), with_bits_at_4(low_codes(r[n]), bits, 2 * odd, 48));
      _mm512_store_si512(CODES(part + 2, step), with_bits_at_4(high_codes(r[n]), bits, 4 + 2 * odd, 48));
    }
  }
}

/* Signed bytes of parts that are `nbytes` apart, from `begin` on.  Two parts at a time; a last one counts twice. */
INLINE void unpack_bytes(const struct lanes *l, long begin, long nbytes, struct panel *w, int v, int parts) {
  for (int part = 0; part < parts; part += 2) {
    const long first = part * nbytes + begin, second = first + (part + 1 < parts ? nbytes : 0);
    __m512i r[LANES];
    for (int n = 0; n < LANES; n++)
      r[n] = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(l->rows[n] + first))),
                                _mm256_loadu_si256((const __m256i *)(l->rows[n] + second)), 1);
    transpose16x16(r);
    for (int n = 0; n < LANES; n++) _mm512_store_si512(CODES(part, n), _mm512_xor_si512(r[n], bytes(128)));
  }
}

/* The doubled values of MXFP4 plus its bias. */
INLINE __m512i mxfp4_codes(__m512i nibbles) {
  const __m128i biased = _mm_add_epi8(mxfp4_values(), _mm_set1_epi8(12));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(biased), nibbles);
}

/* Blocks of one part with 16 bytes of nibbles, the low ones of which come first; four at a time, and of the last ones
   some count twice. */
INLINE void unpack_nibbles(enum ggml_type type, const struct lanes *l, struct panel *w, int v, int parts) {
  const long nbytes = block_nbytes(type), begin = nbytes - 16;
  for (int part = 0; part < parts; part += 4) {
    __m512i r[LANES];
    for (int n = 0; n < LANES; n++) {
      const uint8_t *at = l->rows[n] + begin;
      r[n] = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(at + part * nbytes)));
      r[n] =
          _mm512_inserti32x4(r[n], _mm_loadu_si128((const __m128i *)(at + min_long(part + 1, parts - 1) * nbytes)), 1);
      r[n] =
          _mm512_inserti32x4(r[n], _mm_loadu_si128((const __m128i *)(at + min_long(part + 2, parts - 1) * nbytes)), 2);
      r[n] =
          _mm512_inserti32x4(r[n], _mm_loadu_si128((const __m128i *)(at + min_long(part + 3, parts - 1) * nbytes)), 3);
    }
    transpose16x16(r);
#pragma GCC unroll 16
    for (int n = 0; n < LANES; n++) {
      const __m512i low = low_codes(r[n]), high = high_codes(r[n]);
      _mm512_store_si512(CODES(part + n / 4, n % 4), type == MXFP4 ? mxfp4_codes(low) : low);
      _mm512_store_si512(CODES(part + n / 4, n % 4 + 4), type == MXFP4 ? mxfp4_codes(high) : high);
    }
  }
}

#undef CODES

INLINE void unpack_as(enum ggml_type type, const struct lanes *l, struct panel *w, int v, int parts) {
  __m512i r[4];
  switch (type) {
    case Q4_K:
    case Q5_K:
      load_transposed_16(l, 0, r);
      unpack_scales_of_6_bits(r, w, v);
      if (type == Q5_K) unpack_q5(l, w, v);
      else unpack_q4(type, l, 16, 0, w, v);
      return;
    case Q6_K:
      unpack_scales_of_q6(l, w, v);
      unpack_q6(l, w, v);
      return;
    case Q8_0:
      unpack_scales_of_parts(type, l, w, v, parts);
      unpack_bytes(l, 2, block_nbytes(Q8_0), w, v, parts);
      return;
    default: unpack_scales_of_parts(type, l, w, v, parts); unpack_nibbles(type, l, w, v, parts);
  }
}

static void unpack(enum ggml_type type, const struct lanes *l, struct panel *w, int v, int parts) {
  switch (type) {
    case Q4_0: unpack_as(Q4_0, l, w, v, parts); break;
    case Q4_1: unpack_as(Q4_1, l, w, v, parts); break;
    case Q8_0: unpack_as(Q8_0, l, w, v, parts); break;
    case Q4_K: unpack_as(Q4_K, l, w, v, parts); break;
    case Q5_K: unpack_as(Q5_K, l, w, v, parts); break;
    case Q6_K: unpack_as(Q6_K, l, w, v, parts); break;
    case MXFP4: unpack_as(MXFP4, l, w, v, parts);
  }
}

#endif
