#include "reference.h"

#include <string.h>

#include "include/collect.h"

static const uint8_t element_bytes[COLLECT_DTYPE_COUNT] = {
	[COLLECT_INT8] = 1,      [COLLECT_INT16] = 2,     [COLLECT_INT32] = 4,
	[COLLECT_INT64] = 8,     [COLLECT_UINT8] = 1,     [COLLECT_UINT16] = 2,
	[COLLECT_UINT32] = 4,    [COLLECT_UINT64] = 8,    [COLLECT_FLOAT16] = 2,
	[COLLECT_BFLOAT16] = 2,  [COLLECT_FLOAT32] = 4,   [COLLECT_FLOAT64] = 8,
	[COLLECT_BOOL] = 1,      [COLLECT_COMPLEX64] = 8, [COLLECT_COMPLEX128] = 16,
};

static bool is_complex(int dtype)
{
	return dtype == COLLECT_COMPLEX64 || dtype == COLLECT_COMPLEX128;
}

static bool is_float(int dtype)
{
	return dtype == COLLECT_FLOAT16 || dtype == COLLECT_BFLOAT16 || dtype == COLLECT_FLOAT32 ||
	       dtype == COLLECT_FLOAT64;
}

bool reference_is_defined(int dtype, int reduce_op)
{
	switch (reduce_op) {
	case COLLECT_SUM:
	case COLLECT_PROD:
		return true;
	case COLLECT_AVG:
		return dtype != COLLECT_BOOL;
	case COLLECT_MIN:
	case COLLECT_MAX:
		return !is_complex(dtype);
	case COLLECT_PREMUL_SUM:
		return is_float(dtype) || is_complex(dtype);
	default:
		return !is_float(dtype) && !is_complex(dtype);
	}
}

bool reference_has_blocks(int collective)
{
	return collective == COLLECT_REDUCE_SCATTER || collective == COLLECT_ALL_GATHER ||
	       collective == COLLECT_ALL_TO_ALL || collective == COLLECT_GATHER ||
	       collective == COLLECT_SCATTER;
}

bool reference_has_root(int collective)
{
	return collective == COLLECT_BROADCAST || collective == COLLECT_REDUCE ||
	       collective == COLLECT_GATHER || collective == COLLECT_SCATTER;
}

bool reference_reduces(int collective)
{
	return collective == COLLECT_ALL_REDUCE || collective == COLLECT_REDUCE_SCATTER ||
	       collective == COLLECT_REDUCE;
}

double reference_factor(uint32_t rank)
{
	return 1 + rank % 2;
}

static uint64_t mix(uint64_t value)
{
	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
	value = (value ^ value >> 27) * 0x94d049bb133111ebu;
	return value ^ value >> 31;
}

/* Part 0: the real one. Whatever is done with up to nine of them is exact in every type. */
static int64_t value_of(const struct reference *reference, uint32_t rank, uint64_t block,
                        uint64_t index, int part)
{
	uint64_t bits = mix(mix(mix(reference->seed + rank) + block) + 2 * index + (uint64_t)part);
	if (reference->dtype == COLLECT_BOOL)
		return bits % 4 != 0;
	switch (reference->reduce_op) {
	case COLLECT_AVG:
		return (int64_t)(reference->world * (bits % 2));
	case COLLECT_PROD:
		return part == 0 ? 1 + (bits % 8 == 0) : 0;
	case COLLECT_SUM:
	case COLLECT_PREMUL_SUM:
		return (int64_t)(bits % 7);
	default:
		return (int64_t)(bits % 100);
	}
}

static int64_t combine(const struct reference *reference, int64_t a, int64_t b)
{
	switch (reference->reduce_op) {
	case COLLECT_MIN:
		return a < b ? a : b;
	case COLLECT_MAX:
		return a > b ? a : b;
	case COLLECT_PROD:
		return a * b;
	case COLLECT_AND:
		return a & b;
	case COLLECT_OR:
		return a | b;
	case COLLECT_XOR:
		return a ^ b;
	default:
		return a + b;
	}
}

static int64_t reduced(const struct reference *reference, uint64_t block, uint64_t index, int part)
{
	int64_t total = 0;
	for (uint32_t rank = 0; rank < reference->world; rank++) {
		int64_t value = value_of(reference, rank, block, index, part);
		if (reference->reduce_op == COLLECT_PREMUL_SUM)
			value *= (int64_t)reference_factor(rank);
		total = rank == 0 ? value : combine(reference, total, value);
	}
	return reference->reduce_op == COLLECT_AVG ? total / reference->world : total;
}

