/*
 * One element at a time: what a reduction means. The scalar kernels are loops over these.
 *
 * min and max are the machine's `a < b ? a : b`, which gives b on a tie and when either is NaN,
 * but for a NaN in a, which wins.
 *
 * 16-bit floats are uint16_t here. Their conversions give the bits of the processors'
 * instructions, subnormals and NaNs included: a NaN keeps the top of its payload and is made quiet.
 */
#ifndef COL_KERNELS_ELEMENT_H
#define COL_KERNELS_ELEMENT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct col_complex64 {
	float real;
	float imaginary;
};

struct col_complex128 {
	double real;
	double imaginary;
};

/* ---- integers and bools -------------------------------------------------------------------- */

/*
 * Signed overflow is undefined, unsigned wraps; converting back keeps the bits (gcc, clang). A
 * quotient by way of a real is exact where the real has more bits than the dividend, and unlike
 * an integer division there is an instruction for many at once: the exact quotient, if it is no
 * integer, is at least 1/dividend (relatively) below the next one, so that rounding cannot
 * reach it.
 */
#define COL_ELEMENT_INTEGER(name, type, wrapping, dividend) \
	static inline type col_sum_##name(type a, type b) \
	{ \
		return (type)((wrapping)a + (wrapping)b); \
	} \
	static inline type col_prod_##name(type a, type b) \
	{ \
		return (type)((wrapping)a * (wrapping)b); \
	} \
	static inline type col_min_##name(type a, type b) \
	{ \
		return a < b ? a : b; \
	} \
	static inline type col_max_##name(type a, type b) \
	{ \
		return a > b ? a : b; \
	} \
	static inline type col_and_##name(type a, type b) \
	{ \
		return (type)(a & b); \
	} \
	static inline type col_or_##name(type a, type b) \
	{ \
		return (type)(a | b); \
	} \
	static inline type col_xor_##name(type a, type b) \
	{ \
		return (type)(a ^ b); \
	} \
	static inline type col_divide_##name(type a, uint32_t divisor) \
	{ \
		return (type)((dividend)a / (dividend)divisor); \
	}

COL_ELEMENT_INTEGER(int8, int8_t, uint32_t, float)
COL_ELEMENT_INTEGER(int16, int16_t, uint32_t, float)
COL_ELEMENT_INTEGER(int32, int32_t, uint32_t, double)
COL_ELEMENT_INTEGER(int64, int64_t, uint64_t, int64_t)
COL_ELEMENT_INTEGER(uint8, uint8_t, uint32_t, float)
COL_ELEMENT_INTEGER(uint16, uint16_t, uint32_t, float)
COL_ELEMENT_INTEGER(uint32, uint32_t, uint32_t, double)
COL_ELEMENT_INTEGER(uint64, uint64_t, uint64_t, uint64_t)

static inline uint8_t col_and_boolean(uint8_t a, uint8_t b)
{
	return (uint8_t)((a != 0) & (b != 0));
}

static inline uint8_t col_or_boolean(uint8_t a, uint8_t b)
{
	return (uint8_t)((a | b) != 0);
}

static inline uint8_t col_xor_boolean(uint8_t a, uint8_t b)
{
	return (uint8_t)((a != 0) ^ (b != 0));
}

/* ---- reals and complexes ------------------------------------------------------------------- */

/* Compilers exchange the operands of a sum and a product, and some processors prefer a signaling
 * NaN to a quiet one: when a is NaN, b is kept out of it. */
#define COL_ELEMENT_REAL(name, type) \
	static inline type col_sum_##name(type a, type b) \
	{ \
		return a + (a != a ? a : b); \
	} \
	static inline type col_prod_##name(type a, type b) \
	{ \
		return a * (a != a ? a : b); \
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
	} \
	static inline type col_scale_##name(type a, double factor) \
	{ \
		return col_prod_##name(a, (type)factor); \
	}

COL_ELEMENT_REAL(float32, float)
COL_ELEMENT_REAL(float64, double)

