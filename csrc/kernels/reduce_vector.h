/*
 * The loops of a vector kernel, for any instruction set. Included by reduce_<isa>.c only, at its
 * end, which before defines the type `vector`, VECTOR_BYTES, and
 *
 *	load_<memory>(source)           store_<memory>(target, v)          any alignment
 *	load_part_<memory>(source, n)   store_part_<memory>(target, n, v)  n bytes, not all
 *	stream_<memory>(target, v)      past the cache; the target is aligned
 *	stream_end()                    what was streamed comes before what is stored later
 *	fetch(address)                  to the nearest cache; any address
 *
 * for each kind of memory: `plain`, where memory holds what a vector holds; float16 and bfloat16,
 * where it holds 16-bit floats that become float32 on the way, so that a vector has VECTOR_BYTES /
 * 2 bytes of memory. Further
 *
 *	<op>_of_<name>(a, b)            names and operations: see the end of this file
 *	quotient_<name>(v, scale)       int32, float32, float64; its scale is divisor_<name>(divisor)
 *	factor_<name>(factor)           float32, float64: in all lanes
 *
 * A loop handles four vectors at a time: the loads of one hide behind the arithmetic of another.
 * The target is aligned first where enough follows, because a store that crosses a cache line
 * costs two, and large arrays from malloc begin 16 bytes past one.
 */
#ifndef COL_KERNELS_REDUCE_VECTOR_H
#define COL_KERNELS_REDUCE_VECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "kernels/element.h"
#include "kernels/kernels.h"

#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline))

enum {
	LINE_BYTES = 64,
	/* How far ahead of the loads lines are fetched, because the processor's own prefetch ends at
	 * each page's end: the next round of the loop and a half. Measured on Zen 4 from 1 MiB pieces
	 * in memory, GB/s of two float32 sources streamed: 16.3 without, 20.2 at 256, 20.1 at 384,
	 * 19.3 at 512, 16.9 at 768; of four, 23.1, 23.9, 23.1, 22.4, 21.2. */
	FETCH_BYTES = 384,
	/* Less is not fetched ahead: its ends are too much of it, and it is mostly at hand. */
	FETCH_FROM_BYTES = 32 << 10,
	/* What is summed before it is divided, where division is apart: stays in the first cache. */
	DIVIDE_BYTES = 8192,
	/* Shorter copies gain nothing from streaming. */
	STREAM_FROM_BYTES = 4096,
	plain_BYTES = VECTOR_BYTES,
	float16_BYTES = VECTOR_BYTES / 2,
	bfloat16_BYTES = VECTOR_BYTES / 2,
};

/* Bytes before `target` is aligned to `vector_bytes`; 0 when there is too little to gain. */
INLINE size_t head_of(const void *target, size_t bytes, size_t vector_bytes)
{
	size_t past = (uintptr_t)target % vector_bytes;
	return past == 0 || bytes < 8 * vector_bytes ? 0 : vector_bytes - past;
}

INLINE vector unfinished(vector v, vector scale)
{
	(void)scale;
	return v;
}

/* ---- one pass over all sources ------------------------------------------------------------- */

/* How a pass runs; the loops are compiled for the constants in it. */
struct pass {
	uint32_t source_count;
	bool is_finished; /* `finish` with `scale` comes last */
	bool is_streaming;
	bool is_fetching;
};

/*
 * run_<fold>: the bytes [i, end) of the target from those of the sources.
 * pair_<fold>: of two sources. fold_<fold>: of any number; it takes the scale by pointer, because
 * compilers do not clear the upper halves of the registers (vzeroupper) at the end of a function
 * that got a vector in one, and then all scalar code that follows is slow.
 */
