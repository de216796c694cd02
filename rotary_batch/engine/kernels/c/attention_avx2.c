/* Attention over the KV cache in place, in bf16 or float32, for processors with AVX2.

   torch's operators need the keys gathered as float32 first: 1.2 GB of keys a second.  Here a tile of keys is
   transposed into the first-level caches, and all query heads of its KV head, of all rows of the sequence, use it
   (online softmax, arXiv 2205.14135).  A tile of a shared prefix is used by the rows of several sequences.

   The bits of a row depend on its sequence alone: tiles begin at multiples of TILE, every sum is added up token by token
   or lane by lane, whatever else is in the block, and a token that a row does not see adds 0.  Exact numerics need that.

   G = query heads of a KV head, D = head dimension, R = rows of a block: those of its segments times G. */

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
  const char *keys, *values;
  float *out;
  const struct query_segment *segments;
  long num_segments, heads, groups, D, window;
  enum format format;
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

/* Where the KV of a position begins in keys and values. */
INLINE long kv_offset(const struct attention *a, enum format format, struct query_segment s, long head, long position) {
  const long own = s.kv_start + position - s.prefix_tokens;
  const long index = position < s.prefix_tokens ? s.prefix_start + position : own;
  return (index * a->heads + head) * a->D * itemsize(format);
}

/* Keys of `count` positions -> f32_tile [D, TILE]; columns from `count` on repeat the last key. */
INLINE void load_keys(const struct attention *a, enum format format, const long *offsets, long count, float *f32_tile) {
  for (long key = 0; key < count; key += 8)
    for (long d = 0; d < a->D; d += 8) {
      const char *rows[8];
      for (int n = 0; n < 8; n++) rows[n] = a->keys + offsets[min_long(key + n, count - 1)] + d * itemsize(format);
      transpose8x8(format, rows, f32_tile + d * TILE + key, TILE);
    }
}

/* Values of `count` positions -> f32_tile [count, D]. */
INLINE void load_values(const struct attention *a, enum format format, const long *offsets, long count,
                        float *f32_tile) {
  for (long token = 0; token < count; token++)
    for (long d = 0; d < a->D; d += 8)
      _mm256_storeu_ps(f32_tile + token * a->D + d, load_f32(format, a->values + offsets[token] + d * itemsize(format)));
}

INLINE float largest(__m256 x) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

INLINE float sum_of(__m256 x) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

/* Scores [TILE] of one row, which sees the tokens [begin, end) -> weights relative to its highest score so far. */
INLINE void online_softmax(float *scores, long begin, long end, float *row_max, float *row_sum, float *sums, long D) {
  for (long n = 0; n < begin; n++) scores[n] = LOWEST;
  for (long n = end; n < TILE; n++) scores[n] = LOWEST;
  __m256 highest = _mm256_set1_ps(*row_max), sum = _mm256_setzero_ps();
  for (long n = 0; n < TILE; n += 8) /* in this order a NaN is no maximum */
    highest = _mm256_max_ps(_mm256_loadu_ps(scores + n), highest);
  const float new_max = largest(highest);
  const float rescale = _mm256_cvtss_f32(exp_f32(_mm256_set1_ps(*row_max - new_max)));
  for (long n = 0; n < TILE; n += 8)
    _mm256_storeu_ps(scores + n, exp_f32(_mm256_sub_ps(_mm256_loadu_ps(scores + n), _mm256_set1_ps(new_max))));
  for (long n = 0; n < begin; n++) scores[n] = 0;
  for (long n = end; n < TILE; n++) scores[n] = 0;
  for (long n = 0; n < TILE; n += 8) sum = _mm256_add_ps(sum, _mm256_loadu_ps(scores + n));
  *row_sum = *row_sum * rescale + sum_of(sum);
  *row_max = new_max;
  for (long d = 0; d < D; d += 8)
    _mm256_storeu_ps(sums + d, _mm256_mul_ps(_mm256_loadu_ps(sums + d), _mm256_set1_ps(rescale)));
}

