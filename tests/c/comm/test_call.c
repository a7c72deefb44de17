/* What struct collect_call allows, and how a call is described. */
#include <stdint.h>
#include <string.h>

#include "comm/world.h"

#define ANY COLLECT_AUTO

static struct world world;
static float memory[4096];

static int judge_of(uint32_t peer, const struct collect_call *call)
{
	collect_op *op = NULL;
	int status = collect_op_prepare(world.peers[peer].comm, call, &op);
	CHECK_EQ(status == COLLECT_OK, op != NULL);
	collect_op_release(&op);
	return status;
}

static int judge(struct collect_call call)
{
	return judge_of(0, &call);
}

static void open_pair(void)
{
	world_open(&world, &(struct world_options){.count = 2, .algorithm = COLLECT_AUTO});
	world_install(&world, 3, 1ull << 32);
}

/* A good call of every collective, apart and with room. */
static struct collect_call good(int collective)
{
	struct collect_call call = {.collective = collective, .dtype = COLLECT_FLOAT32,
	                            .algorithm = ANY, .source = memory, .target = memory + 2048,
	                            .count = 100};
	switch (collective) {
	case COLLECT_BROADCAST:
	case COLLECT_REDUCE:
		call.root = 100;
		break;
	case COLLECT_GATHER:
	case COLLECT_SCATTER:
		call.root = 100;
		call.world = 2;
		break;
	case COLLECT_REDUCE_SCATTER:
	case COLLECT_ALL_GATHER:
	case COLLECT_ALL_TO_ALL:
		call.world = 2;
		break;
	default:
		break;
	}
	return call;
}

TEST(good_calls_are_accepted)
{
	open_pair();
	for (int collective = 0; collective < COLLECT_COLLECTIVE_COUNT; collective++)
		CHECK_EQ(judge(good(collective)), COLLECT_OK);
	world_close(&world);
}

TEST(fields_out_of_range_are_refused)
{
	open_pair();
	for (int collective = 0; collective < COLLECT_COLLECTIVE_COUNT; collective++) {
		struct collect_call call = good(collective);
		call.dtype = COLLECT_DTYPE_COUNT;
		CHECK_EQ(judge(call), COLLECT_E_INVALID);
		call.dtype = -1;
		CHECK_EQ(judge(call), COLLECT_E_INVALID);
		call = good(collective);
		call.reduce_op = COLLECT_REDUCE_OP_COUNT;
		CHECK_EQ(judge(call), COLLECT_E_INVALID);
		call = good(collective);
		call.algorithm = COLLECT_ALGORITHM_COUNT;
		CHECK_EQ(judge(call), COLLECT_E_INVALID);
		call = good(collective);
		call.world = COLLECT_RANKS_MAX + 1;
		CHECK_EQ(judge(call), COLLECT_E_INVALID);
		call = good(collective);
		call.root = call.root == 0 ? 100 : 0;
		CHECK_EQ(judge(call), COLLECT_E_INVALID);
		for (int algorithm = 0; algorithm < COLLECT_ALGORITHM_COUNT; algorithm++) {
			call = good(collective);
			call.algorithm = algorithm;
			bool has = collect_algorithm_has(algorithm, collective) != 0;
			CHECK_EQ(judge(call), has ? COLLECT_OK : COLLECT_E_INVALID);
		}
	}
	struct collect_call call = good(COLLECT_ALL_REDUCE);
	call.collective = COLLECT_COLLECTIVE_COUNT;
	CHECK_EQ(judge(call), COLLECT_E_INVALID);
	call.collective = -1;
	CHECK_EQ(judge(call), COLLECT_E_INVALID);
	world_close(&world);
}

TEST(a_reduction_that_is_not_defined_is_unavailable_and_one_without_meaning_refused)
{
	open_pair();
	struct collect_call call = good(COLLECT_ALL_REDUCE);
	call.reduce_op = COLLECT_XOR;
	CHECK_EQ(judge(call), COLLECT_E_UNAVAILABLE);
	call.dtype = COLLECT_COMPLEX64;
	call.reduce_op = COLLECT_MIN;
	CHECK_EQ(judge(call), COLLECT_E_UNAVAILABLE);
	call.dtype = COLLECT_INT32;
	call.reduce_op = COLLECT_PREMUL_SUM;
	CHECK_EQ(judge(call), COLLECT_E_UNAVAILABLE);
	call = good(COLLECT_ALL_GATHER);
	call.reduce_op = COLLECT_MAX;
	CHECK_EQ(judge(call), COLLECT_E_INVALID);
	world_close(&world);
}

