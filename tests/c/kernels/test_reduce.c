/*
 * Scalar kernels against values worked out by hand; then, walking the table, every variant of
 * every entry against scalar, bit for bit. A new entry is tested without anyone adding a line.
 */
#include "harness.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "kernels/kernels.h"

#define ELEMENTS_MAX 1200
#define ELEMENT_BYTES_MAX 8
#define POISON 0xa5
#define TAIL_COUNT_MAX 130

/* ---- elements of any dtype as bits --------------------------------------------------------- */

struct format {
	unsigned bits;
	unsigned exponent_bits; /* 0: an integer */
	unsigned mantissa_bits;
};

static struct format format_of(int dtype)
{
	unsigned bits = (unsigned)col_dtype_bytes(dtype) * 8;
	switch (dtype) {
	case COLLECT_FLOAT16: return (struct format){bits, 5, 10};
	case COLLECT_BFLOAT16: return (struct format){bits, 8, 7};
	case COLLECT_FLOAT32: return (struct format){bits, 8, 23};
	case COLLECT_FLOAT64: return (struct format){bits, 11, 52};
	default: return (struct format){bits, 0, 0};
	}
}

static uint64_t ones(unsigned bits)
{
	return bits >= 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1;
}

static bool is_nan(struct format format, uint64_t element)
{
	if (format.exponent_bits == 0)
		return false;
	uint64_t exponent = element >> format.mantissa_bits & ones(format.exponent_bits);
	return exponent == ones(format.exponent_bits) && (element & ones(format.mantissa_bits)) != 0;
}

static uint64_t element_get(const uint8_t *elements, size_t index, size_t element_bytes)
{
	uint64_t element = 0;
	for (size_t byte = 0; byte < element_bytes; byte++)
		element |= (uint64_t)elements[index * element_bytes + byte] << 8 * byte;
	return element;
}

static void element_put(uint8_t *elements, size_t index, size_t element_bytes, uint64_t element)
{
	for (size_t byte = 0; byte < element_bytes; byte++)
		elements[index * element_bytes + byte] = (uint8_t)(element >> 8 * byte);
}

enum { SPECIALS_MAX = 32 };

/* Zeroes, infinities, NaNs with and without the quiet bit and with payloads, subnormals, the
 * smallest and largest; for integers the ends of the ranges, signed and unsigned. */
static size_t specials_of(struct format format, uint64_t specials_out[SPECIALS_MAX])
{
	size_t count = 0;
	uint64_t sign = (uint64_t)1 << (format.bits - 1);
	if (format.exponent_bits == 0) {
		const uint64_t values[] = {0, 1, 2, 3, sign - 2, sign - 1};
		for (size_t index = 0; index < 6; index++) {
			specials_out[count++] = values[index];
			specials_out[count++] = ~values[index] & ones(format.bits);
		}
		return count;
	}
	uint64_t infinity = ones(format.exponent_bits) << format.mantissa_bits;
	uint64_t quiet = (uint64_t)1 << (format.mantissa_bits - 1);
	uint64_t one = ones(format.exponent_bits - 1) << format.mantissa_bits;
	const uint64_t values[] = {
		0, 1, ones(format.mantissa_bits), quiet, ones(format.mantissa_bits) + 1, one, one + 1,
		infinity - 1, infinity, infinity + 1, infinity + 5, infinity + quiet,
		infinity + quiet + 7,
	};
	for (size_t index = 0; index < sizeof(values) / sizeof(values[0]); index++) {
		specials_out[count++] = values[index];
		specials_out[count++] = values[index] | sign;
	}
	return count;
}

/* Every third element is special. Reals otherwise have any bits, or bits near 1, so that sums
 * round instead of taking one side. */
