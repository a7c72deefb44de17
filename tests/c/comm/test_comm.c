/* A comm through its public functions: operations, failures, verdicts, switches. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "comm/world.h"

#define SOON_NS (20 * COL_NS_PER_S)

static collect_op *begin(struct world *world, uint32_t peer, float *values, size_t count)
{
	collect_op *op = NULL;
	CHECK_EQ(world_all_reduce_start(world, peer, values, count, &op),
	         COLLECT_OK);
	return op;
}

static void end(collect_op *op, int status)
{
	CHECK_EQ(collect_op_wait(op, SOON_NS), status);
	collect_op_release(&op);
}

static const int algorithms[] = {COLLECT_DIRECT, COLLECT_RING, COLLECT_STAR};

TEST(every_algorithm_and_world_sums_what_arithmetic_says)
{
	for (uint32_t count = 1; count <= 5; count++) {
		for (size_t a = 0; a < 3; a++) {
			struct world world;
			world_open(&world, &(struct world_options){.count = count, .algorithm = algorithms[a]});
			world_install(&world, (1u << count) - 1, 1ull << 32);
			static const size_t sizes[] = {1, 2, 63, 1000, 40000};
			for (size_t s = 0; s < 5; s++)
				world_all_reduce_check(&world, (1u << count) - 1, sizes[s]);
			world_close(&world);
		}
	}
}

TEST(one_operation_uses_several_streams)
{
	struct world world;
	world_open(&world, &(struct world_options){.count = 2, .streams = 4, .chunk_bytes = 65536});
	world_install(&world, 3, 1ull << 32);
	for (int i = 0; i < 20; i++)
		world_all_reduce_check(&world, 3, 1000000);
	struct collect_link_info info;
	CHECK_EQ(collect_comm_links(world.peers[0].comm, &info, 1), 1);
	CHECK_EQ(info.streams, 4);
	world_close(&world);
}

TEST(ipv6_carries_frames_too)
{
	struct world world;
	world_open(&world, &(struct world_options){.count = 2, .address = "::1"});
	world_install(&world, 3, 1ull << 32);
	world_all_reduce_check(&world, 3, 1000);
	world_close(&world);
}

TEST(an_operation_without_elements_is_a_barrier)
{
	struct world world;
	collect_op *ops[2];
	world_open(&world, &(struct world_options){.count = 2});
	world_install(&world, 3, 1ull << 32);
	ops[0] = begin(&world, 0, NULL, 0);
	CHECK_EQ(collect_op_wait(ops[0], 50 * COL_NS_PER_MS), COLLECT_PENDING);
	ops[1] = begin(&world, 1, NULL, 0);
	end(ops[0], COLLECT_OK);
	end(ops[1], COLLECT_OK);
	world_close(&world);
}

TEST(many_operations_may_be_in_flight)
{
	enum { OPS = 200 };
	static float values[2][OPS][16];
	collect_op *ops[2][OPS];
	struct world world;
	world_open(&world, &(struct world_options){.count = 2});
	world_install(&world, 3, 1ull << 32);
	for (uint32_t p = 0; p < 2; p++)
		for (size_t i = 0; i < OPS; i++) {
			values[p][i][3] = (float)(i + p);
			ops[p][i] = begin(&world, p, values[p][i], 16);
		}
	for (uint32_t p = 0; p < 2; p++)
		for (size_t i = 0; i < OPS; i++) {
			end(ops[p][i], COLLECT_OK);
			CHECK_EQ(values[p][i][3], (float)(2 * i + 1));
		}
	world_close(&world);
}

TEST(a_dead_peer_is_told_and_the_operation_runs_again_among_the_survivors)
{
	struct world world;
	float values[2][5000];
	struct collect_report reports[WORLD_MAX];
	world_open(&world, &(struct world_options){.count = 3});
	world_install(&world, 7, 1ull << 32);
	world_all_reduce_check(&world, 7, 1000);
	collect_op *ops[2];
	for (uint32_t p = 0; p < 2; p++) {
		for (size_t i = 0; i < 5000; i++)
			values[p][i] = (float)(p + 1);
		ops[p] = begin(&world, p, values[p], 5000);
	}
	world_kill(&world, 2);
	for (uint32_t p = 0; p < 2; p++) {
		struct collect_event event = world_await(&world, p, COLLECT_EVENT_LINK_LOST);
		CHECK_EQ(event.peer, 102);
		CHECK_EQ(event.loss, COLLECT_LOSS_RESET);
	}
	world_freeze(&world, 3, reports);
	for (uint32_t p = 0; p < 2; p++) {
		CHECK_EQ(reports[p].consumed_op, (1ull << 32) + 1);
		CHECK_EQ(reports[p].is_retained, 1);
		CHECK_EQ(reports[p].inflight_op, (1ull << 32) + 2);
		CHECK_STR_EQ(reports[p].inflight_descriptor, "all_reduce float32[5000] sum");
		CHECK_EQ(reports[p].lost_count, 1);
		CHECK_EQ(reports[p].lost_peers[0], 102);
	}
	CHECK_EQ(values[0][0], 1.0f);
	world_install_verdict(&world, 3, &(struct verdict){.verdict = COLLECT_VERDICT_RERUN});
	struct collect_op_info info;
	for (uint32_t p = 0; p < 2; p++) {
		CHECK_EQ(collect_op_wait(ops[p], SOON_NS), COLLECT_OK);
		collect_op_info_get(ops[p], &info);
		CHECK_EQ(info.attempt, 2);
		CHECK_EQ(info.participants, 2);
		CHECK_EQ(values[p][4999], 3.0f);
		end(ops[p], COLLECT_OK);
	}
	world_close(&world);
}

/* Brings about that peer 0 has delivered an operation and peer 1, frozen early, has not. */
static collect_op *lag(struct world *world, float values[2][3000], uint64_t *op_out)
{
	struct collect_report report;
	collect_op *ops[2];
	world_open(world, &(struct world_options){.count = 2, .algorithm = COLLECT_STAR});
	world_install(world, 3, 1ull << 32);
	world_all_reduce_check(world, 3, 10);
	for (uint32_t p = 0; p < 2; p++)
		for (size_t i = 0; i < 3000; i++)
			values[p][i] = (float)(p + 1);
	/* Rank 0 owns everything in a star: with rank 1's input it is done, whatever rank 1 takes. */
	ops[1] = begin(world, 1, values[1], 3000);
	CHECK_EQ(collect_op_wait(ops[1], 100 * COL_NS_PER_MS), COLLECT_PENDING);
	CHECK_EQ(collect_comm_freeze(world->peers[1].comm, &report), COLLECT_OK);
	ops[0] = begin(world, 0, values[0], 3000);
	end(ops[0], COLLECT_OK);
	*op_out = report.inflight_op;
	return ops[1];
}

