/* Rows of x as 8-bit integers, for products of integers with the codes of GGUF blocks.

   32 columns of a row share a scale, the largest of their absolute values / 127; llama.cpp quantises rows the same way
   (Q8_0).  The matrix is one of a GGUF file, or in int4 or int8 of model/slabs.py.  Its codes are unsigned here, shifted
   by a bias where the format has signs, and what is too much goes away with sums of x.  A sum of 32 products is exact;
   sums are scaled and added up in float32, one after the other in the order of the columns.  So a result has the same
   bits on every processor, and whatever shares the product. */

#ifndef ROTARY_BATCH_Q8_H
#define ROTARY_BATCH_Q8_H

#include "ggml.h"

/* Beside ggml's types: codes of model/slabs.py, whose scales are apart. */
#define OWN_INT4 ((enum ggml_type)256)
#define OWN_INT8 ((enum ggml_type)257)
#define INT4_ZERO 8.0f /* weight = (nibble - 8) * scale + zero */

#define UNIT (PART * PARTS_K) /* columns whose codes and scales are together: one block or eight */
#define MAX_CODE 127.0f
#define MAX_INVERSE 0x1p126f /* of a scale: a larger one would not be finite */
#define NC 64                /* rows of the matrix in a panel */
#define HALF (NC / 2)        /* byte j of a column in int4 holds rows j and j + HALF */
#define GROUP_ROWS 16        /* of them are unpacked at a time */
#define GROUPS (NC / GROUP_ROWS)
#define STEPS (PART / 4) /* of 4 columns, in a part */

/* A unit of a row.  Behind the last column there are zeros. */
struct x_unit {
  int8_t codes[UNIT];
  float scale[PARTS_K];
  float sums[PARTS_K];        /* of the codes of a part, for formats with offsets */
  int32_t first[2 * PARTS_K]; /* what a sum of products begins with: minus the bias times the sum of the codes; of the
                                 two halves of a part in Q6_K, otherwise of whole parts */
};

/* One unit of some rows of x: of units[places[0]], and so on. */
struct x_rows {
  const struct x_unit *units;
  const int64_t *places;
};

/* NC rows of a matrix by UNIT columns: a step has 4 columns of every row. */
struct panel {
  uint8_t codes[PARTS_K * STEPS][GROUPS][4 * GROUP_ROWS];
  float scale[2 * PARTS_K][NC]; /* of half a part each in Q6_K, otherwise of a part */
  float offset[PARTS_K][NC];
} __attribute__((aligned(64)));

/* GROUP_ROWS rows of blocks, each from the beginning of a unit. */
struct lanes {
  const uint8_t *rows[GROUP_ROWS];
};

enum kind { WHOLE, WITH_OFFSET, HALVES }; /* of scales: one for each part, an offset too, two for each part */

INLINE enum kind kind_of(enum ggml_type type) {
  if (type == Q6_K) return HALVES;
  return type == Q4_1 || type == Q4_K || type == Q5_K || type == OWN_INT4 ? WITH_OFFSET : WHOLE;
}

/* What is added to the codes of a format, so that they are unsigned; `q8_bias` is that of Q8_0 and int8. */
INLINE int code_bias(enum ggml_type type, int q8_bias) {
  if (type == OWN_INT8) return q8_bias;
  switch (type) {
    case Q8_0: return q8_bias;
    case Q6_K: return 32;
    case MXFP4: return 12;
    case Q4_0: return 8;
    default: return 0;
  }
}

INLINE int32_t four_codes(const int8_t *codes) {
  int32_t four;
  memcpy(&four, codes, 4);
  return four;
}

/* A part whose largest absolute value is `most` -> its scale; returns what numbers are multiplied by. */
INLINE float set_scale(struct x_unit *unit, int part, float most) {
  const int is_tiny = MAX_CODE / most > MAX_INVERSE; /* or all are 0 */
  unit->scale[part] = is_tiny ? 1 / MAX_INVERSE : most / MAX_CODE;
  return is_tiny ? MAX_INVERSE : MAX_CODE / most;
}

/* The sums of the two halves of a part.  Unsigned, for what is not a number has no codes. */
INLINE void set_sums(enum ggml_type type, int bias, struct x_unit *unit, int part, uint32_t first, uint32_t second) {
  unit->sums[part] = (float)(int32_t)(first + second);
  if (type == Q6_K) {
    unit->first[2 * part] = (int32_t) - (bias * first);
    unit->first[2 * part + 1] = (int32_t) - (bias * second);
  } else {
    unit->first[part] = (int32_t) - (bias * (first + second));
  }
}

#endif
