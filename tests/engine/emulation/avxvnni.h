/* VPDPBUSD with 256 bits in plain C. */

#ifndef EMULATION_AVXVNNI_H
#define EMULATION_AVXVNNI_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

static inline __attribute__((always_inline, unused)) __m256i emulated_dpbusd_256(__m256i sums, __m256i a, __m256i b) {
  int32_t out[8];
  uint8_t first[32];
  int8_t second[32];
  memcpy(out, &sums, 32), memcpy(first, &a, 32), memcpy(second, &b, 32);
  for (int i = 0; i < 32; i++) out[i / 4] = (int32_t)((uint32_t)out[i / 4] + (uint32_t)(first[i] * second[i]));
  memcpy(&sums, out, 32);
  return sums;
}

#define _mm256_dpbusd_avx_epi32 emulated_dpbusd_256

#endif
