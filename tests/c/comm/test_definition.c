/* Algorithms of the user's own in a comm: what is kept, what runs, and who disagrees. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "comm/world.h"

#define SOON_NS (20 * COL_NS_PER_S)
#define COUNT 5000u
#define NUMBER (COLLECT_ALGORITHM_DEFINED + 1000)

/* Everybody's sum goes to rank 0, in ascending order of ranks or the other way round. */
static int define(struct world *world, uint32_t peer, uint32_t size, bool is_reversed,
                  int collective, char *reason_out)
{
	struct collect_edge edges[WORLD_MAX];
	for (uint32_t i = 1; i < size; i++)
		edges[i - 1] = (struct collect_edge){is_reversed ? size - i : i, 0};
	struct collect_slice slice = {.weight = 1, .spread = edges, .spread_count = size - 1};
	if (collective == COLLECT_ALL_REDUCE) {
		slice.reduce = edges;
		slice.reduce_count = size - 1;
	}
	struct collect_definition definition = {.name = "own", .algorithm = NUMBER,
		.collective = collective, .world = size, .slices = &slice, .slice_count = 1};
	return collect_comm_define(world->peers[peer].comm, &definition, reason_out, 128);
}

static struct collect_call call_of(float *values, size_t count)
{
	return (struct collect_call){.dtype = COLLECT_FLOAT32, .algorithm = NUMBER,
	                             .source = values, .target = values, .count = count};
}

static collect_op *begin(struct world *world, uint32_t peer, float *values, size_t count)
{
	struct collect_call call = call_of(values, count);
	collect_op *op = NULL;
	CHECK_EQ(collect_comm_start(world->peers[peer].comm, &call, &op), COLLECT_OK);
	return op;
}

static void end(collect_op *op, int status, int algorithm)
{
	struct collect_op_info info;
	CHECK_EQ(collect_op_wait(op, SOON_NS), status);
	collect_op_info_get(op, &info);
	if (algorithm >= 0)
		CHECK_EQ(info.algorithm, algorithm);
	collect_op_release(&op);
}

static void values_fill(float *values, uint32_t peer)
{
	for (size_t i = 0; i < COUNT; i++)
		values[i] = (float)(peer + 1 + i % 7);
}

static void values_check(const float *values, uint32_t mask)
{
	for (size_t i = 0; i < COUNT; i++) {
		float want = 0;
		for (uint32_t peer = 0; peer < WORLD_MAX; peer++)
			if (mask >> peer & 1)
				want += (float)(peer + 1 + i % 7);
		CHECK_EQ(values[i], want);
	}
}

TEST(a_definition_is_kept_once_and_its_number_means_nothing_else)
{
	struct world world;
	char reason[128] = "";
	float value = 1;
	collect_op *op;
	world_open(&world, &(struct world_options){.count = 1});
	struct collect_call call = call_of(&value, 1);
	CHECK_EQ(collect_comm_start(world.peers[0].comm, &call, &op), COLLECT_E_INVALID);

	CHECK_EQ(define(&world, 0, 3, false, COLLECT_ALL_REDUCE, reason), COLLECT_OK);
	CHECK_EQ(define(&world, 0, 3, false, COLLECT_ALL_REDUCE, reason), COLLECT_OK);
	CHECK_EQ(define(&world, 0, 4, true, COLLECT_ALL_REDUCE, reason), COLLECT_OK);
	CHECK_EQ(define(&world, 0, 3, true, COLLECT_ALL_REDUCE, reason), COLLECT_E_INVALID);
	CHECK_STR_EQ(reason, "the number has another definition for this world");
	CHECK_EQ(define(&world, 0, 3, false, COLLECT_BROADCAST, reason), COLLECT_E_INVALID);
	CHECK_STR_EQ(reason, "the number is that of a definition of another collective");
	CHECK_EQ(define(&world, 0, 1, false, COLLECT_ALL_REDUCE, NULL), COLLECT_E_INVALID);

	call.collective = COLLECT_BROADCAST;
	call.root = world.peers[0].incarnation;
	CHECK_EQ(collect_comm_start(world.peers[0].comm, &call, &op), COLLECT_E_INVALID);
	world_close(&world);
}