#define COL_ELEMENT_COMPLEX(name, part) \
	static inline struct col_##name col_sum_##name(struct col_##name a, struct col_##name b) \
	{ \
		return (struct col_##name){col_sum_##part(a.real, b.real), \
		                           col_sum_##part(a.imaginary, b.imaginary)}; \
	} \
	static inline struct col_##name col_prod_##name(struct col_##name a, struct col_##name b) \
	{ \
		return (struct col_##name){ \
			col_prod_##part(a.real, b.real) - col_prod_##part(a.imaginary, b.imaginary), \
			col_sum_##part(col_prod_##part(a.real, b.imaginary), \
			               col_prod_##part(a.imaginary, b.real)), \
		}; \
	} \
	static inline struct col_##name col_divide_##name(struct col_##name a, uint32_t divisor) \
	{ \
		return (struct col_##name){col_divide_##part(a.real, divisor), \
		                           col_divide_##part(a.imaginary, divisor)}; \
	} \
	static inline struct col_##name col_scale_##name(struct col_##name a, double factor) \
	{ \
		return (struct col_##name){col_scale_##part(a.real, factor), \
		                           col_scale_##part(a.imaginary, factor)}; \
	}

COL_ELEMENT_COMPLEX(complex64, float32)
COL_ELEMENT_COMPLEX(complex128, float64)

/* ---- 16-bit floats ------------------------------------------------------------------------- */

static inline float col_float_of(uint32_t bits)
{
	float value;
	memcpy(&value, &bits, sizeof(value));
	return value;
}

static inline uint32_t col_bits_of(float value)
{
	uint32_t bits;
	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

static inline float col_widen_float16(uint16_t half)
{
	uint32_t sign = (uint32_t)(half & 0x8000) << 16;
	uint32_t magnitude = half & 0x7fff;
	if (magnitude > 0x7c00)
		return col_float_of(sign | 0x7fc00000 | magnitude << 13);
	if (magnitude == 0x7c00)
		return col_float_of(sign | 0x7f800000);
	if (magnitude >= 0x400)
		return col_float_of(sign | ((magnitude << 13) + (112u << 23)));
	/* Zero or subnormal: units of 2^-24. */
	return col_float_of(sign | col_bits_of((float)magnitude * 0x1p-24f));
}

static inline uint16_t col_narrow_float16(float value)
{
	uint32_t bits = col_bits_of(value);
	uint32_t sign = bits >> 16 & 0x8000;
	uint32_t magnitude = bits & 0x7fffffff;
	if (magnitude > 0x7f800000)
		return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
	if (magnitude >= 0x477ff000) /* 65520, half-way to what would be the next */
		return (uint16_t)(sign | 0x7c00);
	if (magnitude >= 0x38800000) { /* 2^-14, the smallest normal */
		uint32_t moved = magnitude - (112u << 23);
		return (uint16_t)(sign | (moved + 0xfff + (moved >> 13 & 1)) >> 13);
	}
	if (magnitude < 0x33000000) /* 2^-25, half of the smallest */
		return (uint16_t)sign;
	uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000;
	uint32_t shift = 126 - (magnitude >> 23);
	uint32_t unit = (uint32_t)1 << shift;
	uint32_t rest = mantissa & (unit - 1);
	uint32_t quotient = mantissa >> shift;
	quotient += rest > unit / 2 || (rest == unit / 2 && (quotient & 1) != 0);
	return (uint16_t)(sign | quotient);
}

static inline float col_widen_bfloat16(uint16_t half)
{
	return col_float_of((uint32_t)half << 16);
}

static inline uint16_t col_narrow_bfloat16(float value)
{
	uint32_t bits = col_bits_of(value);
	uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
	uint32_t quiet = bits >> 16 | 0x40;
	return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

/* Of either type: the magnitude as a number with its sign, so that zeroes are equal. */
static inline int32_t col_half_key(uint16_t half)
{
	int32_t magnitude = half & 0x7fff;
	return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

#define COL_ELEMENT_HALF(name, infinity) \
	static inline bool col_is_nan_##name(uint16_t a) \
	{ \
		return (a & 0x7fff) > (infinity); \
	} \
	static inline uint16_t col_sum_##name(uint16_t a, uint16_t b) \
	{ \
		return col_narrow_##name(col_sum_float32(col_widen_##name(a), col_widen_##name(b))); \
	} \
	static inline uint16_t col_prod_##name(uint16_t a, uint16_t b) \
	{ \
		return col_narrow_##name(col_prod_float32(col_widen_##name(a), col_widen_##name(b))); \
	} \
	static inline uint16_t col_min_##name(uint16_t a, uint16_t b) \
	{ \
		bool is_less = !col_is_nan_##name(b) & (col_half_key(a) < col_half_key(b)); \
		return col_is_nan_##name(a) | is_less ? a : b; \
	} \
	static inline uint16_t col_max_##name(uint16_t a, uint16_t b) \
	{ \
		bool is_more = !col_is_nan_##name(b) & (col_half_key(a) > col_half_key(b)); \
		return col_is_nan_##name(a) | is_more ? a : b; \
	} \
	static inline uint16_t col_divide_##name(uint16_t a, uint32_t divisor) \
	{ \
		return col_narrow_##name(col_divide_float32(col_widen_##name(a), divisor)); \
	} \
	static inline uint16_t col_scale_##name(uint16_t a, double factor) \
	{ \
		return col_narrow_##name(col_scale_float32(col_widen_##name(a), factor)); \
	}

COL_ELEMENT_HALF(float16, 0x7c00)
COL_ELEMENT_HALF(bfloat16, 0x7f80)

#endif
