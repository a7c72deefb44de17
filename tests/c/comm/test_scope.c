/* Sub-groups: who may make them, that they compute, and that they do not wait for one another. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "comm/scopes.h"

#define EVERYBODY 15u
#define WHILE_NS (20 * COL_NS_PER_MS)

static void ready(struct world *world, struct world_options options)
{
	options.count = 4;
	options.algorithm = COLLECT_AUTO;
	world_open(world, &options);
	world_install(world, EVERYBODY, 1000);
}

TEST(a_sub_group_computes_among_its_members_in_their_order)
{
	struct world world;
	struct scope scope = {.name = 5, .mask = 11};
	collect_op *ops[4];
	uint64_t targets[4][3];
	ready(&world, (struct world_options){0});
	scope_make(&world, &scope, 11, true);
	for (uint32_t i = 0; i < 4; i++) {
		struct collect_call call = {
			.collective = COLLECT_ALL_GATHER, .dtype = COLLECT_UINT64,
			.algorithm = COLLECT_AUTO, .source = &world.peers[i].incarnation,
			.target = targets[i], .count = 1, .world = 3};
		if ((scope.mask >> i & 1) != 0)
			CHECK_EQ(collect_comm_start(scope.comms[i], &call, &ops[i]), COLLECT_OK);
	}
	for (uint32_t i = 0; i < 4; i++) {
		if ((scope.mask >> i & 1) == 0)
			continue;
		struct collect_op_info info = op_end(ops[i], COLLECT_OK);
		CHECK_EQ(info.op, 1);
		CHECK_EQ(info.participants, 3);
		CHECK_BYTES_EQ(targets[i], ((uint64_t[]){103, 101, 100}), sizeof(targets[i]));
	}
	world_all_reduce_check(&world, EVERYBODY, 5000);
	scope_close(&scope);
	world_all_reduce_check(&world, EVERYBODY, 5000);
	world_close(&world);
}

TEST(a_sub_group_of_one_needs_nobody)
{
	struct world world;
	struct scope scope;
	ready(&world, (struct world_options){0});
	scope_open(&world, &scope, 1, 4);
	scopes_check(&scope, 1, 0);
	scopes_check(&scope, 1, 10000);
	scope_close(&scope);
	world_close(&world);
}

TEST(rows_columns_and_the_group_run_at_once)
{
	static const uint32_t masks[] = {3, 12, 5, 10};
	static const size_t counts[] = {1, 0, 100, 5000, 100000};
	static const uint32_t commits[] = {0, 1024};
	for (uint32_t round = 0; round < 4; round++) {
		struct world world;
		struct scope scopes[4];
		float *values = calloc(4 * 20000, sizeof(float));
		collect_op *ops[4];
		ready(&world, (struct world_options){
			.window_bytes = 4 * 4096, .streams = 1 + round % 2,
			.commit_bytes = commits[round / 2]});
		for (uint32_t s = 0; s < 4; s++)
			scope_open(&world, &scopes[s], s + 1, masks[s]);
		for (uint32_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
			for (uint32_t peer = 0; peer < 3; peer++)
				CHECK_EQ(world_all_reduce_start(&world, peer, values + peer * 20000, 20000,
				                                &ops[peer]), COLLECT_OK);
			/* The group's op waits for the last member, and nothing else does. */
			scopes_check(scopes, 4, counts[i]);
			CHECK_EQ(world_all_reduce_start(&world, 3, values + 60000, 20000, &ops[3]),
			         COLLECT_OK);
			for (uint32_t peer = 0; peer < 4; peer++)
				op_end(ops[peer], COLLECT_OK);
		}
		for (uint32_t s = 0; s < 4; s++)
			scope_close(&scopes[s]);
		world_close(&world);
		free(values);
	}
}

