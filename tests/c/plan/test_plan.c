#include <string.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "base/size.h"
#include "harness.h"
#include "plan/plan.h"

#define BYTES_MAX COL_PLAN_BYTES_MAX

/* A plan that is only good for cutting. weights: of the slices, or NULL. */
static struct collect_plan *cut_create(uint32_t slice_count, const uint32_t *weights)
{
	struct collect_plan *plan;
	CHECK_EQ(col_plan_create(COLLECT_DIRECT, 1, 0, slice_count, 1, slice_count, &plan), 0);
	col_plan_lane_begin(plan);
	for (uint32_t slice = 0; slice < slice_count; slice++)
		col_plan_step_add(plan, (struct col_step){.opcode = COL_COPY_IN, .slice = slice});
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

TEST(a_lane_runs_as_often_as_its_longest_slice_has_chunks)
{
	static const uint32_t weights[] = {1, 5, 2};
	struct collect_plan *plan = cut_create(3, weights);

	CHECK_EQ(col_plan_iterations(plan, 0, 0, 64), 0);
	CHECK_EQ(col_plan_iterations(plan, 0, 1, 64), 1);
	CHECK_EQ(col_plan_iterations(plan, 0, 8 * 64, 64), 5);
	CHECK_EQ(col_plan_iterations(plan, 0, 8 * 64, 128), 3);
	CHECK_EQ(col_plan_iterations(plan, 0, 8 * 64, 1 << 20), 1);
	col_plan_destroy(&plan);
}

TEST(a_lane_knows_the_slices_of_its_steps_only)
{
	struct collect_plan *plan;
	CHECK_EQ(col_plan_build_direct(5, 2, &plan), 0);
	for (uint32_t lane = 0; lane < 5; lane++) {
		CHECK_EQ(plan->lanes[lane].slice_first, lane);
		CHECK_EQ(plan->lanes[lane].slice_last, lane);
	}
	/* 3 quanta for 5 slices: some lanes have nothing to do. */
	uint64_t iterations = 0;
	for (uint32_t lane = 0; lane < 5; lane++)
		iterations += col_plan_iterations(plan, lane, 3 * 64, 64);
	CHECK_EQ(iterations, 3);
	col_plan_destroy(&plan);
}

TEST(builders_refuse_worlds_and_ranks_out_of_range)
{
	static const struct {
		int algorithm;
		uint32_t world;
		uint32_t rank;
	} bad[] = {
		{COLLECT_DIRECT, 0, 0}, {COLLECT_RING, 0, 0},    {COLLECT_STAR, 0, 0},
		{COLLECT_DIRECT, 4, 4}, {COLLECT_RING, 4, 4},    {COLLECT_STAR, 4, 4},
		{COLLECT_RING, 1, 1},   {COLLECT_STAR, 1025, 0}, {COLLECT_DIRECT, 1025, 0},
		{-1, 4, 0},             {COLLECT_ALGORITHM_COUNT, 4, 0},
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct collect_plan *plan = NULL;
		CHECK_EQ(col_plan_build(bad[i].algorithm, bad[i].world, bad[i].rank, &plan),
		         COLLECT_E_INVALID);
		CHECK(plan == NULL);
	}
}

TEST(the_largest_world_can_be_built)
{
	for (int algorithm = 0; algorithm < COLLECT_ALGORITHM_COUNT; algorithm++) {
		struct collect_plan *plan;
		CHECK_EQ(col_plan_build(algorithm, COLLECT_RANKS_MAX, COLLECT_RANKS_MAX - 1, &plan), 0);
		col_plan_destroy(&plan);
	}
}

TEST(a_world_of_one_copies)
{
	for (int algorithm = 0; algorithm < COLLECT_ALGORITHM_COUNT; algorithm++) {
		struct collect_plan *plan;
		CHECK_EQ(col_plan_build(algorithm, 1, 0, &plan), 0);
		CHECK_EQ(plan->step_count, 1);
		CHECK_EQ(plan->steps[0].opcode, COL_COPY_IN);
		CHECK_EQ(plan->steps[0].flags, COL_STEP_FINAL | COL_STEP_SCALE);
		col_plan_destroy(&plan);
		CHECK(plan == NULL);
		col_plan_destroy(&plan);
	}
}

TEST(a_build_that_runs_out_of_memory_leaves_nothing)
{
	for (int algorithm = 0; algorithm < COLLECT_ALGORITHM_COUNT; algorithm++) {
		for (uint32_t world = 1; world < 4; world++) {
			int status = COLLECT_E_MEMORY;
			for (uint64_t nth = 1; status == COLLECT_E_MEMORY; nth++) {
				struct collect_plan *plan = NULL;
				col_alloc_fail_at(nth);
				status = col_plan_build(algorithm, world, 0, &plan);
				CHECK_EQ(status == COLLECT_E_MEMORY, col_alloc_has_failed());
				CHECK_EQ(plan == NULL, status != 0);
				col_plan_destroy(&plan);
				CHECK_EQ(col_alloc_blocks(), 0);
			}
			CHECK_EQ(status, 0);
			col_alloc_fail_at(0);
		}
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
		CHECK_EQ(col_opcode_receives(opcode) != 0, strstr(name, "recv") != NULL);
		CHECK_EQ(col_opcode_sends(opcode) != 0, strstr(name, "send") != NULL);
		bool forwards = opcode == COL_RECV_REDUCE_SEND;
		CHECK_EQ(col_opcode_reads_in(opcode) != 0, strstr(name, "in") != NULL || forwards);
		bool only_sends = opcode == COL_SEND_IN || opcode == COL_SEND_OUT;
		CHECK_EQ(col_opcode_writes_out(opcode) != 0, !only_sends && !forwards);
	}
}

TEST(a_printed_plan_can_be_read)
{
	struct collect_plan *plan;
	char text[1024];
	CHECK_EQ(col_plan_build_direct(3, 1, &plan), 0);

	size_t length = col_plan_print(plan, text, sizeof(text));

	CHECK_STR_EQ(text,
		"direct, rank 1 of 3: lanes 3, slices 3, steps 8\n"
		"lane 0\n"
		"     0  send_in           slice 0     -> rank 0 lane 0 step 0\n"
		"     1  recv              slice 0     <- rank 0  final\n"
		"lane 1\n"
		"     0  recv_reduce_in    slice 1     <- rank 0\n"
		"     1  recv_reduce       slice 1     <- rank 2  final  scale\n"
		"     2  send_out          slice 1     -> rank 2 lane 1 step 1\n"
		"     3  send_out          slice 1     -> rank 0 lane 1 step 1\n"
		"lane 2\n"
		"     0  send_in           slice 2     -> rank 2 lane 2 step 1\n"
		"     1  recv              slice 2     <- rank 2  final\n");
	CHECK_EQ(length, strlen(text));
	col_plan_destroy(&plan);
}

TEST(a_print_into_too_little_room_is_cut_and_tells_the_need)
{
	struct collect_plan *plan;
	char whole[1024];
	char part[32];
	CHECK_EQ(col_plan_build_ring(4, 0, &plan), 0);
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
	CHECK_EQ(collect_plan_create(COLLECT_RING, 3, 3, &plan), COLLECT_E_INVALID);
	CHECK_EQ(collect_plan_create(COLLECT_RING, 3, 2, NULL), COLLECT_E_INVALID);
	CHECK_EQ(collect_plan_create(COLLECT_RING, 3, 2, &plan), 0);

	CHECK_EQ(collect_plan_lane_count(plan), 1);
	CHECK_EQ(collect_plan_slice_count(plan), 3);
	CHECK_EQ(collect_plan_step_count(plan, 0), 6);
	CHECK_EQ(collect_plan_step_count(plan, 1), 0);
	CHECK_EQ(collect_plan_step(plan, 0, 6, &step), COLLECT_E_INVALID);
	CHECK_EQ(collect_plan_step(plan, 1, 0, &step), COLLECT_E_INVALID);
	CHECK_EQ(collect_plan_step(plan, 0, 1, &step), 0);
	CHECK_EQ(step.opcode, COL_RECV_REDUCE_SEND);
	CHECK_EQ(step.peer, 1);
	CHECK_EQ(step.next, 0);
	CHECK_EQ(step.peer_step, 2);
	CHECK_EQ(collect_plan_slice(plan, 3, 100, &begin, &end), COLLECT_E_INVALID);
	CHECK_EQ(collect_plan_slice(plan, 0, BYTES_MAX + 1, &begin, &end), COLLECT_E_INVALID);
	CHECK_EQ(begin, 1);
	CHECK_EQ(collect_plan_slice(plan, 2, 100, &begin, &end), 0);
	CHECK_EQ(begin, 64);
	CHECK_EQ(end, 100);
	collect_plan_destroy(&plan);
	CHECK(plan == NULL);
	collect_plan_destroy(&plan);
}
