/*
 * What surrounds a reduction of two: many sources at once, division, scaling, 16-bit floats kept
 * in float32 between steps, copies. Scalar against elements.h, every variant against scalar.
 */
#include "harness.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "elements.h"
#include "kernels/kernels.h"

#define SOURCES_MAX 9
#define ELEMENTS_MAX 1500
#define LONG_COUNT 40007
#define ELEMENT_BYTES_MAX 16
#define POISON 0xa5
#define GUARD_BYTES 192

static void check_poison(const uint8_t *target, size_t bytes, int isa, int dtype, const char *what)
{
	for (size_t byte = 0; byte < GUARD_BYTES; byte++) {
		if (target[-1 - (ptrdiff_t)byte] != POISON || target[bytes + byte] != POISON)
			FAIL("isa %d, %s, %s: wrote outside of the target", isa, col_dtype_name(dtype), what);
	}
}

static void put_poison(uint8_t *target, size_t bytes)
{
	memset(target - GUARD_BYTES, POISON, GUARD_BYTES);
	memset(target + bytes, POISON, GUARD_BYTES);
}

/* Calls `body` with scalar and with each set that this machine has. */
static void sets_walk(void (*body)(const struct col_kernels *scalar,
                                   const struct col_kernels *variant, int dtype,
                                   struct col_prng *prng))
{
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	int widest = col_kernels()->isa;
	col_kernels_select(COLLECT_ISA_SCALAR);
	const struct col_kernels *scalar = col_kernels();
	for (int isa = COLLECT_ISA_SCALAR; isa <= widest; isa++) {
		if (col_kernels_select(isa) != isa)
			continue;
		for (int dtype = 0; dtype < COLLECT_DTYPE_COUNT; dtype++)
			body(scalar, col_kernels(), dtype, &prng);
	}
}

/* ---- many sources -------------------------------------------------------------------------- */

struct many {
	const struct col_kernels *scalar;
	int dtype;
	int reduce_op;
	uint32_t source_count;
	size_t count;
	uint32_t divisor;
	bool is_streaming;
	int alias; /* the source that the target is; -1: none */
};

/* By steps of scalar kernels, each of which is tested by itself. */
static void many_by_steps(const struct many *many, uint8_t *target, const void *const *sources)
{
	const struct col_kernels *scalar = many->scalar;
	col_widen_fn *widen = scalar->widen[many->dtype][many->reduce_op];
	col_reduce_fn *reduce = scalar->reduce[many->dtype][many->reduce_op];
	if (many->source_count > 1 && widen != NULL) {
		float *total = col_alloc((many->count + 1) * sizeof(float));
		widen(total, sources[0], sources[1], many->count);
		for (uint32_t source = 2; source < many->source_count; source++)
			scalar->widen_add[many->dtype][many->reduce_op](total, sources[source], many->count,
			                                                false);
		scalar->narrow[many->dtype](target, total, many->count, many->divisor);
		col_free(total);
		return;
	}
	memcpy(target, sources[0], many->count * col_dtype_bytes(many->dtype));
	for (uint32_t source = 1; source < many->source_count; source++)
		reduce(target, target, sources[source], many->count);
	if (many->divisor > 1)
		scalar->divide[many->dtype](target, many->count, many->divisor);
}

static void many_check(const struct many *many, const struct col_kernels *variant,
                       const void *const *sources, uint8_t *target, uint8_t *expected)
{
	size_t bytes = many->count * col_dtype_bytes(many->dtype);
	const void *aliased[SOURCES_MAX];
	memcpy(aliased, sources, many->source_count * sizeof(aliased[0]));
	many_by_steps(many, expected, sources);
	put_poison(target, bytes);
	memset(target, POISON, bytes);
	if (many->alias >= 0) {
		memcpy(target, sources[many->alias], bytes);
		aliased[many->alias] = target;
	}
	variant->reduce_many[many->dtype][many->reduce_op](
		target, aliased, many->source_count, many->count, many->divisor, many->is_streaming);
	if (memcmp(target, expected, bytes) != 0)
		FAIL("isa %d, %s, %s: %zu elements of %u sources divided by %u%s differ from the steps "
		     "(seed %" PRIu64 ")", variant->isa, col_dtype_name(many->dtype),
		     col_reduce_op_name(many->reduce_op), many->count, many->source_count, many->divisor,
		     many->is_streaming ? ", streaming," : "", test_seed());
	check_poison(target, bytes, variant->isa, many->dtype, "many");
}