TEST(hundreds_run_at_once_in_any_order)
{
	enum { COUNT = 300 };
	static struct scope scopes[COUNT];
	struct world world;
	ready(&world, (struct world_options){.window_bytes = 4 * 4096});
	uint64_t before_ns = col_clock_ns();
	for (uint32_t s = 0; s < COUNT; s++)
		scope_open(&world, &scopes[s], 0x40000000u + s, 3 + s % 13);
	uint64_t each_ns = (col_clock_ns() - before_ns) / COUNT;
	CHECK(each_ns < COL_NS_PER_MS);
	scopes_check(scopes, COUNT, 1);
	scopes_check(scopes, COUNT, 900);
	/* Much more than a window, of which nobody waits for another. */
	scopes_check(scopes, COUNT, 6000);
	world_all_reduce_check(&world, EVERYBODY, 10000);
	for (uint32_t s = 0; s < COUNT; s += 2)
		scope_close(&scopes[s]);
	for (uint32_t s = 1; s < COUNT; s += 2)
		scopes_check(&scopes[s], 1, 10);
	world_install(&world, EVERYBODY, 2000);
	for (uint32_t s = 1; s < COUNT; s += 2) {
		scopes_check(&scopes[s], 1, 10);
		scope_close(&scopes[s]);
	}
	world_close(&world);
}

TEST(who_makes_it_late_finds_what_was_sent)
{
	static const size_t counts[] = {1, 1000, 200000};
	struct world world;
	ready(&world, (struct world_options){.window_bytes = 8 * 4096, .commit_bytes = 65536});
	for (uint32_t k = 0; k < 3; k++) {
		size_t count = counts[k];
		struct scope scope = {.name = 7 + k, .mask = EVERYBODY};
		int64_t *values = calloc(4 * count, sizeof(*values));
		collect_op *ops[4];
		for (uint32_t i = 0; i < 4; i++) {
			scope_make(&world, &scope, 1u << i, false);
			for (size_t j = 0; j < count; j++)
				values[i * count + j] = (int64_t)(i + j);
			ops[i] = sum_begin(scope.comms[i], values + i * count, count);
			if (i < 3)
				CHECK_EQ(collect_op_wait(ops[i], WHILE_NS), COLLECT_PENDING);
			/* The group goes on meanwhile. */
			world_all_reduce_check(&world, EVERYBODY, 3000);
		}
		for (uint32_t i = 0; i < 4; i++) {
			op_end(ops[i], COLLECT_OK);
			for (size_t j = 0; j < count; j++)
				CHECK_EQ(values[i * count + j], 6 + 4 * (int64_t)j);
		}
		scope_close(&scope);
		free(values);
	}
	world_close(&world);
}

TEST(a_root_is_named_by_who_it_is)
{
	struct world world;
	struct scope scope = {.name = 9, .mask = 14};
	collect_op *ops[4] = {NULL};
	static int64_t values[4][5000];
	ready(&world, (struct world_options){0});
	scope_make(&world, &scope, 14, true);
	for (uint32_t i = 1; i < 4; i++) {
		struct collect_call call = {
			.collective = COLLECT_BROADCAST, .dtype = COLLECT_INT64,
			.algorithm = COLLECT_AUTO, .root = 102, .source = values[i],
			.target = values[i], .count = 5000};
		for (int64_t j = 0; j < 5000; j++)
			values[i][j] = i == 2 ? j : -1;
		CHECK_EQ(collect_comm_start(scope.comms[i], &call, &ops[i]), COLLECT_OK);
	}
	for (uint32_t i = 1; i < 4; i++) {
		op_end(ops[i], COLLECT_OK);
		for (uint32_t j = 0; j < 5000; j++)
			CHECK_EQ(values[i][j], j);
	}
	scope_close(&scope);
	world_close(&world);
}

/* ---- refusals ---- */

