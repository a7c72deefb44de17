/*
 * The loops of a vector kernel, for any instruction set. Included by reduce_<isa>.c only, which
 * lists its types as lines X(DTYPE, name, type, vector) and defines for each name (float32)
 *
 *	load_<name>(source)               store_<name>(target, v)          any alignment
 *	load_part_<name>(source, n)       store_part_<name>(target, n, v)  n elements, not all
 *	sum_of_<name>(a, b)               min_of_<name>(a, b)              max_of_<name>(a, b)
 *	scale_<name>(divisor)             quotient_<name>(v, scale)        where it divides
 *
 * Four vectors at a time: the loads of one hide behind the arithmetic of another. The target is
 * aligned first where enough follows, because a store that crosses a cache line costs two, and
 * large arrays from malloc begin 16 bytes past one.
 */
#ifndef COL_KERNELS_REDUCE_VECTOR_H
#define COL_KERNELS_REDUCE_VECTOR_H

#include <stddef.h>
#include <stdint.h>

/* Elements before `target` is aligned to `vector_bytes`; 0 when there is too little to gain. */
static inline size_t col_vector_head(const void *target, size_t count, size_t element_bytes,
                                     size_t vector_bytes)
{
	size_t past = (uintptr_t)target % vector_bytes;
	if (past == 0 || count < 8 * vector_bytes / element_bytes)
		return 0;
	return (vector_bytes - past) / element_bytes;
}

#define COL_VECTOR_REDUCE(op, name, type, vector) \
	static void op##_##name(void *target, const void *a, const void *b, size_t count) \
	{ \
		enum { LANES = sizeof(vector) / sizeof(type) }; \
		type *t = target; \
		const type *x = a; \
		const type *y = b; \
		size_t i = col_vector_head(t, count, sizeof(type), sizeof(vector)); \
		if (i > 0) \
			COL_VECTOR_PART(op, name, t, x, y, i); \
		for (; count - i >= 4 * LANES; i += 4 * LANES) { \
			vector r0 = COL_VECTOR_AT(op, name, x, y, i); \
			vector r1 = COL_VECTOR_AT(op, name, x, y, i + LANES); \
			vector r2 = COL_VECTOR_AT(op, name, x, y, i + 2 * LANES); \
			vector r3 = COL_VECTOR_AT(op, name, x, y, i + 3 * LANES); \
			store_##name(t + i, r0); \
			store_##name(t + i + LANES, r1); \
			store_##name(t + i + 2 * LANES, r2); \
			store_##name(t + i + 3 * LANES, r3); \
		} \
		for (; count - i >= LANES; i += LANES) \
			store_##name(t + i, COL_VECTOR_AT(op, name, x, y, i)); \
		if (i < count) \
			COL_VECTOR_PART(op, name, t + i, x + i, y + i, count - i); \
	}
#define COL_VECTOR_AT(op, name, x, y, i) op##_of_##name(load_##name(x + (i)), load_##name(y + (i)))
#define COL_VECTOR_PART(op, name, t, x, y, n) \
	store_part_##name(t, n, op##_of_##name(load_part_##name(x, n), load_part_##name(y, n)))

#define COL_VECTOR_REDUCES(dtype, name, type, vector) \
	COL_VECTOR_REDUCE(sum, name, type, vector) \
	COL_VECTOR_REDUCE(min, name, type, vector) \
	COL_VECTOR_REDUCE(max, name, type, vector)

#define COL_VECTOR_FILL_REDUCES(dtype, name, type, vector) \
	table->reduce[COLLECT_##dtype][COLLECT_SUM] = sum_##name; \
	table->reduce[COLLECT_##dtype][COLLECT_AVG] = sum_##name; \
	table->reduce[COLLECT_##dtype][COLLECT_MIN] = min_##name; \
	table->reduce[COLLECT_##dtype][COLLECT_MAX] = max_##name;

/* The divider is the limit: unrolling and aligning would gain nothing. */
#define COL_VECTOR_DIVIDES(dtype, name, type, vector) \
	static void divide_##name(void *target, size_t count, uint32_t divisor) \
	{ \
		COL_ASSERT(divisor > 0 && divisor <= COL_DIVISOR_MAX); \
		enum { LANES = sizeof(vector) / sizeof(type) }; \
		type *t = target; \
		size_t i = 0; \
		for (; count - i >= LANES; i += LANES) \
			store_##name(t + i, quotient_##name(load_##name(t + i), scale_##name(divisor))); \
		size_t rest = count - i; \
		if (rest > 0) \
			store_part_##name(t + i, rest, quotient_##name(load_part_##name(t + i, rest), \
			                                               scale_##name(divisor))); \
	}

#define COL_VECTOR_FILL_DIVIDES(dtype, name, type, vector) \
	table->divide[COLLECT_##dtype] = divide_##name;

#endif
