/* Products of tiles in registers, by AVX-512 BF16. */

#define MR 8 /* rows of x at once: two registers of sums for each, 16 of 32 in all */

INLINE void configure_tiles(void) {}
INLINE void release_tiles(void) {}

/* `rows` rows of a tile of x times half of a panel: adds to sums [rows, NC], or sets them. */
INLINE void multiply_rows(int rows, const pair *x, const pair *tiles, float *sums, long steps, int add) {
  __m512 acc[MR][2];
  for (int m = 0; m < rows; m++)
    for (int v = 0; v < 2; v++) acc[m][v] = add ? _mm512_load_ps(sums + m * NC + v * TILE_ROWS) : _mm512_setzero_ps();
  for (long step = 0; step < steps; step++, x += TILE_SIZE, tiles += TILES * TILE_SIZE)
    for (int k = 0; k < TILE_ROWS; k++) {
      const __m512i first = _mm512_load_si512(tiles + k * TILE_ROWS);
      const __m512i second = _mm512_load_si512(tiles + TILE_SIZE + k * TILE_ROWS);
      for (int m = 0; m < rows; m++) {
        const __m512i x_pair = _mm512_set1_epi32((int)x[m * TILE_ROWS + k]);
        acc[m][0] = _mm512_dpbf16_ps(acc[m][0], (__m512bh)first, (__m512bh)x_pair);
        acc[m][1] = _mm512_dpbf16_ps(acc[m][1], (__m512bh)second, (__m512bh)x_pair);
      }
    }
  for (int m = 0; m < rows; m++)
    for (int v = 0; v < 2; v++) _mm512_store_ps(sums + m * NC + v * TILE_ROWS, acc[m][v]);
}

/* The last rows of a product need fewer registers for sums. */
INLINE void multiply_up_to_8(long rows, const pair *x, const pair *tiles, float *sums, long steps, int add) {
  switch (rows) {
    case 8: multiply_rows(8, x, tiles, sums, steps, add); break;
    case 7: multiply_rows(7, x, tiles, sums, steps, add); break;
    case 6: multiply_rows(6, x, tiles, sums, steps, add); break;
    case 5: multiply_rows(5, x, tiles, sums, steps, add); break;
    case 4: multiply_rows(4, x, tiles, sums, steps, add); break;
    case 3: multiply_rows(3, x, tiles, sums, steps, add); break;
    case 2: multiply_rows(2, x, tiles, sums, steps, add); break;
    case 1: multiply_rows(1, x, tiles, sums, steps, add);
  }
}

/* A tile of rows of x times a panel; returns the number of rows. */
static long tile_gemm(const pair *x, long next, long rows, const pair *tiles, float *sums, long steps, int add) {
  (void)next;
  for (int side = 0; side < TILES; side += 2)
    for (long m = 0; m < min_long(rows, TILE_ROWS); m += MR)
      multiply_up_to_8(min_long(min_long(rows, TILE_ROWS) - m, MR), x + m * TILE_ROWS, tiles + side * TILE_SIZE,
                       sums + m * NC + side * TILE_ROWS, steps, add);
  return TILE_ROWS;
}