TEST(memory_that_is_missing_is_refused_only_where_it_is_used)
{
	static const struct {
		int collective;
		bool needs_source[2]; /* at the root, which is peer 0; elsewhere */
		bool needs_target[2];
	} cases[] = {
		{COLLECT_ALL_REDUCE, {true, true}, {true, true}},
		{COLLECT_REDUCE_SCATTER, {true, true}, {true, true}},
		{COLLECT_ALL_GATHER, {true, true}, {true, true}},
		{COLLECT_ALL_TO_ALL, {true, true}, {true, true}},
		{COLLECT_BROADCAST, {true, false}, {true, true}},
		{COLLECT_REDUCE, {true, true}, {true, false}},
		{COLLECT_GATHER, {true, true}, {true, false}},
		{COLLECT_SCATTER, {true, false}, {true, true}},
		{COLLECT_BARRIER, {false, false}, {false, false}},
	};
	open_pair();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (uint32_t peer = 0; peer < 2; peer++) {
			struct collect_call call = good(cases[i].collective);
			call.source = NULL;
			CHECK_EQ(judge_of(peer, &call),
			         cases[i].needs_source[peer] ? COLLECT_E_INVALID : COLLECT_OK);
			call = good(cases[i].collective);
			call.target = NULL;
			CHECK_EQ(judge_of(peer, &call),
			         cases[i].needs_target[peer] ? COLLECT_E_INVALID : COLLECT_OK);
			call.source = NULL;
			call.count = 0;
			CHECK_EQ(judge_of(peer, &call), COLLECT_OK);
		}
	world_close(&world);
}

/* With the target at so many elements after the source. */
static int judge_at(int collective, ptrdiff_t elements)
{
	struct collect_call call = good(collective);
	call.source = memory + 1024;
	call.target = memory + 1024 + elements;
	return judge(call);
}

TEST(source_and_target_overlap_only_as_they_may)
{
	open_pair();
	static const int equal[] = {COLLECT_ALL_REDUCE, COLLECT_BROADCAST, COLLECT_REDUCE};
	for (size_t i = 0; i < 3; i++) {
		CHECK_EQ(judge_at(equal[i], 0), COLLECT_OK);
		CHECK_EQ(judge_at(equal[i], 1), COLLECT_E_INVALID);
		CHECK_EQ(judge_at(equal[i], -99), COLLECT_E_INVALID);
		CHECK_EQ(judge_at(equal[i], 100), COLLECT_OK);
		CHECK_EQ(judge_at(equal[i], -100), COLLECT_OK);
	}
	CHECK_EQ(judge_at(COLLECT_ALL_TO_ALL, 0), COLLECT_OK);
	CHECK_EQ(judge_at(COLLECT_ALL_TO_ALL, 100), COLLECT_E_INVALID);
	CHECK_EQ(judge_at(COLLECT_ALL_TO_ALL, 200), COLLECT_OK);
	/* The source is the target's first or second block. */
	for (int collective = COLLECT_ALL_GATHER; collective <= COLLECT_GATHER;
	     collective += COLLECT_GATHER - COLLECT_ALL_GATHER) {
		CHECK_EQ(judge_at(collective, 0), COLLECT_OK);
		CHECK_EQ(judge_at(collective, -100), COLLECT_OK);
		CHECK_EQ(judge_at(collective, -50), COLLECT_E_INVALID);
		CHECK_EQ(judge_at(collective, 50), COLLECT_E_INVALID);
		CHECK_EQ(judge_at(collective, -200), COLLECT_OK);
		CHECK_EQ(judge_at(collective, -199), COLLECT_E_INVALID);
	}
	/* The target is the source's first or second block. */
	for (int collective = COLLECT_REDUCE_SCATTER; collective <= COLLECT_SCATTER;
	     collective += COLLECT_SCATTER - COLLECT_REDUCE_SCATTER) {
		CHECK_EQ(judge_at(collective, 0), COLLECT_OK);
		CHECK_EQ(judge_at(collective, 100), COLLECT_OK);
		CHECK_EQ(judge_at(collective, 50), COLLECT_E_INVALID);
		CHECK_EQ(judge_at(collective, -50), COLLECT_E_INVALID);
	}
	world_close(&world);
}

TEST(counts_are_given_where_there_are_blocks_and_for_a_world)
{
	static const uint64_t counts[2] = {10, 20};
	static const uint64_t huge[2] = {UINT64_MAX / 8, UINT64_MAX / 8};
	open_pair();
	for (int collective = 0; collective < COLLECT_COLLECTIVE_COUNT; collective++) {
		struct collect_call call = good(collective);
		bool has_blocks = call.world != 0;
		bool is_all_to_all = collective == COLLECT_ALL_TO_ALL;
		call.counts = counts;
		call.target_counts = is_all_to_all ? counts : NULL;
		CHECK_EQ(judge(call), has_blocks ? COLLECT_OK : COLLECT_E_INVALID);
		call.target_counts = is_all_to_all ? NULL : counts;
		CHECK_EQ(judge(call), COLLECT_E_INVALID);
		call.target_counts = is_all_to_all ? counts : NULL;
		call.world = 0;
		CHECK_EQ(judge(call), COLLECT_E_INVALID);
		call = good(collective);
		call.counts = huge;
		call.target_counts = is_all_to_all ? huge : NULL;
		CHECK_EQ(judge(call), COLLECT_E_INVALID);
		call = good(collective);
		call.target_counts = counts;
		CHECK_EQ(judge(call), COLLECT_E_INVALID);
		call = good(collective);
		call.world = 0;
		bool may = !has_blocks || collective == COLLECT_ALL_GATHER || collective == COLLECT_GATHER;
		CHECK_EQ(judge(call), may ? COLLECT_OK : COLLECT_E_INVALID);
		call = good(collective);
		call.count = SIZE_MAX / 2;
		CHECK_EQ(judge(call), collective == COLLECT_BARRIER ? COLLECT_OK : COLLECT_E_INVALID);
		call.count = UINT64_MAX;
		CHECK_EQ(judge(call), collective == COLLECT_BARRIER ? COLLECT_OK : COLLECT_E_INVALID);
	}
	struct collect_call call = good(COLLECT_ALL_TO_ALL);
	call.counts = counts;
	call.target_counts = counts;
	call.algorithm = COLLECT_BRUCK;
	CHECK_EQ(judge(call), COLLECT_E_INVALID);
	world_close(&world);
}

