/* Operations that are delivered when everybody's word has come; calls that fit no other members;
 * operations that are started again and again. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "comm/hub.h"

#define SOON_NS (20 * COL_NS_PER_S)
#define WHILE_NS (50 * COL_NS_PER_MS)
#define COUNT 3000u

static collect_op *begin(struct world *world, uint32_t peer, const struct collect_call *call)
{
	collect_op *op = NULL;
	CHECK_EQ(collect_comm_start(world->peers[peer].comm, call, &op), COLLECT_OK);
	return op;
}

static void end(collect_op *op, int status)
{
	CHECK_EQ(collect_op_wait(op, SOON_NS), status);
	collect_op_release(&op);
}

/* ---- against a peer by hand ---- */

static struct collect_call all_reduce(float *values)
{
	return (struct collect_call){.dtype = COLLECT_FLOAT32, .algorithm = COLLECT_AUTO,
	                             .source = values, .target = values, .count = COUNT};
}

static void hub_ready(struct hub *hub)
{
	hub_open(hub, 1, 1);
	hub_accept(hub);
}

static void word_put(struct hub *hub, const struct col_frame *of)
{
	struct col_frame word = {.kind = COL_FRAME_DONE, .op = of->op,
	                         .attempt = of->attempt, .digest = of->digest};
	CHECK(frame_put(hub->fds[0], &word));
}

/* Serves an operation until the engine says that it is whole. */
static struct col_frame serve_until_whole(struct hub *hub)
{
	hub_serve(hub, COUNT * sizeof(float));
	struct col_frame word = hub_get(hub);
	CHECK_EQ(word.kind, COL_FRAME_DONE);
	CHECK_EQ(word.length, 0);
	return word;
}

static void check_pending(collect_op *op, const float *values)
{
	CHECK_EQ(collect_op_wait(op, WHILE_NS), COLLECT_PENDING);
	CHECK_EQ(values[0], 7.0f);
	CHECK_EQ(values[COUNT - 1], 7.0f);
}

static void values_fill(float *values)
{
	for (size_t i = 0; i < COUNT; i++)
		values[i] = 7;
}

TEST(a_whole_operation_waits_for_the_other_members_word)
{
	static float values[COUNT];
	struct hub hub;
	hub_ready(&hub);
	values_fill(values);
	struct collect_call call = all_reduce(values);
	collect_op *op = begin(&hub.world, 0, &call);
	struct col_frame word = serve_until_whole(&hub);
	check_pending(op, values);
	word_put(&hub, &word);
	end(op, COLLECT_OK);
	CHECK_EQ(values[COUNT - 1], 0.0f);
	hub_close(&hub);
}

TEST(a_word_may_come_before_the_data_and_twice_and_late)
{
	static float values[COUNT];
	struct hub hub;
	hub_ready(&hub);
	struct col_frame last = {.op = 1, .attempt = 1};
	for (int round = 0; round < 5; round++) {
		values_fill(values);
		struct collect_call call = all_reduce(values);
		collect_op *op = begin(&hub.world, 0, &call);
		struct col_frame frame = hub_get(&hub);
		word_put(&hub, &last);
		word_put(&hub, &frame);
		word_put(&hub, &frame);
		static const uint8_t result[CHUNK];
		struct col_frame answer = answer_to(frame);
		CHECK(frame_put(hub.fds[0], &answer) && put(hub.fds[0], result, frame.length));
		hub_serve(&hub, COUNT * sizeof(float) - frame.length);
		CHECK_EQ(hub_get(&hub).kind, COL_FRAME_DONE);
		end(op, COLLECT_OK);
		CHECK_EQ(values[0], 0.0f);
		word_put(&hub, &frame);
		last = frame;
	}
	hub_close(&hub);
}

