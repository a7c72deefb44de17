/* Sources that are produced while their op is under way, and results that are told before it is
 * over. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "comm/world.h"

#define SOON_NS (20 * COL_NS_PER_S)
#define WHILE_NS (50 * COL_NS_PER_MS)
#define COUNT 40000u /* elements; with chunks of 4 KiB about 40 chunks */
#define PEERS 3u

struct stage {
	struct world world;
	float *sources[PEERS]; /* what is produced; `truth` is what it will be */
	float *truths[PEERS];
	float *targets[PEERS];
	collect_op *ops[PEERS];
};

static float sum_of(const struct stage *stage, uint32_t mask, size_t index)
{
	float sum = 0;
	for (uint32_t p = 0; p < PEERS; p++)
		if ((mask >> p & 1) != 0)
			sum += stage->truths[p][index];
	return sum;
}

static void check_sum(const struct stage *stage, uint32_t mask, uint32_t peer, size_t begin,
                      size_t end)
{
	for (size_t i = begin; i < end; i++)
		if (stage->targets[peer][i] != sum_of(stage, mask, i))
			FAIL("peer %u, element %zu: %f is not %f", peer, i,
			     (double)stage->targets[peer][i], (double)sum_of(stage, mask, i));
}

/* Results come straight into the targets, unless commit_bytes is more than there is. */
static struct stage *stage_open(struct world_options options)
{
	struct stage *stage = calloc(1, sizeof(*stage));
	options.count = PEERS;
	options.algorithm = options.shares ? COLLECT_AUTO : COLLECT_DIRECT;
	options.commit_bytes = options.commit_bytes != 0 ? options.commit_bytes : 1;
	world_open(&stage->world, &options);
	for (uint32_t p = 0; p < PEERS; p++) {
		stage->sources[p] = malloc(COUNT * sizeof(float));
		stage->truths[p] = malloc(COUNT * sizeof(float));
		stage->targets[p] = malloc(COUNT * sizeof(float));
		for (size_t i = 0; i < COUNT; i++) {
			stage->truths[p][i] = (float)((p + 1) * (i % 1000));
			stage->sources[p][i] = -1e30f;
		}
	}
	return stage;
}

static void stage_close(struct stage *stage)
{
	for (uint32_t p = 0; p < PEERS; p++) {
		collect_op_release(&stage->ops[p]);
		free(stage->sources[p]);
		free(stage->truths[p]);
		free(stage->targets[p]);
	}
	world_close(&stage->world);
	free(stage);
}

static struct collect_call call_of(const struct stage *stage, uint32_t peer, bool is_produced)
{
	return (struct collect_call){
		.collective = COLLECT_ALL_REDUCE, .dtype = COLLECT_FLOAT32, .algorithm = COLLECT_AUTO,
		.source = stage->sources[peer], .target = stage->targets[peer], .count = COUNT,
		.is_produced = is_produced};
}

static void start(struct stage *stage, uint32_t peer, bool is_produced)
{
	struct collect_call call = call_of(stage, peer, is_produced);
	if (!is_produced)
		memcpy(stage->sources[peer], stage->truths[peer], COUNT * sizeof(float));
	CHECK_EQ(collect_comm_start(stage->world.peers[peer].comm, &call, &stage->ops[peer]),
	         COLLECT_OK);
}

/* Returns how many are missing. */
static uint64_t produce(struct stage *stage, uint32_t peer, uint64_t begin, uint64_t end)
{
	uint64_t left = UINT64_MAX;
	memcpy(stage->sources[peer] + begin, stage->truths[peer] + begin,
	       (end - begin) * sizeof(float));
	CHECK_EQ(collect_op_produce(stage->ops[peer], begin, end, &left), COLLECT_OK);
	return left;
}

/* Takes ranges until they reach `count` elements, checks each. Returns their attempt. */
static uint64_t take(struct stage *stage, uint32_t peer, uint32_t mask, uint64_t count)
{
	struct collect_range range = {0};
	for (uint64_t taken = 0; taken < count; taken += range.end - range.begin) {
		CHECK_EQ(collect_op_next_range(stage->ops[peer], SOON_NS, &range), COLLECT_OK);
		CHECK(range.begin < range.end && range.end <= COUNT);
		check_sum(stage, mask, peer, range.begin, range.end);
	}
	return range.attempt;
}

static void finish(struct stage *stage, uint32_t mask)
{
	for (uint32_t p = 0; p < PEERS; p++) {
		if ((mask >> p & 1) == 0)
			continue;
		CHECK_EQ(collect_op_wait(stage->ops[p], SOON_NS), COLLECT_OK);
		check_sum(stage, mask, p, 0, COUNT);
	}
}

