/* Operations over shared memory: who shares, what a failure does, and that nothing is left. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "comm/world.h"

#define SOON_NS (20 * COL_NS_PER_S)
#define WHILE_NS (20 * COL_NS_PER_MS)
#define EVERYBODY 15u
#define COUNT 100000u /* more than fits one post */

static void ready(struct world *world)
{
	struct world_options options = {
		.count = 4, .shares = true, .algorithm = COLLECT_AUTO, .commit_bytes = 65536};
	world_open(world, &options);
	world_install(world, EVERYBODY, 1000);
}

/* Segments and allocations in the system's shared memory. */
static uint32_t files_count(void)
{
	uint32_t count = 0;
	DIR *directory = opendir("/dev/shm");
	CHECK(directory != NULL);
	for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
		count += strstr(entry->d_name, "000000000000006") != NULL;
	closedir(directory);
	return count;
}

static collect_op *begin(struct world *world, uint32_t peer, float *values, size_t count)
{
	collect_op *op = NULL;
	CHECK_EQ(world_all_reduce_start(world, peer, values, count, &op), COLLECT_OK);
	return op;
}

static struct collect_op_info end(collect_op *op, int status)
{
	struct collect_op_info info;
	CHECK_EQ(collect_op_wait(op, SOON_NS), status);
	collect_op_info_get(op, &info);
	collect_op_release(&op);
	return info;
}

static void fill(float *values, size_t count, float value)
{
	for (size_t i = 0; i < count; i++)
		values[i] = value;
}

static void check_all(const float *values, size_t count, float value)
{
	for (size_t i = 0; i < count; i++)
		CHECK_EQ(values[i], value);
}

TEST(members_on_one_host_share)
{
	static float values[4][4];
	struct world world;
	collect_op *ops[4];
	ready(&world);
	for (uint32_t i = 0; i < 4; i++) {
		fill(values[i], 4, (float)i);
		ops[i] = begin(&world, i, values[i], 4);
	}
	for (uint32_t i = 0; i < 4; i++) {
		CHECK(end(ops[i], COLLECT_OK).is_shared);
		check_all(values[i], 4, 6);
	}
	CHECK_EQ(files_count(), 0); /* all have attached */
	world_close(&world);
}

TEST(sizes_and_views_follow_one_another)
{
	static const size_t counts[] = {1, 0, 4096, 4097, COUNT, 3 * COUNT, 7};
	struct world world;
	ready(&world);
	for (uint32_t round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
			world_all_reduce_check(&world, EVERYBODY, counts[i]);
		world_install(&world, EVERYBODY, 2000 + 1000 * round);
	}
	world_close(&world);
	CHECK_EQ(files_count(), 0);
}

TEST(who_cannot_make_a_segment_makes_nobody_share)
{
	static float values[4][4];
	struct world world;
	collect_op *ops[4];
	char name[64];
	struct world_options options = {.count = 4, .shares = true, .algorithm = COLLECT_AUTO};
	world_open(&world, &options);
	/* Somebody else has its name already. */
	snprintf(name, sizeof(name), "/collect-%016x-%016x", 100, 77 ^ 1);
	int fd = shm_open(name, O_CREAT | O_RDWR, 0600);
	CHECK(fd >= 0);
	world_install(&world, EVERYBODY, 1000);
	for (uint32_t i = 0; i < 4; i++) {
		fill(values[i], 4, (float)i);
		ops[i] = begin(&world, i, values[i], 4);
	}
	for (uint32_t i = 0; i < 4; i++) {
		CHECK(!end(ops[i], COLLECT_OK).is_shared);
		check_all(values[i], 4, 6);
	}
	shm_unlink(name);
	close(fd);
	world_close(&world);
}

static void loses_one(size_t count)
{
	static float values[4][COUNT];
	struct collect_report reports[WORLD_MAX];
	struct world world;
	collect_op *ops[4];
	ready(&world);
	world_all_reduce_check(&world, EVERYBODY, 10);
	for (uint32_t i = 0; i < 3; i++) {
		fill(values[i], count, (float)(i + 1));
		ops[i] = begin(&world, i, values[i], count);
		CHECK_EQ(collect_op_wait(ops[i], WHILE_NS), COLLECT_PENDING);
	}
	world_kill(&world, 3);
	world_freeze(&world, 7, reports);
	for (uint32_t i = 0; i < 3; i++) {
		CHECK_EQ(reports[i].inflight_is_whole, 0);
		CHECK_EQ(reports[i].inflight_op, reports[0].consumed_op + 1);
	}
	world_install_verdict(&world, 7, &(struct verdict){.verdict = COLLECT_VERDICT_RERUN});
	for (uint32_t i = 0; i < 3; i++) {
		struct collect_op_info info = end(ops[i], COLLECT_OK);
		CHECK_EQ(info.attempts, 2);
		CHECK_EQ(info.participants, 3);
		CHECK(info.is_shared);
		check_all(values[i], count, 6);
	}
	world_close(&world);
	CHECK_EQ(files_count(), 0);
}