#define DEFINE_FOLD(fold, of, memory, finish) \
	INLINE vector one_##fold(struct pass pass, const void *const *sources, size_t i, vector scale) \
	{ \
		vector v = load_##memory((const uint8_t *)sources[0] + i); \
		for (uint32_t source = 1; source < pass.source_count; source++) \
			v = of(v, load_##memory((const uint8_t *)sources[source] + i)); \
		return pass.is_finished ? finish(v, scale) : v; \
	} \
	INLINE void part_##fold(struct pass pass, uint8_t *target, const void *const *sources, \
	                        size_t i, size_t bytes, vector scale) \
	{ \
		vector v = load_part_##memory((const uint8_t *)sources[0] + i, bytes); \
		for (uint32_t source = 1; source < pass.source_count; source++) \
			v = of(v, load_part_##memory((const uint8_t *)sources[source] + i, bytes)); \
		store_part_##memory(target + i, bytes, pass.is_finished ? finish(v, scale) : v); \
	} \
	INLINE void run_##fold(struct pass pass, uint8_t *target, const void *const *sources, \
	                       size_t i, size_t end, vector scale) \
	{ \
		enum { STEP = memory##_BYTES }; \
		size_t head = head_of(target + i, end - i, STEP); \
		if (head > 0) \
			part_##fold(pass, target, sources, i, head, scale); \
		i += head; \
		bool is_streaming = pass.is_streaming && (uintptr_t)(target + i) % STEP == 0; \
		for (; end - i >= 4 * STEP; i += 4 * STEP) { \
			const uint8_t *x = (const uint8_t *)sources[0] + i; \
			vector v0 = load_##memory(x); \
			vector v1 = load_##memory(x + STEP); \
			vector v2 = load_##memory(x + 2 * STEP); \
			vector v3 = load_##memory(x + 3 * STEP); \
			if (pass.is_fetching) \
				fetch_lines(x + FETCH_BYTES, 4 * STEP); \
			for (uint32_t source = 1; source < pass.source_count; source++) { \
				const uint8_t *y = (const uint8_t *)sources[source] + i; \
				v0 = of(v0, load_##memory(y)); \
				v1 = of(v1, load_##memory(y + STEP)); \
				v2 = of(v2, load_##memory(y + 2 * STEP)); \
				v3 = of(v3, load_##memory(y + 3 * STEP)); \
				if (pass.is_fetching) \
					fetch_lines(y + FETCH_BYTES, 4 * STEP); \
			} \
			if (pass.is_finished) { \
				v0 = finish(v0, scale); \
				v1 = finish(v1, scale); \
				v2 = finish(v2, scale); \
				v3 = finish(v3, scale); \
			} \
			if (is_streaming) { \
				stream_##memory(target + i, v0); \
				stream_##memory(target + i + STEP, v1); \
				stream_##memory(target + i + 2 * STEP, v2); \
				stream_##memory(target + i + 3 * STEP, v3); \
			} else { \
				store_##memory(target + i, v0); \
				store_##memory(target + i + STEP, v1); \
				store_##memory(target + i + 2 * STEP, v2); \
				store_##memory(target + i + 3 * STEP, v3); \
			} \
		} \
		for (; end - i >= STEP; i += STEP) \
			store_##memory(target + i, one_##fold(pass, sources, i, scale)); \
		if (i < end) \
			part_##fold(pass, target, sources, i, end - i, scale); \
	} \
	APART void pair_##fold(void *target, const void *a, const void *b, size_t bytes) \
	{ \
		const void *const sources[2] = {a, b}; \
		bool is_fetching = bytes >= FETCH_FROM_BYTES; \
		const struct pass pass = {.source_count = 2, .is_fetching = is_fetching}; \
		run_##fold(pass, target, sources, 0, bytes, no_scale()); \
	}

#define DEFINE_FOLD_MANY(fold, of, memory, finish) \
	DEFINE_FOLD(fold, of, memory, finish) \
	APART void fold_##fold(struct pass pass, uint8_t *target, const void *const *sources, \
	                       size_t begin, size_t end, const vector *scale) \
	{ \
		run_##fold(pass, target, sources, begin, end, *scale); \
	}

/* The same, with loops for the few sources that a host mostly has. */
#define DEFINE_FOLD_FEW(fold, of, memory, finish) \
	DEFINE_FOLD(fold, of, memory, finish) \
	APART void fold_##fold(struct pass pass, uint8_t *target, const void *const *sources, \
	                       size_t begin, size_t end, const vector *scale) \
	{ \
		const struct pass two = {2, pass.is_finished, pass.is_streaming, pass.is_fetching}; \
		const struct pass three = {3, pass.is_finished, pass.is_streaming, pass.is_fetching}; \
		const struct pass four = {4, pass.is_finished, pass.is_streaming, pass.is_fetching}; \
		if (pass.source_count == 2) \
			run_##fold(two, target, sources, begin, end, *scale); \
		else if (pass.source_count == 3) \
			run_##fold(three, target, sources, begin, end, *scale); \
		else if (pass.source_count == 4) \
			run_##fold(four, target, sources, begin, end, *scale); \
		else \
			run_##fold(pass, target, sources, begin, end, *scale); \
	}

INLINE void fetch_lines(const uint8_t *begin, size_t bytes)
{
	for (size_t line = 0; line < bytes; line += LINE_BYTES)
		fetch(begin + line);
}

INLINE vector no_scale(void)
{
	const vector zero = {0};
	return zero;
}

static void copy_bytes(void *target, const void *source, size_t bytes, bool is_streaming)
{
	uint8_t *t = target;
	const uint8_t *x = source;
	size_t i = 0;
	if (is_streaming && bytes >= STREAM_FROM_BYTES) {
		i = (LINE_BYTES - (uintptr_t)t % LINE_BYTES) % LINE_BYTES;
		memcpy(t, x, i);
		for (; bytes - i >= 4 * VECTOR_BYTES; i += 4 * VECTOR_BYTES) {
			vector v0 = load_plain(x + i);
			vector v1 = load_plain(x + i + VECTOR_BYTES);
			vector v2 = load_plain(x + i + 2 * VECTOR_BYTES);
			vector v3 = load_plain(x + i + 3 * VECTOR_BYTES);
			fetch_lines(x + i + FETCH_BYTES, 4 * VECTOR_BYTES);
			stream_plain(t + i, v0);
			stream_plain(t + i + VECTOR_BYTES, v1);
			stream_plain(t + i + 2 * VECTOR_BYTES, v2);
			stream_plain(t + i + 3 * VECTOR_BYTES, v3);
		}
		stream_end();
	}
	if (i < bytes)
		memcpy(t + i, x + i, bytes - i);
}

INLINE bool is_copy(uint32_t source_count, uint32_t divisor, bool is_dividing)
{
	COL_ASSERT(source_count > 0);
	COL_ASSERT(divisor == 1 || (is_dividing && divisor > 0 && divisor <= COL_DIVISOR_MAX));
	return source_count == 1 && divisor == 1;
}

static void copy_single(void *target, const void *source, size_t bytes, bool is_streaming)
{
	if (target != source)
		copy_bytes(target, source, bytes, is_streaming);
}

INLINE struct pass pass_of(uint32_t source_count, uint32_t divisor, size_t bytes, bool is_streaming)
{
	return (struct pass){source_count, divisor > 1, is_streaming, bytes >= FETCH_FROM_BYTES};
}

/* ---- kernels ------------------------------------------------------------------------------- */

#define DEFINE_REDUCE(op, name, type, fold) \
	static void op##_##name(void *target, const void *a, const void *b, size_t count) \
	{ \
		pair_##fold(target, a, b, count * sizeof(type)); \
	}

#define MANY(op, name) \
	static void many_##op##_##name(void *target, const void *const *sources, \
	                               uint32_t source_count, size_t count, uint32_t divisor, \
	                               bool is_streaming)

/* `divisor_of`: of a fold that finishes with a quotient; its argument is the divisor. */
#define DEFINE_MANY(op, name, type, fold, is_dividing, divisor_of) \
	MANY(op, name) \
	{ \
		size_t bytes = count * sizeof(type); \
		if (is_copy(source_count, divisor, is_dividing)) { \
			copy_single(target, sources[0], bytes, is_streaming); \
			return; \
		} \
		struct pass pass = pass_of(source_count, divisor, bytes, is_streaming); \
		const vector scale = divisor_of(divisor); \
		fold_##fold(pass, target, sources, 0, bytes, &scale); \
		if (is_streaming) \
			stream_end(); \
	}
#define divisor_none(divisor) no_scale()

#define DEFINE_BOTH(op, name, type, fold) \
	DEFINE_REDUCE(op, name, type, fold) \
	DEFINE_MANY(op, name, type, fold, false, divisor_none)

/* A quotient that the compiler makes vectors of as well as can be. */
#define DEFINE_DIVIDE_APART(name, type) \
	static void divide_##name(void *target, size_t count, uint32_t divisor) \
	{ \
		COL_ASSERT(divisor > 0 && divisor <= COL_DIVISOR_MAX); \
		type *t = target; \
		for (size_t i = 0; i < count; i++) \
			t[i] = col_divide_##name(t[i], divisor); \
	} \
	MANY(sum, name) \
	{ \
		size_t bytes = count * sizeof(type); \
		if (is_copy(source_count, divisor, true)) { \
			copy_single(target, sources[0], bytes, is_streaming); \
			return; \
		} \
		struct pass pass = pass_of(source_count, 1, bytes, is_streaming && divisor == 1); \
		const vector scale = no_scale(); \
		size_t block = divisor == 1 ? bytes : DIVIDE_BYTES; \
		for (size_t begin = 0; begin < bytes; begin += block) { \
			size_t end = bytes - begin < block ? bytes : begin + block; \
			fold_sum_##name(pass, target, sources, begin, end, &scale); \
			if (divisor > 1) \
				divide_##name((uint8_t *)target + begin, (end - begin) / sizeof(type), divisor); \
		} \
		if (pass.is_streaming) \
			stream_end(); \
	}

/* A pass over one source, which is the target or may be. */
#define DEFINE_DIVIDE(name, type, fold, divisor_of) \
	static void divide_##name(void *target, size_t count, uint32_t divisor) \
	{ \
		COL_ASSERT(divisor > 0 && divisor <= COL_DIVISOR_MAX); \
		const void *const sources[1] = {target}; \
		const struct pass pass = {.source_count = 1, .is_finished = true}; \
		run_##fold(pass, target, sources, 0, count * sizeof(type), divisor_of(divisor)); \
	}
#define DEFINE_SCALE(name, type, fold, factor_of) \
	static void scale_##name(void *target, const void *source, size_t count, double factor) \
	{ \
		const void *const sources[1] = {source}; \
		const struct pass pass = {.source_count = 1, .is_finished = true}; \
		run_##fold(pass, target, sources, 0, count * sizeof(type), factor_of(factor)); \
	}

#define DEFINE_WIDEN(op, name) \
	static void widen_##op##_##name(float *total, const void *a, const void *b, size_t count) \
	{ \
		const uint16_t *x = a; \
		const uint16_t *y = b; \
		size_t i = 0; \
		for (; count - i >= FLOATS; i += FLOATS) \
			store_plain(total + i, op##_of_float32(load_##name(x + i), load_##name(y + i))); \
		size_t rest = count - i; \
		if (rest > 0) \
			store_part_plain(total + i, rest * 4, \
			                 op##_of_float32(load_part_##name(x + i, rest * 2), \
			                                 load_part_##name(y + i, rest * 2))); \
	} \
	static void widen_add_##op##_##name(float *total, const void *b, size_t count, bool is_left) \
	{ \
		const uint16_t *y = b; \
		size_t i = 0; \
		for (; count - i >= FLOATS; i += FLOATS) { \
			vector left = load_plain(total + i); \
			vector right = load_##name(y + i); \
			store_plain(total + i, is_left ? op##_of_float32(right, left) \
			                               : op##_of_float32(left, right)); \
		} \
		size_t rest = count - i; \
		if (rest > 0) { \
			vector left = load_part_plain(total + i, rest * 4); \
			vector right = load_part_##name(y + i, rest * 2); \
			store_part_plain(total + i, rest * 4, is_left ? op##_of_float32(right, left) \
			                                              : op##_of_float32(left, right)); \
		} \
	}

#define DEFINE_NARROW(name) \
	static void narrow_##name(void *target, const float *total, size_t count, uint32_t divisor) \
	{ \
		COL_ASSERT(divisor > 0 && divisor <= COL_DIVISOR_MAX); \
		uint16_t *t = target; \
		vector scale = divisor_float32(divisor); \
		size_t i = 0; \
		for (; count - i >= FLOATS; i += FLOATS) \
			store_##name(t + i, quotient_float32(load_plain(total + i), scale)); \
		size_t rest = count - i; \
		if (rest > 0) \
			store_part_##name(t + i, rest * 2, \
			                  quotient_float32(load_part_plain(total + i, rest * 4), scale)); \
	}

/* ---- what there is ------------------------------------------------------------------------- */

/* One line per type: DTYPE, name, type, width: sums, products and bits are the same for both signs.
 * The divisions of int32 and reals are part of the pass. */
#define INTEGERS(X) \
	X(INT8, int8, int8_t, 8) \
	X(INT16, int16, int16_t, 16) \
	X(INT32, int32, int32_t, 32) \
	X(INT64, int64, int64_t, 64) \
	X(UINT8, uint8, uint8_t, 8) \
	X(UINT16, uint16, uint16_t, 16) \
	X(UINT32, uint32, uint32_t, 32) \
	X(UINT64, uint64, uint64_t, 64)
#define REALS(X) \
	X(FLOAT32, float32, float) \
	X(FLOAT64, float64, double)
#define HALVES(X) \
	X(FLOAT16, float16) \
	X(BFLOAT16, bfloat16)

DEFINE_FOLD_MANY(sum_8, sum_of_8, plain, unfinished)
DEFINE_FOLD_MANY(sum_16, sum_of_16, plain, unfinished)
DEFINE_FOLD_MANY(sum_32, sum_of_32, plain, quotient_int32)
DEFINE_FOLD_MANY(sum_64, sum_of_64, plain, unfinished)
DEFINE_FOLD_MANY(prod_8, prod_of_8, plain, unfinished)
DEFINE_FOLD_MANY(prod_16, prod_of_16, plain, unfinished)
DEFINE_FOLD_MANY(prod_32, prod_of_32, plain, unfinished)
DEFINE_FOLD_MANY(prod_64, prod_of_64, plain, unfinished)
DEFINE_FOLD_MANY(and, and_of_plain, plain, unfinished)
DEFINE_FOLD_MANY(or, or_of_plain, plain, unfinished)
DEFINE_FOLD_MANY(xor, xor_of_plain, plain, unfinished)
DEFINE_FOLD_MANY(and_boolean, and_of_boolean, plain, unfinished)
DEFINE_FOLD_MANY(or_boolean, or_of_boolean, plain, unfinished)
DEFINE_FOLD_MANY(xor_boolean, xor_of_boolean, plain, unfinished)
DEFINE_BOTH(and, boolean, uint8_t, and_boolean)
DEFINE_BOTH(or, boolean, uint8_t, or_boolean)
DEFINE_BOTH(xor, boolean, uint8_t, xor_boolean)

#define fold_sum_int8 fold_sum_8
#define fold_sum_int16 fold_sum_16
#define fold_sum_int64 fold_sum_64
#define fold_sum_uint8 fold_sum_8
#define fold_sum_uint16 fold_sum_16
#define fold_sum_uint32 fold_sum_32
#define fold_sum_uint64 fold_sum_64
DEFINE_DIVIDE_APART(int8, int8_t)
DEFINE_DIVIDE_APART(int16, int16_t)
DEFINE_DIVIDE_APART(int64, int64_t)
DEFINE_DIVIDE_APART(uint8, uint8_t)
DEFINE_DIVIDE_APART(uint16, uint16_t)
DEFINE_DIVIDE_APART(uint32, uint32_t)
DEFINE_DIVIDE_APART(uint64, uint64_t)
DEFINE_DIVIDE(int32, int32_t, sum_32, divisor_int32)
DEFINE_MANY(sum, int32, int32_t, sum_32, true, divisor_int32)

#define DEFINE_INTEGER(dtype, name, type, width) \
	DEFINE_FOLD_MANY(min_##name, min_of_##name, plain, unfinished) \
	DEFINE_FOLD_MANY(max_##name, max_of_##name, plain, unfinished) \
	DEFINE_REDUCE(sum, name, type, sum_##width) \
	DEFINE_BOTH(prod, name, type, prod_##width) \
	DEFINE_BOTH(min, name, type, min_##name) \
	DEFINE_BOTH(max, name, type, max_##name) \
	DEFINE_BOTH(and, name, type, and) \
	DEFINE_BOTH(or, name, type, or) \
	DEFINE_BOTH(xor, name, type, xor)
INTEGERS(DEFINE_INTEGER)

#define DEFINE_REAL(dtype, name, type) \
	DEFINE_FOLD_FEW(sum_##name, sum_of_##name, plain, quotient_##name) \
	DEFINE_FOLD_MANY(prod_##name, prod_of_##name, plain, prod_of_##name) \
	DEFINE_FOLD_MANY(min_##name, min_of_##name, plain, unfinished) \
	DEFINE_FOLD_MANY(max_##name, max_of_##name, plain, unfinished) \
	DEFINE_REDUCE(sum, name, type, sum_##name) \
	DEFINE_MANY(sum, name, type, sum_##name, true, divisor_##name) \
	DEFINE_BOTH(prod, name, type, prod_##name) \
	DEFINE_BOTH(min, name, type, min_##name) \
	DEFINE_BOTH(max, name, type, max_##name) \
	DEFINE_DIVIDE(name, type, sum_##name, divisor_##name) \
	DEFINE_SCALE(name, type, prod_##name, factor_##name)
REALS(DEFINE_REAL)

#define DEFINE_COMPLEX(name, type, part) \
	DEFINE_REDUCE(sum, name, type, sum_##part) \
	DEFINE_MANY(sum, name, type, sum_##part, true, divisor_##part) \
	DEFINE_DIVIDE(name, type, sum_##part, divisor_##part) \
	DEFINE_SCALE(name, type, prod_##part, factor_##part)
DEFINE_COMPLEX(complex64, struct col_complex64, float32)
DEFINE_COMPLEX(complex128, struct col_complex128, float64)

/* What DEFINE_WIDEN and DEFINE_NARROW handle at once. */
enum { FLOATS = VECTOR_BYTES / sizeof(float) };

#define DEFINE_HALF(dtype, name) \
	DEFINE_FOLD_FEW(sum_##name, sum_of_float32, name, quotient_float32) \
	DEFINE_FOLD_MANY(prod_##name, prod_of_float32, name, prod_of_float32) \
	DEFINE_FOLD_MANY(min_##name, min_of_##name, plain, unfinished) \
	DEFINE_FOLD_MANY(max_##name, max_of_##name, plain, unfinished) \
	DEFINE_REDUCE(sum, name, uint16_t, sum_##name) \
	DEFINE_MANY(sum, name, uint16_t, sum_##name, true, divisor_float32) \
	DEFINE_BOTH(prod, name, uint16_t, prod_##name) \
	DEFINE_BOTH(min, name, uint16_t, min_##name) \
	DEFINE_BOTH(max, name, uint16_t, max_##name) \
	DEFINE_DIVIDE(name, uint16_t, sum_##name, divisor_float32) \
	DEFINE_SCALE(name, uint16_t, prod_##name, factor_float32) \
	DEFINE_WIDEN(sum, name) \
	DEFINE_WIDEN(prod, name) \
	DEFINE_NARROW(name)
HALVES(DEFINE_HALF)

/* ---- the table ----------------------------------------------------------------------------- */

#define FILL(dtype, reduce_op, op, name) \
	table->reduce[COLLECT_##dtype][COLLECT_##reduce_op] = op##_##name; \
	table->reduce_many[COLLECT_##dtype][COLLECT_##reduce_op] = many_##op##_##name;
#define FILL_WIDENED(dtype, reduce_op, op, name) \
	table->widen[COLLECT_##dtype][COLLECT_##reduce_op] = widen_##op##_##name; \
	table->widen_add[COLLECT_##dtype][COLLECT_##reduce_op] = widen_add_##op##_##name;

#define FILL_INTEGER(dtype, name, type, width) \
	FILL(dtype, SUM, sum, name) \
	FILL(dtype, AVG, sum, name) \
	FILL(dtype, PROD, prod, name) \
	FILL(dtype, MIN, min, name) \
	FILL(dtype, MAX, max, name) \
	FILL(dtype, AND, and, name) \
	FILL(dtype, OR, or, name) \
	FILL(dtype, XOR, xor, name) \
	table->divide[COLLECT_##dtype] = divide_##name;

#define FILL_SUMS(dtype, name) \
	FILL(dtype, SUM, sum, name) \
	FILL(dtype, AVG, sum, name) \
	FILL(dtype, PREMUL_SUM, sum, name) \
	table->divide[COLLECT_##dtype] = divide_##name; \
	table->scale[COLLECT_##dtype] = scale_##name;

#define FILL_REAL(dtype, name, ...) \
	FILL_SUMS(dtype, name) \
	FILL(dtype, PROD, prod, name) \
	FILL(dtype, MIN, min, name) \
	FILL(dtype, MAX, max, name)

#define FILL_HALF(dtype, name) \
	FILL_REAL(dtype, name, uint16_t) \
	FILL_WIDENED(dtype, SUM, sum, name) \
	FILL_WIDENED(dtype, AVG, sum, name) \
	FILL_WIDENED(dtype, PREMUL_SUM, sum, name) \
	FILL_WIDENED(dtype, PROD, prod, name) \
	table->narrow[COLLECT_##dtype] = narrow_##name;

/* Products of complexes are left as they are: their shuffles are no gain worth a kernel. */
static void table_fill(struct col_kernels *table)
{
	INTEGERS(FILL_INTEGER)
	REALS(FILL_REAL)
	HALVES(FILL_HALF)
	FILL_SUMS(COMPLEX64, complex64)
	FILL_SUMS(COMPLEX128, complex128)
	FILL(BOOL, SUM, or, boolean)
	FILL(BOOL, MAX, or, boolean)
	FILL(BOOL, OR, or, boolean)
	FILL(BOOL, PROD, and, boolean)
	FILL(BOOL, MIN, and, boolean)
	FILL(BOOL, AND, and, boolean)
	FILL(BOOL, XOR, xor, boolean)
	table->copy = copy_bytes;
}

#endif