static uint64_t sent_bytes(struct stage *stage, uint32_t peer)
{
	struct collect_link_info infos[PEERS];
	uint64_t bytes = 0;
	uint32_t count = collect_comm_links(stage->world.peers[peer].comm, infos, PEERS);
	for (uint32_t i = 0; i < count; i++)
		bytes += infos[i].sent_bytes;
	return bytes;
}

TEST(what_is_produced_is_sent_and_what_is_final_is_told_before_the_rest_is_produced)
{
	struct stage *stage = stage_open((struct world_options){0});
	world_install(&stage->world, 7, 0);
	for (uint32_t p = 0; p < PEERS; p++)
		start(stage, p, p == 0);
	uint64_t before = sent_bytes(stage, 0);
	struct collect_range range;
	CHECK_EQ(collect_op_next_range(stage->ops[1], WHILE_NS, &range), COLLECT_PENDING);
	CHECK_EQ(produce(stage, 0, 0, 30000), 10000);
	/* Two slices are whole, and most of them is told on every peer. */
	for (uint32_t p = 0; p < PEERS; p++)
		CHECK_EQ(take(stage, p, 7, 25000), 1);
	CHECK(sent_bytes(stage, 0) - before > 25000 * sizeof(float));
	CHECK_EQ(collect_op_wait(stage->ops[1], WHILE_NS), COLLECT_PENDING);
	CHECK_EQ(produce(stage, 0, 30000, COUNT), 0);
	finish(stage, 7);
	stage_close(stage);
}

TEST(ranges_are_told_once_each_and_the_last_one_when_all_is_done)
{
	struct stage *stage = stage_open((struct world_options){0});
	world_install(&stage->world, 7, 0);
	for (uint32_t p = 0; p < PEERS; p++)
		start(stage, p, p == 2);
	for (uint64_t end = COUNT; end > 0; end -= 400)
		produce(stage, 2, end - 400, end);
	bool *is_told = calloc(COUNT, 1);
	struct collect_range range;
	for (uint64_t told = 0; told < COUNT; told += range.end - range.begin) {
		CHECK_EQ(collect_op_next_range(stage->ops[0], SOON_NS, &range), COLLECT_OK);
		for (uint64_t i = range.begin; i < range.end; i++) {
			CHECK(!is_told[i]);
			is_told[i] = true;
		}
	}
	CHECK_EQ(collect_op_wait(stage->ops[0], 0), COLLECT_OK);
	CHECK_EQ(collect_op_next_range(stage->ops[0], 0, &range), COLLECT_OK);
	CHECK_EQ(range.begin, range.end);
	free(is_told);
	finish(stage, 7);
	stage_close(stage);
}

/* Over links with copies for repairs, and through shared memory. */
static void check_late(struct world_options options)
{
	struct stage *stage = stage_open(options);
	world_install(&stage->world, 7, 0);
	for (uint32_t p = 0; p < PEERS; p++)
		start(stage, p, p != 1);
	struct collect_range range;
	CHECK_EQ(produce(stage, 2, 0, COUNT), 0);
	CHECK_EQ(produce(stage, 0, 20000, COUNT), 20000);
	CHECK_EQ(collect_op_next_range(stage->ops[1], WHILE_NS, &range), COLLECT_PENDING);
	CHECK_EQ(produce(stage, 0, 0, 20000), 0);
	CHECK_EQ(collect_op_next_range(stage->ops[1], SOON_NS, &range), COLLECT_OK);
	CHECK_EQ(range.begin, 0);
	CHECK_EQ(range.end, COUNT);
	finish(stage, 7);
	stage_close(stage);
}

TEST(what_is_gathered_apart_is_told_at_the_end)
{
	check_late((struct world_options){.commit_bytes = UINT32_MAX});
}

TEST(through_shared_memory_all_begins_when_all_is_produced)
{
	check_late((struct world_options){.shares = true});
}

static void check_rerun(bool shares)
{
	struct stage *stage = stage_open((struct world_options){.shares = shares});
	world_install(&stage->world, 7, 0);
	for (uint32_t p = 0; p < PEERS; p++)
		start(stage, p, p == 0);
	produce(stage, 0, 0, 30000);
	if (!shares)
		CHECK_EQ(take(stage, 1, 7, 20000), 1);
	struct collect_report reports[WORLD_MAX];
	world_freeze(&stage->world, 7, reports);
	CHECK_EQ(reports[0].inflight_op, 1);
	CHECK(!reports[0].inflight_is_whole);
	/* Marked while nothing runs. */
	CHECK_EQ(produce(stage, 0, 35000, COUNT), 5000);
	world_kill(&stage->world, 2);
	world_install_verdict(&stage->world, 3, &(struct verdict){.verdict = COLLECT_VERDICT_RERUN});
	if (!shares)
		CHECK_EQ(take(stage, 1, 3, 20000), 2);
	CHECK_EQ(collect_op_wait(stage->ops[1], WHILE_NS), COLLECT_PENDING);
	CHECK_EQ(produce(stage, 0, 30000, 35000), 0);
	take(stage, 1, 3, shares ? COUNT : 1);
	finish(stage, 3);
	stage_close(stage);
}