struct arena {
	uint8_t *sources[SOURCES_MAX];
	uint8_t *target;
	uint8_t *expected;
};

static void arena_open(struct arena *arena, size_t elements_max)
{
	size_t bytes = (elements_max + 16) * ELEMENT_BYTES_MAX + 2 * GUARD_BYTES;
	for (int source = 0; source < SOURCES_MAX; source++)
		arena->sources[source] = col_alloc(bytes);
	arena->target = col_alloc(bytes);
	arena->expected = col_alloc(bytes);
}

static void arena_close(struct arena *arena)
{
	for (int source = 0; source < SOURCES_MAX; source++)
		col_free(arena->sources[source]);
	col_free(arena->target);
	col_free(arena->expected);
}

static void many_draw(struct many *many, const struct arena *arena, struct col_prng *prng,
                      const struct col_kernels *variant)
{
	size_t element_bytes = col_dtype_bytes(many->dtype);
	const void *sources[SOURCES_MAX];
	for (uint32_t source = 0; source < many->source_count; source++)
		sources[source] = arena->sources[source] + col_prng_below(prng, 8) * element_bytes;
	uint8_t *target = arena->target + GUARD_BYTES + col_prng_below(prng, 8) * element_bytes;
	many->is_streaming = col_prng_below(prng, 2) == 0;
	many->alias = (int)col_prng_below(prng, 2 * (uint64_t)many->source_count);
	if (many->alias >= (int)many->source_count)
		many->alias = -1;
	many->divisor = 1;
	if (many->reduce_op == COLLECT_AVG && col_prng_below(prng, 4) > 0)
		many->divisor = col_prng_below(prng, 2) == 0 ? many->source_count : 300;
	many_check(many, variant, sources, target, arena->expected);
}

static void run_many(const struct col_kernels *scalar, const struct col_kernels *variant, int dtype,
                     struct col_prng *prng)
{
	struct arena arena;
	struct many many = {.scalar = scalar, .dtype = dtype};
	arena_open(&arena, ELEMENTS_MAX);
	for (int source = 0; source < SOURCES_MAX; source++)
		elements_draw(prng, dtype, arena.sources[source], ELEMENTS_MAX + 8);
	for (int op = 0; op < COLLECT_REDUCE_OP_COUNT; op++) {
		if (variant->reduce_many[dtype][op] == NULL)
			continue;
		many.reduce_op = op;
		for (many.source_count = 1; many.source_count <= SOURCES_MAX; many.source_count++) {
			for (many.count = 0; many.count <= 150; many.count += many.count < 20 ? 1 : 3)
				many_draw(&many, &arena, prng, variant);
			for (int round = 0; round < 20; round++) {
				many.count = col_prng_below(prng, ELEMENTS_MAX + 1);
				many_draw(&many, &arena, prng, variant);
			}
		}
	}
	arena_close(&arena);
}

TEST(many_sources_at_once_are_reduced_as_step_by_step)
{
	sets_walk(run_many);
}

/* Past the blocks in which what is divided apart is summed, and the distances of fetching. */
static void run_many_long(const struct col_kernels *scalar, const struct col_kernels *variant,
                          int dtype, struct col_prng *prng)
{
	struct arena arena;
	struct many many = {.scalar = scalar, .dtype = dtype, .count = LONG_COUNT};
	arena_open(&arena, LONG_COUNT);
	for (int source = 0; source < SOURCES_MAX; source++)
		elements_draw(prng, dtype, arena.sources[source], LONG_COUNT + 8);
	for (int op = 0; op < COLLECT_REDUCE_OP_COUNT; op++) {
		many.reduce_op = op;
		for (many.source_count = 2; many.source_count <= SOURCES_MAX; many.source_count += 3) {
			if (variant->reduce_many[dtype][op] != NULL)
				many_draw(&many, &arena, prng, variant);
		}
	}
	arena_close(&arena);
}

TEST(long_sources_are_reduced_as_step_by_step)
{
	sets_walk(run_many_long);
}

static void reduce_no_source(void)
{
	float target = 0;
	col_kernels()->reduce_many[COLLECT_FLOAT32][COLLECT_SUM](&target, NULL, 0, 1, 1, false);
}