static void elements_draw(struct col_prng *prng, int dtype, uint8_t *elements_out, size_t count)
{
	struct format format = format_of(dtype);
	uint64_t specials[SPECIALS_MAX];
	size_t special_count = specials_of(format, specials);
	for (size_t index = 0; index < count; index++) {
		uint64_t element = col_prng_next(prng);
		uint64_t choice = col_prng_below(prng, 3);
		if (choice == 0)
			element = specials[col_prng_below(prng, special_count)];
		if (choice == 1 && format.exponent_bits > 0) {
			uint64_t near_one = ones(format.exponent_bits - 1) - 2 + col_prng_below(prng, 4);
			element &= ~(ones(format.exponent_bits) << format.mantissa_bits);
			element |= near_one << format.mantissa_bits;
		}
		element_put(elements_out, index, format.bits / 8, element);
	}
}

/* ---- scalar against values ----------------------------------------------------------------- */

#define CHECK_REDUCE(dtype, op, type, a, b, expected) \
	do { \
		type x = (a); \
		type y = (b); \
		type z = 0; \
		type e = (expected); \
		col_kernels()->reduce[dtype][op](&z, &x, &y, 1); \
		CHECK_BYTES_EQ(&z, &e, sizeof(z)); \
	} while (0)

TEST(integers_wrap_and_compare_as_signed)
{
	col_kernels_select(COLLECT_ISA_SCALAR);
	CHECK_REDUCE(COLLECT_INT32, COLLECT_SUM, int32_t, 2, -5, -3);
	CHECK_REDUCE(COLLECT_INT32, COLLECT_SUM, int32_t, INT32_MAX, 1, INT32_MIN);
	CHECK_REDUCE(COLLECT_INT32, COLLECT_AVG, int32_t, INT32_MIN, -1, INT32_MAX);
	CHECK_REDUCE(COLLECT_INT32, COLLECT_MIN, int32_t, INT32_MIN, 1, INT32_MIN);
	CHECK_REDUCE(COLLECT_INT32, COLLECT_MAX, int32_t, -1, 1, 1);
	CHECK_REDUCE(COLLECT_INT64, COLLECT_SUM, int64_t, INT64_MAX, 1, INT64_MIN);
	CHECK_REDUCE(COLLECT_INT64, COLLECT_SUM, int64_t, INT64_MIN, INT64_MIN, 0);
	CHECK_REDUCE(COLLECT_INT64, COLLECT_MIN, int64_t, -1, INT64_MAX, -1);
	CHECK_REDUCE(COLLECT_INT64, COLLECT_MAX, int64_t, INT64_MIN, -7, -7);
}

TEST(reals_are_added_with_one_rounding)
{
	col_kernels_select(COLLECT_ISA_SCALAR);
	CHECK_REDUCE(COLLECT_FLOAT32, COLLECT_SUM, float, 0.1f, 0.2f, 0x1.333334p-2f);
	CHECK_REDUCE(COLLECT_FLOAT32, COLLECT_SUM, float, 0x1p24f, 1, 0x1p24f);
	CHECK_REDUCE(COLLECT_FLOAT32, COLLECT_SUM, float, FLT_MAX, FLT_MAX, HUGE_VALF);
	CHECK_REDUCE(COLLECT_FLOAT32, COLLECT_SUM, float, 0x1p-149f, 0x1p-149f, 0x1p-148f);
	CHECK_REDUCE(COLLECT_FLOAT64, COLLECT_SUM, double, 0.1, 0.2, 0x1.3333333333334p-2);
	CHECK_REDUCE(COLLECT_FLOAT64, COLLECT_SUM, double, -0.0, -0.0, -0.0);
	CHECK_REDUCE(COLLECT_FLOAT64, COLLECT_SUM, double, -0.0, 0.0, 0.0);
}

TEST(the_second_operand_wins_a_tie_of_zeroes)
{
	col_kernels_select(COLLECT_ISA_SCALAR);
	CHECK_REDUCE(COLLECT_FLOAT32, COLLECT_MIN, float, -0.0f, 0.0f, 0.0f);
	CHECK_REDUCE(COLLECT_FLOAT32, COLLECT_MIN, float, 0.0f, -0.0f, -0.0f);
	CHECK_REDUCE(COLLECT_FLOAT32, COLLECT_MAX, float, 0.0f, -0.0f, -0.0f);
	CHECK_REDUCE(COLLECT_FLOAT64, COLLECT_MAX, double, -0.0, 0.0, 0.0);
}

