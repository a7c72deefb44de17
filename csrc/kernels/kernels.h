/*
 * Reductions: bytes in, bytes out; no heap, no lock, no I/O.
 *
 * Scalar is the truth; every other variant gives the same bits for the same input, tails and
 * special values included. (Where both operands of a sum are NaN, which payload survives is
 * unspecified; peers agree all the same, because one owner computes each element.)
 *
 * Integers wrap. min and max give NaN when either operand is NaN (the first one that is), and
 * treat -0 and +0 as equal (the second operand wins a tie).
 */
#ifndef COL_KERNELS_KERNELS_H
#define COL_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/dtype.h"

/* target[i] = a[i] op b[i]; target may equal a or b, no other overlap; any alignment of the
 * element's size. AVG accumulates as SUM. */
typedef void col_reduce_fn(void *target, const void *a, const void *b, size_t count);

/* target[i] = target[i] / divisor: rounded once for floats, truncated for integers. divisor:
 * 1…COL_DIVISOR_MAX, which float32 holds exactly. */
#define COL_DIVISOR_MAX (1u << 24)
typedef void col_divide_fn(void *target, size_t count, uint32_t divisor);

struct col_kernels {
	int isa; /* enum collect_isa */
	col_reduce_fn *reduce[COLLECT_DTYPE_COUNT][COLLECT_REDUCE_OP_COUNT]; /* NULL: none yet */
	col_divide_fn *divide[COLLECT_DTYPE_COUNT];                          /* NULL: none yet */
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

#endif