TEST(a_result_that_somebody_delivered_is_repaired_from_there)
{
	struct world world;
	float values[2][3000];
	struct collect_report reports[WORLD_MAX];
	uint64_t number;
	collect_op *op = lag(&world, values, &number);
	world_freeze(&world, 3, reports);
	CHECK_EQ(reports[0].consumed_op, number);
	CHECK_EQ(reports[0].is_retained, 1);
	CHECK_EQ(reports[1].inflight_op, number);
	struct collect_repair repair = {.holder = 100, .needer = 101};
	world_install_verdict(&world, 3, &(struct verdict){
		.verdict = COLLECT_VERDICT_REPAIR, .op = number, .attempt = 1, .repairs = &repair,
		.repair_count = 1});
	end(op, COLLECT_OK);
	world_await(&world, 1, COLLECT_EVENT_REPAIRED);
	CHECK_EQ(memcmp(values[0], values[1], sizeof(values[0])), 0);
	CHECK_EQ(values[1][2999], 3.0f);
	world_all_reduce_check(&world, 3, 100);
	world_close(&world);
}

TEST(a_repair_that_is_cut_short_is_begun_again)
{
	struct world world;
	float values[2][3000];
	struct collect_report reports[WORLD_MAX];
	uint64_t number;
	collect_op *op = lag(&world, values, &number);
	for (int round = 0; round < 3; round++) {
		struct collect_repair repair = {.holder = 100, .needer = 101};
		world_freeze(&world, 3, reports);
		if (reports[1].inflight_op != number)
			break;
		world_install_verdict(&world, 3, &(struct verdict){
			.verdict = COLLECT_VERDICT_REPAIR, .op = number, .attempt = 1,
			.repairs = &repair, .repair_count = 1});
	}
	end(op, COLLECT_OK);
	CHECK_EQ(values[1][0], 3.0f);
	world_close(&world);
}