static void divide_a_minimum(void)
{
	float target = 0;
	const void *sources[1] = {&target};
	col_kernels()->reduce_many[COLLECT_FLOAT32][COLLECT_MIN](&target, sources, 1, 1, 2, false);
}

static void divide_a_sum_by_nothing(void)
{
	int8_t target = 0;
	const void *sources[1] = {&target};
	col_kernels()->reduce_many[COLLECT_INT8][COLLECT_AVG](&target, sources, 1, 1, 0, false);
}

TEST(no_source_and_a_wrong_divisor_are_bugs)
{
	int widest = col_kernels()->isa;
	for (int isa = COLLECT_ISA_SCALAR; isa <= widest; isa++) {
		col_kernels_select(isa);
		CHECK(test_aborts(reduce_no_source));
		CHECK(test_aborts(divide_a_minimum));
		CHECK(test_aborts(divide_a_sum_by_nothing));
	}
}

/* ---- division ------------------------------------------------------------------------------ */

/* Multiples of the divisor and their neighbours are where a truncated quotient goes wrong. */
static void dividends_draw(struct col_prng *prng, int dtype, uint32_t divisor, void *elements_out,
                           size_t count)
{
	struct format format = format_of(dtype);
	elements_draw(prng, dtype, elements_out, count);
	if (format.exponent_bits > 0)
		return;
	for (size_t index = 0; index < count; index += 2) {
		uint64_t multiple = (col_prng_next(prng) >> col_prng_below(prng, 64)) * divisor;
		if (format.bits < 64) {
			uint64_t quotient_max = ones(format.bits - format.is_signed) / divisor;
			multiple = col_prng_below(prng, quotient_max + 1) * divisor;
		}
		multiple += col_prng_below(prng, 3) - 1;
		if (format.is_signed && col_prng_below(prng, 2) == 0)
			multiple = 0 - multiple;
		part_put(format, elements_out, index, multiple);
	}
}

static void check_divide(const struct col_kernels *kernels, int dtype, uint32_t divisor,
                         uint8_t *elements, size_t count)
{
	struct format format = format_of(dtype);
	static uint8_t before[ELEMENTS_MAX * ELEMENT_BYTES_MAX];
	size_t bytes = count * col_dtype_bytes(dtype);
	memcpy(before, elements, bytes);
	put_poison(elements, bytes);
	kernels->divide[dtype](elements, count, divisor);
	check_poison(elements, bytes, kernels->isa, dtype, "divide");
	for (size_t index = 0; index < count * format.part_count; index++) {
		uint64_t part = part_get(format, before, index);
		uint64_t expected = reference_quotient(format, part, divisor);
		if (part_get(format, elements, index) != expected)
			FAIL("isa %d, %s: part %zu of %zu elements, %" PRIx64 ", divided by %u (seed %" PRIu64
			     ")", kernels->isa, col_dtype_name(dtype), index, count, part, divisor,
			     test_seed());
	}
}

static void run_divide(const struct col_kernels *scalar, const struct col_kernels *variant,
                       int dtype, struct col_prng *prng)
{
	/* 49 and 103 are among those whose multiples times the rounded reciprocal are too small. */
	static const uint32_t divisors[] = {
		1, 2, 3, 4, 5, 6, 7, 10, 49, 64, 103, 127, 1000, 1023, 1024, 65537, COL_DIVISOR_MAX - 1,
		COL_DIVISOR_MAX,
	};
	static _Alignas(64) uint8_t arena[(ELEMENTS_MAX + 8) * ELEMENT_BYTES_MAX + 2 * GUARD_BYTES];
	(void)scalar;
	if (variant->divide[dtype] == NULL)
		return;
	for (size_t index = 0; index < sizeof(divisors) / sizeof(divisors[0]); index++) {
		for (size_t count = 0; count < ELEMENTS_MAX; count += count < 40 ? 1 : 337) {
			uint8_t *elements = arena + GUARD_BYTES + count % 5 * col_dtype_bytes(dtype);
			dividends_draw(prng, dtype, divisors[index], elements, count);
			check_divide(variant, dtype, divisors[index], elements, count);
		}
	}
}

TEST(every_variant_of_division_equals_the_reference)
{
	sets_walk(run_divide);
}

/* ---- scaling ------------------------------------------------------------------------------- */