TEST(a_definition_runs_where_its_world_is_and_another_algorithm_elsewhere)
{
	struct world world;
	static float values[3][COUNT];
	struct collect_report reports[WORLD_MAX];
	collect_op *ops[3];
	world_open(&world, &(struct world_options){.count = 3, .shares = true});
	world_install(&world, 7, 1ull << 32);
	for (uint32_t peer = 0; peer < 3; peer++)
		CHECK_EQ(define(&world, peer, 3, true, COLLECT_ALL_REDUCE, NULL), COLLECT_OK);
	for (uint32_t peer = 0; peer < 3; peer++) {
		values_fill(values[peer], peer);
		ops[peer] = begin(&world, peer, values[peer], COUNT);
	}
	for (uint32_t peer = 0; peer < 3; peer++) {
		end(ops[peer], COLLECT_OK, NUMBER);
		values_check(values[peer], 7);
	}

	/* The third dies; the two have no definition for what is left, and do without. */
	for (uint32_t peer = 0; peer < 2; peer++) {
		values_fill(values[peer], peer);
		ops[peer] = begin(&world, peer, values[peer], COUNT);
	}
	world_kill(&world, 2);
	world_freeze(&world, 3, reports);
	CHECK_EQ(strcmp(reports[0].inflight_descriptor, "all_reduce float32[5000] sum by own/428"), 0);
	CHECK_EQ(reports[0].inflight_digest, reports[1].inflight_digest);
	world_install_verdict(&world, 3, &(struct verdict){.verdict = COLLECT_VERDICT_RERUN});
	for (uint32_t peer = 0; peer < 2; peer++) {
		struct collect_op_info info;
		CHECK_EQ(collect_op_wait(ops[peer], SOON_NS), COLLECT_OK);
		collect_op_info_get(ops[peer], &info);
		CHECK(info.algorithm < COLLECT_ALGORITHM_COUNT);
		collect_op_release(&ops[peer]);
		values_check(values[peer], 3);
	}

	/* With one, the next call has it again. */
	for (uint32_t peer = 0; peer < 2; peer++) {
		CHECK_EQ(define(&world, peer, 2, false, COLLECT_ALL_REDUCE, NULL), COLLECT_OK);
		values_fill(values[peer], peer);
		ops[peer] = begin(&world, peer, values[peer], COUNT);
	}
	for (uint32_t peer = 0; peer < 2; peer++) {
		end(ops[peer], COLLECT_OK, NUMBER);
		values_check(values[peer], 3);
	}
	world_close(&world);
}

TEST(definitions_that_differ_in_this_world_only_are_told_by_their_frames)
{
	struct world world;
	static float values[3][COUNT];
	struct collect_report reports[WORLD_MAX];
	collect_op *ops[3];
	world_open(&world, &(struct world_options){.count = 3});
	world_install(&world, 7, 1ull << 32);
	for (uint32_t peer = 0; peer < 3; peer++) {
		CHECK_EQ(define(&world, peer, 3, peer == 2, COLLECT_ALL_REDUCE, NULL), COLLECT_OK);
		values_fill(values[peer], peer);
		ops[peer] = begin(&world, peer, values[peer], COUNT);
	}
	CHECK_EQ(world_await(&world, 0, COLLECT_EVENT_MISMATCH).peer, world.peers[2].incarnation);
	world_freeze(&world, 7, reports);
	world_install_verdict(&world, 7, &(struct verdict){
		.verdict = COLLECT_VERDICT_FAIL, .op = reports[0].inflight_op});
	for (uint32_t peer = 0; peer < 3; peer++) {
		end(ops[peer], COLLECT_E_FAILED, -1);
		values_check(values[peer], 1u << peer);
	}
	world_all_reduce_check(&world, 7, 1000);
	world_close(&world);
}
