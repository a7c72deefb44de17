/* A member that is lost in the middle of sub-groups' operations: what each verdict does to each. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "comm/scopes.h"

#define EVERYBODY 15u
#define WHILE_NS (20 * COL_NS_PER_MS)
#define SCOPES_MAX 4u

static void ready(struct world *world, struct world_options options)
{
	options.count = 4;
	options.algorithm = COLLECT_AUTO;
	world_open(world, &options);
	world_install(world, EVERYBODY, 1000);
}

/* Freezes the comms of mask, and their sub-groups: reports[scope][peer]. */
static void freeze(struct world *world, uint32_t mask, const struct scope *scopes,
                   uint32_t scope_count, struct collect_report (*reports)[WORLD_MAX])
{
	static struct collect_report own[WORLD_MAX];
	world_freeze(world, mask, own);
	for (uint32_t s = 0; s < scope_count; s++)
		for (uint32_t peer = 0; peer < WORLD_MAX; peer++)
			if ((mask >> peer & 1) != 0 && scopes[s].comms[peer] != NULL)
				CHECK_EQ(collect_comm_freeze(scopes[s].comms[peer], &reports[s][peer]), COLLECT_OK);
}

static void install(struct world *world, uint32_t mask, const struct collect_scope_verdict *scopes,
                    uint32_t scope_count)
{
	struct collect_member members[WORLD_MAX];
	world->epoch++;
	for (uint32_t peer = 0; peer < world->options.count; peer++) {
		if ((mask >> peer & 1) == 0)
			continue;
		struct collect_install install = world_view(world, mask, peer, members);
		install.scopes = scopes;
		install.scope_count = scope_count;
		CHECK_EQ(collect_comm_install(world->peers[peer].comm, &install), COLLECT_OK);
	}
}

static void lose(struct world *world, struct scope *scopes, uint32_t scope_count, uint32_t peer)
{
	for (uint32_t s = 0; s < scope_count; s++)
		collect_comm_destroy(&scopes[s].comms[peer]);
	world_kill(world, peer);
	for (uint32_t other = 0; other < world->options.count; other++)
		if (!world->peers[other].is_gone)
			CHECK_EQ(world_await(world, other, COLLECT_EVENT_LINK_LOST).peer, 100 + peer);
	for (uint32_t s = 0; s < scope_count; s++)
		scopes[s].mask &= ~(1u << peer);
}

TEST(each_sub_group_has_its_own_verdict)
{
	enum { COUNT = 3000 };
	static struct collect_report reports[SCOPES_MAX][WORLD_MAX];
	static int64_t values[SCOPES_MAX][4][COUNT];
	static const uint64_t attempt = 1;
	struct scope scopes[SCOPES_MAX];
	struct world world;
	collect_op *ops[SCOPES_MAX][4] = {{NULL}};
	ready(&world, (struct world_options){.window_bytes = 4 * 4096});
	for (uint32_t s = 0; s < SCOPES_MAX; s++)
		scope_open(&world, &scopes[s], s + 1, EVERYBODY);
	for (uint32_t s = 0; s < SCOPES_MAX; s++)
		for (uint32_t peer = 0; peer < 4; peer++)
			for (size_t i = 0; i < COUNT; i++)
				values[s][peer][i] = peer + 1;
	/* 0: two have delivered, two will be repaired. 1: fails. 2: runs again. 3: has nothing. */
	for (uint32_t s = 0; s < 3; s++)
		for (uint32_t peer = 0; peer < 3; peer++)
			ops[s][peer] = sum_begin(scopes[s].comms[peer], values[s][peer], COUNT);
	collect_op *last = sum_begin(scopes[0].comms[3], values[0][3], COUNT);
	op_end(last, COLLECT_OK);
	for (uint32_t peer = 0; peer < 3; peer++)
		op_end(ops[0][peer], COLLECT_OK);
	/* The next of scope 0: only two begin it. */
	for (uint32_t peer = 0; peer < 2; peer++)
		ops[0][peer] = sum_begin(scopes[0].comms[peer], values[0][peer], COUNT);
	lose(&world, scopes, SCOPES_MAX, 3);
	freeze(&world, 7, scopes, SCOPES_MAX, reports);
	CHECK_EQ(reports[0][0].consumed_op, 1);
	CHECK_EQ(reports[0][0].inflight_op, 2);
	CHECK_EQ(reports[0][0].is_retained, 1);
	CHECK_EQ(reports[0][2].inflight_op, 0);
	CHECK_EQ(reports[1][0].inflight_op, 1);
	CHECK_EQ(reports[1][0].inflight_attempt, attempt);
	CHECK_EQ(reports[1][0].lost_count, 0);
	CHECK_STR_EQ(reports[1][0].inflight_descriptor, reports[2][1].inflight_descriptor);
	CHECK_EQ(reports[3][0].consumed_op + reports[3][0].inflight_op, 0);
	struct collect_scope_verdict verdicts[] = {
		{.scope = 2, .verdict = COLLECT_VERDICT_FAIL, .verdict_op = 1},
		{.scope = 1, .verdict = COLLECT_VERDICT_RERUN},
	};
	install(&world, 7, verdicts, 2);
	ops[0][2] = sum_begin(scopes[0].comms[2], values[0][2], COUNT);
	for (uint32_t peer = 0; peer < 3; peer++) {
		CHECK_EQ(op_end(ops[0][peer], COLLECT_OK).participants, 3);
		op_end(ops[1][peer], COLLECT_E_FAILED);
		struct collect_op_info info = op_end(ops[2][peer], COLLECT_OK);
		CHECK_EQ(info.attempts, 2);
		CHECK_EQ(info.attempt, 2);
		for (size_t i = 0; i < COUNT; i++) {
			CHECK_EQ(values[0][peer][i], 30);
			CHECK_EQ(values[1][peer][i], peer + 1);
			CHECK_EQ(values[2][peer][i], 6);
		}
	}
	scopes_check(scopes, SCOPES_MAX, 1000);
	world_all_reduce_check(&world, 7, 1000);
	for (uint32_t s = 0; s < SCOPES_MAX; s++)
		scope_close(&scopes[s]);
	world_close(&world);
}

