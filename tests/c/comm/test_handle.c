/* Operations as their callers hold them: boundaries that starts pass, other memory, and a comm that
 * goes while its operations are held. */
#include <pthread.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "comm/world.h"

#define SOON_NS (20 * COL_NS_PER_S)
#define COUNT 5u

static struct collect_call all_reduce(float *values)
{
	return (struct collect_call){.dtype = COLLECT_FLOAT32, .algorithm = COLLECT_AUTO,
	                             .source = values, .target = values, .count = COUNT,
	                             .takes_boundary = 1};
}

/* Peer 0 alone. */
static collect_comm *alone(struct world *world)
{
	world_open(world, &(struct world_options){.count = 1, .algorithm = COLLECT_AUTO});
	world_install(world, 1, 1ull << 32);
	return world->peers[0].comm;
}

TEST(starts_pass_the_boundaries_that_are_lent_and_no_others)
{
	static float values[COUNT];
	struct world world;
	collect_comm *comm = alone(&world);
	struct collect_call call = all_reduce(values);
	struct collect_call free_call = call;
	collect_op *op;
	collect_op *other = NULL;
	free_call.takes_boundary = 0;
	CHECK_EQ(collect_op_prepare(comm, &call, &op), COLLECT_OK);
	CHECK_EQ(collect_op_run(op), COLLECT_E_BOUNDARY);
	CHECK_EQ(collect_comm_lend(comm, 6, 8), 6); /* a newcomer, whose first is the 7th */
	CHECK_EQ(collect_op_run(op), COLLECT_OK);
	CHECK_EQ(collect_comm_start(comm, &call, &other), COLLECT_OK);
	collect_op_release(&other);
	CHECK_EQ(collect_op_run(op), COLLECT_E_BOUNDARY);
	CHECK_EQ(collect_op_start(op, 0), COLLECT_E_BOUNDARY);
	CHECK_EQ(collect_comm_start(comm, &call, &other), COLLECT_E_BOUNDARY);
	CHECK(other == NULL);
	CHECK_EQ(collect_comm_start(comm, &free_call, &other), COLLECT_OK);
	collect_op_release(&other);
	CHECK_EQ(collect_comm_lend(comm, 0, UINT64_MAX), 8);
	CHECK_EQ(collect_op_run(op), COLLECT_OK);
	CHECK_EQ(collect_comm_lend(comm, 0, 0), 9); /* taken back */
	CHECK_EQ(collect_op_run(op), COLLECT_E_BOUNDARY);
	collect_op_release(&op);
	world_close(&world);
}

TEST(an_operation_runs_on_other_memory)
{
	static float first[COUNT];
	static float source[2 * COUNT];
	static float target[2 * COUNT];
	struct world world;
	collect_comm *comm = alone(&world);
	struct collect_call call = all_reduce(first);
	struct collect_op_info info;
	collect_op *op;
	for (uint32_t i = 0; i < 2 * COUNT; i++)
		source[i] = (float)i + 1;
	call.takes_boundary = 0;
	CHECK_EQ(collect_op_prepare(comm, &call, &op), COLLECT_OK);
	CHECK_EQ(collect_op_run_on(op, source, target, 2 * COUNT), COLLECT_OK);
	for (uint32_t i = 0; i < 2 * COUNT; i++)
		CHECK_EQ(target[i], (float)i + 1);
	CHECK_EQ(collect_op_run_on(op, source, source + COUNT, COUNT), COLLECT_OK);
	CHECK_EQ(source[COUNT], 1);
	CHECK_EQ(collect_op_run_on(op, source, source, 2 * COUNT), COLLECT_OK);
	collect_op_info_get(op, &info);

	CHECK_EQ(collect_op_run_on(op, source, source + 1, COUNT), COLLECT_E_INVALID);
	CHECK_EQ(collect_op_run_on(op, source, target, 0), COLLECT_E_INVALID);
	CHECK_EQ(collect_op_run_on(op, NULL, target, COUNT), COLLECT_E_INVALID);
	CHECK_EQ(collect_op_run_on(op, source, target, UINT64_MAX / 2), COLLECT_E_INVALID);
	struct collect_op_info after;
	collect_op_info_get(op, &after);
	CHECK_EQ(after.op, info.op);
	CHECK_EQ(after.status, COLLECT_OK);
	collect_op_release(&op);

	call.collective = COLLECT_BROADCAST;
	call.root = world.peers[0].incarnation;
	CHECK_EQ(collect_op_prepare(comm, &call, &op), COLLECT_OK);
	CHECK_EQ(collect_op_run_on(op, source, target, COUNT), COLLECT_E_INVALID);
	collect_op_release(&op);
	world_close(&world);
}