TEST(what_was_produced_stays_so_when_the_op_runs_again_and_ranges_begin_anew)
{
	check_rerun(false);
}

TEST(so_it_does_over_shared_memory)
{
	check_rerun(true);
}

TEST(a_mistake_is_refused_and_changes_nothing)
{
	struct stage *stage = stage_open((struct world_options){0});
	world_install(&stage->world, 7, 0);
	for (uint32_t p = 0; p < PEERS; p++)
		start(stage, p, p == 0);
	uint64_t left = 5;
	CHECK_EQ(collect_op_produce(stage->ops[1], 0, 1, &left), COLLECT_E_INVALID);
	CHECK_EQ(collect_op_produce(stage->ops[0], 0, COUNT + 1, &left), COLLECT_E_INVALID);
	CHECK_EQ(collect_op_produce(stage->ops[0], UINT64_MAX, UINT64_MAX, &left), COLLECT_E_INVALID);
	CHECK_EQ(collect_op_produce(stage->ops[0], 2, 1, &left), COLLECT_E_INVALID);
	produce(stage, 0, 10, 20);
	CHECK_EQ(collect_op_produce(stage->ops[0], 19, 21, &left), COLLECT_E_INVALID);
	CHECK_EQ(left, 5);
	CHECK_EQ(produce(stage, 0, 7, 7), COUNT - 10);

	/* Who waits for the next would wait for ever. */
	struct collect_call call = call_of(stage, 0, false);
	collect_op *next;
	collect_comm *comm = stage->world.peers[0].comm;
	CHECK_EQ(collect_comm_start(comm, &call, &next), COLLECT_E_BUSY);
	CHECK_EQ(collect_comm_pending(comm), 1);
	call.is_produced = true;
	CHECK_EQ(collect_op_prepare(comm, &call, &next), COLLECT_E_INVALID);
	produce(stage, 0, 0, 10);
	produce(stage, 0, 20, COUNT);
	finish(stage, 7);

	collect_op_release(&stage->ops[0]);
	call.is_produced = false;
	CHECK_EQ(collect_op_prepare(comm, &call, &next), COLLECT_OK);
	struct collect_range range;
	CHECK_EQ(collect_op_next_range(next, 0, &range), COLLECT_E_INVALID);
	collect_op_release(&next);
	stage_close(stage);
}

TEST(an_op_that_ends_early_says_so_and_takes_no_more)
{
	struct stage *stage = stage_open((struct world_options){0});
	world_install(&stage->world, 7, 0);
	start(stage, 0, true);
	produce(stage, 0, 0, 20000);
	CHECK_EQ(collect_comm_abort(stage->world.peers[0].comm), COLLECT_OK);
	CHECK_EQ(produce(stage, 0, 20000, 30000), 0);
	struct collect_range range;
	CHECK_EQ(collect_op_next_range(stage->ops[0], SOON_NS, &range), COLLECT_E_ABORTED);
	/* What waits for a verdict about it may follow. */
	struct collect_call call = call_of(stage, 0, false);
	collect_op *next = NULL;
	CHECK_EQ(collect_comm_start(stage->world.peers[0].comm, &call, &next), COLLECT_OK);
	world_kill(&stage->world, 0);
	CHECK_EQ(collect_op_wait(next, 0), COLLECT_E_CLOSED);
	CHECK_EQ(collect_op_next_range(next, SOON_NS, &range), COLLECT_E_CLOSED);
	collect_op_release(&next);
	stage_close(stage);
}

TEST(before_there_is_a_view_everything_can_be_produced)
{
	struct stage *stage = stage_open((struct world_options){0});
	start(stage, 0, true);
	CHECK_EQ(produce(stage, 0, 0, COUNT), 0);
	world_install(&stage->world, 7, 0);
	start(stage, 1, false);
	start(stage, 2, true);
	CHECK_EQ(produce(stage, 2, 0, COUNT), 0);
	finish(stage, 7);
	stage_close(stage);
}