static uint16_t float16_of(int64_t value)
{
	if (value == 0)
		return 0;
	int exponent = 63 - __builtin_clzll((uint64_t)value);
	return (uint16_t)((exponent + 15) << 10 | ((value << 10 >> exponent) & 0x3ff));
}

/* One real number of the type. */
static void encode(int dtype, int64_t value, uint8_t *out)
{
	float as_float = (float)value;
	double as_double = (double)value;
	uint16_t as_float16 = float16_of(value);
	switch (dtype) {
	case COLLECT_FLOAT16:
		memcpy(out, &as_float16, 2);
		break;
	case COLLECT_BFLOAT16:
		memcpy(out, (uint8_t *)&as_float + 2, 2);
		break;
	case COLLECT_FLOAT32:
	case COLLECT_COMPLEX64:
		memcpy(out, &as_float, 4);
		break;
	case COLLECT_FLOAT64:
	case COLLECT_COMPLEX128:
		memcpy(out, &as_double, 8);
		break;
	case COLLECT_BOOL:
		*out = value != 0;
		break;
	default:
		memcpy(out, &value, element_bytes[dtype]); /* it wraps, as integers do */
	}
}

enum origin { FROM_RANK, FROM_ALL };

/* `count` elements of a rank's block, or of everybody's. Bytes. */
static size_t put(const struct reference *reference, enum origin origin, uint32_t rank,
                  uint64_t block, uint64_t count, uint8_t *out)
{
	size_t bytes = element_bytes[reference->dtype];
	int parts = is_complex(reference->dtype) ? 2 : 1;
	for (uint64_t i = 0; out != NULL && i < count; i++)
		for (int part = 0; part < parts; part++) {
			int64_t value = origin == FROM_ALL ? reduced(reference, block, i, part)
			                                   : value_of(reference, rank, block, i, part);
			encode(reference->dtype, value, out + i * bytes + (size_t)part * (bytes / 2));
		}
	return count * bytes;
}

static uint8_t *after(uint8_t *out, size_t bytes)
{
	return out != NULL ? out + bytes : NULL;
}

size_t reference_source(const struct reference *reference, uint32_t rank, uint8_t *out)
{
	bool is_root = rank == reference->root;
	size_t bytes = 0;
	switch (reference->collective) {
	case COLLECT_ALL_REDUCE:
	case COLLECT_REDUCE:
		return put(reference, FROM_RANK, rank, 0, reference->counts[0][0], out);
	case COLLECT_BROADCAST:
		return is_root ? put(reference, FROM_RANK, rank, 0, reference->counts[0][0], out) : 0;
	case COLLECT_ALL_GATHER:
	case COLLECT_GATHER:
		return put(reference, FROM_RANK, rank, 0, reference->counts[0][rank], out);
	case COLLECT_SCATTER:
	case COLLECT_REDUCE_SCATTER:
	case COLLECT_ALL_TO_ALL:
		if (reference->collective == COLLECT_SCATTER && !is_root)
			return 0;
		for (uint32_t b = 0; b < reference->world; b++) {
			uint32_t row = reference->collective == COLLECT_ALL_TO_ALL ? rank : 0;
			bytes += put(reference, FROM_RANK, rank, b, reference->counts[row][b],
			             after(out, bytes));
		}
		return bytes;
	default:
		return 0;
	}
}

size_t reference_target(const struct reference *reference, uint32_t rank, uint8_t *out)
{
	bool is_root = rank == reference->root;
	size_t bytes = 0;
	switch (reference->collective) {
	case COLLECT_ALL_REDUCE:
		return put(reference, FROM_ALL, 0, 0, reference->counts[0][0], out);
	case COLLECT_REDUCE:
		return is_root ? put(reference, FROM_ALL, 0, 0, reference->counts[0][0], out) : 0;
	case COLLECT_REDUCE_SCATTER:
		return put(reference, FROM_ALL, 0, rank, reference->counts[0][rank], out);
	case COLLECT_BROADCAST:
		return put(reference, FROM_RANK, reference->root, 0, reference->counts[0][0], out);
	case COLLECT_SCATTER:
		return put(reference, FROM_RANK, reference->root, rank, reference->counts[0][rank], out);
	case COLLECT_GATHER:
	case COLLECT_ALL_GATHER:
		for (uint32_t b = 0; b < reference->world; b++)
			if (is_root || reference->collective == COLLECT_ALL_GATHER)
				bytes += put(reference, FROM_RANK, b, 0, reference->counts[0][b],
				             after(out, bytes));
		return bytes;
	case COLLECT_ALL_TO_ALL:
		for (uint32_t s = 0; s < reference->world; s++)
			bytes += put(reference, FROM_RANK, s, rank, reference->counts[s][rank],
			             after(out, bytes));
		return bytes;
	default:
		return 0;
	}
}
