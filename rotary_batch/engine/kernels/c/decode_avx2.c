/* Blocks of GGUF files as float32, for products by other kernels: exact numerics.

   N = rows of the matrix, K = columns. */

#include "ggml_avx2.h"
#include "pool.h"

#define GROUP 32 /* rows of a matrix in a task */

struct decoded_matrix {
  enum ggml_type type;
  const uint8_t *blocks;
  float *out;
  long N, K;
};

static void decode_task(void *context, long task) {
  const struct decoded_matrix *p = context;
  const long row_nbytes = blocks_nbytes(p->type, p->K);
  for (long n = task * GROUP; n < min_long((task + 1) * GROUP, p->N); n++)
    decode(p->type, p->blocks + n * row_nbytes, p->K, p->out + n * p->K);
}

/* blocks [N, K] of a ggml type -> out [N, K], each weight rounded once. */
void decode_avx2_ggml(const uint8_t *blocks, float *out, long N, long K, long type, int threads) {
  struct decoded_matrix p = {(enum ggml_type)type, blocks, out, N, K};
  parallel_for(div_up(N, GROUP), decode_task, &p, threads);
}