/* NaNs go through as bits: a payload or a quiet bit that changes is a failure. */
static void check_float32_bits(int reduce_op, uint32_t a, uint32_t b, uint32_t expected)
{
	float x;
	float y;
	float z = 0;
	uint32_t bits;
	memcpy(&x, &a, sizeof(x));
	memcpy(&y, &b, sizeof(y));
	col_kernels()->reduce[COLLECT_FLOAT32][reduce_op](&z, &x, &y, 1);
	memcpy(&bits, &z, sizeof(bits));
	CHECK_EQ(bits, expected);
}

TEST(the_first_nan_goes_through_min_and_max)
{
	static const uint32_t one = 0x3f800000, nan_a = 0x7fc00001, nan_b = 0xff800002;
	col_kernels_select(COLLECT_ISA_SCALAR);
	for (int reduce_op = COLLECT_MIN; reduce_op <= COLLECT_MAX; reduce_op++) {
		check_float32_bits(reduce_op, nan_a, one, nan_a);
		check_float32_bits(reduce_op, one, nan_a, nan_a);
		check_float32_bits(reduce_op, nan_a, nan_b, nan_a);
		check_float32_bits(reduce_op, nan_b, nan_a, nan_b);
		check_float32_bits(reduce_op, nan_b, one, nan_b);
		check_float32_bits(reduce_op, one, nan_b, nan_b);
	}
}

#define CHECK_DIVIDE(dtype, type, a, divisor, expected) \
	do { \
		type x = (a); \
		type e = (expected); \
		col_kernels()->divide[dtype](&x, 1, divisor); \
		CHECK_BYTES_EQ(&x, &e, sizeof(x)); \
	} while (0)

TEST(integers_are_divided_towards_zero_and_reals_rounded_once)
{
	col_kernels_select(COLLECT_ISA_SCALAR);
	CHECK_DIVIDE(COLLECT_INT32, int32_t, 7, 2, 3);
	CHECK_DIVIDE(COLLECT_INT32, int32_t, -7, 2, -3);
	CHECK_DIVIDE(COLLECT_INT32, int32_t, INT32_MIN, 1, INT32_MIN);
	CHECK_DIVIDE(COLLECT_INT64, int64_t, INT64_MIN, 3, -3074457345618258602);
	CHECK_DIVIDE(COLLECT_INT64, int64_t, INT64_MAX, 1u << 24, 549755813887);
	CHECK_DIVIDE(COLLECT_FLOAT32, float, 1, 3, 0x1.555556p-2f);
	CHECK_DIVIDE(COLLECT_FLOAT32, float, 0x1p-149f, 2, 0.0f);
	CHECK_DIVIDE(COLLECT_FLOAT64, double, 1, 3, 0x1.5555555555555p-2);
	CHECK_DIVIDE(COLLECT_FLOAT64, double, -0.0, 3, -0.0);
}

static void divide_by_nothing(void)
{
	float value = 1;
	col_kernels()->divide[COLLECT_FLOAT32](&value, 1, 0);
}

static void divide_by_too_much(void)
{
	float value = 1;
	col_kernels()->divide[COLLECT_FLOAT32](&value, 1, COL_DIVISOR_MAX + 1);
}

TEST(a_divisor_out_of_range_is_a_bug)
{
	int widest = col_kernels()->isa;
	for (int isa = COLLECT_ISA_SCALAR; isa <= widest; isa++) {
		col_kernels_select(isa);
		CHECK(test_aborts(divide_by_nothing));
		CHECK(test_aborts(divide_by_too_much));
	}
}

/* ---- every variant against scalar ---------------------------------------------------------- */

enum alias { ALIAS_NONE, ALIAS_A, ALIAS_B, ALIAS_COUNT };

/* One entry of the table and its scalar counterpart, with the memory to run both. */
struct pair {
	int isa;
	int dtype;
	int reduce_op;
	col_reduce_fn *scalar;
	col_reduce_fn *variant;
	size_t element_bytes;
	uint8_t *a; /* each: ELEMENTS_MAX elements and an offset of up to 8 */
	uint8_t *b;
	uint8_t *expected;
	uint8_t *target;
};

