/*
 * Reductions of two operands: scalar kernels against values worked out by hand and against
 * elements.h; then, walking the table, every variant of every entry against scalar, bit for bit.
 * A new entry is tested without anyone adding a line.
 */
#include "harness.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "elements.h"
#include "kernels/kernels.h"

#define ELEMENTS_MAX 1200
#define ELEMENT_BYTES_MAX 16
#define POISON 0xa5
#define TAIL_COUNT_MAX 150
#define GUARD_BYTES 192

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

TEST(the_first_nan_of_a_sum_and_of_a_product_survives_and_is_made_quiet)
{
	static const int reduce_ops[] = {COLLECT_SUM, COLLECT_AVG, COLLECT_PREMUL_SUM, COLLECT_PROD};
	static const uint32_t one = 0x3f800000, signaling = 0x7f800001, quiet = 0xffc00002;
	col_kernels_select(COLLECT_ISA_SCALAR);
	for (size_t index = 0; index < 4; index++) {
		check_float32_bits(reduce_ops[index], signaling, quiet, 0x7fc00001);
		check_float32_bits(reduce_ops[index], quiet, signaling, quiet);
		check_float32_bits(reduce_ops[index], signaling, one, 0x7fc00001);
		check_float32_bits(reduce_ops[index], one, signaling, 0x7fc00001);
		check_float32_bits(reduce_ops[index], one, quiet, quiet);
	}
}

TEST(bools_are_zero_or_one_and_other_bytes_count_as_one)
{
	col_kernels_select(COLLECT_ISA_SCALAR);
	for (int index = 0; index < 9; index++) {
		static const uint8_t values[] = {0, 1, 0x80};
		uint8_t a = values[index / 3];
		uint8_t b = values[index % 3];
		CHECK_REDUCE(COLLECT_BOOL, COLLECT_SUM, uint8_t, a, b, a != 0 || b != 0);
		CHECK_REDUCE(COLLECT_BOOL, COLLECT_MAX, uint8_t, a, b, a != 0 || b != 0);
		CHECK_REDUCE(COLLECT_BOOL, COLLECT_OR, uint8_t, a, b, a != 0 || b != 0);
		CHECK_REDUCE(COLLECT_BOOL, COLLECT_PROD, uint8_t, a, b, a != 0 && b != 0);
		CHECK_REDUCE(COLLECT_BOOL, COLLECT_MIN, uint8_t, a, b, a != 0 && b != 0);
		CHECK_REDUCE(COLLECT_BOOL, COLLECT_AND, uint8_t, a, b, a != 0 && b != 0);
		CHECK_REDUCE(COLLECT_BOOL, COLLECT_XOR, uint8_t, a, b, (a != 0) != (b != 0));
	}
}

TEST(narrow_and_unsigned_integers_wrap_multiply_and_compare_as_such)
{
	col_kernels_select(COLLECT_ISA_SCALAR);
	CHECK_REDUCE(COLLECT_INT8, COLLECT_SUM, int8_t, 127, 1, -128);
	CHECK_REDUCE(COLLECT_INT8, COLLECT_PROD, int8_t, -128, -1, -128);
	CHECK_REDUCE(COLLECT_UINT8, COLLECT_MAX, uint8_t, 200, 100, 200);
	CHECK_REDUCE(COLLECT_UINT16, COLLECT_PROD, uint16_t, 65535, 65535, 1);
	CHECK_REDUCE(COLLECT_UINT32, COLLECT_MIN, uint32_t, UINT32_MAX, 7, 7);
	CHECK_REDUCE(COLLECT_INT64, COLLECT_PROD, int64_t, INT64_MAX, 2, -2);
	CHECK_REDUCE(COLLECT_UINT64, COLLECT_MAX, uint64_t, UINT64_MAX, 7, UINT64_MAX);
	CHECK_REDUCE(COLLECT_UINT16, COLLECT_XOR, uint16_t, 0xff00, 0x0ff0, 0xf0f0);
}

TEST(complexes_are_added_and_multiplied)
{
	static const float a[2] = {1, 2}, b[2] = {3, -4}, sum[2] = {4, -2}, product[2] = {11, 2};
	float target[2];
	col_kernels_select(COLLECT_ISA_SCALAR);
	col_kernels()->reduce[COLLECT_COMPLEX64][COLLECT_SUM](target, a, b, 1);
	CHECK_BYTES_EQ(target, sum, sizeof(sum));
	col_kernels()->reduce[COLLECT_COMPLEX64][COLLECT_PROD](target, a, b, 1);
	CHECK_BYTES_EQ(target, product, sizeof(product));
}

