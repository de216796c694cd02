/* bf16 numbers as the instructions that multiply them read them: subnormal numbers count as 0. */

#ifndef EMULATION_BF16_H
#define EMULATION_BF16_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

static inline float from_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return flushed(x);
}

/* The elements of a pair in 32 bits. */
static inline float low_bf16(uint32_t pair) { return from_bits(pair << 16); }
static inline float high_bf16(uint32_t pair) { return from_bits(pair & 0xffff0000u); }

/* Rounded to nearest, ties to even; a NaN stays one. */
static inline uint16_t to_bf16(float x) {
  uint32_t bits;
  x = flushed(x);
  memcpy(&bits, &x, 4);
  if (x != x) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