#define PAIR_BYTES ((size_t)(ELEMENTS_MAX + 16) * ELEMENT_BYTES_MAX)

static _Noreturn void pair_fail(const struct pair *pair, const char *what, size_t count,
                                size_t index)
{
	FAIL("isa %d, %s, %s, %s: element %zu of %zu differs from scalar (seed %" PRIu64 ")",
	     pair->isa, col_dtype_name(pair->dtype), col_reduce_op_name(pair->reduce_op), what, index,
	     count, test_seed());
}

static void pair_compare(const struct pair *pair, const uint8_t *a, const uint8_t *b,
                         const uint8_t *target, const uint8_t *expected, size_t count)
{
	struct format format = format_of(pair->dtype);
	bool is_sum = pair->reduce_op == COLLECT_SUM || pair->reduce_op == COLLECT_AVG;
	if (memcmp(target, expected, count * pair->element_bytes) == 0)
		return;
	for (size_t index = 0; index < count; index++) {
		uint64_t x = element_get(a, index, pair->element_bytes);
		uint64_t y = element_get(b, index, pair->element_bytes);
		uint64_t got = element_get(target, index, pair->element_bytes);
		uint64_t wanted = element_get(expected, index, pair->element_bytes);
		/* Which payload survives a sum of two NaNs is unspecified. */
		if (is_sum && is_nan(format, x) && is_nan(format, y) && is_nan(format, got))
			continue;
		if (got != wanted)
			pair_fail(pair, "reduce", count, index);
	}
}

static void check_poison(const struct pair *pair, const uint8_t *begin, const uint8_t *end)
{
	for (const uint8_t *byte = begin; byte < end; byte++) {
		if (*byte != POISON)
			FAIL("isa %d, %s, %s: wrote outside of the target", pair->isa,
			     col_dtype_name(pair->dtype), col_reduce_op_name(pair->reduce_op));
	}
}

/* `count` elements with the operands `offsets` elements past an aligned address. */
static void pair_run(const struct pair *pair, size_t count, const size_t offsets[3],
                     enum alias alias)
{
	const uint8_t *a = pair->a + offsets[0] * pair->element_bytes;
	const uint8_t *b = pair->b + offsets[1] * pair->element_bytes;
	uint8_t *target = pair->target + offsets[2] * pair->element_bytes;
	size_t bytes = count * pair->element_bytes;
	const uint8_t *variant_a = alias == ALIAS_A ? target : a;
	const uint8_t *variant_b = alias == ALIAS_B ? target : b;

	pair->scalar(pair->expected, a, b, count);
	memset(pair->target, POISON, PAIR_BYTES);
	if (alias == ALIAS_A)
		memcpy(target, a, bytes);
	if (alias == ALIAS_B)
		memcpy(target, b, bytes);
	pair->variant(target, variant_a, variant_b, count);

	pair_compare(pair, a, b, target, pair->expected, count);
	check_poison(pair, pair->target, target);
	check_poison(pair, target + bytes, pair->target + PAIR_BYTES);
}

/* Calls `body` for every variant of every entry that scalar has. */
static void pairs_walk(void (*body)(const struct pair *pair, struct col_prng *prng))
{
	struct col_prng prng;
	struct pair pair = {0};
	col_prng_init(&prng, test_seed());
	pair.a = col_alloc(PAIR_BYTES);
	pair.b = col_alloc(PAIR_BYTES);
	pair.expected = col_alloc(PAIR_BYTES);
	pair.target = col_alloc(PAIR_BYTES);
	int widest = col_kernels()->isa;
	col_kernels_select(COLLECT_ISA_SCALAR);
	const struct col_kernels *scalar = col_kernels();
	for (int isa = COLLECT_ISA_SCALAR; isa <= widest; isa++) {
		CHECK_EQ(col_kernels_select(isa), isa);
		for (int index = 0; index < COLLECT_DTYPE_COUNT * COLLECT_REDUCE_OP_COUNT; index++) {
			pair.isa = isa;
			pair.dtype = index / COLLECT_REDUCE_OP_COUNT;
			pair.reduce_op = index % COLLECT_REDUCE_OP_COUNT;
			pair.scalar = scalar->reduce[pair.dtype][pair.reduce_op];
			pair.variant = col_kernels()->reduce[pair.dtype][pair.reduce_op];
			pair.element_bytes = col_dtype_bytes(pair.dtype);
			if (pair.scalar != NULL)
				body(&pair, &prng);
		}
	}
	col_free(pair.a);
	col_free(pair.b);
	col_free(pair.expected);
	col_free(pair.target);
}

