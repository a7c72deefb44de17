/*
 * Elements of any dtype as bits, and what a reduction makes of two of them, worked out without the
 * library: integers in 64 bits, reals as doubles that are rounded by a search among all values of
 * the format.
 */
#ifndef COL_TEST_KERNELS_ELEMENTS_H
#define COL_TEST_KERNELS_ELEMENTS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/prng.h"
#include "kernels/kernels.h"

/* A complex has two parts, all else one. */
struct format {
	unsigned bits; /* of a part */
	unsigned part_count;
	unsigned exponent_bits; /* 0: an integer */
	unsigned mantissa_bits;
	bool is_signed;
};

static inline struct format format_of(int dtype)
{
	unsigned bits = (unsigned)col_dtype_bytes(dtype) * 8;
	switch (dtype) {
	case COLLECT_FLOAT16: return (struct format){16, 1, 5, 10, true};
	case COLLECT_BFLOAT16: return (struct format){16, 1, 8, 7, true};
	case COLLECT_FLOAT32: return (struct format){32, 1, 8, 23, true};
	case COLLECT_FLOAT64: return (struct format){64, 1, 11, 52, true};
	case COLLECT_COMPLEX64: return (struct format){32, 2, 8, 23, true};
	case COLLECT_COMPLEX128: return (struct format){64, 2, 11, 52, true};
	default: return (struct format){bits, 1, 0, 0, dtype <= COLLECT_INT64};
	}
}

static inline bool is_half(int dtype)
{
	return dtype == COLLECT_FLOAT16 || dtype == COLLECT_BFLOAT16;
}

static inline uint64_t ones(unsigned bits)
{
	return bits >= 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1;
}

static inline uint64_t sign_of(struct format format)
{
	return (uint64_t)1 << (format.bits - 1);
}

static inline uint64_t infinity_of(struct format format)
{
	return ones(format.exponent_bits) << format.mantissa_bits;
}

static inline uint64_t quiet_of(struct format format)
{
	return (uint64_t)1 << (format.mantissa_bits - 1);
}

static inline bool is_nan(struct format format, uint64_t part)
{
	return format.exponent_bits > 0
	       && (part & ones(format.bits - 1)) > infinity_of(format);
}

/* `index` counts parts. */
static inline uint64_t part_get(struct format format, const void *elements, size_t index)
{
	const uint8_t *bytes = (const uint8_t *)elements + index * (format.bits / 8);
	uint64_t part = 0;
	for (unsigned byte = 0; byte < format.bits / 8; byte++)
		part |= (uint64_t)bytes[byte] << 8 * byte;
	return part;
}

static inline void part_put(struct format format, void *elements, size_t index, uint64_t part)
{
	uint8_t *bytes = (uint8_t *)elements + index * (format.bits / 8);
	for (unsigned byte = 0; byte < format.bits / 8; byte++)
		bytes[byte] = (uint8_t)(part >> 8 * byte);
}

enum { SPECIALS_MAX = 32 };

/* Zeroes, infinities, NaNs with and without the quiet bit and with payloads, subnormals, the
 * smallest and largest; for integers the ends of the ranges, signed and unsigned. */
static inline size_t specials_of(struct format format, uint64_t specials_out[SPECIALS_MAX])
{
	size_t count = 0;
	uint64_t sign = sign_of(format);
	if (format.exponent_bits == 0) {
		const uint64_t values[] = {0, 1, 2, 3, sign - 2, sign - 1};
		for (size_t index = 0; index < 6; index++) {
			specials_out[count++] = values[index];
			specials_out[count++] = ~values[index] & ones(format.bits);
		}
		return count;
	}
	uint64_t infinity = infinity_of(format);
	uint64_t quiet = quiet_of(format);
	uint64_t one = ones(format.exponent_bits - 1) << format.mantissa_bits;
	const uint64_t values[] = {
		0, 1, ones(format.mantissa_bits), quiet, ones(format.mantissa_bits) + 1, one, one + 1,
		infinity - 1, infinity, infinity + 1, infinity + 5, infinity + quiet,
		infinity + quiet + 7, infinity + ones(format.mantissa_bits),
	};
	for (size_t index = 0; index < sizeof(values) / sizeof(values[0]); index++) {
		specials_out[count++] = values[index];
		specials_out[count++] = values[index] | sign;
	}
	return count;
}

/* Every third part is special. Reals otherwise have any bits, or bits near 1, so that sums round
 * instead of taking one side. */
