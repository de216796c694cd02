/* Decode attention over bf16 keys as they lie in the arena, for processors with AVX2.

   torch's way gathers keys into float32 copies first: 1.2 GB of keys a second.  Here a tile of keys is unpacked into
   the first caches and all query heads of its key head, of all rows of the sequence, go over it (online softmax, arXiv
   2205.14135).  G = query heads of a key head, D = head dimension, R = rows of a sequence times G. */

#include "avx2.h"
#include "pool.h"

#define TILE 64         /* keys at once */
#define MAX_ROWS 64     /* R */
#define MAX_DIM 256     /* D */
#define LOWEST (-1e30f) /* below every score */

/* Consecutive rows of one sequence, as attention.Rows has them. */
struct span {
  int64_t first_row, num_rows, first_position, kv_start, prefix_start, prefix_tokens;
};

/* exp of x <= 0, off by 2 units of the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes, expf). */
INLINE __m256 exp_f32(__m256 x) {
  x = _mm256_max_ps(_mm256_set1_ps(-87), x); /* in this order a NaN stays one */
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

/* Keys [count, D] a stride apart -> f32_tile [D, TILE]; what is beyond count repeats the last. */
INLINE void dequant_keys(const uint16_t *keys, long count, long stride, long D, float *f32_tile) {
  for (long key = 0; key < count; key += 8)
    for (long d = 0; d < D; d += 8) {
      const char *rows[8];
      for (int n = 0; n < 8; n++) rows[n] = (const char *)(keys + min_long(key + n, count - 1) * stride + d);
      transpose8x8(BF16, rows, f32_tile + d * TILE + key, TILE);
    }
}

INLINE void dequant_values(const uint16_t *values, long count, long stride, long D, float *f32_tile) {
  for (long key = 0; key < count; key++)
    for (long d = 0; d < D; d += 8)
      _mm256_storeu_ps(f32_tile + key * D + d, load_f32(BF16, (const char *)(values + key * stride + d)));
}

/* Scores [TILE] of one row, of which it sees [begin, end) -> weights relative to its best score so far. */
INLINE void online_softmax(float *scores, long begin, long end, float *best, float *sum, float *mixed, long D) {
  for (long n = 0; n < begin; n++) scores[n] = LOWEST;
  for (long n = end; n < TILE; n++) scores[n] = LOWEST;
  float highest = *best, added = 0;
  for (long n = begin; n < end; n++) highest = scores[n] > highest ? scores[n] : highest;
  const float shrink = _mm256_cvtss_f32(exp_f32(_mm256_set1_ps(*best - highest)));
  for (long n = 0; n < TILE; n += 8)
    _mm256_storeu_ps(scores + n, exp_f32(_mm256_sub_ps(_mm256_loadu_ps(scores + n), _mm256_set1_ps(highest))));
  for (long n = 0; n < begin; n++) scores[n] = 0;
  for (long n = end; n < TILE; n++) scores[n] = 0;
  for (long n = begin; n < end; n++) added += scores[n];
  *sum = *sum * shrink + added;
  *best = highest;
  for (long d = 0; d < D; d += 8)
    _mm256_storeu_ps(mixed + d, _mm256_mul_ps(_mm256_loadu_ps(mixed + d), _mm256_set1_ps(shrink)));
}

/* One sequence and one key head. */
static void attend_span(struct span span, long head, const float *queries, const uint16_t *keys, const uint16_t *values,
                        float *out, long heads, long groups, long D, long window, float scale) {
  float q[MAX_ROWS * MAX_DIM] ALIGNED, f32_tile[TILE * MAX_DIM] ALIGNED, mixed[MAX_ROWS * MAX_DIM] ALIGNED;
  float scores[MAX_ROWS * TILE] ALIGNED, best[MAX_ROWS], sum[MAX_ROWS];
  const long R = span.num_rows * groups, end = span.first_position + span.num_rows, stride = heads * D;
  for (long r = 0; r < R; r++) {
    const float *mine = queries + ((span.first_row + r / groups) * heads * groups + head * groups + r % groups) * D;
    for (long d = 0; d < D; d++) q[r * D + d] = mine[d] * scale;
    best[r] = LOWEST, sum[r] = 0;
  }
  memset(mixed, 0, R * D * sizeof(float));
  for (long p = span.first_position - window + 1 > 0 ? span.first_position - window + 1 : 0, count; p < end;
       p += count) {
    const int shared = p < span.prefix_tokens;
    count = min_long((shared ? min_long(span.prefix_tokens, end) : end) - p, TILE);
    const long place = shared ? span.prefix_start + p : span.kv_start + p - span.prefix_tokens;
    dequant_keys(keys + (place * heads + head) * D, count, stride, D, f32_tile);
    memset(scores, 0, R * TILE * sizeof(float));
    for (long n = 0; n < count; n += NR)
      gemm_f32(R, q, D, (struct matrix){f32_tile + n, TILE}, (struct matrix){scores + n, TILE}, D);
    for (long r = 0; r < R; r++) {
      const long position = span.first_position + r / groups, first = position - window + 1 - p;
      const long seen = min_long(position + 1 - p, count), hidden = first > 0 ? first : 0;
      if (seen > hidden) online_softmax(scores + r * TILE, hidden, seen, best + r, sum + r, mixed + r * D, D);
      else memset(scores + r * TILE, 0, TILE * sizeof(float));
    }
    dequant_values(values + (place * heads + head) * D, count, stride, D, f32_tile);
    for (long d = 0; d < D; d += NR)
      gemm_f32(R, scores, TILE, (struct matrix){f32_tile + d, D}, (struct matrix){mixed + d, D}, count);
  }
  for (long r = 0; r < R; r++) {
    float *mine = out + ((span.first_row + r / groups) * heads * groups + head * groups + r % groups) * D;
    for (long d = 0; d < D; d++) mine[d] = mixed[r * D + d] / sum[r];
  }
}

struct attention {
  const float *queries;
  const uint16_t *keys, *values;
  float *out;
  const struct span *spans;
  long heads, groups, D, window;
  float scale;
};

static void attend_task(void *context, long task) {
  const struct attention a = *(const struct attention *)context;
  attend_span(a.spans[task / a.heads], task % a.heads, a.queries, a.keys, a.values, a.out, a.heads, a.groups, a.D,
              a.window, a.scale);
}

/* queries and out [T, heads * groups, D] float32, keys and values [tokens, heads, D] bf16.  A window sees so many keys
   back, itself included.  D is a multiple of NR up to MAX_DIM; no span has more than MAX_ROWS rows times groups. */
void attention_avx2(const float *queries, const uint16_t *keys, const uint16_t *values, float *out,
                    const struct span *spans, long num_spans, long heads, long groups, long D, long window, float scale,
                    int threads) {
  struct attention a = {queries, keys, values, out, spans, heads, groups, D, window, scale};
  parallel_for(num_spans * heads, attend_task, &a, threads);
}