/* The rows of some segments that share a prefix, or of one segment, and one KV head. */
struct block {
  float q[MAX_ROWS * MAX_DIM] ALIGNED, f32_tile[TILE * MAX_DIM] ALIGNED, sums[MAX_ROWS * MAX_DIM] ALIGNED;
  float scores[MAX_ROWS * TILE] ALIGNED, row_max[MAX_ROWS], row_sum[MAX_ROWS];
  long position[MAX_ROWS];
};

/* Where row r of a segment begins in queries and out. */
INLINE long row_offset(const struct attention *a, struct query_segment segment, long head, long r) {
  return (((segment.first_row + r / a->groups) * a->heads + head) * a->groups + r % a->groups) * a->D;
}

/* Rows of a segment, scaled -> rows of a block from `first` on. */
INLINE void load_rows(const struct attention *a, struct query_segment segment, long head, struct block *b, long first) {
  for (long r = 0; r < segment.num_rows * a->groups; r++) {
    const float *query = a->queries + row_offset(a, segment, head, r);
    for (long d = 0; d < a->D; d++) b->q[(first + r) * a->D + d] = query[d] * a->scale;
    memset(b->sums + (first + r) * a->D, 0, a->D * sizeof(float));
    b->row_max[first + r] = LOWEST, b->row_sum[first + r] = 0;
    b->position[first + r] = segment.first_position + r / a->groups;
  }
}

/* Sums of a block from row `first` on, divided by their row_sum -> rows of a segment. */
INLINE void store_rows(const struct attention *a, struct query_segment segment, long head, const struct block *b,
                       long first) {
  for (long r = 0; r < segment.num_rows * a->groups; r++) {
    float *out = a->out + row_offset(a, segment, head, r);
    for (long d = 0; d < a->D; d++) out[d] = b->sums[(first + r) * a->D + d] / b->row_sum[first + r];
  }
}

/* Ask for what will be read next: a head's numbers of one token are too short for the processor to see it coming. */
INLINE void prefetch(const char *stored, const long *offsets, long count, long nbytes) {
  for (long token = 0; token < count; token++)
    for (long line = 0; line < nbytes; line += 64) __builtin_prefetch(stored + offsets[token] + line);
}

/* R rows of a block from `first` on, over the positions [begin, end) of a segment; `begin` is a multiple of TILE. */
INLINE void attend_positions(const struct attention *a, enum format format, struct block *b, struct query_segment segment,
                             long head, long first, long R, long begin, long end) {
  const long D = a->D;
  float *q = b->q + first * D, *sums = b->sums + first * D, *scores = b->scores, *f32_tile = b->f32_tile;
  for (long position = begin; position < end; position += TILE) {
    const long count = min_long(end - position, TILE);
    long offsets[TILE];
    for (long n = 0; n < count; n++) offsets[n] = kv_offset(a, format, segment, head, position + n);
    load_keys(a, format, offsets, count, f32_tile);
    prefetch(a->values, offsets, count, D * itemsize(format));
    memset(scores, 0, R * TILE * sizeof(float));
    for (long n = 0; n < count; n += NR)
      gemm_f32(R, q, D, (struct matrix){f32_tile + n, TILE}, (struct matrix){scores + n, TILE}, D);
    for (long r = 0; r < R; r++) {
      const long seen = b->position[first + r] + 1 - position; /* tokens of the tile that are not behind the row */
      const long visible_end = min_long(seen, count), visible_begin = seen > a->window ? seen - a->window : 0;
      if (visible_end > visible_begin)
        online_softmax(scores + r * TILE, visible_begin, visible_end, b->row_max + first + r, b->row_sum + first + r,
                       sums + r * D, D);
      else memset(scores + r * TILE, 0, TILE * sizeof(float));
    }
    load_values(a, format, offsets, count, f32_tile);
    for (long n = 0; n < min_long(end - position - TILE, TILE); n++)
      offsets[n] = kv_offset(a, format, segment, head, position + TILE + n);
    prefetch(a->keys, offsets, min_long(end - position - TILE, TILE), D * itemsize(format));
    for (long d = 0; d < D; d += NR)
      gemm_f32(R, scores, TILE, (struct matrix){f32_tile + d, D}, (struct matrix){sums + d, D}, count);
  }
}

