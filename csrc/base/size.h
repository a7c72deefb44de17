/* Arithmetic on sizes that cannot silently wrap. */
#ifndef COL_BASE_SIZE_H
#define COL_BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool col_size_multiply(size_t a, size_t b, size_t *product_out)
{
	return !__builtin_mul_overflow(a, b, product_out);
}

static inline uint64_t col_div_ceil(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

static inline uint64_t col_min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t col_max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

#endif