TEST(sixteen_bit_floats_are_rounded_to_nearest_even)
{
	col_kernels_select(COLLECT_ISA_SCALAR);
	/* 2048 + 1 is half-way between 2048 and 2050; 2050 + 1 between 2050 and 2052. */
	CHECK_REDUCE(COLLECT_FLOAT16, COLLECT_SUM, uint16_t, 0x6800, 0x3c00, 0x6800);
	CHECK_REDUCE(COLLECT_FLOAT16, COLLECT_SUM, uint16_t, 0x6801, 0x3c00, 0x6802);
	CHECK_REDUCE(COLLECT_FLOAT16, COLLECT_SUM, uint16_t, 0x7bff, 0x7bff, 0x7c00);
	CHECK_REDUCE(COLLECT_FLOAT16, COLLECT_SUM, uint16_t, 0x0001, 0x0001, 0x0002);
	CHECK_REDUCE(COLLECT_FLOAT16, COLLECT_PROD, uint16_t, 0x0001, 0x3800, 0x0000);
	CHECK_REDUCE(COLLECT_FLOAT16, COLLECT_PROD, uint16_t, 0x0003, 0x3800, 0x0002);
	CHECK_REDUCE(COLLECT_BFLOAT16, COLLECT_SUM, uint16_t, 0x4380, 0x3f80, 0x4380);
	CHECK_REDUCE(COLLECT_BFLOAT16, COLLECT_SUM, uint16_t, 0x4381, 0x3f80, 0x4382);
	CHECK_REDUCE(COLLECT_BFLOAT16, COLLECT_SUM, uint16_t, 0x0001, 0x0001, 0x0002);
	CHECK_REDUCE(COLLECT_BFLOAT16, COLLECT_SUM, uint16_t, 0x7f7f, 0x7f7f, 0x7f80);
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
	CHECK_DIVIDE(COLLECT_INT8, int8_t, -128, 3, -42);
	CHECK_DIVIDE(COLLECT_INT8, int8_t, 127, 300, 0);
	CHECK_DIVIDE(COLLECT_UINT64, uint64_t, UINT64_MAX, 2, INT64_MAX);
	CHECK_DIVIDE(COLLECT_FLOAT16, uint16_t, 0x3c00, 3, 0x3555);
	CHECK_DIVIDE(COLLECT_BFLOAT16, uint16_t, 0x3f80, 3, 0x3eab);
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
	uint8_t *a; /* each: ELEMENTS_MAX elements and an offset of up to 8; the target guarded */
	uint8_t *b;
	uint8_t *expected;
	uint8_t *target;
};

#define PAIR_BYTES ((size_t)(ELEMENTS_MAX + 16) * ELEMENT_BYTES_MAX + 2 * GUARD_BYTES)

static void check_poison(const struct pair *pair, const uint8_t *begin)
{
	for (const uint8_t *byte = begin; byte < begin + GUARD_BYTES; byte++) {
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
	uint8_t *target = pair->target + GUARD_BYTES + offsets[2] * pair->element_bytes;
	size_t bytes = count * pair->element_bytes;
	const uint8_t *variant_a = alias == ALIAS_A ? target : a;
	const uint8_t *variant_b = alias == ALIAS_B ? target : b;

	pair->scalar(pair->expected, a, b, count);
	memset(target - GUARD_BYTES, POISON, GUARD_BYTES);
	memset(target + bytes, POISON, GUARD_BYTES);
	if (alias == ALIAS_A)
		memcpy(target, a, bytes);
	if (alias == ALIAS_B)
		memcpy(target, b, bytes);
	pair->variant(target, variant_a, variant_b, count);

	for (size_t byte = 0; memcmp(target, pair->expected, bytes) != 0; byte++) {
		if (target[byte] != pair->expected[byte])
			FAIL("isa %d, %s, %s: element %zu of %zu differs from scalar (seed %" PRIu64 ")",
			     pair->isa, col_dtype_name(pair->dtype), col_reduce_op_name(pair->reduce_op),
			     byte / pair->element_bytes, count, test_seed());
	}
	check_poison(pair, target - GUARD_BYTES);
	check_poison(pair, target + bytes);
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
		if (col_kernels_select(isa) != isa)
			continue;
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
	for (int round = 0; round < 200; round++) {
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

/* Every special value, or part of a complex, with every other; returns the count of elements. */
static size_t specials_put(const struct pair *pair)
{
	struct format format = format_of(pair->dtype);
	uint64_t specials[SPECIALS_MAX];
	size_t count = specials_of(format, specials);
	for (size_t index = 0; index < count * count; index++) {
		part_put(format, pair->a, index, specials[index / count]);
		part_put(format, pair->b, index, specials[index % count]);
	}
	return count * count / format.part_count;
}

static void run_specials(const struct pair *pair, struct col_prng *prng)
{
	static const size_t aligned[3] = {0, 0, 0};
	size_t count = specials_put(pair);
	(void)prng;
	for (int alias = 0; alias < ALIAS_COUNT; alias++)
		pair_run(pair, count, aligned, (enum alias)alias);
}

TEST(every_variant_equals_scalar_for_every_pair_of_special_values)
{
	pairs_walk(run_specials);
}

/* ---- scalar against the reference ---------------------------------------------------------- */

static void check_reference(const struct pair *pair, size_t count)
{
	pair->scalar(pair->target, pair->a, pair->b, count);
	for (size_t index = 0; index < count; index++) {
		reference_reduce(pair->dtype, pair->reduce_op, pair->expected, pair->a, pair->b, index);
		size_t begin = index * pair->element_bytes;
		if (memcmp(pair->target + begin, pair->expected + begin, pair->element_bytes) != 0)
			FAIL("%s, %s: element %zu is wrong (seed %" PRIu64 ")", col_dtype_name(pair->dtype),
			     col_reduce_op_name(pair->reduce_op), index, test_seed());
	}
}

static void run_reference(const struct pair *pair, struct col_prng *prng)
{
	if (pair->isa != COLLECT_ISA_SCALAR)
		return;
	check_reference(pair, specials_put(pair));
	for (int round = 0; round < 3; round++) {
		elements_draw(prng, pair->dtype, pair->a, ELEMENTS_MAX);
		elements_draw(prng, pair->dtype, pair->b, ELEMENTS_MAX);
		check_reference(pair, ELEMENTS_MAX);
	}
}

TEST(scalar_equals_the_reference)
{
	pairs_walk(run_reference);
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

/* A run on a machine without the wider sets must not look like one that tested them. */
TEST(this_machine_has_every_set_of_the_build)
{
	if (col_kernels()->isa < COLLECT_ISA_AVX512)
		SKIP("the wider kernels were not run on this machine");
}
