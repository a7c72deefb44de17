/* The truth that every other variant is compared with: a loop over the elements. */
#include <string.h>

#include "base/assert.h"
#include "kernels/element.h"
#include "kernels/kernels.h"

/* One line per type: DTYPE, name, type. */
#define INTEGERS(X) \
	X(INT8, int8, int8_t) \
	X(INT16, int16, int16_t) \
	X(INT32, int32, int32_t) \
	X(INT64, int64, int64_t) \
	X(UINT8, uint8, uint8_t) \
	X(UINT16, uint16, uint16_t) \
	X(UINT32, uint32, uint32_t) \
	X(UINT64, uint64, uint64_t)
#define REALS(X) \
	X(FLOAT32, float32, float) \
	X(FLOAT64, float64, double)
#define COMPLEXES(X) \
	X(COMPLEX64, complex64, struct col_complex64) \
	X(COMPLEX128, complex128, struct col_complex128)
#define HALVES(X) \
	X(FLOAT16, float16, uint16_t) \
	X(BFLOAT16, bfloat16, uint16_t)

/* ---- many sources -------------------------------------------------------------------------- */

/* What a block's partial result may take: it stays in the nearest cache. The target cannot hold
 * it, because it may be one of the sources still to come. */
enum { BLOCK_BYTES = 4096, BLOCK_TOTALS = BLOCK_BYTES / sizeof(float) };

struct steps {
	size_t element_bytes;
	col_reduce_fn *reduce;
	col_divide_fn *divide; /* NULL: not divided */
	/* NULL: not widened. */
	col_widen_fn *widen;
	col_widen_add_fn *widen_add;
	col_narrow_fn *narrow;
};

static void single_run(const struct steps *steps, void *target, const void *source, size_t count,
                       uint32_t divisor)
{
	if (target != source && count > 0)
		memcpy(target, source, count * steps->element_bytes);
	if (divisor > 1)
		steps->divide(target, count, divisor);
}

static void block_run(const struct steps *steps, uint8_t *target, const void *const *sources,
                      uint32_t source_count, size_t begin, size_t count, uint32_t divisor)
{
	_Alignas(64) uint8_t total[BLOCK_BYTES];
	const uint8_t *first = (const uint8_t *)sources[0] + begin;
	const uint8_t *second = (const uint8_t *)sources[1] + begin;
	if (steps->widen != NULL)
		steps->widen((float *)(void *)total, first, second, count);
	else
		steps->reduce(total, first, second, count);
	for (uint32_t index = 2; index < source_count; index++) {
		const uint8_t *source = (const uint8_t *)sources[index] + begin;
		if (steps->widen != NULL)
			steps->widen_add((float *)(void *)total, source, count, false);
		else
			steps->reduce(total, total, source, count);
	}
	if (steps->widen != NULL) {
		steps->narrow(target + begin, (float *)(void *)total, count, divisor);
		return;
	}
	if (divisor > 1)
		steps->divide(total, count, divisor);
	memcpy(target + begin, total, count * steps->element_bytes);
}

static void many_run(const struct steps *steps, void *target, const void *const *sources,
                     uint32_t source_count, size_t count, uint32_t divisor)
{
	COL_ASSERT(source_count > 0);
	COL_ASSERT(divisor == 1
	           || (steps->divide != NULL && divisor > 0 && divisor <= COL_DIVISOR_MAX));
	if (source_count == 1) {
		single_run(steps, target, sources[0], count, divisor);
		return;
	}
	size_t block_max = steps->widen != NULL ? BLOCK_TOTALS : BLOCK_BYTES / steps->element_bytes;
	for (size_t done = 0; done < count; done += block_max) {
		size_t block = count - done < block_max ? count - done : block_max;
		block_run(steps, target, sources, source_count, done * steps->element_bytes, block,
		          divisor);
	}
}

