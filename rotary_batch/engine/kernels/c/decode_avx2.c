/* Matrices of model files as float32 or bf16, for products by other kernels: exact numerics, and formats that no product
   reads in place.

   N = rows of the matrix, K = columns.  Weights are computed in float32 and rounded once. */

#include "avx2.h"
#include "ggml_avx2.h"
#include "ggml_rare.h"
#include "pool.h"

#define GROUP 32 /* rows of a matrix in a task */

/* Where weights go: `data` [N, K] in F32 or BF16. */
struct decoded {
  char *data;
  enum format format;
};

INLINE __m256i rounded_words(const float *values) {
  const __m256 lanes = _mm256_loadu_ps(values);
  const __m256i bits = _mm256_castps_si256(lanes);
  const __m256i last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(last, _mm256_set1_epi32(0x7fff)));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(lanes, lanes, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(_mm256_srli_epi32(up, 16), _mm256_set1_epi32(0x7fc0), is_nan);
}

/* 16 numbers to the nearest bf16, ties to even; NaN stays NaN. */
INLINE __m256i rounded_16(const float *values) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded_words(values), rounded_words(values + 8)), 0xd8);
}

/* `values` is as long as whole registers of 16. */
static void round_to_bf16(const float *values, long count, uint16_t *out) {
  long k = 0;
  for (; k + 16 <= count; k += 16) _mm256_storeu_si256((__m256i *)(out + k), rounded_16(values + k));
  if (k == count) return;
  ALIGNED uint16_t last[16];
  _mm256_store_si256((__m256i *)last, rounded_16(values + k));
  memcpy(out + k, last, 2 * (count - k));
}

/* Where weights number `at` and the next ones are computed: in place, or before they are rounded. */
INLINE float *place(struct decoded out, long at, float *scratch) {
  return out.format == F32 ? (float *)out.data + at : scratch;
}

/* Round what was computed there, up to DECODED weights. */
INLINE void finish(struct decoded out, long at, const float *values, long count) {
  if (out.format == BF16) round_to_bf16(values, count, (uint16_t *)out.data + at);
}

/* ---- blocks of GGUF files ---- */

struct ggml_matrix {
  const uint8_t *blocks;
  struct decoded out;
  long N, K, type;
};

static void rare_row(struct rare_blocks rare, const uint8_t *block, struct decoded out, long at, long K) {
  ALIGNED float weights[DECODED];
  for (long k = 0; k < K; k += rare.columns, block += rare.nbytes) {
    rare.decode(block, place(out, at + k, weights));
    finish(out, at + k, weights, rare.columns);
  }
}

static void row(enum ggml_type type, const uint8_t *blocks, struct decoded out, long at, long K) {
  ALIGNED float weights[DECODED];
  for (long k = 0; k < K; k += DECODED) {
    const long count = min_long(DECODED, K - k);
    decode(type, blocks + blocks_nbytes(type, k), count, place(out, at + k, weights));
    finish(out, at + k, weights, count);
  }
}

static void ggml_task(void *context, long task) {
  const struct ggml_matrix *p = context;
  const struct rare_blocks rare = rare_blocks_of(p->type);
  const enum ggml_type type = (enum ggml_type)p->type;
  const long nbytes = rare.decode ? p->K / rare.columns * rare.nbytes : blocks_nbytes(type, p->K);
  for (long n = task * GROUP; n < min_long((task + 1) * GROUP, p->N); n++) {
    if (rare.decode) rare_row(rare, p->blocks + n * nbytes, p->out, n * p->K, p->K);
    else row(type, p->blocks + n * nbytes, p->out, n * p->K, p->K);
  }
}

/* blocks [N, K] of a ggml type -> out [N, K]. */
void decode_avx2_ggml(const uint8_t *blocks, void *out, long N, long K, long type, long out_format, int threads) {
  struct ggml_matrix p = {blocks, {out, (enum format)out_format}, N, K, type};
  parallel_for(div_up(N, GROUP), ggml_task, &p, threads);
}

/* ---- bytes with a scale for each block or group ---- */

enum byte_kind { SIGNED, FP8 };