static void run_all_tails(const struct pair *pair, struct col_prng *prng)
{
	static const size_t offsets[][3] = {
		{0, 0, 0}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {1, 2, 3}, {3, 3, 3},
	};
	elements_draw(prng, pair->dtype, pair->a, ELEMENTS_MAX + 8);
	elements_draw(prng, pair->dtype, pair->b, ELEMENTS_MAX + 8);
	for (size_t offset = 0; offset < sizeof(offsets) / sizeof(offsets[0]); offset++) {
		for (int alias = 0; alias < ALIAS_COUNT; alias++) {
			for (size_t count = 0; count <= TAIL_COUNT_MAX; count++)
				pair_run(pair, count, offsets[offset], (enum alias)alias);
		}
	}
}

TEST(every_variant_equals_scalar_for_every_tail_offset_and_alias)
{
	pairs_walk(run_all_tails);
}

/* Long enough for a head that aligns the target, the unrolled loop, single vectors and a tail. */
static void run_long(const struct pair *pair, struct col_prng *prng)
{
	for (int round = 0; round < 300; round++) {
		size_t offsets[3];
		for (int operand = 0; operand < 3; operand++)
			offsets[operand] = col_prng_below(prng, 8);
		if (round % 30 == 0) {
			elements_draw(prng, pair->dtype, pair->a, ELEMENTS_MAX + 8);
			elements_draw(prng, pair->dtype, pair->b, ELEMENTS_MAX + 8);
		}
		pair_run(pair, col_prng_below(prng, ELEMENTS_MAX + 1), offsets,
		         (enum alias)col_prng_below(prng, ALIAS_COUNT));
	}
}

TEST(every_variant_equals_scalar_for_long_operands)
{
	pairs_walk(run_long);
}

static void run_specials(const struct pair *pair, struct col_prng *prng)
{
	uint64_t specials[SPECIALS_MAX];
	size_t special_count = specials_of(format_of(pair->dtype), specials);
	static const size_t aligned[3] = {0, 0, 0};
	(void)prng;
	for (size_t index = 0; index < special_count * special_count; index++) {
		element_put(pair->a, index, pair->element_bytes, specials[index / special_count]);
		element_put(pair->b, index, pair->element_bytes, specials[index % special_count]);
	}
	for (int alias = 0; alias < ALIAS_COUNT; alias++)
		pair_run(pair, special_count * special_count, aligned, (enum alias)alias);
}

TEST(every_variant_equals_scalar_for_every_pair_of_special_values)
{
	pairs_walk(run_specials);
}

/* ---- pages that may not be touched --------------------------------------------------------- */

struct guarded {
	uint8_t *map; /* one page between two that fault */
	uint8_t *begin;
	uint8_t *end;
};

static void guarded_open(struct guarded *guarded)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	guarded->map = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(guarded->map != MAP_FAILED);
	guarded->begin = guarded->map + page;
	guarded->end = guarded->begin + page;
	CHECK_EQ(mprotect(guarded->begin, page, PROT_READ | PROT_WRITE), 0);
	memset(guarded->begin, 0, page);
}

static void guarded_close(struct guarded *guarded)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	CHECK_EQ(munmap(guarded->map, 3 * page), 0);
}