static void run_scale(const struct col_kernels *scalar, const struct col_kernels *variant,
                      int dtype, struct col_prng *prng)
{
	static const double factors[] = {1, 0.1, -3.7, 0, 1e-6, 0x1p-24, 1e30, HUGE_VAL};
	static uint8_t source[(ELEMENTS_MAX + 8) * ELEMENT_BYTES_MAX];
	static _Alignas(64) uint8_t arena[(ELEMENTS_MAX + 8) * ELEMENT_BYTES_MAX + 2 * GUARD_BYTES];
	struct format format = format_of(dtype);
	(void)scalar;
	if (variant->scale[dtype] == NULL)
		return;
	for (size_t count = 0; count < ELEMENTS_MAX; count += count < 40 ? 1 : 337) {
		double factor = factors[count % (sizeof(factors) / sizeof(factors[0]))];
		size_t bytes = count * col_dtype_bytes(dtype);
		uint8_t *target = arena + GUARD_BYTES + count % 5 * col_dtype_bytes(dtype);
		elements_draw(prng, dtype, source, count);
		put_poison(target, bytes);
		memcpy(target, source, bytes);
		variant->scale[dtype](target, count % 2 == 0 ? source : target, count, factor);
		check_poison(target, bytes, variant->isa, dtype, "scale");
		for (size_t index = 0; index < count * format.part_count; index++) {
			uint64_t part = part_get(format, source, index);
			if (part_get(format, target, index) != reference_product(format, part, factor))
				FAIL("isa %d, %s: part %zu of %zu elements, %" PRIx64 ", scaled by %g",
				     variant->isa, col_dtype_name(dtype), index, count, part, factor);
		}
	}
}

TEST(every_variant_of_scaling_equals_the_reference)
{
	sets_walk(run_scale);
}

/* ---- 16-bit floats ------------------------------------------------------------------------- */

/* A product with one, so that what is seen is the conversion. */
static void run_widen_all(const struct col_kernels *scalar, const struct col_kernels *variant,
                          int dtype, struct col_prng *prng)
{
	enum { ALL = 1 << 16 };
	struct format format = format_of(dtype);
	struct format wide = format_of(COLLECT_FLOAT32);
	(void)scalar;
	(void)prng;
	if (!is_half(dtype))
		return;
	uint16_t *halves = col_alloc(2 * ALL * sizeof(uint16_t));
	float *total = col_alloc(ALL * sizeof(float));
	for (size_t index = 0; index < ALL; index++) {
		halves[index] = (uint16_t)index;
		halves[ALL + index] = dtype == COLLECT_FLOAT16 ? 0x3c00 : 0x3f80;
	}
	variant->widen[dtype][COLLECT_PROD](total, halves, halves + ALL, ALL);
	for (size_t index = 0; index < ALL; index++) {
		uint64_t expected = part_widen(format, index);
		if (is_nan(wide, expected))
			expected |= quiet_of(wide);
		CHECK_EQ(part_get(wide, total, index), expected);
	}
	variant->narrow[dtype](halves, total, ALL, 1);
	for (size_t index = 0; index < ALL; index++)
		CHECK_EQ(halves[index], is_nan(format, index) ? index | quiet_of(format) : index);
	col_free(halves);
	col_free(total);
}

TEST(every_sixteen_bit_float_becomes_wide_and_narrow_again)
{
	sets_walk(run_widen_all);
}

/* Each 16-bit float, what is half-way to the next, and the float32 on both sides of that. */
static void run_narrow_ties(const struct col_kernels *scalar, const struct col_kernels *variant,
                            int dtype, struct col_prng *prng)
{
	enum { BATCH = 4 * 257 };
	struct format format = format_of(dtype);
	struct format wide = format_of(COLLECT_FLOAT32);
	static float total[BATCH];
	static uint16_t narrow[BATCH];
	(void)scalar;
	(void)prng;
	if (!is_half(dtype))
		return;
	for (uint64_t first = 0; first < infinity_of(format); first += 257) {
		for (uint64_t index = 0; index < BATCH; index += 4) {
			uint64_t half = first + index / 4;
			uint64_t sign = half % 2 << 31;
			if (half >= infinity_of(format))
				half = infinity_of(format) - 1;
			double middle = (magnitude_value(format, half) + magnitude_value(format, half + 1)) / 2;
			uint64_t bits = part_round(wide, middle);
			part_put(wide, total, index, sign | part_widen(format, half));
			part_put(wide, total, index + 1, sign | bits);
			part_put(wide, total, index + 2, sign | (bits > 0 ? bits - 1 : 0));
			part_put(wide, total, index + 3, sign | (bits + 1));
		}
		variant->narrow[dtype](narrow, total, BATCH, 1);
		for (size_t index = 0; index < BATCH; index++)
			CHECK_EQ(narrow[index], part_narrow(format, part_get(wide, total, index)));
	}
}