TEST(a_repair_whose_caller_gave_up_is_told_to_be_complete_too)
{
	struct world world;
	float values[2][3000];
	struct collect_report reports[WORLD_MAX];
	uint64_t number;
	collect_op *op = lag(&world, values, &number);
	CHECK_EQ(collect_comm_abort(world.peers[1].comm), COLLECT_OK);
	world_freeze(&world, 3, reports);
	CHECK_EQ(reports[1].inflight_is_aborted, 1);
	struct collect_repair repair = {.holder = 100, .needer = 101};
	world_install_verdict(&world, 3, &(struct verdict){
		.verdict = COLLECT_VERDICT_REPAIR, .op = number, .attempt = 1, .repairs = &repair,
		.repair_count = 1});
	world_await(&world, 1, COLLECT_EVENT_REPAIRED);
	end(op, COLLECT_E_ABORTED);
	world_all_reduce_check(&world, 3, 100);
	world_close(&world);
}

TEST(an_aborted_operation_stays_aborted_though_it_had_failed_before_it_was_called)
{
	struct world world;
	float values[2][8] = {{0}};
	struct collect_report reports[WORLD_MAX];
	world_open(&world, &(struct world_options){.count = 2});
	world_install(&world, 3, 1ull << 32);
	collect_op *early = begin(&world, 0, values[0], 8);
	world_freeze(&world, 3, reports);
	world_install_verdict(&world, 3, &(struct verdict){
		.verdict = COLLECT_VERDICT_FAIL, .op = reports[0].inflight_op});
	end(early, COLLECT_E_FAILED);
	world_freeze(&world, 3, reports);
	collect_op *late = begin(&world, 1, values[1], 8);
	CHECK_EQ(collect_comm_abort(world.peers[1].comm), COLLECT_OK);
	CHECK_EQ(collect_op_wait(late, 0), COLLECT_E_ABORTED);
	world_install_verdict(&world, 3, &(struct verdict){.verdict = COLLECT_VERDICT_RERUN});
	end(late, COLLECT_E_ABORTED);
	world_all_reduce_check(&world, 3, 100);
	world_close(&world);
}

TEST(a_failed_operation_fails_for_who_calls_it_later_too)
{
	struct world world;
	float values[2][8] = {{0}};
	struct collect_report reports[WORLD_MAX];
	world_open(&world, &(struct world_options){.count = 2});
	world_install(&world, 3, 1ull << 32);
	collect_op *early = begin(&world, 0, values[0], 8);
	world_freeze(&world, 3, reports);
	CHECK_EQ(reports[1].inflight_op, 0);
	world_install_verdict(&world, 3, &(struct verdict){
		.verdict = COLLECT_VERDICT_FAIL, .op = reports[0].inflight_op});
	end(early, COLLECT_E_FAILED);
	collect_op *late = begin(&world, 1, values[1], 8);
	end(late, COLLECT_E_FAILED);
	world_all_reduce_check(&world, 3, 100);
	world_close(&world);
}

