/* Every allocation of a comm's life fails once: the call says so, or a link is lost and a flush
 * mends it. Nothing crashes, leaks or hangs, and nothing wrong is delivered. */
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "comm/world.h"

#define PATIENCE_NS (20 * COL_NS_PER_S)
#define COUNT 3000u

TEST(an_engine_or_comm_without_memory_is_not_made)
{
	struct collect_engine_options options = {
		.bind_address = "127.0.0.1", .streams = 1, .chunk_bytes = 4096, .window_bytes = 1 << 20,
		.silence_ns = COL_NS_PER_S, .connect_ns = COL_NS_PER_S};
	int status = COLLECT_E_MEMORY;
	for (uint64_t nth = 1; status != COLLECT_OK; nth++) {
		collect_engine *engine = NULL;
		collect_comm *comm = NULL;
		CHECK(nth < 100);
		col_alloc_fail_at(nth);
		status = collect_engine_create(&options, &engine);
		if (status == COLLECT_OK)
			status = collect_comm_create(engine, 1, 2, &comm);
		CHECK(status == COLLECT_OK || status == COLLECT_E_MEMORY);
		col_alloc_fail_at(0);
		collect_comm_destroy(&comm);
		collect_engine_destroy(&engine);
	}
}

/* An install that had no memory changed nothing and may be tried again. */
static void install(struct world *world, uint64_t op_base, const struct verdict *verdict,
                    bool redials)
{
	struct collect_member members[WORLD_MAX];
	world->epoch++;
	for (uint32_t i = 0; i < 2; i++) {
		uint64_t other = world->peers[1 - i].incarnation;
		struct collect_install install = world_view(world, 3, i, members);
		install.op_base = op_base;
		world_verdict_set(&install, verdict);
		install.redial = &other;
		install.redial_count = redials ? 1 : 0;
		int status = collect_comm_install(world->peers[i].comm, &install);
		if (status == COLLECT_E_MEMORY)
			status = collect_comm_install(world->peers[i].comm, &install);
		CHECK_EQ(status, COLLECT_OK);
	}
}

static collect_op *begin(struct world *world, uint32_t peer, float *values)
{
	collect_op *op = NULL;
	int status = COLLECT_E_MEMORY;
	for (int i = 0; i < 2 && status == COLLECT_E_MEMORY; i++)
		status = world_all_reduce_start(world, peer, values, COUNT, &op);
	CHECK_EQ(status, COLLECT_OK);
	return op;
}

static void flush(struct world *world)
{
	struct collect_report reports[WORLD_MAX];
	struct collect_repair repair;
	struct verdict verdict = {.verdict = COLLECT_VERDICT_RERUN};
	world_freeze(world, 3, reports);
	for (uint32_t i = 0; i < 2; i++) {
		const struct collect_report *mine = &reports[i];
		const struct collect_report *theirs = &reports[1 - i];
		bool lags = mine->inflight_op != 0 && mine->inflight_op == theirs->consumed_op;
		if (lags && theirs->consumed_status == COLLECT_OK) {
			if (!mine->inflight_is_aborted)
				CHECK(theirs->is_retained || mine->inflight_is_whole);
			repair = (struct collect_repair){world->peers[1 - i].incarnation,
			                                 world->peers[i].incarnation};
			uint32_t repair_count = theirs->is_retained ? 1 : 0;
			verdict = (struct verdict){COLLECT_VERDICT_REPAIR, mine->inflight_op,
			                           theirs->consumed_attempt, &repair, repair_count};
			break;
		}
		if (lags || mine->inflight_is_aborted) {
			verdict = (struct verdict){.verdict = COLLECT_VERDICT_FAIL, .op = mine->inflight_op};
			break;
		}
	}
	install(world, 0, &verdict, reports[0].lost_count + reports[1].lost_count > 0);
}

/* Whether somebody must be helped. */
static bool is_in_trouble(struct world *world)
{
	bool is = false;
	struct collect_event event;
	for (uint32_t i = 0; i < 2; i++)
		while (collect_engine_next_event(world->peers[i].engine, &event))
			is |= event.epoch == world->epoch && (event.kind == COLLECT_EVENT_LINK_LOST ||
			                                      event.kind == COLLECT_EVENT_ABORTED);
	return is;
}

static int settle(struct world *world, collect_op *op)
{
	uint64_t until_ns = col_clock_ns() + PATIENCE_NS;
	int status = COLLECT_PENDING;
	while (status == COLLECT_PENDING) {
		if (is_in_trouble(world))
			flush(world);
		status = collect_op_wait(op, 5 * COL_NS_PER_MS);
		if (col_clock_ns() > until_ns)
			FAIL("an operation hangs");
	}
	return status;
}

static void all_reduce(struct world *world)
{
	static float values[2][COUNT];
	collect_op *ops[2];
	for (uint32_t i = 0; i < 2; i++) {
		for (size_t k = 0; k < COUNT; k++)
			values[i][k] = (float)(i + 1);
		ops[i] = begin(world, i, values[i]);
	}
	for (uint32_t i = 0; i < 2; i++) {
		int status = settle(world, ops[i]);
		CHECK(status == COLLECT_OK || status == COLLECT_E_MEMORY || status == COLLECT_E_FAILED);
		for (size_t k = 0; k < COUNT && status == COLLECT_OK; k++)
			CHECK_EQ(values[i][k], 3.0f);
		collect_op_release(&ops[i]);
	}
}

/* Brings about a repair: peer 0 delivers, peer 1 was frozen before. */
static void repair(struct world *world)
{
	static float values[2][COUNT];
	struct collect_report report;
	collect_op *op = begin(world, 1, values[1]);
	collect_op_wait(op, 3 * COL_NS_PER_MS);
	CHECK_EQ(collect_comm_freeze(world->peers[1].comm, &report), COLLECT_OK);
	collect_op *other = begin(world, 0, values[0]);
	collect_op_wait(other, 10 * COL_NS_PER_MS);
	flush(world);
	settle(world, op);
	settle(world, other);
	collect_op_release(&op);
	collect_op_release(&other);
}

static void life(uint64_t nth, int algorithm, uint32_t commit_bytes)
{
	struct world world;
	struct verdict none = {.verdict = COLLECT_VERDICT_RERUN};
	world_open(&world, &(struct world_options){
		.count = 2, .algorithm = algorithm, .commit_bytes = commit_bytes});
	col_alloc_fail_at(nth);
	install(&world, 1ull << 32, &none, false);
	all_reduce(&world);
	flush(&world);
	all_reduce(&world);
	repair(&world);
	/* Between operations, and with a new connection. */
	if (is_in_trouble(&world))
		flush(&world);
	all_reduce(&world);
	world_close(&world);
	col_alloc_fail_at(0);
}

TEST(any_allocation_may_fail_once)
{
	static const int algorithms[] = {COLLECT_STAR, COLLECT_RING, COLLECT_EXCHANGE};
	for (uint32_t commit_bytes = 0; commit_bytes < 2; commit_bytes++)
		for (size_t a = 0; a < 3; a++) {
			bool has_failed = true;
			for (uint64_t nth = 1; has_failed; nth++) {
				CHECK(nth < 400);
				life(nth, algorithms[a], commit_bytes);
				has_failed = col_alloc_has_failed();
			}
		}
}
