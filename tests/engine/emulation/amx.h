/* The tile instructions of AMX in plain C, so that gemm_bf16.c runs on processors without AMX: compiled with -include
   instead of -mamx.

   They follow Intel's manual: products in float32 with subnormal numbers taken as 0, even and odd columns summed
   separately.  What would raise an exception, such as a tile that is not configured, aborts. */

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"

#define EMULATED static inline __attribute__((unused))

struct emulated_tile {
  int rows, row_nbytes;
  uint32_t at[16][16];
};

static _Thread_local struct emulated_tile emulated_tiles[8];

EMULATED struct emulated_tile *emulated_tile(int n) {
  if (!emulated_tiles[n].rows) abort();
  return &emulated_tiles[n];
}

EMULATED void emulated_loadconfig(const void *configuration) {
  const uint8_t *bytes = configuration;
  if (bytes[0] != 1 || bytes[1] != 0) abort(); /* the palette, and the row at which to restart */
  for (int n = 0; n < 8; n++) {
    struct emulated_tile *tile = emulated_tiles + n;
    uint16_t row_nbytes;
    memcpy(&row_nbytes, bytes + 16 + 2 * n, 2);
    if (row_nbytes > 64 || row_nbytes % 4 || bytes[48 + n] > 16) abort();
    *tile = (struct emulated_tile){bytes[48 + n], row_nbytes, {{0}}};
  }
}

EMULATED void emulated_release(void) { memset(emulated_tiles, 0, sizeof emulated_tiles); }

EMULATED void emulated_zero(int n) {
  struct emulated_tile *tile = emulated_tile(n);
  memset(tile->at, 0, sizeof tile->at);
}

EMULATED void emulated_loadd(int n, const void *base, long stride) {
  struct emulated_tile *tile = emulated_tile(n);
  memset(tile->at, 0, sizeof tile->at);
  for (int m = 0; m < tile->rows; m++) memcpy(tile->at[m], (const char *)base + m * stride, tile->row_nbytes);
}

EMULATED void emulated_stored(int n, void *base, long stride) {
  const struct emulated_tile *tile = emulated_tile(n);
  for (int m = 0; m < tile->rows; m++) memcpy((char *)base + m * stride, tile->at[m], tile->row_nbytes);
}

EMULATED void emulated_dpbf16ps(int sums, int a, int b) {
  struct emulated_tile *out = emulated_tile(sums);
  const struct emulated_tile *left = emulated_tile(a), *right = emulated_tile(b);
  if (left->rows != out->rows || right->row_nbytes != out->row_nbytes || left->row_nbytes / 4 != right->rows) abort();
  for (int m = 0; m < out->rows; m++)
    for (int n = 0; n < out->row_nbytes / 4; n++) {
      float even = 0, odd = 0, sum;
      for (int k = 0; k < right->rows; k++) {
        even = flushed(fmaf(low_bf16(left->at[m][k]), low_bf16(right->at[k][n]), even));
        odd = flushed(fmaf(high_bf16(left->at[m][k]), high_bf16(right->at[k][n]), odd));
      }
      memcpy(&sum, &out->at[m][n], 4);
      sum = flushed(flushed(sum) + flushed(even + odd));
      memcpy(&out->at[m][n], &sum, 4);
    }
}

#undef _tile_loadconfig
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_release
#define _tile_loadconfig emulated_loadconfig
#define _tile_loadd emulated_loadd
#define _tile_stored emulated_stored
#define _tile_zero emulated_zero
#define _tile_dpbf16ps emulated_dpbf16ps
#define _tile_release emulated_release
