/* Products of tiles by AMX. */

/* Not all headers tell the compiler that tile loads read memory. */
#define TILES_READ(address) __asm__ volatile("" : : "r"(address) : "memory")

INLINE void configure_tiles(void) {
  uint8_t shapes[64] __attribute__((aligned(64))) = {1};
  for (int n = 0; n < 8; n++) {
    shapes[16 + 2 * n] = 64; /* bytes of a row */
    shapes[48 + n] = TILE_ROWS;
  }
  TILES_READ(shapes);
  _tile_loadconfig(shapes);
}

/* Tiles 0 to 3 hold the sums; in memory their rows are NC floats apart. */
INLINE void load_accumulators(float *const sums[4], int add) {
  if (!add) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    return;
  }
  _tile_loadd(0, sums[0], NC * sizeof(float));
  _tile_loadd(1, sums[1], NC * sizeof(float));
  _tile_loadd(2, sums[2], NC * sizeof(float));
  _tile_loadd(3, sums[3], NC * sizeof(float));
}

INLINE void store_accumulators(float *const sums[4]) {
  _tile_stored(0, sums[0], NC * sizeof(float));
  _tile_stored(1, sums[1], NC * sizeof(float));
  _tile_stored(2, sums[2], NC * sizeof(float));
  _tile_stored(3, sums[3], NC * sizeof(float));
}

/* Two tiles of rows of x, `next` pairs apart, times half of a panel: adds to sums [2 TILE_ROWS, NC], or sets them. */
INLINE void tile_gemm_2x2(const pair *x, long next, const pair *tiles, float *sums, long steps, int add) {
  float *const accumulators[4] = {sums, sums + TILE_ROWS, sums + TILE_ROWS * NC, sums + TILE_ROWS * NC + TILE_ROWS};
  load_accumulators(accumulators, add);
  for (long step = 0; step < steps; step++, x += TILE_SIZE, tiles += TILES * TILE_SIZE) {
    _tile_loadd(4, x, 64);
    _tile_loadd(6, tiles, 64);
    _tile_loadd(7, tiles + TILE_SIZE, 64);
    _tile_loadd(5, x + next, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  store_accumulators(accumulators);
}

/* One tile of rows of x times a panel: adds to sums [TILE_ROWS, NC], or sets them. */
INLINE void tile_gemm_1x4(const pair *x, const pair *tiles, float *sums, long steps, int add) {
  float *const accumulators[4] = {sums, sums + TILE_ROWS, sums + 2 * TILE_ROWS, sums + 3 * TILE_ROWS};
  load_accumulators(accumulators, add);
  for (long step = 0; step < steps; step++, x += TILE_SIZE, tiles += TILES * TILE_SIZE) {
    _tile_loadd(4, x, 64);
    _tile_loadd(5, tiles, 64);
    _tile_loadd(6, tiles + TILE_SIZE, 64);
    _tile_loadd(7, tiles + 2 * TILE_SIZE, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 6);
    _tile_loadd(5, tiles + 3 * TILE_SIZE, 64);
    _tile_dpbf16ps(2, 4, 7);
    _tile_dpbf16ps(3, 4, 5);
  }
  store_accumulators(accumulators);
}

/* Two tiles of rows of x, or the last one, times a panel; returns the number of rows. */
INLINE long tile_gemm(const pair *x, long next, long rows, const pair *tiles, float *sums, long steps, int add) {
  TILES_READ(tiles);
  if (rows <= TILE_ROWS) {
    tile_gemm_1x4(x, tiles, sums, steps, add);
    return TILE_ROWS;
  }
  for (int side = 0; side < TILES; side += 2)
    tile_gemm_2x2(x, next, tiles + side * TILE_SIZE, sums + side * TILE_ROWS, steps, add);
  return 2 * TILE_ROWS;
}

INLINE void release_tiles(void) { _tile_release(); }
