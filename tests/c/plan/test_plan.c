#include <string.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "base/size.h"
#include "harness.h"
#include "plan/plan.h"
#include "plan/plans.h"

#define BYTES_MAX COL_PLAN_BYTES_MAX

/* A plan that is only good for cutting. weights: of the slices, or NULL. */
static struct collect_plan *cut_create(uint32_t slice_count, const uint32_t *weights)
{
	struct collect_plan *plan = col_alloc_zeroed(1, sizeof(*plan));
	CHECK(plan != NULL);
	plan->world = slice_count;
	plan->slice_count = slice_count;
	plan->parts = slice_count;
	plan->weight_sum = slice_count;
	if (weights == NULL)
		return plan;
	plan->weights = col_alloc(slice_count * sizeof(*weights));
	CHECK(plan->weights != NULL);
	memcpy(plan->weights, weights, slice_count * sizeof(*weights));
	plan->weight_sum = 0;
	for (uint32_t slice = 0; slice < slice_count; slice++)
		plan->weight_sum += weights[slice];
	return plan;
}

/* Slices are contiguous, in order, cover the payload, and begin at whole quanta. */
static void check_cover(const struct collect_plan *plan, uint64_t bytes)
{
	uint64_t at = 0;
	for (uint32_t slice = 0; slice < plan->slice_count; slice++) {
		struct col_span span = col_plan_slice(plan, slice, bytes);
		CHECK_EQ(span.begin, at);
		CHECK(span.end >= span.begin);
		CHECK(span.begin % COL_SLICE_QUANTUM == 0 || span.begin == bytes);
		at = span.end;
	}
	CHECK_EQ(at, bytes);
}

static uint64_t slice_bytes(const struct collect_plan *plan, uint32_t slice, uint64_t bytes)
{
	struct col_span span = col_plan_slice(plan, slice, bytes);
	return span.end - span.begin;
}

TEST(slices_cover_a_payload_of_any_size)
{
	static const uint64_t sizes[] = {
		0, 1, 4, 63, 64, 65, 127, 128, 1000, 4096, 1 << 20, 12345678901, BYTES_MAX - 65,
		BYTES_MAX - 64, BYTES_MAX - 63, BYTES_MAX - 1, BYTES_MAX,
	};
	static const uint32_t counts[] = {1, 2, 3, 7, 16, 129, 1000, 1024};
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		struct collect_plan *plan = cut_create(counts[i], NULL);
		for (size_t k = 0; k < sizeof(sizes) / sizeof(*sizes); k++)
			check_cover(plan, sizes[k]);
		col_plan_destroy(&plan);
	}
}

TEST(equal_slices_differ_by_at_most_one_quantum_and_the_partial_one)
{
	for (uint32_t count = 1; count < 40; count++) {
		struct collect_plan *plan = cut_create(count, NULL);
		for (uint64_t bytes = 0; bytes < 64 * 100; bytes += 37) {
			uint64_t quanta = col_div_ceil(bytes, COL_SLICE_QUANTUM);
			for (uint32_t slice = 0; slice < count; slice++) {
				uint64_t length = slice_bytes(plan, slice, bytes);
				CHECK(length <= col_div_ceil(quanta, count) * COL_SLICE_QUANTUM);
				CHECK(length + COL_SLICE_QUANTUM > quanta / count * COL_SLICE_QUANTUM);
			}
		}
		col_plan_destroy(&plan);
	}
}

TEST(shares_are_in_proportion_to_random_weights)
{
	struct col_prng prng;
	col_prng_init(&prng, 7);
	for (int round = 0; round < 200; round++) {
		uint32_t weights[17];
		uint32_t count = 1 + (uint32_t)col_prng_below(&prng, 17);
		uint64_t limit = (uint64_t)1 << (1 + col_prng_below(&prng, 27));
		for (uint32_t slice = 0; slice < count; slice++)
			weights[slice] = (uint32_t)col_prng_below(&prng, limit);
		weights[col_prng_below(&prng, count)] = (uint32_t)limit;

		struct collect_plan *plan = cut_create(count, weights);
		uint64_t bytes = col_prng_below(&prng, (uint64_t)1 << (1 + col_prng_below(&prng, 61)));
		check_cover(plan, bytes);
		for (uint32_t slice = 0; slice < count; slice++) {
			double share = (double)bytes * weights[slice] / (double)plan->weight_sum;
			double error = (double)slice_bytes(plan, slice, bytes) - share;
			double rounding = 3.0 * COL_SLICE_QUANTUM + (double)bytes * 1e-12;
			CHECK(error <= rounding && error >= -rounding);
			if (weights[slice] == 0)
				CHECK_EQ(slice_bytes(plan, slice, bytes), 0);
		}
		col_plan_destroy(&plan);
	}
}