/* Peer 3 is lost when 0 has delivered. Whether 1 and 2 have is chance: who has not gets the result
 * of 0. */
TEST(a_result_that_only_some_have_is_fetched_by_the_others)
{
	enum { COUNT = 60000 };
	static struct collect_report reports[1][WORLD_MAX];
	static int64_t values[4][COUNT];
	uint32_t repaired = 0;
	for (uint32_t round = 0; round < 200 && repaired < 8; round++) {
		struct world world;
		struct scope scope;
		collect_op *ops[4];
		ready(&world, (struct world_options){.window_bytes = 4 * 4096});
		scope_open(&world, &scope, 1, EVERYBODY);
		for (uint32_t peer = 0; peer < 4; peer++) {
			for (size_t i = 0; i < COUNT; i++)
				values[peer][i] = (int64_t)(peer + i);
			ops[peer] = sum_begin(scope.comms[peer], values[peer], COUNT);
		}
		collect_op_wait(ops[0], 20 * COL_NS_PER_S);
		for (uint32_t peer = 1; peer < 3; peer++)
			freeze(&world, 1u << peer, &scope, 1, reports);
		freeze(&world, 1, &scope, 1, reports);
		collect_op_wait(ops[3], COL_NS_PER_MS);
		lose(&world, &scope, 1, 3);
		CHECK_EQ(reports[0][0].consumed_op, 1);
		struct collect_repair repairs[2];
		uint32_t repair_count = 0;
		for (uint32_t peer = 1; peer < 3; peer++)
			if (reports[0][peer].inflight_op == 1)
				repairs[repair_count++] = (struct collect_repair){100, 100 + peer};
		repaired += repair_count;
		struct collect_scope_verdict verdict = {
			.scope = 1, .verdict = COLLECT_VERDICT_REPAIR, .verdict_op = 1,
			.verdict_attempt = 1, .repairs = repairs, .repair_count = repair_count};
		install(&world, 7, &verdict, 1);
		for (uint32_t i = 0; i < repair_count; i++) {
			uint32_t needer = (uint32_t)(repairs[i].needer - 100);
			struct collect_event event = world_await(&world, needer, COLLECT_EVENT_REPAIRED);
			CHECK(event.comm_key == collect_comm_key(scope.comms[needer]));
		}
		for (uint32_t peer = 0; peer < 3; peer++) {
			CHECK_EQ(op_end(ops[peer], COLLECT_OK).participants, 4);
			for (size_t i = 0; i < COUNT; i++)
				CHECK_EQ(values[peer][i], 6 + 4 * (int64_t)i);
		}
		collect_op_release(&ops[3]);
		scopes_check(&scope, 1, 3000);
		scope_close(&scope);
		world_close(&world);
	}
	CHECK(repaired > 0);
}

