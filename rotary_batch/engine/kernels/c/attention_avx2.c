/* Decode attention over the bf16 KV cache in place, for processors with AVX2.

   torch's operators need the keys gathered as float32 first: 1.2 GB of keys a second.  Here a tile of keys is
   dequantised into the first-level caches, and all query heads of its KV head, of all rows of the sequence, use it
   (online softmax, arXiv 2205.14135).

   G = query heads of a KV head, D = head dimension, R = rows of a segment times G. */

#include "avx2.h"
#include "pool.h"

#define TILE 64         /* tokens at once */
#define MAX_ROWS 64     /* R */
#define MAX_DIM 256     /* D */
#define LOWEST (-1e30f) /* below every score */

/* Consecutive rows of one sequence, as in attention.base.QuerySegment. */
struct query_segment {
  int64_t first_row, num_rows, first_position, kv_start, prefix_start, prefix_tokens;
};

/* The arguments of attention_avx2. */
struct attention {
  const float *queries;
  const uint16_t *keys, *values;
  float *out;
  const struct query_segment *segments;
  long heads, groups, D, window;
  float scale;
};

/* exp of x <= 0, with an error of up to 2 units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]
   (Cephes, expf). */
INLINE __m256 exp_f32(__m256 x) {
  x = _mm256_max_ps(_mm256_set1_ps(-87), x); /* in this order a NaN stays a NaN */
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.9875691500e-4f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
  p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1)));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(p, _mm256_castsi256_ps(power));
}

/* Keys [count, D] that are `stride` apart -> f32_tile [D, TILE]; columns from `count` on repeat the last key. */
INLINE void dequant_keys(const uint16_t *keys, long count, long stride, long D, float *f32_tile) {
  for (long key = 0; key < count; key += 8)
    for (long d = 0; d < D; d += 8) {
      const char *rows[8];
      for (int n = 0; n < 8; n++) rows[n] = (const char *)(keys + min_long(key + n, count - 1) * stride + d);
      transpose8x8(BF16, rows, f32_tile + d * TILE + key, TILE);
    }
}

/* Values [count, D] that are `stride` apart -> f32_tile [count, D]. */
INLINE void dequant_values(const uint16_t *values, long count, long stride, long D, float *f32_tile) {
  for (long token = 0; token < count; token++)
    for (long d = 0; d < D; d += 8)
      _mm256_storeu_ps(f32_tile + token * D + d, load_f32(BF16, (const char *)(values + token * stride + d)));
}

/* Scores [TILE] of one row, which sees the tokens [begin, end) -> weights relative to its highest score so far. */
INLINE void online_softmax(float *scores, long begin, long end, float *row_max, float *row_sum, float *sums, long D) {
  for (long n = 0; n < begin; n++) scores[n] = LOWEST;
  for (long n = end; n < TILE; n++) scores[n] = LOWEST;
  float new_max = *row_max, tile_sum = 0;
  for (long n = begin; n < end; n++) new_max = scores[n] > new_max ? scores[n] : new_max;
  const float rescale = _mm256_cvtss_f32(exp_f32(_mm256_set1_ps(*row_max - new_max)));
  for (long n = 0; n < TILE; n += 8)
    _mm256_storeu_ps(scores + n, exp_f32(_mm256_sub_ps(_mm256_loadu_ps(scores + n), _mm256_set1_ps(new_max))));
  for (long n = 0; n < begin; n++) scores[n] = 0;
  for (long n = end; n < TILE; n++) scores[n] = 0;
  for (long n = begin; n < end; n++) tile_sum += scores[n];
  *row_sum = *row_sum * rescale + tile_sum;
  *row_max = new_max;
  for (long d = 0; d < D; d += 8)
    _mm256_storeu_ps(sums + d, _mm256_mul_ps(_mm256_loadu_ps(sums + d), _mm256_set1_ps(rescale)));
}

/* Where row r of a segment begins in queries and out. */
INLINE long row_offset(const struct attention *a, struct query_segment segment, long head, long r) {
  return (((segment.first_row + r / a->groups) * a->heads + head) * a->groups + r % a->groups) * a->D;
}