TEST(a_short_operation_runs_again_without_a_lost_member)
{
	loses_one(3);
}

TEST(a_long_operation_runs_again_without_a_lost_member)
{
	loses_one(COUNT);
}

/* Peer 0 has everything and delivers; peer 1 is frozen before it looks. */
TEST(who_is_frozen_with_a_whole_result_completes_it_alone)
{
	static float values[2][8];
	struct collect_report reports[WORLD_MAX];
	struct world world;
	struct world_options options = {.count = 2, .shares = true, .algorithm = COLLECT_AUTO};
	world_open(&world, &options);
	world_install(&world, 3, 1000);
	world_all_reduce_check(&world, 3, 10);
	fill(values[0], 8, 1);
	fill(values[1], 8, 2);
	collect_op *late = begin(&world, 1, values[1], 8);
	CHECK_EQ(collect_op_wait(late, WHILE_NS), COLLECT_PENDING);
	collect_op *first = begin(&world, 0, values[0], 8);
	CHECK_EQ(collect_comm_freeze(world.peers[1].comm, &reports[1]), COLLECT_OK);
	bool is_done = collect_op_wait(first, WHILE_NS) == COLLECT_OK;
	CHECK_EQ(collect_comm_freeze(world.peers[0].comm, &reports[0]), COLLECT_OK);
	if (is_done && reports[1].inflight_op != 0)
		CHECK_EQ(reports[1].inflight_is_whole, 1);
	bool is_whole = reports[0].inflight_is_whole || reports[1].inflight_is_whole || is_done;
	uint64_t op = reports[0].inflight_op + reports[1].inflight_op;
	if (reports[0].inflight_op != 0 && reports[1].inflight_op != 0)
		op /= 2;
	world_install_verdict(&world, 3, &(struct verdict){
		.verdict = is_whole && op != 0 ? COLLECT_VERDICT_REPAIR : COLLECT_VERDICT_RERUN,
		.op = op, .attempt = world.epoch});
	end(first, COLLECT_OK);
	end(late, COLLECT_OK);
	check_all(values[0], 8, 3);
	check_all(values[1], 8, 3);
	world_all_reduce_check(&world, 3, 10);
	world_close(&world);
}

TEST(an_abort_ends_an_operation_and_a_new_view_shares_again)
{
	static float values[4][COUNT];
	struct collect_report reports[WORLD_MAX];
	struct world world;
	collect_op *ops[4];
	ready(&world);
	for (uint32_t i = 0; i < 3; i++)
		ops[i] = begin(&world, i, values[i], COUNT);
	CHECK_EQ(collect_comm_abort(world.peers[0].comm), COLLECT_OK);
	end(ops[0], COLLECT_E_ABORTED);
	world_await(&world, 0, COLLECT_EVENT_ABORTED);
	world_freeze(&world, EVERYBODY, reports);
	CHECK_EQ(reports[0].inflight_is_aborted, 1);
	world_install_verdict(&world, EVERYBODY, &(struct verdict){
		.verdict = COLLECT_VERDICT_FAIL, .op = reports[0].inflight_op});
	end(ops[1], COLLECT_E_FAILED);
	end(ops[2], COLLECT_E_FAILED);
	ops[3] = begin(&world, 3, values[3], COUNT);
	end(ops[3], COLLECT_E_FAILED);
	world_all_reduce_check(&world, EVERYBODY, COUNT);
	world_close(&world);
}

TEST(other_arguments_are_told)
{
	static float values[4][8];
	struct world world;
	collect_op *ops[4];
	ready(&world);
	for (uint32_t i = 0; i < 4; i++)
		ops[i] = begin(&world, i, values[i], i == 2 ? 7 : 8);
	world_await(&world, 0, COLLECT_EVENT_MISMATCH);
	for (uint32_t i = 0; i < 4; i++) {
		CHECK_EQ(collect_op_wait(ops[i], 0), COLLECT_PENDING);
		collect_comm_abort(world.peers[i].comm);
		end(ops[i], COLLECT_E_ABORTED);
	}
	world_close(&world);
}