static void check_described(struct collect_call call, const char *text)
{
	collect_op *op;
	struct collect_report report;
	world_open(&world, &(struct world_options){.count = 1});
	CHECK_EQ(collect_comm_start(world.peers[0].comm, &call, &op), COLLECT_OK);
	CHECK_EQ(collect_comm_freeze(world.peers[0].comm, &report), COLLECT_OK);
	CHECK_STR_EQ(report.inflight_descriptor, text);
	world_close(&world);
	collect_op_release(&op);
}

TEST(calls_are_described_as_their_callers_would)
{
	static const uint64_t counts[2] = {10, 20};
	check_described(good(COLLECT_ALL_REDUCE), "all_reduce float32[100] sum");
	check_described(good(COLLECT_BARRIER), "barrier");
	check_described(good(COLLECT_ALL_GATHER), "all_gather float32[100]");
	struct collect_call call = good(COLLECT_REDUCE_SCATTER);
	call.reduce_op = COLLECT_AVG;
	check_described(call, "reduce_scatter float32[2x100] avg");
	call.counts = counts;
	check_described(call, "reduce_scatter float32[2 blocks, 30] avg");
	call = good(COLLECT_ALL_TO_ALL);
	call.counts = counts;
	call.target_counts = counts;
	check_described(call, "all_to_all float32[2 blocks]");
	call = good(COLLECT_REDUCE);
	call.root = 0x1a2b3c;
	check_described(call, "reduce float32[100] sum root 1a2b3c");
	call = good(COLLECT_BROADCAST);
	call.dtype = COLLECT_COMPLEX128;
	call.root = UINT64_MAX;
	check_described(call, "broadcast complex128[100] root ffffffffffffffff");
}

static uint32_t digest_of(struct collect_call call)
{
	collect_op *op;
	struct collect_report report;
	world_open(&world, &(struct world_options){.count = 1});
	CHECK_EQ(collect_comm_start(world.peers[0].comm, &call, &op), COLLECT_OK);
	CHECK_EQ(collect_comm_freeze(world.peers[0].comm, &report), COLLECT_OK);
	world_close(&world);
	collect_op_release(&op);
	return report.inflight_digest;
}

TEST(a_digest_covers_what_members_must_agree_on_and_nothing_else)
{
	static const uint64_t counts[2] = {10, 20};
	static const uint64_t others[2] = {20, 10};
	struct collect_call call = good(COLLECT_ALL_REDUCE);
	uint32_t digest = digest_of(call);
	call.target = memory + 1024;
	call.factor = 3;
	call.deadline_ns = 5;
	CHECK_EQ(digest_of(call), digest);
	call.count++;
	CHECK(digest_of(call) != digest);
	call = good(COLLECT_ALL_REDUCE);
	call.dtype = COLLECT_INT32;
	CHECK(digest_of(call) != digest);
	call = good(COLLECT_ALL_REDUCE);
	call.reduce_op = COLLECT_MAX;
	CHECK(digest_of(call) != digest);
	call = good(COLLECT_ALL_REDUCE);
	call.algorithm = COLLECT_RING;
	CHECK(digest_of(call) != digest);
	call = good(COLLECT_BROADCAST);
	digest = digest_of(call);
	call.root++;
	CHECK(digest_of(call) != digest);
	call = good(COLLECT_ALL_GATHER);
	digest = digest_of(call);
	call.world = 0;
	CHECK_EQ(digest_of(call), digest); /* room is the caller's own matter */
	call.world = 2;
	call.counts = counts;
	digest = digest_of(call);
	call.counts = others;
	CHECK(digest_of(call) != digest);
	call = good(COLLECT_ALL_TO_ALL);
	call.counts = counts;
	call.target_counts = counts;
	digest = digest_of(call);
	call.counts = others;
	CHECK_EQ(digest_of(call), digest);
	call.world = 1;
	CHECK(digest_of(call) != digest);
}