static void run_guarded(const struct pair *pair, struct col_prng *prng)
{
	struct guarded a;
	struct guarded b;
	struct guarded target;
	(void)prng;
	guarded_open(&a);
	guarded_open(&b);
	guarded_open(&target);
	for (size_t count = 0; count <= TAIL_COUNT_MAX; count++) {
		size_t bytes = count * pair->element_bytes;
		pair->variant(target.begin, a.begin, b.begin, count);
		pair->variant(target.end - bytes, a.end - bytes, b.end - bytes, count);
	}
	guarded_close(&a);
	guarded_close(&b);
	guarded_close(&target);
}

TEST(no_variant_touches_a_page_past_its_operands)
{
	pairs_walk(run_guarded);
}

/* ---- division ------------------------------------------------------------------------------ */

/* Multiples of the divisor and their neighbours are where a truncated quotient goes wrong. */
static void dividends_draw(struct col_prng *prng, int dtype, uint32_t divisor,
                           uint8_t *elements_out, size_t count)
{
	size_t element_bytes = col_dtype_bytes(dtype);
	elements_draw(prng, dtype, elements_out, count);
	if (format_of(dtype).exponent_bits > 0)
		return;
	for (size_t index = 0; index < count; index += 2) {
		uint64_t multiple = (col_prng_next(prng) >> col_prng_below(prng, 64)) * divisor;
		if (element_bytes < 8) {
			uint64_t quotient_max = ones((unsigned)element_bytes * 8 - 1) / divisor;
			multiple = col_prng_below(prng, quotient_max + 1) * divisor;
		}
		multiple += col_prng_below(prng, 3) - 1;
		if (col_prng_below(prng, 2) == 0)
			multiple = 0 - multiple;
		element_put(elements_out, index, element_bytes, multiple);
	}
}

static void check_divide(int isa, int dtype, col_divide_fn *scalar, col_divide_fn *variant,
                         struct col_prng *prng)
{
	/* 49 and 103 are among those whose multiples times the rounded reciprocal are too small. */
	static const uint32_t divisors[] = {
		1, 2, 3, 4, 5, 6, 7, 10, 49, 64, 103, 127, 1000, 1023, 1024, 65537, COL_DIVISOR_MAX - 1,
		COL_DIVISOR_MAX,
	};
	static uint8_t expected[PAIR_BYTES] __attribute__((aligned(64)));
	static uint8_t target[PAIR_BYTES] __attribute__((aligned(64)));
	size_t element_bytes = col_dtype_bytes(dtype);
	for (size_t index = 0; index < sizeof(divisors) / sizeof(divisors[0]); index++) {
		dividends_draw(prng, dtype, divisors[index], target, ELEMENTS_MAX + 8);
		for (size_t count = 0; count < ELEMENTS_MAX; count += count < TAIL_COUNT_MAX ? 1 : 97) {
			size_t begin = count % 5 * element_bytes;
			memcpy(expected, target, sizeof(target));
			scalar(expected + begin, count, divisors[index]);
			variant(target + begin, count, divisors[index]);
			if (memcmp(target, expected, sizeof(target)) != 0)
				FAIL("isa %d, %s: %zu elements divided by %u differ from scalar (seed %" PRIu64
				     ")", isa, col_dtype_name(dtype), count, divisors[index], test_seed());
			if (count % 10 == 0)
				dividends_draw(prng, dtype, divisors[index], target, ELEMENTS_MAX + 8);
		}
	}
}

TEST(every_variant_of_division_equals_scalar)
{
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	int widest = col_kernels()->isa;
	col_kernels_select(COLLECT_ISA_SCALAR);
	const struct col_kernels *scalar = col_kernels();
	for (int isa = COLLECT_ISA_SCALAR; isa <= widest; isa++) {
		col_kernels_select(isa);
		for (int dtype = 0; dtype < COLLECT_DTYPE_COUNT; dtype++) {
			if (scalar->divide[dtype] != NULL)
				check_divide(isa, dtype, scalar->divide[dtype], col_kernels()->divide[dtype],
				             &prng);
		}
	}
}

/* A run on a machine without the wider sets must not look like one that tested them. */
TEST(this_machine_has_every_set_of_the_build)
{
	if (col_kernels()->isa < COLLECT_ISA_AVX512)
		SKIP("the wider kernels were not run on this machine");
}
