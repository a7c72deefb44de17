/*
 * One element at a time: what a reduction means. The scalar kernels are loops over these, and the
 * wider ones use them for their tails.
 *
 * min and max are the machine's `a < b ? a : b`, which gives b on a tie and when either is NaN,
 * but for a NaN in a, which wins.
 */
#ifndef COL_KERNELS_ELEMENT_H
#define COL_KERNELS_ELEMENT_H

#include <stdint.h>

/* Signed overflow is undefined, unsigned wraps; converting back keeps the bits (gcc, clang). */
#define COL_ELEMENT_INTEGER(name, type, wrapping) \
	static inline type col_sum_##name(type a, type b) \
	{ \
		return (type)((wrapping)a + (wrapping)b); \
	} \
	static inline type col_min_##name(type a, type b) \
	{ \
		return a < b ? a : b; \
	} \
	static inline type col_max_##name(type a, type b) \
	{ \
		return a > b ? a : b; \
	} \
	static inline type col_divide_##name(type a, uint32_t divisor) \
	{ \
		return (type)(a / (type)divisor); \
	}

#define COL_ELEMENT_REAL(name, type) \
	static inline type col_sum_##name(type a, type b) \
	{ \
		return a + b; \
	} \
	static inline type col_min_##name(type a, type b) \
	{ \
		return a != a || a < b ? a : b; \
	} \
	static inline type col_max_##name(type a, type b) \
	{ \
		return a != a || a > b ? a : b; \
	} \
	static inline type col_divide_##name(type a, uint32_t divisor) \
	{ \
		return a / (type)divisor; \
	}

COL_ELEMENT_INTEGER(int32, int32_t, uint32_t)
COL_ELEMENT_INTEGER(int64, int64_t, uint64_t)
COL_ELEMENT_REAL(float32, float)
COL_ELEMENT_REAL(float64, double)

#endif