TEST(a_word_before_its_operation_is_kept_and_one_of_a_later_epoch_waits_for_it)
{
	static float values[COUNT];
	struct hub hub;
	struct collect_report report;
	hub_ready(&hub);
	values_fill(values);
	struct collect_call call = all_reduce(values);
	collect_op *op = begin(&hub.world, 0, &call);
	struct col_frame word = serve_until_whole(&hub);
	/* The digest is the same: the call is, and so are the recipe and the number of members. */
	struct col_frame ahead = word;
	ahead.attempt++;
	word_put(&hub, &ahead);
	check_pending(op, values);
	CHECK_EQ(collect_comm_freeze(hub.world.peers[0].comm, &report), COLLECT_OK);
	hub_install(&hub, &(struct verdict){.verdict = COLLECT_VERDICT_RERUN});
	CHECK_EQ(serve_until_whole(&hub).attempt, 2);
	end(op, COLLECT_OK);
	ahead.op++;
	word_put(&hub, &ahead);
	usleep(20000);
	op = begin(&hub.world, 0, &call);
	serve_until_whole(&hub);
	end(op, COLLECT_OK);
	hub_close(&hub);
}

TEST(words_that_say_something_else_deliver_nothing)
{
	static float values[COUNT];
	struct hub hub;
	hub_ready(&hub);
	values_fill(values);
	struct collect_call call = all_reduce(values);
	collect_op *op = begin(&hub.world, 0, &call);
	struct col_frame word = serve_until_whole(&hub);
	struct col_frame other = word;
	other.attempt--;
	word_put(&hub, &other);
	other = word;
	other.op--;
	word_put(&hub, &other);
	/* A stranger's. */
	struct col_hello hello = hello_to(&hub.world, 0, 0);
	uint8_t answer[HELLO_BYTES];
	hello.source = LIAR + 1;
	int fd = dial(&hub.world, 0);
	hello_put(fd, &hello, 1);
	get(fd, answer, sizeof(answer));
	other = (struct col_frame){.kind = COL_FRAME_DONE, .op = word.op,
	                           .attempt = word.attempt, .digest = word.digest};
	CHECK(frame_put(fd, &other));
	check_pending(op, values);
	close(fd);
	/* Of a call that differs. */
	other.digest++;
	word_put(&hub, &other);
	CHECK_EQ(world_await(&hub.world, 0, COLLECT_EVENT_MISMATCH).peer, LIAR);
	check_pending(op, values);
	CHECK_EQ(collect_comm_abort(hub.world.peers[0].comm), COLLECT_OK);
	end(op, COLLECT_E_ABORTED);
	hub_close(&hub);
}

/* Freezes the engine when it is whole. */
static collect_op *freeze_whole(struct hub *hub, float *values, struct collect_report *report)
{
	hub_ready(hub);
	values_fill(values);
	struct collect_call call = all_reduce(values);
	collect_op *op = begin(&hub->world, 0, &call);
	serve_until_whole(hub);
	CHECK_EQ(collect_op_wait(op, WHILE_NS), COLLECT_PENDING);
	CHECK_EQ(collect_comm_freeze(hub->world.peers[0].comm, report), COLLECT_OK);
	CHECK_EQ(report->inflight_is_whole, 1);
	CHECK_EQ(report->inflight_is_aborted, 0);
	CHECK_EQ(report->inflight_is_shaped, 0);
	CHECK_EQ(report->inflight_op, (1ull << 32) + 1);
	return op;
}

TEST(what_was_whole_when_it_was_frozen_is_completed_by_a_repair_without_a_holder)
{
	static float values[COUNT];
	struct hub hub;
	struct collect_report report;
	struct collect_op_info info;
	collect_op *op = freeze_whole(&hub, values, &report);
	check_pending(op, values);
	hub_install(&hub, &(struct verdict){.verdict = COLLECT_VERDICT_REPAIR,
	                                    .op = report.inflight_op, .attempt = 1});
	CHECK_EQ(collect_op_wait(op, SOON_NS), COLLECT_OK);
	collect_op_info_get(op, &info);
	CHECK_EQ(info.attempt, 1);
	CHECK_EQ(info.participants, 2);
	CHECK_EQ(values[0], 0.0f);
	collect_op_release(&op);
	world_await(&hub.world, 0, COLLECT_EVENT_REPAIRED);
	CHECK_EQ(collect_comm_freeze(hub.world.peers[0].comm, &report), COLLECT_OK);
	CHECK_EQ(report.consumed_status, COLLECT_OK);
	CHECK_EQ(report.is_retained, 0);
	hub_close(&hub);
}