TEST(other_memory_gives_what_a_call_of_its_own_gives_the_others)
{
	static float values[2][COUNT];
	struct world world;
	collect_op *ops[2];
	world_open(&world, &(struct world_options){.count = 2, .algorithm = COLLECT_AUTO});
	world_install(&world, 3, 1ull << 32);
	static float memory[2 * COUNT];
	struct collect_call call = all_reduce(memory);
	call.takes_boundary = 0;
	call.count = 2 * COUNT;
	for (uint32_t i = 0; i < COUNT; i++) {
		values[0][i] = (float)i;
		values[1][i] = 2;
	}
	CHECK_EQ(collect_op_prepare(world.peers[0].comm, &call, &ops[0]), COLLECT_OK);
	CHECK_EQ(world_all_reduce_start(&world, 1, values[1], COUNT, &ops[1]), COLLECT_OK);
	CHECK(collect_op_run_on(ops[0], values[0], values[0], COUNT) >= 0);
	for (uint32_t p = 0; p < 2; p++) {
		CHECK_EQ(collect_op_wait(ops[p], SOON_NS), COLLECT_OK);
		collect_op_release(&ops[p]);
		for (uint32_t i = 0; i < COUNT; i++)
			CHECK_EQ(values[p][i], (float)i + 2);
	}
	world_close(&world);
}

/* The others call with operations of their own, which have the algorithm of their size: with
 * another one nothing would come of it. */
TEST(other_memory_of_another_size_gets_the_algorithm_of_that_size)
{
	enum { PEERS = 4, SIZES = 3 };
	static const uint64_t counts[SIZES] = {COUNT, 1 << 18, COUNT};
	static float values[PEERS][1 << 18];
	struct world world;
	collect_op *ops[PEERS];
	int algorithms[SIZES];
	world_open(&world, &(struct world_options){.count = PEERS, .algorithm = COLLECT_AUTO});
	world.recipe.remote = (struct collect_link_model){20000, 2000, 1000000000};
	world.recipe.reduce_bytes_per_s = 4000000000;
	world_install(&world, (1 << PEERS) - 1, 1ull << 32);
	struct collect_call call = all_reduce(values[0]);
	call.takes_boundary = 0;
	CHECK_EQ(collect_op_prepare(world.peers[0].comm, &call, &ops[0]), COLLECT_OK);
	for (uint32_t size = 0; size < SIZES; size++) {
		struct collect_op_info info;
		for (uint32_t p = 0; p < PEERS; p++)
			values[p][counts[size] - 1] = 1;
		for (uint32_t p = 1; p < PEERS; p++)
			CHECK_EQ(world_all_reduce_start(&world, p, values[p], counts[size], &ops[p]),
			         COLLECT_OK);
		CHECK(collect_op_run_on(ops[0], values[0], values[0], counts[size]) >= 0);
		for (uint32_t p = 0; p < PEERS; p++) {
			CHECK_EQ(collect_op_wait(ops[p], SOON_NS), COLLECT_OK);
			CHECK_EQ(values[p][counts[size] - 1], PEERS);
			if (p > 0)
				collect_op_release(&ops[p]);
		}
		collect_op_info_get(ops[0], &info);
		algorithms[size] = info.algorithm;
	}
	CHECK(algorithms[0] != algorithms[1]);
	CHECK_EQ(algorithms[0], algorithms[2]);
	collect_op_release(&ops[0]);
	world_close(&world);
}