static inline void elements_draw(struct col_prng *prng, int dtype, void *elements_out,
                                 size_t count)
{
	struct format format = format_of(dtype);
	uint64_t specials[SPECIALS_MAX];
	size_t special_count = specials_of(format, specials);
	for (size_t index = 0; index < count * format.part_count; index++) {
		uint64_t part = col_prng_next(prng);
		uint64_t choice = col_prng_below(prng, 3);
		if (choice == 0)
			part = specials[col_prng_below(prng, special_count)];
		if (choice == 1 && format.exponent_bits > 0) {
			uint64_t near_one = ones(format.exponent_bits - 1) - 2 + col_prng_below(prng, 4);
			part &= ~infinity_of(format);
			part |= near_one << format.mantissa_bits;
		}
		part_put(format, elements_out, index, part);
	}
}

/* ---- reals --------------------------------------------------------------------------------- */

/* Of what is no NaN. Infinity's bits stand for the number that would come next, which is what
 * rounding takes them for. */
static inline double magnitude_value(struct format format, uint64_t magnitude)
{
	int exponent = (int)(magnitude >> format.mantissa_bits);
	uint64_t mantissa = magnitude & ones(format.mantissa_bits);
	int bias = (int)ones(format.exponent_bits - 1) + (int)format.mantissa_bits;
	if (exponent > 0)
		mantissa += (uint64_t)1 << format.mantissa_bits;
	return ldexp((double)mantissa, (exponent > 0 ? exponent : 1) - bias);
}

static inline double part_value(struct format format, uint64_t part)
{
	uint64_t magnitude = part & ones(format.bits - 1);
	double value = magnitude == infinity_of(format) ? HUGE_VAL
	                                                : magnitude_value(format, magnitude);
	return (part & sign_of(format)) != 0 ? -value : value;
}

/* To nearest, ties to even. For formats narrower than double; `value` is no NaN. */
static inline uint64_t part_round(struct format format, double value)
{
	uint64_t sign = signbit(value) ? sign_of(format) : 0;
	double magnitude = fabs(value);
	uint64_t low = 0;
	uint64_t high = infinity_of(format); /* low <= magnitude, and high is the first above */
	if (magnitude >= magnitude_value(format, high))
		return sign | high;
	while (high - low > 1) {
		uint64_t middle = low + (high - low) / 2;
		if (magnitude_value(format, middle) <= magnitude)
			low = middle;
		else
			high = middle;
	}
	double below = magnitude - magnitude_value(format, low);
	double above = magnitude_value(format, high) - magnitude;
	bool is_up = below > above || (below == above && low % 2 == 1);
	return sign | (is_up ? high : low);
}