TEST(who_makes_it_after_its_operation_failed_fails_it_too)
{
	static struct collect_report reports[1][WORLD_MAX];
	struct world world;
	struct scope scope = {.name = 6, .mask = 7};
	int64_t values[3] = {1, 2, 3};
	collect_op *ops[3];
	ready(&world, (struct world_options){0});
	scope_make(&world, &scope, 3, false);
	for (uint32_t peer = 0; peer < 2; peer++)
		ops[peer] = sum_begin(scope.comms[peer], &values[peer], 1);
	CHECK_EQ(collect_comm_abort(scope.comms[0]), COLLECT_OK);
	op_end(ops[0], COLLECT_E_ABORTED);
	struct collect_event event = world_await(&world, 0, COLLECT_EVENT_ABORTED);
	CHECK(event.comm_key == collect_comm_key(scope.comms[0]));
	CHECK_EQ(event.op, 1);
	freeze(&world, EVERYBODY, &scope, 1, reports);
	CHECK_EQ(reports[0][0].inflight_is_aborted, 1);
	struct collect_scope_verdict verdict = {
		.scope = 6, .verdict = COLLECT_VERDICT_FAIL, .verdict_op = 1};
	install(&world, EVERYBODY, &verdict, 1);
	op_end(ops[1], COLLECT_E_FAILED);
	scope_make(&world, &scope, 4, false);
	op_end(sum_begin(scope.comms[2], &values[2], 1), COLLECT_E_FAILED);
	scopes_check(&scope, 1, 100);
	scope_close(&scope);
	world_close(&world);
}

static collect_op *broadcast_begin(collect_comm *comm, uint64_t root, int64_t *value)
{
	struct collect_call call = {
		.collective = COLLECT_BROADCAST, .dtype = COLLECT_INT64, .algorithm = COLLECT_AUTO,
		.root = root, .source = value, .target = value, .count = 1};
	collect_op *op = NULL;
	CHECK_EQ(collect_comm_start(comm, &call, &op), COLLECT_OK);
	return op;
}

TEST(rooted_operations_run_again_when_everybody_has_them_in_flight)
{
	static struct collect_report reports[2][WORLD_MAX];
	struct world world;
	struct scope scopes[2];
	int64_t values[2][3] = {{5, 0, 0}, {5, 0, 0}};
	collect_op *ops[2][3];
	ready(&world, (struct world_options){0});
	for (uint32_t s = 0; s < 2; s++) {
		scope_open(&world, &scopes[s], s + 1, EVERYBODY);
		for (uint32_t peer = 0; peer < 3; peer++)
			ops[s][peer] = broadcast_begin(scopes[s].comms[peer], 100, &values[s][peer]);
	}
	usleep(20000);
	lose(&world, scopes, 2, 3);
	freeze(&world, 7, scopes, 2, reports);
	CHECK_EQ(reports[0][1].inflight_is_rooted, 1);
	struct collect_scope_verdict verdict = {
		.scope = 1, .verdict = COLLECT_VERDICT_RERUN, .verdict_op = 1};
	install(&world, 7, &verdict, 1);
	for (uint32_t peer = 0; peer < 3; peer++) {
		op_end(ops[0][peer], COLLECT_OK);
		CHECK_EQ(values[0][peer], 5);
		op_end(ops[1][peer], COLLECT_E_MEMBERS);
	}
	for (uint32_t s = 0; s < 2; s++)
		scope_close(&scopes[s]);
	world_close(&world);
}