TEST(what_is_no_sub_group_is_refused)
{
	struct world world;
	struct scope scope;
	collect_comm *other = NULL;
	struct collect_report report;
	world_open(&world, &(struct world_options){.count = 4, .algorithm = COLLECT_AUTO});
	uint64_t members[] = {100, 101, 102, 103, 555};
	collect_comm *comm = world.peers[0].comm;
	CHECK_EQ(collect_comm_split(comm, 1, members, 2, &other), COLLECT_E_INVALID); /* no view */
	world_install(&world, EVERYBODY, 1000);
	CHECK_EQ(collect_comm_split(comm, 0, members, 2, &other), COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_split(comm, 1, members, 0, &other), COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_split(comm, 1, NULL, 2, &other), COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_split(comm, 1, members, 1025, &other), COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_split(comm, 1, members + 1, 2, &other), COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_split(comm, 1, (uint64_t[]){100, 101, 101}, 3, &other),
	         COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_split(comm, 1, members, 5, &other), COLLECT_E_MEMBERS);
	CHECK(other == NULL);
	scope_open(&world, &scope, 1, 3);
	CHECK_EQ(collect_comm_split(comm, 1, members, 2, &other), COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_split(scope.comms[0], 2, members, 2, &other), COLLECT_E_INVALID);
	CHECK(collect_comm_key(scope.comms[0]) == collect_comm_key(scope.comms[1]));
	CHECK(collect_comm_key(scope.comms[0]) != collect_comm_key(comm));
	CHECK_EQ(collect_comm_key(comm), 77);
	/* What is its parent's. */
	collect_op *op;
	struct collect_install install = {.epoch = 9};
	CHECK_EQ(collect_comm_freeze(scope.comms[0], &report), COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_install(scope.comms[0], &install), COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_rebase(scope.comms[0], 5), COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_dial(scope.comms[0], world.members, 2), COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_send(scope.comms[0], 101, 1, members, 8, 0, &op), COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_receive(scope.comms[0], 0, 1, members, 8, 0, &op), COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_links(scope.comms[0], NULL, 0), 0);
	/* Frozen. */
	CHECK_EQ(collect_comm_freeze(comm, &report), COLLECT_OK);
	CHECK_EQ(collect_comm_split(comm, 2, members, 2, &other), COLLECT_E_BUSY);
	CHECK_EQ(collect_comm_freeze(scope.comms[0], &report), COLLECT_OK);
	CHECK_EQ(report.inflight_op, 0);
	scope_close(&scope);
	world_install(&world, EVERYBODY, 2000);
	CHECK_EQ(collect_comm_split(comm, 1, members, 2, &other), COLLECT_E_INVALID); /* it was */
	world_close(&world);
}

TEST(there_may_be_so_many_and_no_more)
{
	enum { MAX = 1024 };
	static collect_comm *comms[MAX];
	struct world world;
	collect_comm *other;
	uint64_t members[] = {100, 101};
	ready(&world, (struct world_options){0});
	for (uint32_t i = 0; i < MAX; i++)
		CHECK_EQ(collect_comm_split(world.peers[0].comm, i + 1, members, 2, &comms[i]), COLLECT_OK);
	CHECK_EQ(collect_comm_split(world.peers[0].comm, 5000, members, 2, &other), COLLECT_E_FULL);
	collect_comm_destroy(&comms[500]);
	CHECK_EQ(collect_comm_split(world.peers[0].comm, 5000, members, 2, &comms[500]), COLLECT_OK);
	for (uint32_t i = 0; i < MAX; i++)
		collect_comm_destroy(&comms[i]);
	world_close(&world);
}

/* ---- life ---- */

TEST(a_planned_switch_waits_for_sub_groups_and_keeps_them)
{
	struct world world;
	struct scope scope;
	int64_t values[2][2] = {{1, 2}, {3, 4}};
	struct collect_member members[WORLD_MAX];
	world_open(&world, &(struct world_options){.count = 4, .algorithm = COLLECT_AUTO});
	world_install(&world, 7, 1000);
	scope_open(&world, &scope, 1, 5);
	scopes_check(&scope, 1, 100);
	collect_op *first = sum_begin(scope.comms[0], values[0], 2);
	world.epoch++;
	struct collect_install install = world_view(&world, EVERYBODY, 0, members);
	CHECK_EQ(collect_comm_install(world.peers[0].comm, &install), COLLECT_E_BUSY);
	collect_op *second = sum_begin(scope.comms[2], values[1], 2);
	op_end(first, COLLECT_OK);
	CHECK_EQ(op_end(second, COLLECT_OK).op, 2);
	CHECK_EQ(values[0][1], 6);
	/* One joins; ranks change; the numbers of the sub-group's operations do not. */
	world_install(&world, EVERYBODY, 5000);
	scopes_check(&scope, 1, 100);
	first = sum_begin(scope.comms[0], values[0], 2);
	second = sum_begin(scope.comms[2], values[1], 2);
	CHECK_EQ(op_end(first, COLLECT_OK).op, 4);
	op_end(second, COLLECT_OK);
	struct scope late;
	scope_open(&world, &late, 2, 9);
	scopes_check(&late, 1, 100);
	scope_close(&late);
	scope_close(&scope);
	world_close(&world);
}