TEST(the_largest_weights_and_the_largest_payload_do_not_overflow)
{
	static const uint32_t weights[] = {0xffffffff, 1};
	struct collect_plan *plan = cut_create(2, weights);
	CHECK_EQ(plan->weight_sum, (uint64_t)1 << 32);

	check_cover(plan, BYTES_MAX);
	CHECK_EQ(slice_bytes(plan, 1, BYTES_MAX), (uint64_t)1 << 30);
	CHECK_EQ(slice_bytes(plan, 0, BYTES_MAX), BYTES_MAX - ((uint64_t)1 << 30));
	check_cover(plan, BYTES_MAX - 1);
	CHECK_EQ(slice_bytes(plan, 1, 64), 64);
	col_plan_destroy(&plan);
}

static void cut_too_much(void)
{
	struct collect_plan *plan = cut_create(2, NULL);
	(void)col_plan_slice(plan, 0, BYTES_MAX + 1);
}

TEST(more_than_the_largest_payload_is_a_bug_of_the_caller)
{
	CHECK(test_aborts(cut_too_much));
}

TEST(parts_of_a_block_are_cut_like_equal_slices)
{
	for (uint32_t count = 1; count < 9; count++) {
		struct collect_plan *plan = cut_create(count, NULL);
		for (uint64_t bytes = 0; bytes < 2000; bytes += 37) {
			for (uint32_t part = 0; part < count; part++) {
				struct col_span slice = col_plan_slice(plan, part, bytes);
				struct col_span span = col_plan_part(plan, part, bytes);
				CHECK_EQ(slice.begin, span.begin);
				CHECK_EQ(slice.end, span.end);
			}
		}
		col_plan_destroy(&plan);
	}
}

static int build(int algorithm, int collective, uint32_t world, uint32_t rank,
                 struct collect_plan **plan_out)
{
	struct collect_recipe recipe = recipe_of(algorithm);
	return col_plan_build(&recipe, collective, world, root_of(collective, 0), rank, plan_out);
}

TEST(builders_refuse_worlds_ranks_and_roots_out_of_range)
{
	struct collect_plan *plan = NULL;
	FOR_EACH_PLAN(algorithm, collective) {
		struct collect_recipe recipe = recipe_of(algorithm);
		uint32_t root = root_of(collective, 4);
		CHECK_EQ(build(algorithm, collective, 0, 0, &plan), COLLECT_E_INVALID);
		CHECK_EQ(build(algorithm, collective, 4, 4, &plan), COLLECT_E_INVALID);
		CHECK_EQ(build(algorithm, collective, 1025, 0, &plan), COLLECT_E_INVALID);
		if (is_rooted(collective))
			CHECK_EQ(col_plan_build(&recipe, collective, 4, root, 0, &plan), COLLECT_E_INVALID);
		CHECK(plan == NULL);
	}
	CHECK_EQ(build(COLLECT_AUTO, COLLECT_ALL_REDUCE, 4, 0, &plan), COLLECT_E_INVALID);
	CHECK_EQ(build(COLLECT_ALGORITHM_COUNT, COLLECT_ALL_REDUCE, 4, 0, &plan), COLLECT_E_INVALID);
	CHECK_EQ(build(COLLECT_DIRECT, COLLECT_COLLECTIVE_COUNT, 4, 0, &plan), COLLECT_E_INVALID);
	CHECK_EQ(build(COLLECT_BRUCK, COLLECT_ALL_REDUCE, 4, 0, &plan), COLLECT_E_INVALID);
	CHECK(plan == NULL);
}

TEST(builders_refuse_recipes_that_do_not_fit)
{
	static const uint32_t twice[] = {0, 1, 1, 3};
	static const uint32_t outside[] = {0, 1, 2, 4};
	static const uint32_t none[] = {0, 0, 0, 0};
	static const struct collect_recipe bad[] = {
		{.algorithm = COLLECT_RING, .order = twice},
		{.algorithm = COLLECT_RING, .order = outside},
		{.algorithm = COLLECT_DIRECT, .weights = none},
		{.algorithm = COLLECT_HIERARCHICAL, .hosts = outside},
		{.algorithm = COLLECT_HIERARCHICAL, .level_count = 2, .radices = {2, 3}},
		{.algorithm = COLLECT_HIERARCHICAL, .level_count = 2, .radices = {0, 4}},
		{.algorithm = COLLECT_HIERARCHICAL, .level_count = 5, .radices = {2, 2, 1, 1}},
		{.algorithm = COLLECT_HIERARCHICAL, .level_count = 2, .radices = {0x80000000u, 2}},
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct collect_plan *plan = NULL;
		CHECK_EQ(col_plan_build(&bad[i], COLLECT_ALL_REDUCE, 4, COL_RANK_NONE, 1, &plan),
		         COLLECT_E_INVALID);
		CHECK(plan == NULL);
	}
}