/* `...`: the steps after `reduce`. */
#define DEFINE_MANY(op, name, type, ...) \
	static void many_##op##_##name(void *target, const void *const *sources, \
	                               uint32_t source_count, size_t count, uint32_t divisor, \
	                               bool is_streaming) \
	{ \
		static const struct steps steps = {sizeof(type), op##_##name, __VA_ARGS__}; \
		(void)is_streaming; \
		many_run(&steps, target, sources, source_count, count, divisor); \
	}

/* ---- one step ------------------------------------------------------------------------------ */

#define DEFINE_REDUCE(op, name, type) \
	static void op##_##name(void *target, const void *a, const void *b, size_t count) \
	{ \
		type *t = target; \
		const type *x = a; \
		const type *y = b; \
		for (size_t i = 0; i < count; i++) \
			t[i] = col_##op##_##name(x[i], y[i]); \
	}
#define DEFINE(op, name, type) \
	DEFINE_REDUCE(op, name, type) \
	DEFINE_MANY(op, name, type, NULL, NULL, NULL, NULL)
#define DEFINE_DIVIDED(op, name, type) \
	DEFINE_REDUCE(op, name, type) \
	DEFINE_MANY(op, name, type, divide_##name, NULL, NULL, NULL)
#define DEFINE_WIDENED(op, name, type, divide) \
	DEFINE_REDUCE(op, name, type) \
	static void widen_##op##_##name(float *total, const void *a, const void *b, size_t count) \
	{ \
		const type *x = a; \
		const type *y = b; \
		for (size_t i = 0; i < count; i++) \
			total[i] = col_##op##_float32(col_widen_##name(x[i]), col_widen_##name(y[i])); \
	} \
	static void widen_add_##op##_##name(float *total, const void *b, size_t count, bool is_left) \
	{ \
		const type *y = b; \
		for (size_t i = 0; i < count; i++) { \
			float value = col_widen_##name(y[i]); \
			total[i] = is_left ? col_##op##_float32(value, total[i]) \
			                   : col_##op##_float32(total[i], value); \
		} \
	} \
	DEFINE_MANY(op, name, type, divide, widen_##op##_##name, widen_add_##op##_##name, \
	            narrow_##name)

#define DEFINE_DIVIDE(name, type) \
	static void divide_##name(void *target, size_t count, uint32_t divisor) \
	{ \
		COL_ASSERT(divisor > 0 && divisor <= COL_DIVISOR_MAX); \
		type *t = target; \
		for (size_t i = 0; i < count; i++) \
			t[i] = col_divide_##name(t[i], divisor); \
	}

#define DEFINE_SCALE(name, type) \
	static void scale_##name(void *target, const void *source, size_t count, double factor) \
	{ \
		type *t = target; \
		const type *x = source; \
		for (size_t i = 0; i < count; i++) \
			t[i] = col_scale_##name(x[i], factor); \
	}

#define DEFINE_NARROW(name, type) \
	static void narrow_##name(void *target, const float *total, size_t count, uint32_t divisor) \
	{ \
		COL_ASSERT(divisor > 0 && divisor <= COL_DIVISOR_MAX); \
		type *t = target; \
		for (size_t i = 0; i < count; i++) \
			t[i] = col_narrow_##name(col_divide_float32(total[i], divisor)); \
	}

/* ---- kernels ------------------------------------------------------------------------------- */

#define DEFINE_INTEGER(dtype, name, type) \
	DEFINE_DIVIDE(name, type) \
	DEFINE_DIVIDED(sum, name, type) \
	DEFINE(prod, name, type) \
	DEFINE(min, name, type) \
	DEFINE(max, name, type) \
	DEFINE(and, name, type) \
	DEFINE(or, name, type) \
	DEFINE(xor, name, type)

#define DEFINE_REAL(dtype, name, type) \
	DEFINE_DIVIDE(name, type) \
	DEFINE_SCALE(name, type) \
	DEFINE_DIVIDED(sum, name, type) \
	DEFINE(prod, name, type) \
	DEFINE(min, name, type) \
	DEFINE(max, name, type)

#define DEFINE_COMPLEX(dtype, name, type) \
	DEFINE_DIVIDE(name, type) \
	DEFINE_SCALE(name, type) \
	DEFINE_DIVIDED(sum, name, type) \
	DEFINE(prod, name, type)

#define DEFINE_HALF(dtype, name, type) \
	DEFINE_DIVIDE(name, type) \
	DEFINE_SCALE(name, type) \
	DEFINE_NARROW(name, type) \
	DEFINE_WIDENED(sum, name, type, divide_##name) \
	DEFINE_WIDENED(prod, name, type, NULL) \
	DEFINE(min, name, type) \
	DEFINE(max, name, type)

INTEGERS(DEFINE_INTEGER)
REALS(DEFINE_REAL)
COMPLEXES(DEFINE_COMPLEX)
HALVES(DEFINE_HALF)
DEFINE(and, boolean, uint8_t)
DEFINE(or, boolean, uint8_t)
DEFINE(xor, boolean, uint8_t)

static void copy_bytes(void *target, const void *source, size_t bytes, bool is_streaming)
{
	(void)is_streaming;
	if (bytes > 0)
		memcpy(target, source, bytes);
}

#define FILL(dtype, reduce_op, op, name) \
	table->reduce[COLLECT_##dtype][COLLECT_##reduce_op] = op##_##name; \
	table->reduce_many[COLLECT_##dtype][COLLECT_##reduce_op] = many_##op##_##name;
#define FILL_WIDENED(dtype, reduce_op, op, name) \
	table->widen[COLLECT_##dtype][COLLECT_##reduce_op] = widen_##op##_##name; \
	table->widen_add[COLLECT_##dtype][COLLECT_##reduce_op] = widen_add_##op##_##name;

#define FILL_INTEGER(dtype, name, type) \
	FILL(dtype, SUM, sum, name) \
	FILL(dtype, AVG, sum, name) \
	FILL(dtype, PROD, prod, name) \
	FILL(dtype, MIN, min, name) \
	FILL(dtype, MAX, max, name) \
	FILL(dtype, AND, and, name) \
	FILL(dtype, OR, or, name) \
	FILL(dtype, XOR, xor, name) \
	table->divide[COLLECT_##dtype] = divide_##name;

#define FILL_COMPLEX(dtype, name, type) \
	FILL(dtype, SUM, sum, name) \
	FILL(dtype, AVG, sum, name) \
	FILL(dtype, PREMUL_SUM, sum, name) \
	FILL(dtype, PROD, prod, name) \
	table->divide[COLLECT_##dtype] = divide_##name; \
	table->scale[COLLECT_##dtype] = scale_##name;

#define FILL_REAL(dtype, name, type) \
	FILL_COMPLEX(dtype, name, type) \
	FILL(dtype, MIN, min, name) \
	FILL(dtype, MAX, max, name)

#define FILL_HALF(dtype, name, type) \
	FILL_REAL(dtype, name, type) \
	FILL_WIDENED(dtype, SUM, sum, name) \
	FILL_WIDENED(dtype, AVG, sum, name) \
	FILL_WIDENED(dtype, PREMUL_SUM, sum, name) \
	FILL_WIDENED(dtype, PROD, prod, name) \
	table->narrow[COLLECT_##dtype] = narrow_##name;

void col_kernels_fill_scalar(struct col_kernels *table)
{
	INTEGERS(FILL_INTEGER)
	REALS(FILL_REAL)
	COMPLEXES(FILL_COMPLEX)
	HALVES(FILL_HALF)
	FILL(BOOL, SUM, or, boolean)
	FILL(BOOL, MAX, or, boolean)
	FILL(BOOL, OR, or, boolean)
	FILL(BOOL, PROD, and, boolean)
	FILL(BOOL, MIN, and, boolean)
	FILL(BOOL, AND, and, boolean)
	FILL(BOOL, XOR, xor, boolean)
	table->copy = copy_bytes;
}