TEST(blocks_are_looked_at_by_the_caller_when_the_view_has_changed)
{
	static float source[COUNT];
	static float target[COUNT];
	struct world world;
	collect_comm *comm = alone(&world);
	struct collect_call call = all_reduce(source);
	collect_op *op;
	call.takes_boundary = 0;
	call.collective = COLLECT_REDUCE_SCATTER;
	call.target = target;
	call.world = 1;
	CHECK_EQ(collect_op_prepare(comm, &call, &op), COLLECT_OK);
	CHECK_EQ(collect_op_run(op), COLLECT_OK);
	world_install(&world, 1, 2ull << 32);
	CHECK_EQ(collect_op_run(op), COLLECT_E_BOUNDARY);
	CHECK_EQ(collect_op_start(op, 0), COLLECT_OK);
	CHECK_EQ(collect_op_wait(op, SOON_NS), COLLECT_OK);
	CHECK_EQ(collect_op_run(op), COLLECT_OK);
	collect_op_release(&op);
	world_close(&world);
}

struct runner {
	collect_op *op;
	atomic_int runs;
	int last;
};

static void *run_until_closed(void *argument)
{
	struct runner *runner = argument;
	do {
		runner->last = collect_op_run(runner->op);
		atomic_fetch_add(&runner->runs, 1);
	} while (runner->last == COLLECT_OK);
	return NULL;
}

TEST(a_comm_goes_while_threads_run_its_operations)
{
	static float values[4][COUNT];
	for (int round = 0; round < 20; round++) {
		struct world world;
		struct runner runners[4] = {0};
		pthread_t threads[4];
		collect_comm *comm = alone(&world);
		for (int i = 0; i < 4; i++) {
			struct collect_call call = all_reduce(values[i]);
			call.takes_boundary = 0;
			CHECK_EQ(collect_op_prepare(comm, &call, &runners[i].op), COLLECT_OK);
			CHECK_EQ(pthread_create(&threads[i], NULL, run_until_closed, &runners[i]), 0);
		}
		while (atomic_load(&runners[round % 4].runs) < 10 * round)
			;
		world_close(&world);
		for (int i = 0; i < 4; i++) {
			pthread_join(threads[i], NULL);
			CHECK_EQ(runners[i].last, COLLECT_E_CLOSED);
			CHECK_EQ(collect_op_run(runners[i].op), COLLECT_E_CLOSED);
			CHECK_EQ(collect_op_start(runners[i].op, 0), COLLECT_E_CLOSED);
			CHECK(collect_op_wait(runners[i].op, SOON_NS) <= COLLECT_OK);
			collect_op_release(&runners[i].op);
		}
	}
	CHECK_EQ(collect_heap_blocks(), 0);
}

static void *wait_until_over(void *argument)
{
	struct runner *runner = argument;
	runner->last = collect_op_wait(runner->op, SOON_NS);
	return NULL;
}

TEST(who_waits_for_an_operation_comes_back_when_the_comm_goes)
{
	static float values[COUNT];
	struct world world;
	struct runner runner = {0};
	pthread_t thread;
	world_open(&world, &(struct world_options){.count = 2, .algorithm = COLLECT_AUTO});
	world_install(&world, 3, 1ull << 32);
	CHECK_EQ(world_all_reduce_start(&world, 0, values, COUNT, &runner.op), COLLECT_OK);
	CHECK_EQ(pthread_create(&thread, NULL, wait_until_over, &runner), 0);
	CHECK_EQ(collect_op_wait(runner.op, 20 * COL_NS_PER_MS), COLLECT_PENDING);
	world_close(&world);
	pthread_join(thread, NULL);
	CHECK_EQ(runner.last, COLLECT_E_CLOSED);
	collect_op_release(&runner.op);
	CHECK_EQ(collect_heap_blocks(), 0);
}
