/* The truth that every other variant is compared with: a loop over the elements. */
#include "base/assert.h"
#include "kernels/element.h"
#include "kernels/kernels.h"

/* One line per type. */
#define TYPES(X) \
	X(INT32, int32, int32_t) \
	X(INT64, int64, int64_t) \
	X(FLOAT32, float32, float) \
	X(FLOAT64, float64, double)

#define DEFINE_REDUCE(name, type, op) \
	static void op##_##name(void *target, const void *a, const void *b, size_t count) \
	{ \
		type *t = target; \
		const type *x = a; \
		const type *y = b; \
		for (size_t i = 0; i < count; i++) \
			t[i] = col_##op##_##name(x[i], y[i]); \
	}

#define DEFINE(dtype, name, type) \
	DEFINE_REDUCE(name, type, sum) \
	DEFINE_REDUCE(name, type, min) \
	DEFINE_REDUCE(name, type, max) \
	static void divide_##name(void *target, size_t count, uint32_t divisor) \
	{ \
		COL_ASSERT(divisor > 0 && divisor <= COL_DIVISOR_MAX); \
		type *t = target; \
		for (size_t i = 0; i < count; i++) \
			t[i] = col_divide_##name(t[i], divisor); \
	}

TYPES(DEFINE)

#define FILL(dtype, name, type) \
	table->reduce[COLLECT_##dtype][COLLECT_SUM] = sum_##name; \
	table->reduce[COLLECT_##dtype][COLLECT_AVG] = sum_##name; \
	table->reduce[COLLECT_##dtype][COLLECT_MIN] = min_##name; \
	table->reduce[COLLECT_##dtype][COLLECT_MAX] = max_##name; \
	table->divide[COLLECT_##dtype] = divide_##name;

void col_kernels_fill_scalar(struct col_kernels *table)
{
	TYPES(FILL)
}