TEST(the_largest_world_can_be_built)
{
	FOR_EACH_PLAN(algorithm, collective) {
		struct collect_plan *plan;
		CHECK_EQ(build(algorithm, collective, COLLECT_RANKS_MAX, COLLECT_RANKS_MAX - 1, &plan), 0);
		col_plan_destroy(&plan);
	}
}

TEST(a_world_of_one_copies)
{
	FOR_EACH_PLAN(algorithm, collective) {
		struct collect_plan *plan;
		bool reduces = collective == COLLECT_ALL_REDUCE || collective == COLLECT_REDUCE ||
		               collective == COLLECT_REDUCE_SCATTER || collective == COLLECT_BARRIER;
		CHECK_EQ(build(algorithm, collective, 1, 0, &plan), 0);
		CHECK_EQ(plan->step_count, 1);
		CHECK_EQ(plan->steps[0].opcode, COL_COPY_IN);
		CHECK_EQ(plan->steps[0].flags, COL_STEP_FINAL | (reduces ? COL_STEP_SCALE : 0));
		col_plan_destroy(&plan);
		CHECK(plan == NULL);
		col_plan_destroy(&plan);
	}
}

TEST(the_weights_of_owners_are_those_of_their_slices)
{
	static const uint32_t weights[] = {1, 2, 3, 4};
	struct collect_recipe recipe = {.algorithm = COLLECT_DIRECT, .weights = weights};
	struct collect_plan *plan;
	CHECK_EQ(col_plan_build(&recipe, COLLECT_ALL_REDUCE, 4, COL_RANK_NONE, 0, &plan), 0);
	CHECK_EQ(plan->weight_sum, 10);
	CHECK_BYTES_EQ(plan->weights, weights, sizeof(weights));
	col_plan_destroy(&plan);

	/* The root owns nothing; the first slice is that of the rank behind it. */
	CHECK_EQ(col_plan_build(&recipe, COLLECT_REDUCE, 4, 1, 0, &plan), 0);
	CHECK_EQ(plan->slice_count, 3);
	CHECK_EQ(plan->weights[0], 3);
	CHECK_EQ(plan->weights[2], 1);
	col_plan_destroy(&plan);
}

TEST(a_build_that_runs_out_of_memory_leaves_nothing)
{
	static const uint32_t order[] = {2, 0, 1};
	static const uint32_t hosts[] = {0, 0, 1};
	FOR_EACH_PLAN(algorithm, collective) {
		struct collect_recipe recipe = recipe_of(algorithm);
		recipe.order = order;
		recipe.hosts = hosts;
		recipe.weights = order;
		int status = COLLECT_E_MEMORY;
		for (uint64_t nth = 1; status == COLLECT_E_MEMORY; nth++) {
			struct collect_plan *plan = NULL;
			col_alloc_fail_at(nth);
			status = col_plan_build(&recipe, collective, 3, root_of(collective, 1), 0, &plan);
			CHECK_EQ(status == COLLECT_E_MEMORY, col_alloc_has_failed());
			CHECK_EQ(plan == NULL, status != 0);
			col_plan_destroy(&plan);
			CHECK_EQ(col_alloc_blocks(), 0);
		}
		CHECK_EQ(status, 0);
		col_alloc_fail_at(0);
	}
}

TEST(opcodes_say_what_they_do)
{
	CHECK_STR_EQ(col_opcode_name(COL_RECV_REDUCE_SEND), "recv_reduce_send");
	CHECK_STR_EQ(col_opcode_name(COL_COPY_IN), "copy_in");
	CHECK_STR_EQ(col_opcode_name(-1), "unknown");
	CHECK_STR_EQ(col_opcode_name(COL_OPCODE_COUNT), "unknown");
	for (int opcode = 0; opcode < COL_OPCODE_COUNT; opcode++) {
		const char *name = col_opcode_name(opcode);
		bool forwards = opcode == COL_IN_REDUCE_SEND || opcode == COL_OUT_REDUCE_SEND ||
		                opcode == COL_RECV_REDUCE_SEND;
		CHECK_EQ(col_opcode_receives(opcode) != 0, strstr(name, "recv") != NULL || forwards);
		CHECK_EQ(col_opcode_sends(opcode) != 0, strstr(name, "send") != NULL);
		bool reads_in = strstr(name, "in") != NULL || opcode == COL_RECV_REDUCE_SEND;
		CHECK_EQ(col_opcode_reads_in(opcode) != 0, reads_in);
		bool only_sends = strncmp(name, "send", 4) == 0;
		CHECK_EQ(col_opcode_writes_out(opcode) != 0, !only_sends && !forwards);
	}
}