TEST(who_is_in_no_sub_group_with_the_lost_one_only_runs_again)
{
	static struct collect_report reports[2][WORLD_MAX];
	struct world world;
	struct scope scopes[2];
	int64_t values[2] = {1, 2};
	ready(&world, (struct world_options){0});
	scope_open(&world, &scopes[0], 1, 3);
	scope_open(&world, &scopes[1], 2, 12);
	collect_op *first = sum_begin(scopes[0].comms[0], &values[0], 1);
	CHECK_EQ(collect_op_wait(first, WHILE_NS), COLLECT_PENDING);
	lose(&world, scopes, 2, 2);
	freeze(&world, 11, scopes, 2, reports);
	install(&world, 11, NULL, 0);
	CHECK_EQ(collect_op_wait(first, WHILE_NS), COLLECT_PENDING);
	collect_op *second = sum_begin(scopes[0].comms[1], &values[1], 1);
	CHECK_EQ(op_end(first, COLLECT_OK).attempt, 2);
	op_end(second, COLLECT_OK);
	CHECK_EQ(values[0] + values[1], 6);
	/* Alone. */
	scopes_check(&scopes[1], 1, 1000);
	/* A sub-group of now. */
	struct scope late;
	scope_open(&world, &late, 3, 11);
	scopes_check(&late, 1, 1000);
	scope_close(&late);
	scope_close(&scopes[0]);
	scope_close(&scopes[1]);
	world_close(&world);
}

TEST(a_word_of_a_deadline_names_the_sub_group)
{
	struct world world;
	struct scope scope;
	int64_t value = 1;
	ready(&world, (struct world_options){0});
	scope_open(&world, &scope, 1, 3);
	struct collect_call call = {
		.collective = COLLECT_ALL_REDUCE, .dtype = COLLECT_INT64, .algorithm = COLLECT_AUTO,
		.source = &value, .target = &value, .count = 1, .deadline_ns = col_clock_ns() + 1000000};
	collect_op *op;
	CHECK_EQ(collect_comm_start(scope.comms[0], &call, &op), COLLECT_OK);
	struct collect_event event = world_await(&world, 0, COLLECT_EVENT_LATE);
	CHECK(event.comm_key == collect_comm_key(scope.comms[0]));
	call.count = 0;
	call.collective = COLLECT_BARRIER;
	collect_op *other;
	CHECK_EQ(collect_comm_start(scope.comms[1], &call, &other), COLLECT_OK);
	event = world_await(&world, 0, COLLECT_EVENT_MISMATCH);
	CHECK(event.comm_key == collect_comm_key(scope.comms[0]));
	CHECK_EQ(event.peer, 101);
	scope_close(&scope);
	world_close(&world);
	collect_op_release(&op);
	collect_op_release(&other);
}

/* ---- shared memory ---- */

TEST(members_on_one_host_share_within_a_sub_group)
{
	static const uint32_t hosts[WORLD_MAX] = {0, 1, 0, 1};
	static struct collect_report reports[3][WORLD_MAX];
	struct world world;
	struct scope scopes[3];
	int64_t values[4] = {1, 2, 3, 4};
	collect_op *ops[4];
	world_open(&world, &(struct world_options){.count = 4, .algorithm = COLLECT_AUTO});
	world.recipe.hosts = hosts;
	world_install(&world, EVERYBODY, 1000);
	scope_open(&world, &scopes[0], 1, 5);
	scope_open(&world, &scopes[1], 2, 10);
	scope_open(&world, &scopes[2], 3, EVERYBODY);
	for (uint32_t peer = 0; peer < 4; peer++)
		ops[peer] = sum_begin(scopes[peer % 2].comms[peer], &values[peer], 1);
	for (uint32_t peer = 0; peer < 4; peer++) {
		CHECK(op_end(ops[peer], COLLECT_OK).is_shared);
		CHECK_EQ(values[peer], 4 + 2 * (peer % 2));
	}
	for (uint32_t round = 0; round < 3; round++) {
		scopes_check(scopes, 3, 1);
		scopes_check(scopes, 3, 100000);
		world_install(&world, EVERYBODY, 2000 + round * 1000);
	}
	for (uint32_t peer = 0; peer < 3; peer++)
		ops[peer] = sum_begin(scopes[peer % 2].comms[peer], &values[peer], 1);
	op_end(ops[0], COLLECT_OK);
	op_end(ops[2], COLLECT_OK);
	lose(&world, scopes, 3, 3);
	freeze(&world, 7, scopes, 3, reports);
	CHECK_EQ(reports[1][1].inflight_op, 8);
	world.recipe.hosts = (const uint32_t[]){0, 1, 0};
	install(&world, 7, NULL, 0);
	CHECK_EQ(op_end(ops[1], COLLECT_OK).participants, 1);
	scopes_check(scopes, 3, 5000);
	for (uint32_t s = 0; s < 3; s++)
		scope_close(&scopes[s]);
	world_close(&world);
}