TEST(an_abort_frees_the_caller_at_once_and_is_settled_by_a_verdict)
{
	struct world world;
	float values[2][3000] = {{0}};
	struct collect_report reports[WORLD_MAX];
	world_open(&world, &(struct world_options){.count = 2});
	world_install(&world, 3, 1ull << 32);
	collect_op *op = begin(&world, 0, values[0], 3000);
	CHECK_EQ(collect_comm_abort(world.peers[0].comm), COLLECT_OK);
	CHECK_EQ(collect_op_wait(op, 0), COLLECT_E_ABORTED);
	collect_op_release(&op);
	memset(values[0], 0xff, sizeof(values[0]));
	world_await(&world, 0, COLLECT_EVENT_ABORTED);
	collect_op *other = begin(&world, 1, values[1], 3000);
	world_freeze(&world, 3, reports);
	CHECK_EQ(reports[0].inflight_is_aborted, 1);
	CHECK_EQ(reports[1].inflight_is_aborted, 0);
	world_install_verdict(&world, 3, &(struct verdict){
		.verdict = COLLECT_VERDICT_FAIL, .op = reports[0].inflight_op});
	end(other, COLLECT_E_FAILED);
	world_all_reduce_check(&world, 3, 1000);
	world_close(&world);
}

TEST(calls_that_differ_are_told_and_move_no_data)
{
	struct world world;
	float values[2][16] = {{0}};
	struct collect_report reports[WORLD_MAX];
	world_open(&world, &(struct world_options){.count = 2});
	world_install(&world, 3, 1ull << 32);
	collect_op *a = begin(&world, 0, values[0], 16);
	collect_op *b = begin(&world, 1, values[1], 15);
	/* So few elements have one owner, rank 1: it is the one who receives, and sees. */
	struct collect_event event = world_await(&world, 1, COLLECT_EVENT_MISMATCH);
	CHECK_EQ(event.peer, 100);
	CHECK_EQ(event.op, (1ull << 32) + 1);
	world_freeze(&world, 3, reports);
	CHECK(reports[0].inflight_digest != reports[1].inflight_digest);
	CHECK_STR_EQ(reports[1].inflight_descriptor, "all_reduce float32[15] sum");
	world_install_verdict(&world, 3, &(struct verdict){
		.verdict = COLLECT_VERDICT_FAIL, .op = reports[0].inflight_op});
	end(a, COLLECT_E_FAILED);
	end(b, COLLECT_E_FAILED);
	world_close(&world);
}

TEST(a_newcomer_enters_between_operations_without_a_freeze)
{
	struct world world;
	world_open(&world, &(struct world_options){.count = 4});
	world_install(&world, 3, 1ull << 32);
	world_all_reduce_check(&world, 3, 5000);
	CHECK_EQ(collect_comm_dial(world.peers[2].comm, world.members, 2), COLLECT_OK);
	world_await(&world, 2, COLLECT_EVENT_LINK_UP);
	world_await(&world, 2, COLLECT_EVENT_LINK_UP);
	world_install(&world, 7, 2ull << 32);
	world_all_reduce_check(&world, 7, 5000);
	/* Without dialing ahead it works too. */
	world_install(&world, 15, 3ull << 32);
	world_all_reduce_check(&world, 15, 5000);
	world_close(&world);
}

TEST(an_install_between_operations_is_refused_while_one_is_in_flight)
{
	struct world world;
	struct collect_member members[WORLD_MAX];
	float values[8] = {0};
	world_open(&world, &(struct world_options){.count = 2});
	world_install(&world, 3, 1ull << 32);
	collect_op *op = begin(&world, 0, values, 8);
	world.epoch++;
	struct collect_install install = world_view(&world, 3, 0, members);
	CHECK_EQ(collect_comm_install(world.peers[0].comm, &install), COLLECT_E_BUSY);
	CHECK_EQ(collect_comm_rebase(world.peers[0].comm, 5), COLLECT_E_BUSY);
	install.epoch = 1;
	CHECK_EQ(collect_comm_install(world.peers[0].comm, &install), COLLECT_E_INVALID);
	collect_op_release(&op);
	world_close(&world);
}