struct scaled_matrix {
  enum byte_kind kind;
  const uint8_t *weights;
  const char *scale; /* [ceil(N / rows), ceil(K / columns)] */
  enum format scale_format;
  long rows, columns; /* that share a scale */
  struct decoded out;
  long N, K;
};

INLINE float scale_at(const struct scaled_matrix *p, long index) {
  if (p->scale_format == F32) return ((const float *)p->scale)[index];
  const uint16_t *own = (const uint16_t *)p->scale + index;
  if (p->scale_format == F16) return float_from_half((const uint8_t *)own);
  const uint32_t bits = (uint32_t)*own << 16;
  float scale;
  memcpy(&scale, &bits, 4);
  return scale;
}

/* 8 bytes of float8, e4m3, as float32: shifted into a float16 whose exponent counts from 15, not 7. */
INLINE __m256 floats_from_fp8(__m128i bytes) {
  const __m128i words = _mm_cvtepu8_epi16(bytes), magnitude = _mm_and_si128(words, _mm_set1_epi16(0x7f));
  const __m128i sign = _mm_slli_epi16(_mm_and_si128(words, _mm_set1_epi16(0x80)), 8);
  const __m128i nan = _mm_and_si128(_mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f)), _mm_set1_epi16(0x7fff));
  const __m128i half = _mm_or_si128(_mm_or_si128(_mm_slli_epi16(magnitude, 7), sign), nan);
  return _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256));
}

/* 8 bytes times a scale. */
INLINE __m256 scaled_8(enum byte_kind kind, const uint8_t *bytes, float scale) {
  const __m128i eight = _mm_loadl_epi64((const __m128i *)bytes);
  const __m256 values = kind == FP8 ? floats_from_fp8(eight) : _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
  return _mm256_mul_ps(values, _mm256_set1_ps(scale));
}

/* `count` bytes times a scale. */
INLINE void scaled(enum byte_kind kind, const uint8_t *bytes, long count, float scale, float *out) {
  long k = 0;
  for (; k + 8 <= count; k += 8) _mm256_storeu_ps(out + k, scaled_8(kind, bytes + k, scale));
  if (k == count) return;
  uint8_t last[8] = {0};
  ALIGNED float weights[8];
  memcpy(last, bytes + k, count - k);
  _mm256_store_ps(weights, scaled_8(kind, last, scale));
  memcpy(out + k, weights, 4 * (count - k));
}

static void scaled_row(const struct scaled_matrix *p, long n) {
  ALIGNED float weights[DECODED];
  const long scales_of_row = div_up(p->K, p->columns);
  for (long k = 0, count; k < p->K; k += count) {
    const long group = k / p->columns;
    count = min_long(DECODED, min_long((group + 1) * p->columns, p->K) - k);
    const float scale = scale_at(p, n / p->rows * scales_of_row + group);
    float *out = place(p->out, n * p->K + k, weights);
    if (p->kind == FP8) scaled(FP8, p->weights + n * p->K + k, count, scale, out);
    else scaled(SIGNED, p->weights + n * p->K + k, count, scale, out);
    finish(p->out, n * p->K + k, weights, count);
  }
}

static void scaled_task(void *context, long task) {
  const struct scaled_matrix *p = context;
  for (long n = task * GROUP; n < min_long((task + 1) * GROUP, p->N); n++) scaled_row(p, n);
}

/* weights [N, K] of float8 (e4m3), with a float32 scale for blocks of rows and columns -> out [N, K]. */
void decode_avx2_fp8(const uint8_t *weights, const char *scale, void *out, long N, long K, long rows, long columns,
                     long out_format, int threads) {
  struct scaled_matrix p = {FP8, weights, scale, F32, rows, columns, {out, (enum format)out_format}, N, K};
  parallel_for(div_up(N, GROUP), scaled_task, &p, threads);
}

/* weights [N, K] of signed bytes, with a scale for each row and group of columns -> out [N, K]. */
void decode_avx2_int8(const uint8_t *weights, const char *scale, void *out, long N, long K, long group,
                      long scale_format, long out_format, int threads) {
  const enum format format = (enum format)scale_format;
  struct scaled_matrix p = {SIGNED, weights, scale, format, 1, group, {out, (enum format)out_format}, N, K};
  parallel_for(div_up(N, GROUP), scaled_task, &p, threads);
}