TEST(one_that_is_destroyed_takes_its_frames_along)
{
	enum { COUNT = 20000 };
	static int64_t values[4][COUNT];
	struct world world;
	collect_op *ops[4];
	ready(&world, (struct world_options){.window_bytes = 4 * 4096});
	for (uint32_t round = 0; round < 20; round++) {
		struct scope scope;
		scope_open(&world, &scope, round + 1, EVERYBODY);
		uint32_t begun = round % 2 == 0 ? 3 : 4;
		for (uint32_t i = 0; i < begun; i++)
			ops[i] = sum_begin(scope.comms[i], values[i], COUNT);
		if (round % 4 < 2)
			collect_op_wait(ops[0], COL_NS_PER_MS);
		/* Others still send to it. */
		collect_comm_destroy(&scope.comms[round % 4]);
		world_all_reduce_check(&world, EVERYBODY, 3000);
		scope_close(&scope);
		for (uint32_t i = 0; i < begun; i++) {
			int status = collect_op_wait(ops[i], 0);
			CHECK(status == COLLECT_E_CLOSED || status == COLLECT_OK);
			collect_op_release(&ops[i]);
		}
		world_all_reduce_check(&world, EVERYBODY, 3000);
	}
	world_close(&world);
}

TEST(a_parent_that_is_destroyed_ends_its_sub_groups)
{
	struct world world;
	struct scope scopes[2];
	int64_t value = 1;
	ready(&world, (struct world_options){0});
	scope_open(&world, &scopes[0], 1, EVERYBODY);
	scope_open(&world, &scopes[1], 2, 3);
	scopes_check(scopes, 2, 100);
	collect_op *op = sum_begin(scopes[0].comms[1], &value, 1);
	world_close(&world);
	CHECK_EQ(collect_op_wait(op, 0), COLLECT_E_CLOSED);
	collect_op_release(&op);
	scope_close(&scopes[0]);
	scope_close(&scopes[1]);
}

TEST(a_prepared_operation_of_a_sub_group_runs_over_and_over)
{
	struct world world;
	struct scope scope;
	collect_op *ops[2];
	int64_t sources[2] = {1, 2};
	int64_t targets[2];
	ready(&world, (struct world_options){0});
	scope_open(&world, &scope, 3, 6);
	for (uint32_t i = 0; i < 2; i++) {
		struct collect_call call = {
			.collective = COLLECT_ALL_REDUCE, .dtype = COLLECT_INT64,
			.algorithm = COLLECT_AUTO, .source = &sources[i], .target = &targets[i], .count = 1};
		CHECK_EQ(collect_op_prepare(scope.comms[i + 1], &call, &ops[i]), COLLECT_OK);
	}
	for (int64_t round = 0; round < 2000; round++) {
		sources[0] = round;
		CHECK_EQ(collect_op_start(ops[0], 0), COLLECT_OK);
		CHECK_EQ(collect_op_run(ops[1], 20 * COL_NS_PER_S), COLLECT_OK);
		CHECK_EQ(collect_op_wait(ops[0], 20 * COL_NS_PER_S), COLLECT_OK);
		CHECK_EQ(targets[0], round + 2);
		CHECK_EQ(targets[1], round + 2);
	}
	collect_op_release(&ops[0]);
	collect_op_release(&ops[1]);
	scope_close(&scope);
	world_close(&world);
}