static void attend_tokens(const struct attention *a, struct block *b, struct query_segment segment, long head,
                          long first, long R, long begin, long end) {
  if (a->format == F32) attend_positions(a, F32, b, segment, head, first, R, begin, end);
  else attend_positions(a, BF16, b, segment, head, first, R, begin, end);
}

/* Where the tile begins with the first position that a row of the segment sees. */
INLINE long first_tile(const struct attention *a, struct query_segment segment) {
  const long begin = segment.first_position - a->window + 1;
  return begin > 0 ? begin / TILE * TILE : 0;
}

/* Segments from `first` to before `end`, which share a prefix, and one KV head.  Whole tiles of the prefix are read once
   for all of them. */
static void attend_group(const struct attention *a, long first, long end, long head) {
  struct block b;
  const struct query_segment *segments = a->segments, shared = segments[first];
  const long shared_end = shared.prefix_tokens / TILE * TILE;
  long R = 0, begin = shared_end;
  for (long n = first; n < end; R += segments[n++].num_rows * a->groups) {
    load_rows(a, segments[n], head, &b, R);
    begin = min_long(begin, first_tile(a, segments[n]));
  }
  attend_tokens(a, &b, shared, head, 0, R, begin, shared_end);
  for (long n = first, row = 0; n < end; row += segments[n++].num_rows * a->groups) {
    const struct query_segment one = segments[n];
    const long visible = first_tile(a, one), own = visible > shared_end ? visible : shared_end;
    attend_tokens(a, &b, one, head, row, one.num_rows * a->groups, own, one.first_position + one.num_rows);
    store_rows(a, one, head, &b, row);
  }
}

/* Whether segment n has the prefix of the one before it. */
static int shares_prefix(const struct attention *a, long n) {
  const struct query_segment before = a->segments[n - 1], one = a->segments[n];
  return one.prefix_tokens && before.prefix_tokens == one.prefix_tokens && before.prefix_start == one.prefix_start;
}

/* Where the group that begins at `first` ends: with the prefix, or the room for rows. */
static long group_end(const struct attention *a, long first) {
  long end = first, R = 0;
  do R += a->segments[end++].num_rows * a->groups;
  while (end < a->num_segments && shares_prefix(a, end) && R + a->segments[end].num_rows * a->groups <= MAX_ROWS);
  return end;
}

/* A segment that begins a group, with all of it; nothing for the others. */
static void attend_task(void *context, long task) {
  const struct attention *a = context;
  const long segment = task / a->heads;
  long first = segment, end;
  while (first > 0 && shares_prefix(a, first)) first--;
  while ((end = group_end(a, first)) <= segment) first = end;
  if (first == segment) attend_group(a, first, end, task % a->heads);
}

/* queries and out [T, heads * groups, D] float32, keys and values [tokens, heads, D] in `format`, BF16 or F32.  A row
   sees `window` tokens back, including itself.  D is a multiple of NR up to MAX_DIM.  A segment has at most MAX_ROWS /
   groups rows.  Neighbours with the same prefix read it together. */
void attention_avx2(const float *queries, const char *keys, const char *values, float *out,
                    const struct query_segment *segments, long num_segments, long heads, long groups, long D,
                    long window, long format, float scale, int threads) {
  struct attention a = {queries, keys, values, out, segments, num_segments, heads, groups, D, window, format, scale};
  parallel_for(num_segments * heads, attend_task, &a, threads);
}