TEST(operations_submitted_before_there_is_a_view_run_in_the_first_one)
{
	struct world world;
	float values[2][100] = {{1.0f}, {2.0f}};
	collect_op *ops[2];
	world_open(&world, &(struct world_options){.count = 2});
	ops[0] = begin(&world, 0, values[0], 100);
	ops[1] = begin(&world, 1, values[1], 100);
	CHECK_EQ(collect_op_wait(ops[0], 20 * COL_NS_PER_MS), COLLECT_PENDING);
	world_install(&world, 3, 9ull << 32);
	end(ops[0], COLLECT_OK);
	struct collect_op_info info;
	CHECK_EQ(collect_op_wait(ops[1], SOON_NS), COLLECT_OK);
	collect_op_info_get(ops[1], &info);
	CHECK_EQ(info.op, (9ull << 32) + 1);
	end(ops[1], COLLECT_OK);
	CHECK_EQ(values[0][0], 3.0f);
	world_close(&world);
}

static void *install_alone(void *world)
{
	world_install(world, 1, 1ull << 32);
	return NULL;
}

TEST(a_long_queue_in_a_world_of_one_is_no_deep_stack)
{
	enum { OPS = 4096 };
	static float values[OPS];
	static collect_op *ops[OPS];
	struct world world;
	pthread_attr_t attributes;
	pthread_t thread;
	world_open(&world, &(struct world_options){.count = 1});
	for (size_t i = 0; i < OPS; i++)
		ops[i] = begin(&world, 0, &values[i], 1);
	pthread_attr_init(&attributes);
	CHECK_EQ(pthread_attr_setstacksize(&attributes, 128 * 1024), 0);
	CHECK_EQ(pthread_create(&thread, &attributes, install_alone, &world), 0);
	pthread_attr_destroy(&attributes);
	pthread_join(thread, NULL);
	for (size_t i = 0; i < OPS; i++)
		end(ops[i], COLLECT_OK);
	world_close(&world);
}

TEST(frames_of_a_later_epoch_wait_for_it)
{
	struct world world;
	struct collect_member members[WORLD_MAX];
	float values[2][5000];
	world_open(&world, &(struct world_options){.count = 2});
	world_install(&world, 3, 1ull << 32);
	world_all_reduce_check(&world, 3, 10);
	for (uint32_t p = 0; p < 2; p++)
		for (size_t i = 0; i < 5000; i++)
			values[p][i] = (float)(p + 1);
	world.epoch++;
	struct collect_install install = world_view(&world, 3, 0, members);
	install.op_base = 2ull << 32;
	CHECK_EQ(collect_comm_install(world.peers[0].comm, &install), COLLECT_OK);
	collect_op *ahead = begin(&world, 0, values[0], 5000);
	CHECK_EQ(collect_op_wait(ahead, 50 * COL_NS_PER_MS), COLLECT_PENDING);
	install = world_view(&world, 3, 1, members);
	install.op_base = 2ull << 32;
	CHECK_EQ(collect_comm_install(world.peers[1].comm, &install), COLLECT_OK);
	collect_op *behind = begin(&world, 1, values[1], 5000);
	end(ahead, COLLECT_OK);
	end(behind, COLLECT_OK);
	CHECK_EQ(values[0][4999], 3.0f);
	CHECK_EQ(values[1][4999], 3.0f);
	world_close(&world);
}

TEST(a_link_that_is_named_for_redialing_is_opened_anew)
{
	struct world world;
	struct collect_report reports[WORLD_MAX];
	struct collect_member members[WORLD_MAX];
	world_open(&world, &(struct world_options){.count = 3});
	world_install(&world, 7, 1ull << 32);
	world_all_reduce_check(&world, 7, 1000);
	for (int round = 0; round < 5; round++) {
		world_freeze(&world, 7, reports);
		world.epoch++;
		for (uint32_t p = 0; p < 3; p++) {
			struct collect_install install = world_view(&world, 7, p, members);
			uint64_t other = p == 0 ? 102 : 100;
			install.redial = &other;
			install.redial_count = p == 1 ? 0 : 1;
			CHECK_EQ(collect_comm_install(world.peers[p].comm, &install), COLLECT_OK);
		}
		world_all_reduce_check(&world, 7, 1000);
	}
	world_close(&world);
}