TEST(an_op_that_nobody_can_finish_any_more_is_freed_with_the_comm)
{
	struct stage *stage = stage_open((struct world_options){0});
	start(stage, 0, true);
	produce(stage, 0, 10, 20);
	collect_op_release(&stage->ops[0]);
	stage_close(stage);
}

TEST(factors_are_applied_to_what_is_produced)
{
	struct stage *stage = stage_open((struct world_options){0});
	for (uint32_t p = 0; p < PEERS; p++) {
		struct collect_call call = call_of(stage, p, true);
		call.reduce_op = COLLECT_PREMUL_SUM;
		call.factor = p + 2;
		CHECK_EQ(collect_comm_start(stage->world.peers[p].comm, &call, &stage->ops[p]),
		         COLLECT_OK);
		produce(stage, p, 100, 5000); /* before it is scaled, and after */
	}
	world_install(&stage->world, 7, 0);
	for (uint32_t p = 0; p < PEERS; p++) {
		produce(stage, p, 0, 100);
		produce(stage, p, 5000, COUNT);
	}
	for (uint32_t p = 0; p < PEERS; p++)
		CHECK_EQ(collect_op_wait(stage->ops[p], SOON_NS), COLLECT_OK);
	for (uint32_t p = 0; p < PEERS; p++)
		for (size_t i = 0; i < COUNT; i++)
			stage->truths[p][i] *= (float)(p + 2);
	finish(stage, 7);
	stage_close(stage);
}

/* ---- threads ---- */

static void *producer(void *argument)
{
	struct stage *stage = argument;
	for (uint64_t begin = 0; begin < COUNT; begin += 50)
		produce(stage, 0, begin, begin + 50);
	return NULL;
}

TEST(one_thread_produces_while_another_takes)
{
	struct stage *stage = stage_open((struct world_options){0});
	world_install(&stage->world, 7, 0);
	for (uint32_t p = 0; p < PEERS; p++)
		start(stage, p, p == 0);
	pthread_t thread;
	CHECK_EQ(pthread_create(&thread, NULL, producer, stage), 0);
	take(stage, 0, 7, COUNT);
	take(stage, 1, 7, COUNT);
	pthread_join(thread, NULL);
	finish(stage, 7);
	stage_close(stage);
}

TEST(blocks_are_produced_and_told_as_well)
{
	struct stage *stage = stage_open((struct world_options){0});
	const uint64_t counts[PEERS] = {COUNT / 10, COUNT / 2, COUNT * 4 / 10};
	const uint64_t begins[PEERS] = {0, COUNT / 10, COUNT * 6 / 10};
	world_install(&stage->world, 7, 0);
	for (uint32_t p = 0; p < PEERS; p++) {
		struct collect_call call = call_of(stage, p, true);
		call.collective = COLLECT_REDUCE_SCATTER;
		call.world = PEERS;
		call.counts = counts;
		CHECK_EQ(collect_comm_start(stage->world.peers[p].comm, &call, &stage->ops[p]),
		         COLLECT_OK);
	}
	for (uint32_t p = 0; p < PEERS; p++)
		produce(stage, p, begins[2], COUNT);
	struct collect_range range;
	CHECK_EQ(collect_op_next_range(stage->ops[2], SOON_NS, &range), COLLECT_OK);
	CHECK_EQ(collect_op_next_range(stage->ops[0], WHILE_NS, &range), COLLECT_PENDING);
	for (uint32_t p = 0; p < PEERS; p++)
		CHECK_EQ(produce(stage, p, 0, begins[2]), 0);
	for (uint32_t p = 0; p < PEERS; p++) {
		CHECK_EQ(collect_op_wait(stage->ops[p], SOON_NS), COLLECT_OK);
		for (size_t i = 0; i < counts[p]; i++)
			CHECK_EQ(stage->targets[p][i], sum_of(stage, 7, begins[p] + i));
	}
	stage_close(stage);
}

TEST(where_nothing_is_to_be_produced_nothing_is_waited_for)
{
	struct stage *stage = stage_open((struct world_options){0});
	world_install(&stage->world, 7, 0);
	for (uint32_t p = 0; p < PEERS; p++) {
		struct collect_call call = call_of(stage, p, true);
		call.count = 0;
		CHECK_EQ(collect_comm_start(stage->world.peers[p].comm, &call, &stage->ops[p]),
		         COLLECT_OK);
	}
	for (uint32_t p = 0; p < PEERS; p++) {
		struct collect_range range;
		CHECK_EQ(collect_op_next_range(stage->ops[p], SOON_NS, &range), COLLECT_OK);
		CHECK_EQ(range.begin, range.end);
		CHECK_EQ(collect_op_wait(stage->ops[p], 0), COLLECT_OK);
	}
	stage_close(stage);
}