TEST(a_printed_plan_can_be_read)
{
	struct collect_plan *plan;
	char text[1024];
	CHECK_EQ(build(COLLECT_DIRECT, COLLECT_ALL_REDUCE, 3, 1, &plan), 0);

	size_t length = col_plan_print(plan, text, sizeof(text));

	CHECK_STR_EQ(text,
		"direct all_reduce, rank 1 of 3: lanes 3, slices 3, steps 8\n"
		"lane 0  slice 1\n"
		"     0  recv_reduce_in    <- rank 0\n"
		"     1  recv_reduce       <- rank 2  final  scale\n"
		"     2  send_out          -> rank 2 lane 2 step 1\n"
		"     3  send_out          -> rank 0 lane 1 step 1\n"
		"lane 1  slice 2\n"
		"     0  send_in           -> rank 2 lane 0 step 1\n"
		"     1  recv              <- rank 2  final\n"
		"lane 2  slice 0\n"
		"     0  send_in           -> rank 0 lane 0 step 0\n"
		"     1  recv              <- rank 0  final\n");
	CHECK_EQ(length, strlen(text));
	col_plan_destroy(&plan);
}

TEST(a_print_into_too_little_room_is_cut_and_tells_the_need)
{
	struct collect_plan *plan;
	char whole[2048];
	char part[32];
	CHECK_EQ(build(COLLECT_RING, COLLECT_ALL_REDUCE, 4, 0, &plan), 0);
	size_t length = col_plan_print(plan, whole, sizeof(whole));
	CHECK(length < sizeof(whole));

	CHECK_EQ(col_plan_print(plan, NULL, 0), length);
	CHECK_EQ(col_plan_print(plan, part, sizeof(part)), length);
	CHECK_EQ(strlen(part), sizeof(part) - 1);
	CHECK_BYTES_EQ(part, whole, sizeof(part) - 1);
	col_plan_destroy(&plan);
}

TEST(the_public_functions_refuse_what_is_out_of_range)
{
	collect_plan *plan = NULL;
	struct collect_step step;
	uint64_t begin = 1;
	uint64_t end = 1;
	struct collect_recipe recipe = recipe_of(COLLECT_RING);
	CHECK_EQ(collect_plan_create(&recipe, COLLECT_ALL_REDUCE, 3, 0, 3, &plan), COLLECT_E_INVALID);
	CHECK_EQ(collect_plan_create(&recipe, COLLECT_ALL_REDUCE, 3, 0, 2, NULL), COLLECT_E_INVALID);
	CHECK_EQ(collect_plan_create(NULL, COLLECT_ALL_REDUCE, 3, 0, 2, &plan), COLLECT_E_INVALID);
	CHECK_EQ(collect_plan_create(&recipe, COLLECT_ALL_REDUCE, 3, 0, 2, &plan), 0);

	CHECK_EQ(collect_plan_lane_count(plan), 6);
	CHECK_EQ(collect_plan_slice_count(plan), 6);
	CHECK_EQ(collect_plan_lane_slice(plan, 0), 2);
	CHECK_EQ(collect_plan_step_count(plan, 0), 2);
	CHECK_EQ(collect_plan_step_count(plan, 6), 0);
	CHECK_EQ(collect_plan_step(plan, 0, 2, &step), COLLECT_E_INVALID);
	CHECK_EQ(collect_plan_step(plan, 6, 0, &step), COLLECT_E_INVALID);
	CHECK_EQ(collect_plan_slice(plan, 6, 100, &begin, &end), COLLECT_E_INVALID);
	CHECK_EQ(collect_plan_slice(plan, 0, BYTES_MAX + 1, &begin, &end), COLLECT_E_INVALID);
	CHECK_EQ(begin, 1);
	CHECK_EQ(collect_plan_slice(plan, 5, 100, &begin, &end), 0);
	CHECK_EQ(begin, 64);
	CHECK_EQ(end, 100);
	collect_plan_destroy(&plan);
	CHECK(plan == NULL);
	collect_plan_destroy(&plan);
}