TEST(what_was_whole_when_it_was_frozen_runs_again_from_its_untouched_source)
{
	static float values[COUNT];
	struct hub hub;
	struct collect_report report;
	struct collect_op_info info;
	collect_op *op = freeze_whole(&hub, values, &report);
	hub_install(&hub, &(struct verdict){.verdict = COLLECT_VERDICT_RERUN});
	check_pending(op, values);
	struct col_frame word = serve_until_whole(&hub);
	CHECK_EQ(word.attempt, 2);
	word_put(&hub, &word);
	CHECK_EQ(collect_op_wait(op, SOON_NS), COLLECT_OK);
	collect_op_info_get(op, &info);
	CHECK_EQ(info.attempt, 2);
	CHECK_EQ(info.attempts, 2);
	CHECK_EQ(values[COUNT - 1], 0.0f);
	collect_op_release(&op);
	hub_close(&hub);
}

TEST(what_was_whole_when_its_caller_gave_it_up_stays_given_up)
{
	static float values[COUNT];
	struct hub hub;
	struct collect_report report;
	collect_op *op = freeze_whole(&hub, values, &report);
	CHECK_EQ(collect_comm_abort(hub.world.peers[0].comm), COLLECT_OK);
	CHECK_EQ(collect_op_wait(op, 0), COLLECT_E_ABORTED);
	CHECK_EQ(collect_comm_freeze(hub.world.peers[0].comm, &report), COLLECT_OK);
	CHECK_EQ(report.inflight_is_aborted, 1);
	hub_install(&hub, &(struct verdict){.verdict = COLLECT_VERDICT_REPAIR,
	                                    .op = report.inflight_op, .attempt = 1});
	world_await(&hub.world, 0, COLLECT_EVENT_REPAIRED);
	CHECK_EQ(values[0], 7.0f);
	end(op, COLLECT_E_ABORTED);
	hub_close(&hub);
}

TEST(a_repair_of_what_nobody_retains_and_is_not_whole_here_fails_for_this_caller)
{
	struct world world;
	float values[64] = {0};
	struct collect_report reports[WORLD_MAX];
	world_open(&world, &(struct world_options){.count = 2, .algorithm = COLLECT_AUTO});
	world_install(&world, 3, 1ull << 32);
	struct collect_call call = {
		.collective = COLLECT_REDUCE_SCATTER, .dtype = COLLECT_FLOAT32, .world = 2,
		.algorithm = COLLECT_AUTO, .source = values, .target = values + 48, .count = 16};
	collect_op *op = begin(&world, 0, &call);
	world_freeze(&world, 3, reports);
	CHECK_EQ(reports[0].inflight_is_whole, 0);
	CHECK_STR_EQ(reports[0].inflight_descriptor, "reduce_scatter float32[2x16] sum");
	world_install_verdict(&world, 3, &(struct verdict){
		.verdict = COLLECT_VERDICT_REPAIR, .op = reports[0].inflight_op, .attempt = 1});
	end(op, COLLECT_E_FAILED);
	world_close(&world);
}

/* ---- members ---- */

static const struct verdict rerun = {.verdict = COLLECT_VERDICT_RERUN};

/* Loses peer 2 of three while 0 and 1 are in the call, which is then to run again. */
static void lose_one(struct world *world, const struct collect_call *calls, collect_op **ops)
{
	struct collect_report reports[WORLD_MAX];
	world_open(world, &(struct world_options){.count = 3, .algorithm = COLLECT_AUTO});
	world_install(world, 7, 1ull << 32);
	world_all_reduce_check(world, 7, 10);
	for (uint32_t p = 0; p < 2; p++)
		ops[p] = begin(world, p, &calls[p]);
	world_kill(world, 2);
	for (uint32_t p = 0; p < 2; p++)
		world_await(world, p, COLLECT_EVENT_LINK_LOST);
	world_freeze(world, 3, reports);
	world_install_verdict(world, 3, &rerun);
}