/* Rows of a segment, scaled -> q [R, D]. */
INLINE void load_queries(const struct attention *a, struct query_segment segment, long head, long R, float *q) {
  for (long r = 0; r < R; r++) {
    const float *query = a->queries + row_offset(a, segment, head, r);
    for (long d = 0; d < a->D; d++) q[r * a->D + d] = query[d] * a->scale;
  }
}

/* sums [R, D] divided by row_sum [R] -> rows of a segment. */
INLINE void store_output(const struct attention *a, struct query_segment segment, long head, long R, const float *sums,
                         const float *row_sum) {
  for (long r = 0; r < R; r++) {
    float *out = a->out + row_offset(a, segment, head, r);
    for (long d = 0; d < a->D; d++) out[d] = sums[r * a->D + d] / row_sum[r];
  }
}

/* One segment and one KV head. */
static void attend_segment(const struct attention *a, struct query_segment segment, long head) {
  float q[MAX_ROWS * MAX_DIM] ALIGNED, f32_tile[TILE * MAX_DIM] ALIGNED, sums[MAX_ROWS * MAX_DIM] ALIGNED;
  float scores[MAX_ROWS * TILE] ALIGNED, row_max[MAX_ROWS], row_sum[MAX_ROWS];
  const long D = a->D, R = segment.num_rows * a->groups, end = segment.first_position + segment.num_rows;
  const long stride = a->heads * D, window_start = segment.first_position - a->window + 1;
  load_queries(a, segment, head, R, q);
  for (long r = 0; r < R; r++) row_max[r] = LOWEST, row_sum[r] = 0;
  memset(sums, 0, R * D * sizeof(float));
  for (long position = window_start > 0 ? window_start : 0, count; position < end; position += count) {
    const int is_shared = position < segment.prefix_tokens;
    count = min_long((is_shared ? min_long(segment.prefix_tokens, end) : end) - position, TILE);
    const long kv_index =
        is_shared ? segment.prefix_start + position : segment.kv_start + position - segment.prefix_tokens;
    const long kv_offset = (kv_index * a->heads + head) * D;
    dequant_keys(a->keys + kv_offset, count, stride, D, f32_tile);
    memset(scores, 0, R * TILE * sizeof(float));
    for (long n = 0; n < count; n += NR)
      gemm_f32(R, q, D, (struct matrix){f32_tile + n, TILE}, (struct matrix){scores + n, TILE}, D);
    for (long r = 0; r < R; r++) {
      const long row_position = segment.first_position + r / a->groups, first = row_position - a->window + 1 - position;
      const long visible_end = min_long(row_position + 1 - position, count), visible_begin = first > 0 ? first : 0;
      if (visible_end > visible_begin)
        online_softmax(scores + r * TILE, visible_begin, visible_end, row_max + r, row_sum + r, sums + r * D, D);
      else memset(scores + r * TILE, 0, TILE * sizeof(float));
    }
    dequant_values(a->values + kv_offset, count, stride, D, f32_tile);
    for (long d = 0; d < D; d += NR)
      gemm_f32(R, scores, TILE, (struct matrix){f32_tile + d, D}, (struct matrix){sums + d, D}, count);
  }
  store_output(a, segment, head, R, sums, row_sum);
}

static void attend_task(void *context, long task) {
  const struct attention *a = context;
  attend_segment(a, a->segments[task / a->heads], task % a->heads);
}

/* queries and out [T, heads * groups, D] float32, keys and values [tokens, heads, D] bf16.  A row sees `window` tokens
   back, including itself.  D is a multiple of NR up to MAX_DIM.  A segment has at most MAX_ROWS / groups rows. */
void attention_avx2(const float *queries, const uint16_t *keys, const uint16_t *values, float *out,
                    const struct query_segment *segments, long num_segments, long heads, long groups, long D,
                    long window, float scale, int threads) {
  struct attention a = {queries, keys, values, out, segments, heads, groups, D, window, scale};
  parallel_for(num_segments * heads, attend_task, &a, threads);
}
