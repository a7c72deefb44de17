/* The engine's time: how often it wakes when nothing happens, and that deadlines are noticed. */
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "comm/world.h"

static long sleeps(void)
{
	struct rusage usage;
	CHECK_EQ(getrusage(RUSAGE_SELF, &usage), 0);
	return usage.ru_nvcsw;
}

TEST(an_engine_with_nothing_to_do_hardly_wakes)
{
	struct world world;
	world_open(&world, &(struct world_options){.count = 2});
	world_install(&world, 3, 1ull << 32);
	world_all_reduce_check(&world, 3, 100);
	usleep(300 * 1000);
	long before = sleeps();
	usleep(1000 * 1000);
	/* A tick of each in a twentieth of the silence of 20 s, and what a sanitizer's own thread does;
	 * ticks of 50 ms would be 40. */
	CHECK(sleeps() - before < 30);
	world_close(&world);
}

TEST(a_wait_hardly_wakes_either)
{
	struct world world;
	float values[2][8] = {{1.0f}, {1.0f}};
	collect_op *ops[2];
	world_open(&world, &(struct world_options){.count = 2});
	world_install(&world, 3, 1ull << 32);
	CHECK_EQ(world_all_reduce_start(&world, 0, values[0], 8, &ops[0]), COLLECT_OK);
	CHECK_EQ(collect_op_wait(ops[0], 200 * COL_NS_PER_MS), COLLECT_PENDING);
	long before = sleeps();
	CHECK_EQ(collect_op_wait(ops[0], COL_NS_PER_S), COLLECT_PENDING);
	CHECK(sleeps() - before < 30); /* 5 of its own, and 20 of a sanitizer */
	CHECK_EQ(world_all_reduce_start(&world, 1, values[1], 8, &ops[1]), COLLECT_OK);
	for (uint32_t p = 0; p < 2; p++) {
		CHECK_EQ(collect_op_wait(ops[p], 20 * COL_NS_PER_S), COLLECT_OK);
		collect_op_release(&ops[p]);
	}
	CHECK(values[0][0] == 2.0f && values[1][0] == 2.0f);
	world_close(&world);
}

TEST(a_deadline_is_noticed_though_the_engine_was_asleep_for_long)
{
	struct world world;
	float value = 1.0f;
	world_open(&world, &(struct world_options){.count = 2, .silence_ns = 100 * COL_NS_PER_S});
	world_install(&world, 3, 1ull << 32);
	world_all_reduce_check(&world, 3, 100);
	usleep(300 * 1000);
	uint64_t began_ns = col_clock_ns();
	struct collect_call call = {
		.collective = COLLECT_ALL_REDUCE,
		.dtype = COLLECT_FLOAT32,
		.reduce_op = COLLECT_SUM,
		.algorithm = COLLECT_AUTO,
		.source = &value,
		.target = &value,
		.count = 1,
		.deadline_ns = began_ns + 20 * COL_NS_PER_MS,
	};
	collect_op *op;
	CHECK_EQ(collect_comm_start(world.peers[0].comm, &call, &op), COLLECT_OK);
	world_await(&world, 0, COLLECT_EVENT_LATE);
	/* Ticks of an idle engine would be 5 s apart. */
	CHECK(col_clock_ns() < began_ns + 2 * COL_NS_PER_S);
	CHECK_EQ(collect_comm_abort(world.peers[0].comm), COLLECT_OK);
	collect_op_release(&op);
	world_close(&world);
}