/* The calls fail on both survivors, and the group goes on after the verdict. */
static void check_members_fail(const struct collect_call *calls, int is_shaped)
{
	struct world world;
	struct collect_report reports[WORLD_MAX];
	collect_op *ops[2];
	lose_one(&world, calls, ops);
	for (uint32_t p = 0; p < 2; p++) {
		end(ops[p], COLLECT_E_MEMBERS);
		struct collect_event event = world_await(&world, p, COLLECT_EVENT_ABORTED);
		CHECK_EQ(strncmp(event.detail, "members: ", 9), 0);
	}
	world_freeze(&world, 3, reports);
	for (uint32_t p = 0; p < 2; p++) {
		CHECK_EQ(reports[p].inflight_is_aborted, 1);
		CHECK_EQ(reports[p].inflight_is_shaped, is_shaped);
		CHECK_EQ(reports[p].inflight_digest, reports[0].inflight_digest);
	}
	world_install_verdict(&world, 3, &(struct verdict){
		.verdict = COLLECT_VERDICT_FAIL, .op = reports[0].inflight_op});
	world_all_reduce_check(&world, 3, 100);
	world_close(&world);
}

TEST(a_call_with_a_shape_fails_when_a_member_is_lost)
{
	static float sources[2][300];
	static float targets[2][100];
	struct collect_call calls[2];
	for (uint32_t p = 0; p < 2; p++)
		calls[p] = (struct collect_call){
			.collective = COLLECT_REDUCE_SCATTER, .dtype = COLLECT_FLOAT32, .world = 3,
			.algorithm = COLLECT_AUTO, .source = sources[p], .target = targets[p], .count = 100};
	check_members_fail(calls, 1);
}

TEST(a_call_whose_root_is_lost_fails)
{
	static float values[2][100];
	struct collect_call calls[2];
	for (uint32_t p = 0; p < 2; p++)
		calls[p] = (struct collect_call){
			.collective = COLLECT_BROADCAST, .dtype = COLLECT_FLOAT32, .root = 102,
			.algorithm = COLLECT_AUTO, .target = values[p], .count = 100};
	check_members_fail(calls, 0);
}

TEST(a_gather_without_counts_runs_again_with_fewer_blocks)
{
	static int32_t targets[2][3 * 500];
	struct world world;
	struct collect_call calls[2];
	collect_op *ops[2];
	struct collect_op_info info;
	for (uint32_t p = 0; p < 2; p++) {
		/* The source is the last block, which nobody's is any more. */
		for (size_t i = 0; i < 1500; i++)
			targets[p][i] = (int32_t)(i / 500 == p ? p + 5 : 99);
		calls[p] = (struct collect_call){
			.collective = COLLECT_ALL_GATHER, .dtype = COLLECT_INT32, .world = p == 0 ? 3 : 0,
			.algorithm = COLLECT_AUTO, .source = &targets[p][p * 500], .target = targets[p],
			.count = 500};
	}
	lose_one(&world, calls, ops);
	for (uint32_t p = 0; p < 2; p++) {
		CHECK_EQ(collect_op_wait(ops[p], SOON_NS), COLLECT_OK);
		collect_op_info_get(ops[p], &info);
		CHECK_EQ(info.participants, 2);
		CHECK_EQ(targets[p][0], 5);
		CHECK_EQ(targets[p][999], 6);
		CHECK_EQ(targets[p][1000], 99);
		end(ops[p], COLLECT_OK);
	}
	world_close(&world);
}

/* ---- prepared operations ---- */

TEST(a_prepared_operation_survives_installs)
{
	enum { ROUNDS = 40 };
	static float values[2][COUNT];
	static float results[2][COUNT];
	struct world world;
	struct collect_report reports[WORLD_MAX];
	collect_op *ops[2];
	world_open(&world, &(struct world_options){
		.count = 2, .algorithm = COLLECT_AUTO, .commit_bytes = 1});
	for (uint32_t p = 0; p < 2; p++) {
		struct collect_call call = all_reduce(values[p]);
		call.target = results[p];
		CHECK_EQ(collect_op_prepare(world.peers[p].comm, &call, &ops[p]), COLLECT_OK);
	}
	world_install(&world, 3, 1ull << 32);
	for (int round = 0; round < ROUNDS; round++) {
		for (uint32_t p = 0; p < 2; p++) {
			for (size_t i = 0; i < COUNT; i++)
				values[p][i] = (float)(round + (int)p);
			CHECK_EQ(collect_op_start(ops[p], 0), COLLECT_OK);
			CHECK_EQ(collect_op_start(ops[p], 0), COLLECT_E_BUSY);
			/* In every second round one of the two is late for the freeze. */
			if (p == 0 && round % 4 == 1) {
				world_freeze(&world, 3, reports);
				world_install_verdict(&world, 3, &rerun);
			}
		}
		for (uint32_t p = 0; p < 2; p++) {
			CHECK_EQ(collect_op_wait(ops[p], SOON_NS), COLLECT_OK);
			CHECK_EQ(results[p][COUNT - 1], (float)(2 * round + 1));
		}
		if (round % 4 == 3)
			world_install(&world, 3, world.epoch << 33);
	}
	for (uint32_t p = 0; p < 2; p++)
		collect_op_release(&ops[p]);
	world_close(&world);
}