static inline uint64_t double_bits(double value)
{
	uint64_t bits;
	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

/* What an operation makes of no NaN, such as infinity less infinity. */
static inline uint64_t default_nan(struct format format)
{
#ifdef __x86_64__
	return sign_of(format) | infinity_of(format) | quiet_of(format);
#else
	return infinity_of(format) | quiet_of(format);
#endif
}

/* Of float32 or float64. Doubles have more than twice the bits of floats, so that rounding an
 * operation of doubles to float is rounding once. */
static inline uint64_t real_operation(struct format format, char operation, uint64_t a, uint64_t b)
{
	if (is_nan(format, a))
		return a | quiet_of(format);
	if (is_nan(format, b))
		return b | quiet_of(format);
	double x = part_value(format, a);
	double y = part_value(format, b);
	double result = operation == '+' ? x + y : operation == '-' ? x - y
	                : operation == '*' ? x * y : x / y;
	if (result != result)
		return default_nan(format);
	return format.bits == 64 ? double_bits(result) : part_round(format, result);
}

/* The bits of a part as float32, or as what it is already. */
static inline uint64_t part_widen(struct format format, uint64_t part)
{
	if (format.bits != 16)
		return part;
	struct format wide = format_of(COLLECT_FLOAT32);
	if (!is_nan(format, part))
		return part_round(wide, part_value(format, part));
	uint64_t sign = part >> 15 << 31;
	uint64_t payload = (part & ones(format.mantissa_bits)) << (23 - format.mantissa_bits);
	return sign | infinity_of(wide) | payload;
}

static inline uint64_t part_narrow(struct format format, uint64_t part)
{
	if (format.bits != 16)
		return part;
	struct format wide = format_of(COLLECT_FLOAT32);
	if (!is_nan(wide, part))
		return part_round(format, part_value(wide, part));
	uint64_t payload = (part & ones(23)) >> (23 - format.mantissa_bits);
	return part >> 31 << 15 | infinity_of(format) | quiet_of(format) | payload;
}

static inline struct format format_widened(struct format format)
{
	return format.bits == 16 ? format_of(COLLECT_FLOAT32) : format;
}

/* In float32 where the format has 16 bits, then rounded to it. */
static inline uint64_t part_operation(struct format format, char operation, uint64_t a, uint64_t b)
{
	struct format wide = format_widened(format);
	uint64_t result = real_operation(wide, operation, part_widen(format, a), part_widen(format, b));
	return part_narrow(format, result);
}

/* ---- reductions ---------------------------------------------------------------------------- */

static inline int64_t part_signed(struct format format, uint64_t part)
{
	return (int64_t)(part << (64 - format.bits)) >> (64 - format.bits);
}

static inline bool is_less(struct format format, uint64_t a, uint64_t b)
{
	if (format.exponent_bits > 0)
		return part_value(format, a) < part_value(format, b);
	return format.is_signed ? part_signed(format, a) < part_signed(format, b) : a < b;
}

static inline uint64_t reference_extreme(struct format format, bool is_min, uint64_t a, uint64_t b)
{
	if (is_nan(format, a) || is_nan(format, b))
		return is_nan(format, a) ? a : b;
	return (is_min ? is_less(format, a, b) : is_less(format, b, a)) ? a : b;
}

static inline uint64_t reference_bool(int reduce_op, uint64_t a, uint64_t b)
{
	switch (reduce_op) {
	case COLLECT_PROD: case COLLECT_MIN: case COLLECT_AND: return a != 0 && b != 0;
	case COLLECT_XOR: return (a != 0) != (b != 0);
	default: return a != 0 || b != 0;
	}
}

static inline uint64_t reference_part(int dtype, int reduce_op, uint64_t a, uint64_t b)
{
	struct format format = format_of(dtype);
	bool is_real = format.exponent_bits > 0;
	if (dtype == COLLECT_BOOL)
		return reference_bool(reduce_op, a, b);
	switch (reduce_op) {
	case COLLECT_MIN: return reference_extreme(format, true, a, b);
	case COLLECT_MAX: return reference_extreme(format, false, a, b);
	case COLLECT_AND: return a & b;
	case COLLECT_OR: return a | b;
	case COLLECT_XOR: return a ^ b;
	case COLLECT_PROD:
		return is_real ? part_operation(format, '*', a, b) : a * b & ones(format.bits);
	default:
		return is_real ? part_operation(format, '+', a, b) : (a + b) & ones(format.bits);
	}
}

/* Element `index` of the target from those of a and b. */
static inline void reference_reduce(int dtype, int reduce_op, void *target, const void *a,
                                    const void *b, size_t index)
{
	struct format format = format_of(dtype);
	size_t first = index * format.part_count;
	uint64_t x = part_get(format, a, first);
	uint64_t y = part_get(format, b, first);
	if (format.part_count == 1) {
		part_put(format, target, first, reference_part(dtype, reduce_op, x, y));
		return;
	}
	uint64_t x_imaginary = part_get(format, a, first + 1);
	uint64_t y_imaginary = part_get(format, b, first + 1);
	uint64_t real = real_operation(format, '+', x, y);
	uint64_t imaginary = real_operation(format, '+', x_imaginary, y_imaginary);
	if (reduce_op == COLLECT_PROD) {
		real = real_operation(format, '-', real_operation(format, '*', x, y),
		                      real_operation(format, '*', x_imaginary, y_imaginary));
		imaginary = real_operation(format, '+', real_operation(format, '*', x, y_imaginary),
		                           real_operation(format, '*', x_imaginary, y));
	}
	part_put(format, target, first, real);
	part_put(format, target, first + 1, imaginary);
}

static inline uint64_t reference_quotient(struct format format, uint64_t part, uint32_t divisor)
{
	if (format.exponent_bits == 0)
		return (format.is_signed ? (uint64_t)(part_signed(format, part) / (int64_t)divisor)
		                         : part / divisor) & ones(format.bits);
	struct format wide = format_widened(format);
	uint64_t divisor_bits = wide.bits == 64 ? double_bits(divisor) : part_round(wide, divisor);
	uint64_t result = real_operation(wide, '/', part_widen(format, part), divisor_bits);
	return part_narrow(format, result);
}

/* `factor` is no NaN. */
static inline uint64_t reference_product(struct format format, uint64_t part, double factor)
{
	struct format wide = format_widened(format);
	uint64_t factor_bits = wide.bits == 64 ? double_bits(factor) : part_round(wide, factor);
	uint64_t result = real_operation(wide, '*', part_widen(format, part), factor_bits);
	return part_narrow(format, result);
}

#endif
