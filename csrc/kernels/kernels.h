/*
 * Reductions: bytes in, bytes out; no heap, no lock, no I/O.
 *
 * Scalar is the truth; every other variant gives the same bits for the same input, tails and
 * special values included. A sum or a product of two NaNs keeps the first one's payload, made
 * quiet. A NaN that an operation makes of no NaN (infinity - infinity) is the processor's: its sign
 * is set on x86 and clear on ARM, the only bit in which the architectures differ.
 *
 * Integers wrap. min and max give NaN when either operand is NaN (the first one that is), and
 * treat -0 and +0 as equal (the second operand wins a tie). bool is one byte, 0 or 1 (other values
 * count as 1, and come out as 1): sum, max and or are logical or; prod, min and and are logical
 * and. Complex products are (ac - bd) + (ad + bc)i, each product and sum rounded once.
 *
 * float16 and bfloat16 are reduced in float32 and rounded once per call, to nearest even. A sum
 * over many peers does better: it is accumulated in float32 by `widen` and rounded at the end. So
 * is what is divided or scaled: the quotient or product is one of float32, then rounded to the
 * type. min and max give the bits of one operand.
 */
#ifndef COL_KERNELS_KERNELS_H
#define COL_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/dtype.h"

/* target[i] = a[i] op b[i]; target may equal a or b, no other overlap; any alignment of the
 * element's size. AVG and PREMUL_SUM accumulate as SUM. */
typedef void col_reduce_fn(void *target, const void *a, const void *b, size_t count);

/* target[i] = target[i] / divisor: rounded once for floats, truncated for integers. divisor:
 * 1…COL_DIVISOR_MAX, which float32 holds exactly. */
#define COL_DIVISOR_MAX (1u << 24)
typedef void col_divide_fn(void *target, size_t count, uint32_t divisor);

/* target[i] = source[i] * factor, factor rounded to the element's type first (float32 for 16-bit
 * floats), the product rounded once. target may equal source. */
typedef void col_scale_fn(void *target, const void *source, size_t count, double factor);

/* 16-bit floats, SUM and PROD (others need no width): total[i] = a[i] op b[i] in float32; … */
typedef void col_widen_fn(float *total, const void *a, const void *b, size_t count);
/* … total[i] = total[i] op b[i] (`is_left`: b[i] op total[i]); … */
typedef void col_widen_add_fn(float *total, const void *b, size_t count, bool is_left);
/* … target[i] = total[i] / divisor, rounded once. */
typedef void col_narrow_fn(void *target, const float *total, size_t count, uint32_t divisor);

/*
 * target[i] = (((s0[i] op s1[i]) op s2[i]) …), then divided by `divisor` (AVG; else 1): one pass
 * over memory, for sources that are all at hand. The same bits as the steps above, 16-bit floats
 * accumulated in float32 included; of one source a copy. target may equal a source. is_streaming:
 * the target is not read soon, so it bypasses the cache (non-temporal stores; the caller need not
 * fence).
 */
typedef void col_reduce_many_fn(void *target, const void *const *sources, uint32_t source_count,
                                size_t count, uint32_t divisor, bool is_streaming);

struct col_kernels {
	int isa; /* enum collect_isa */
	/* NULL: the operation is not defined for the type. */
	col_reduce_fn *reduce[COLLECT_DTYPE_COUNT][COLLECT_REDUCE_OP_COUNT];
	col_reduce_many_fn *reduce_many[COLLECT_DTYPE_COUNT][COLLECT_REDUCE_OP_COUNT];
	col_divide_fn *divide[COLLECT_DTYPE_COUNT];
	col_scale_fn *scale[COLLECT_DTYPE_COUNT];
	/* Of FLOAT16 and BFLOAT16, SUM, AVG, PREMUL_SUM and PROD; else NULL. */
	col_widen_fn *widen[COLLECT_DTYPE_COUNT][COLLECT_REDUCE_OP_COUNT];
	col_widen_add_fn *widen_add[COLLECT_DTYPE_COUNT][COLLECT_REDUCE_OP_COUNT];
	col_narrow_fn *narrow[COLLECT_DTYPE_COUNT];
	/* Copies; is_streaming as above. Regions do not overlap. */
	void (*copy)(void *target, const void *source, size_t bytes, bool is_streaming);
};

/* The table of what is selected; never NULL; the widest that the machine has, until told. */
const struct col_kernels *col_kernels(void);

/* Selects at most `isa`; returns what is selected. Not while another thread reduces. */
int col_kernels_select(int isa);

/* Whether the machine has an instruction for CRC-32C. Constant; not changed by a selection. */
bool col_cpu_has_crc32c(void);

/* Each variant overwrites the entries that it has. */
void col_kernels_fill_scalar(struct col_kernels *table);
void col_kernels_fill_avx2(struct col_kernels *table);
void col_kernels_fill_avx512(struct col_kernels *table);
void col_kernels_fill_neon(struct col_kernels *table);

#endif