TEST(a_prepared_operation_that_was_aborted_starts_again_after_the_verdict)
{
	static float values[COUNT];
	struct world world;
	struct collect_report reports[WORLD_MAX];
	collect_op *op;
	world_open(&world, &(struct world_options){.count = 2, .algorithm = COLLECT_AUTO});
	world_install(&world, 3, 1ull << 32);
	struct collect_call call = all_reduce(values);
	CHECK_EQ(collect_op_prepare(world.peers[0].comm, &call, &op), COLLECT_OK);
	CHECK_EQ(collect_op_start(op, 0), COLLECT_OK);
	CHECK_EQ(collect_comm_abort(world.peers[0].comm), COLLECT_OK);
	CHECK_EQ(collect_op_wait(op, 0), COLLECT_E_ABORTED);
	CHECK_EQ(collect_op_start(op, 0), COLLECT_E_BUSY);
	CHECK_EQ(collect_op_run(op, SOON_NS), COLLECT_E_BUSY);
	world_freeze(&world, 3, reports);
	world_install_verdict(&world, 3, &(struct verdict){
		.verdict = COLLECT_VERDICT_FAIL, .op = reports[0].inflight_op});
	CHECK_EQ(collect_op_run(op, WHILE_NS), COLLECT_PENDING);
	collect_op *other = NULL;
	static float others[COUNT];
	CHECK_EQ(world_all_reduce_start(&world, 1, others, COUNT, &other), COLLECT_OK);
	end(other, COLLECT_E_FAILED); /* the one that was aborted */
	CHECK_EQ(world_all_reduce_start(&world, 1, others, COUNT, &other), COLLECT_OK);
	end(other, COLLECT_OK);
	/* Released while it may still be under way: it frees itself. */
	collect_op_release(&op);
	world_close(&world);
}

TEST(what_was_started_once_cannot_be_started_again)
{
	struct world world;
	float value = 1;
	collect_op *op;
	world_open(&world, &(struct world_options){.count = 1});
	world_install(&world, 1, 1ull << 32);
	CHECK_EQ(world_all_reduce_start(&world, 0, &value, 1, &op), COLLECT_OK);
	CHECK_EQ(collect_op_start(op, 0), COLLECT_E_INVALID);
	end(op, COLLECT_OK);
	world_close(&world);
}

TEST(factors_apply_to_the_source_as_it_is_at_each_start)
{
	struct world world;
	double values[2][100];
	double results[2][100];
	collect_op *ops[2];
	world_open(&world, &(struct world_options){.count = 2, .algorithm = COLLECT_AUTO});
	world_install(&world, 3, 1ull << 32);
	for (uint32_t p = 0; p < 2; p++) {
		struct collect_call call = {
			.dtype = COLLECT_FLOAT64, .reduce_op = COLLECT_PREMUL_SUM,
			.algorithm = COLLECT_AUTO, .source = values[p], .target = results[p],
			.count = 100, .factor = p == 0 ? 0.5 : 3};
		CHECK_EQ(collect_op_prepare(world.peers[p].comm, &call, &ops[p]), COLLECT_OK);
	}
	for (int round = 1; round < 5; round++) {
		for (uint32_t p = 0; p < 2; p++) {
			for (size_t i = 0; i < 100; i++)
				values[p][i] = round;
			CHECK_EQ(collect_op_start(ops[p], 0), COLLECT_OK);
		}
		for (uint32_t p = 0; p < 2; p++) {
			CHECK_EQ(collect_op_wait(ops[p], SOON_NS), COLLECT_OK);
			CHECK_EQ(results[p][99], 3.5 * round);
			CHECK_EQ(values[p][0], (double)round);
		}
	}
	for (uint32_t p = 0; p < 2; p++)
		collect_op_release(&ops[p]);
	world_close(&world);
}