TEST(narrowing_rounds_to_nearest_even_about_every_tie)
{
	sets_walk(run_narrow_ties);
}

static void run_widen_steps(const struct col_kernels *scalar, const struct col_kernels *variant,
                            int dtype, struct col_prng *prng)
{
	static const int ops[] = {COLLECT_SUM, COLLECT_PROD};
	static uint16_t halves[3][ELEMENTS_MAX];
	static float total[2][ELEMENTS_MAX];
	static uint16_t narrow[2][ELEMENTS_MAX];
	if (!is_half(dtype))
		return;
	for (size_t count = 0; count < ELEMENTS_MAX - 8; count += count < 150 ? 1 : 97) {
		int op = ops[count % 2];
		size_t offset = count / 2 % 5;
		for (int index = 0; index < 3; index++)
			elements_draw(prng, dtype, halves[index], ELEMENTS_MAX);
		memset(total, POISON, sizeof(total));
		memset(narrow, POISON, sizeof(narrow));
		for (int run = 0; run < 2; run++) {
			const struct col_kernels *kernels = run == 0 ? scalar : variant;
			kernels->widen[dtype][op](total[run] + offset, halves[0] + 1, halves[1] + offset,
			                          count);
			for (int step = 0; step < 4; step++)
				kernels->widen_add[dtype][op](total[run] + offset, halves[step % 3] + 3, count,
				                              (count + (size_t)step) % 3 == 0);
			kernels->narrow[dtype](narrow[run] + 1, total[run] + offset, count,
			                       1 + (uint32_t)count % 7);
		}
		CHECK_BYTES_EQ(total[1], total[0], sizeof(total[0]));
		CHECK_BYTES_EQ(narrow[1], narrow[0], sizeof(narrow[0]));
	}
}

TEST(every_variant_of_the_steps_in_float32_equals_scalar)
{
	sets_walk(run_widen_steps);
}

TEST(an_operand_on_the_left_gives_its_nan)
{
	const uint16_t one = 0x3c00, nan_a = 0x7e01, nan_b = 0x7e02;
	float total;
	uint16_t target;
	col_kernels_select(COLLECT_ISA_SCALAR);
	for (int is_left = 0; is_left < 2; is_left++) {
		col_kernels()->widen[COLLECT_FLOAT16][COLLECT_SUM](&total, &nan_a, &one, 1);
		col_kernels()->widen_add[COLLECT_FLOAT16][COLLECT_SUM](&total, &nan_b, 1, is_left == 1);
		col_kernels()->narrow[COLLECT_FLOAT16](&target, &total, 1, 1);
		CHECK_EQ(target, is_left == 1 ? nan_b : nan_a);
	}
}

/* ---- copies -------------------------------------------------------------------------------- */

TEST(copies_are_exact_for_every_size_and_alignment)
{
	enum { BYTES_MAX = 20000 };
	static uint8_t source[BYTES_MAX + 64];
	static _Alignas(64) uint8_t arena[BYTES_MAX + 64 + 2 * GUARD_BYTES];
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	for (size_t byte = 0; byte < sizeof(source); byte++)
		source[byte] = (uint8_t)col_prng_next(&prng);
	int widest = col_kernels()->isa;
	for (int isa = COLLECT_ISA_SCALAR; isa <= widest; isa++) {
		col_kernels_select(isa);
		for (int round = 0; round < 2000; round++) {
			size_t bytes = round < 300 ? (size_t)round : col_prng_below(&prng, BYTES_MAX + 1);
			uint8_t *target = arena + GUARD_BYTES + col_prng_below(&prng, 64);
			const uint8_t *from = source + col_prng_below(&prng, 64);
			memset(target, POISON, bytes);
			put_poison(target, bytes);
			col_kernels()->copy(target, from, bytes, round % 2 == 0);
			CHECK_BYTES_EQ(target, from, bytes);
			check_poison(target, bytes, isa, COLLECT_UINT8, "copy");
		}
	}
}