TEST(a_deadline_that_passes_is_told_and_the_operation_goes_on)
{
	struct world world;
	float values[2][8] = {{1.0f}, {1.0f}};
	collect_op *op;
	world_open(&world, &(struct world_options){.count = 2});
	world_install(&world, 3, 1ull << 32);
	struct collect_call call = {
		.dtype = COLLECT_FLOAT32, .algorithm = COLLECT_AUTO, .source = values[0],
		.target = values[0], .count = 8, .deadline_ns = col_clock_ns() + 20 * COL_NS_PER_MS};
	CHECK_EQ(collect_comm_start(world.peers[0].comm, &call, &op), COLLECT_OK);
	CHECK_EQ(world_await(&world, 0, COLLECT_EVENT_LATE).op, (1ull << 32) + 1);
	end(begin(&world, 1, values[1], 8), COLLECT_OK);
	end(op, COLLECT_OK);
	world_close(&world);
}

static void *wait_for(void *op)
{
	CHECK_EQ(collect_op_wait(op, SOON_NS), COLLECT_OK);
	return NULL;
}

TEST(calls_come_through_while_other_threads_wait)
{
	enum { CALLS = 200 };
	struct world world;
	float values[2][8] = {{1.0f}, {1.0f}};
	pthread_t threads[3];
	world_open(&world, &(struct world_options){.count = 2});
	world_install(&world, 3, 1ull << 32);
	collect_op *op = begin(&world, 0, values[0], 8);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, wait_for, op), 0);
	uint64_t since_ns = col_clock_ns();
	for (int i = 0; i < CALLS; i++)
		CHECK_EQ(collect_comm_pending(world.peers[0].comm), 1);
	/* A caller that waits sleeps up to 50 ms between two looks, unless it is woken. */
	CHECK(col_clock_ns() - since_ns < CALLS * 20 * COL_NS_PER_MS);
	end(begin(&world, 1, values[1], 8), COLLECT_OK);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	end(op, COLLECT_OK);
	world_close(&world);
}

TEST(operations_that_nobody_waits_for_are_done_too)
{
	enum { OPS = 50 };
	static float values[2][OPS][2000];
	collect_op *ops[2][OPS];
	struct collect_op_info info;
	struct world world;
	world_open(&world, &(struct world_options){.count = 2});
	world_install(&world, 3, 1ull << 32);
	uint64_t since_ns = col_clock_ns();
	for (size_t i = 0; i < OPS; i++)
		for (uint32_t p = 0; p < 2; p++)
			ops[p][i] = begin(&world, p, values[p][i], 2000);
	for (uint32_t p = 0; p < 2; p++) {
		do {
			usleep(1000);
			collect_op_info_get(ops[p][OPS - 1], &info);
		} while (info.status == COLLECT_PENDING);
		for (size_t i = 0; i < OPS; i++)
			end(ops[p][i], COLLECT_OK);
	}
	CHECK(col_clock_ns() - since_ns < 5 * COL_NS_PER_S);
	world_close(&world);
}

TEST(bad_arguments_are_refused)
{
	struct world world;
	world_open(&world, &(struct world_options){.count = 1});
	struct collect_engine_options options = {.bind_address = "nowhere", .streams = 1,
	                                         .chunk_bytes = 4096, .window_bytes = 1 << 20,
	                                         .silence_ns = COL_NS_PER_S,
	                                         .connect_ns = COL_NS_PER_S};
	collect_engine *engine;
	CHECK_EQ(collect_engine_create(&options, &engine), COLLECT_E_ADDRESS);
	options.chunk_bytes = 100;
	CHECK_EQ(collect_engine_create(&options, &engine), COLLECT_E_INVALID);
	world_close(&world);
}
