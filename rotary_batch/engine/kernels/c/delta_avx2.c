/* One token of the gated delta rule (engine/delta/base.py), for the states of many sequences, by AVX2.

   K = key heads, V = value heads, Dk and Dv = their dimensions; Dv is a multiple of 8.  Of a state [Dk, Dv] some columns
   go at a time, which fit into the first cache: they come from memory once, and are read and written there. */

#include "avx2.h"
#include "pool.h"

#define LANES 8
#define WIDE 4 /* registers of columns at once: with the sums for k and for q, 8 of 16 hold sums */

struct token {
  const float *q, *k;    /* [Dk] */
  float overlap;         /* k . q */
  float decay, beta;
  long Dk, Dv;
};

/* S = decay * S; S = S + k (beta * (v - S^T k))^T; out = S^T q, for `vectors` registers of columns. */
INLINE void advance(int vectors, const struct token *t, const float *v, float *state, float *out) {
  __m256 held[WIDE], read[WIDE];
  for (int n = 0; n < vectors; n++) held[n] = read[n] = _mm256_setzero_ps();
  for (long i = 0; i < t->Dk; i++) {
    const __m256 k = _mm256_broadcast_ss(t->k + i), q = _mm256_broadcast_ss(t->q + i);
    for (int n = 0; n < vectors; n++) {
      const __m256 s = _mm256_loadu_ps(state + i * t->Dv + LANES * n);
      held[n] = _mm256_fmadd_ps(s, k, held[n]);
      read[n] = _mm256_fmadd_ps(s, q, read[n]);
    }
  }
  const __m256 decay = _mm256_set1_ps(t->decay), beta = _mm256_set1_ps(t->beta), overlap = _mm256_set1_ps(t->overlap);
  for (int n = 0; n < vectors; n++) {
    const __m256 wanted = _mm256_loadu_ps(v + LANES * n);
    held[n] = _mm256_mul_ps(beta, _mm256_fnmadd_ps(decay, held[n], wanted)); /* what is new */
    _mm256_storeu_ps(out + LANES * n, _mm256_fmadd_ps(overlap, held[n], _mm256_mul_ps(decay, read[n])));
  }
  for (long i = 0; i < t->Dk; i++) {
    const __m256 k = _mm256_broadcast_ss(t->k + i);
    for (int n = 0; n < vectors; n++) {
      float *at = state + i * t->Dv + LANES * n;
      _mm256_storeu_ps(at, _mm256_fmadd_ps(k, held[n], _mm256_mul_ps(decay, _mm256_loadu_ps(at))));
    }
  }
}

struct tokens {
  const float *q, *k, *v, *decay, *beta;
  float *states, *out;
  const int64_t *rows, *own; /* the row of each token, and its state */
  long K, V, Dk, Dv;
};

/* One value head of one token. */
static void delta_task(void *context, long task) {
  const struct tokens *p = context;
  const long row = p->rows[task / p->V], head = task % p->V, at = row * p->V + head;
  const long key = (row * p->K + head / (p->V / p->K)) * p->Dk;
  struct token t = {p->q + key, p->k + key, 0, p->decay[at], p->beta[at], p->Dk, p->Dv};
  for (long i = 0; i < p->Dk; i++) t.overlap += t.k[i] * t.q[i];
  float *state = p->states + (p->own[task / p->V] * p->V + head) * p->Dk * p->Dv;
  const float *v = p->v + at * p->Dv;
  float *out = p->out + at * p->Dv;
  long column = 0;
  for (; column + WIDE * LANES <= p->Dv; column += WIDE * LANES)
    advance(WIDE, &t, v + column, state + column, out + column);
  for (; column < p->Dv; column += LANES) advance(1, &t, v + column, state + column, out + column);
}

/* q, k [rows, K, Dk], v and out [rows, V, Dv], decay and beta [rows, V], states [states, V, Dk, Dv]; `count` tokens, each
   of a row and a state of its own. */
void delta_avx2(const float *q, const float *k, const float *v, const float *decay, const float *beta, float *states,
                float *out, const int64_t *rows, const int64_t *own, long count, long K, long V, long Dk, long Dv,
                int threads) {
  struct tokens p = {q, k, v, decay, beta, states, out, rows, own, K, V, Dk, Dv};
  parallel_for(count * V, delta_task, &p, threads);
}
