#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "harness.h"
#include "plan/plan_build.h"
#include "plan/plan_check.h"
#include "plan/plan_definition.h"
#include "plan/plans.h"

#define WORLD_MAX 12
#define SLICES_MAX (2 * WORLD_MAX)
#define CREDIT_AMPLE 100000

/* A definition and the memory behind it. */
struct fixture {
	struct collect_definition it;
	struct collect_slice slices[SLICES_MAX];
	struct collect_edge reduce[SLICES_MAX][WORLD_MAX];
	struct collect_edge spread[SLICES_MAX][WORLD_MAX];
	char reason[256];
};

static bool reduces(int collective)
{
	return collective == COLLECT_ALL_REDUCE || collective == COLLECT_REDUCE ||
	       collective == COLLECT_REDUCE_SCATTER;
}

static void begin(struct fixture *fixture, int collective, uint32_t world, uint32_t slice_count)
{
	memset(fixture, 0, sizeof(*fixture));
	fixture->it = (struct collect_definition){
		.name = "own",
		.algorithm = COLLECT_ALGORITHM_DEFINED + 5,
		.collective = collective,
		.world = world,
		.slices = fixture->slices,
		.slice_count = slice_count,
	};
	bool has_blocks = col_collective_has_blocks(collective);
	for (uint32_t slice = 0; slice < slice_count; slice++)
		fixture->slices[slice] = (struct collect_slice){
			.block = has_blocks ? slice / (slice_count / world) : 0,
			.weight = 1,
			.reduce = fixture->reduce[slice],
			.spread = fixture->spread[slice],
		};
}

static void reduce_add(struct fixture *fixture, uint32_t slice, uint32_t rank, uint32_t parent)
{
	fixture->reduce[slice][fixture->slices[slice].reduce_count++] =
		(struct collect_edge){rank, parent};
}

static void spread_add(struct fixture *fixture, uint32_t slice, uint32_t rank, uint32_t parent)
{
	fixture->spread[slice][fixture->slices[slice].spread_count++] =
		(struct collect_edge){rank, parent};
}

/* Everybody to the owner, and back. */
static void star_add(struct fixture *fixture, uint32_t slice, uint32_t owner)
{
	for (uint32_t rank = 0; rank < fixture->it.world; rank++) {
		if (rank == owner)
			continue;
		if (reduces(fixture->it.collective))
			reduce_add(fixture, slice, rank, owner);
		spread_add(fixture, slice, rank, owner);
	}
}

/* A tree in which ranks hang below somebody who is in it already, in an order of chance. */
static void tree_add(struct fixture *fixture, uint32_t slice, uint32_t root, bool is_reduce,
                     struct col_prng *prng)
{
	uint32_t world = fixture->it.world;
	uint32_t order[WORLD_MAX];
	for (uint32_t i = 0; i < world; i++)
		order[i] = (root + i) % world;
	for (uint32_t i = world - 1; i > 1; i--) {
		uint32_t other = 1 + (uint32_t)col_prng_below(prng, i);
		uint32_t rank = order[i];
		order[i] = order[other];
		order[other] = rank;
	}
	for (uint32_t i = 1; i < world; i++) {
		uint32_t parent = order[col_prng_below(prng, i)];
		if (is_reduce)
			reduce_add(fixture, slice, order[i], parent);
		else
			spread_add(fixture, slice, order[i], parent);
	}
}

static void random_make(struct fixture *fixture, int collective, uint32_t world, uint64_t seed)
{
	struct col_prng prng;
	col_prng_init(&prng, seed);
	bool has_blocks = col_collective_has_blocks(collective);
	uint32_t parts = 1 + (uint32_t)col_prng_below(&prng, 2);
	begin(fixture, collective, world, has_blocks ? parts * world : 1 + parts * 2);
	for (uint32_t slice = 0; slice < fixture->it.slice_count; slice++) {
		uint32_t owner = (uint32_t)col_prng_below(&prng, world);
		if (!has_blocks)
			fixture->slices[slice].weight = 1 + (uint32_t)col_prng_below(&prng, 3);
		if (collective == COLLECT_BROADCAST || collective == COLLECT_SCATTER)
			owner = 0;
		else if (collective == COLLECT_ALL_GATHER || collective == COLLECT_GATHER)
			owner = fixture->slices[slice].block;
		if (reduces(collective))
			tree_add(fixture, slice, owner, true, &prng);
		tree_add(fixture, slice, owner, false, &prng);
	}
}

static void check_refused(struct fixture *fixture, const char *reason)
{
	CHECK_EQ(collect_definition_check(&fixture->it, fixture->reason, sizeof(fixture->reason)),
	         COLLECT_E_INVALID);
	CHECK_STR_EQ(fixture->reason, reason);
}

/* ---- what can be defined ------------------------------------------------------------------- */

TEST(any_trees_of_any_collective_are_right_where_credit_is_ample)
{
	static struct fixture fixture;
	for (int collective = 0; collective < COLLECT_COLLECTIVE_COUNT; collective++) {
		if (!col_definition_can(collective))
			continue;
		for (uint32_t world = 2; world <= WORLD_MAX; world++) {
			for (uint64_t seed = 0; seed < 20; seed++) {
				struct col_trees *trees;
				random_make(&fixture, collective, world, test_seed() * 1000 + seed);
				if (col_trees_create(&fixture.it, fixture.reason, sizeof(fixture.reason),
				                     &trees) < 0 ||
				    col_trees_prove(trees, CREDIT_AMPLE, fixture.reason,
				                    sizeof(fixture.reason)) < 0)
					FAIL("collective %d of %u, seed %llu: %s", collective, (unsigned)world,
					     (unsigned long long)seed, fixture.reason);
				col_trees_destroy(&trees);
			}
		}
	}
}

TEST(the_root_may_be_any_rank)
{
	static struct fixture fixture;
	const int rooted[] = {COLLECT_BROADCAST, COLLECT_REDUCE, COLLECT_GATHER, COLLECT_SCATTER};
	for (size_t i = 0; i < sizeof(rooted) / sizeof(rooted[0]); i++) {
		struct col_trees *trees;
		random_make(&fixture, rooted[i], 5, test_seed());
		CHECK_EQ(col_trees_create(&fixture.it, NULL, 0, &trees), 0);
		for (uint32_t root = 0; root < 5; root++) {
			struct collect_plan *plans[5];
			for (uint32_t rank = 0; rank < 5; rank++)
				CHECK_EQ(col_trees_build(trees, root, rank, &plans[rank]), 0);
			if (col_plan_check(plans, 5, CREDIT_AMPLE, fixture.reason,
			                   sizeof(fixture.reason)) < 0)
				FAIL("collective %d, root %u: %s", rooted[i], (unsigned)root, fixture.reason);
			for (uint32_t rank = 0; rank < 5; rank++)
				col_plan_destroy(&plans[rank]);
		}
		col_trees_destroy(&trees);
	}
}

TEST(direct_exchange_as_a_definition_adds_in_rank_order_and_needs_one_credit)
{
	static struct fixture fixture;
	struct collect_plan *plans[7];
	begin(&fixture, COLLECT_ALL_REDUCE, 7, 7);
	for (uint32_t slice = 0; slice < 7; slice++)
		star_add(&fixture, slice, slice);
	struct col_trees *trees;
	CHECK_EQ(col_trees_create(&fixture.it, NULL, 0, &trees), 0);
	for (uint32_t rank = 0; rank < 7; rank++) {
		CHECK_EQ(col_trees_build(trees, COL_RANK_NONE, rank, &plans[rank]), 0);
		plans[rank]->is_rank_ordered = true;
		CHECK_EQ(plans[rank]->lanes[0].slice, rank);
	}
	CHECK_EQ(col_plan_check(plans, 7, 1, fixture.reason, sizeof(fixture.reason)), 0);
	for (uint32_t rank = 0; rank < 7; rank++)
		col_plan_destroy(&plans[rank]);
	col_trees_destroy(&trees);
}

TEST(children_are_taken_in_the_order_of_the_edges_and_weights_cut)
{
	static struct fixture fixture;
	begin(&fixture, COLLECT_ALL_REDUCE, 4, 2);
	fixture.slices[1].weight = 3;
	star_add(&fixture, 0, 0);
	for (uint32_t rank = 4; rank-- > 1;) {
		reduce_add(&fixture, 1, rank, 0);
		spread_add(&fixture, 1, rank, 0);
	}
	collect_plan *plan;
	CHECK_EQ(collect_definition_plan(&fixture.it, 0, 0, &plan), 0);
	uint64_t span[2];
	CHECK_EQ(collect_plan_slice(plan, 1, 64 * 8, &span[0], &span[1]), 0);
	CHECK_EQ(span[0], 128);
	CHECK_EQ(span[1], 512);
	struct collect_step step;
	for (uint32_t i = 0; i < 3; i++) {
		CHECK_EQ(collect_plan_step(plan, 1, i, &step), 0);
		CHECK_EQ(step.peer, 3 - i);
		CHECK_EQ(collect_plan_step(plan, 0, i, &step), 0);
		CHECK_EQ(step.peer, 1 + i);
	}
	char text[64];
	collect_plan_print(plan, text, sizeof(text));
	CHECK_EQ(strncmp(text, "own all_reduce, rank 0 of 4: lanes 2", 36), 0);
	collect_plan_destroy(&plan);
}

/* ---- what cannot --------------------------------------------------------------------------- */

TEST(a_missing_contribution_is_named)
{
	static struct fixture fixture;
	begin(&fixture, COLLECT_ALL_REDUCE, 4, 2);
	star_add(&fixture, 0, 0);
	star_add(&fixture, 1, 1);
	fixture.slices[1].reduce_count--;
	check_refused(&fixture, "slice 1: the part of rank 3 is missing: reduce has no parent for it");
}

TEST(two_owners_are_named)
{
	static struct fixture fixture;
	begin(&fixture, COLLECT_ALL_REDUCE, 4, 1);
	reduce_add(&fixture, 0, 1, 0);
	reduce_add(&fixture, 0, 3, 2);
	check_refused(&fixture, "slice 0: two owners: neither rank 0 nor rank 2 sends its sum to "
	                        "anybody");
}

TEST(a_cycle_is_named)
{
	static struct fixture fixture;
	begin(&fixture, COLLECT_ALL_REDUCE, 4, 1);
	reduce_add(&fixture, 0, 1, 2);
	reduce_add(&fixture, 0, 2, 3);
	reduce_add(&fixture, 0, 3, 1);
	check_refused(&fixture, "slice 0: reduce is a cycle: from rank 1 by way of rank 2 back to "
	                        "rank 1");
	begin(&fixture, COLLECT_BROADCAST, 4, 1);
	spread_add(&fixture, 0, 1, 0);
	spread_add(&fixture, 0, 2, 3);
	spread_add(&fixture, 0, 3, 2);
	check_refused(&fixture, "slice 0: spread is a cycle: from rank 2 by way of rank 3 back to "
	                        "rank 2");
}

TEST(a_result_that_does_not_come_is_named)
{
	static struct fixture fixture;
	begin(&fixture, COLLECT_ALL_REDUCE, 3, 1);
	star_add(&fixture, 0, 1);
	fixture.slices[0].spread_count--;
	check_refused(&fixture, "slice 0: spread has nobody send to rank 2, which needs the result");
	begin(&fixture, COLLECT_ALL_REDUCE, 3, 1);
	star_add(&fixture, 0, 1);
	fixture.spread[0][0].parent = 2;
	fixture.spread[0][1].rank = 1;
	fixture.spread[0][1].parent = 0;
	check_refused(&fixture, "slice 0: spread sends to rank 1, where it begins");
	begin(&fixture, COLLECT_GATHER, 3, 3);
	spread_add(&fixture, 1, 0, 1);
	spread_add(&fixture, 2, 0, 1);
	check_refused(&fixture, "slice 2: spread has rank 1 send what nobody sends to it");
}

TEST(edges_are_of_ranks_and_each_has_one_parent)
{
	static struct fixture fixture;
	begin(&fixture, COLLECT_ALL_REDUCE, 3, 1);
	reduce_add(&fixture, 0, 1, 3);
	check_refused(&fixture, "slice 0: reduce has an edge from 1 to 3, which are not two of the "
	                        "ranks 0 to 2");
	fixture.reduce[0][0] = (struct collect_edge){1, 1};
	check_refused(&fixture, "slice 0: reduce has an edge from 1 to 1, which are not two of the "
	                        "ranks 0 to 2");
	begin(&fixture, COLLECT_ALL_REDUCE, 3, 1);
	reduce_add(&fixture, 0, 1, 0);
	reduce_add(&fixture, 0, 1, 2);
	check_refused(&fixture, "slice 0: reduce gives rank 1 two parents, 0 and 2");
	fixture.slices[0].reduce_count = UINT32_MAX;
	check_refused(&fixture, "slice 0: reduce has 4294967295 edges; 3 ranks make a tree with 2");
	begin(&fixture, COLLECT_ALL_GATHER, 3, 3);
	reduce_add(&fixture, 0, 1, 0);
	check_refused(&fixture, "slice 0: all_gather reduces nothing");
}

TEST(a_deadlock_is_found_with_one_credit)
{
	/* Two slices that take the same children in opposite orders: each holds the other's credit. */
	static struct fixture fixture;
	begin(&fixture, COLLECT_ALL_REDUCE, 3, 2);
	star_add(&fixture, 0, 0);
	reduce_add(&fixture, 1, 2, 0);
	reduce_add(&fixture, 1, 1, 0);
	spread_add(&fixture, 1, 1, 0);
	spread_add(&fixture, 1, 2, 0);
	CHECK_EQ(collect_definition_check(&fixture.it, fixture.reason, sizeof(fixture.reason)),
	         COLLECT_E_INVALID);
	CHECK(strstr(fixture.reason, "deadlock") != NULL);
	CHECK(strstr(fixture.reason, "rank ") != NULL && strstr(fixture.reason, " lane ") != NULL);
}

TEST(everything_has_a_range)
{
	static struct fixture fixture;
	begin(&fixture, COLLECT_ALL_TO_ALL, 3, 9);
	check_refused(&fixture, "all_to_all cannot be defined");
	begin(&fixture, -1, 3, 3);
	check_refused(&fixture, "unknown cannot be defined");
	begin(&fixture, COLLECT_ALL_REDUCE, 3, 1);
	fixture.it.world = 1;
	check_refused(&fixture, "a world of 1 ranks is not in 2 to 1024");
	fixture.it.world = 1025;
	check_refused(&fixture, "a world of 1025 ranks is not in 2 to 1024");
	fixture.it.world = 1024;
	fixture.it.slice_count = 1025;
	check_refused(&fixture, "1025 slices of 1024 ranks are more than 1048576 places");
	fixture.it.slice_count = 0;
	check_refused(&fixture, "0 slices are not in 1 to 4096");
	begin(&fixture, COLLECT_ALL_GATHER, 3, 3);
	fixture.it.slice_count = 2;
	check_refused(&fixture, "2 slices are not as many for each of 3 blocks");
	fixture.it.slice_count = 3;
	fixture.slices[1].block = 2;
	check_refused(&fixture, "slice 1: it is of block 2 and must be of block 1");
	fixture.slices[1].block = 1;
	fixture.slices[2].weight = 2;
	check_refused(&fixture, "slice 2: weight 2 is not 1, as blocks' slices have");
	begin(&fixture, COLLECT_ALL_REDUCE, 3, 2);
	fixture.slices[0].weight = 0;
	check_refused(&fixture, "slice 0: weight 0 is not at least 1");
	fixture.slices[0].weight = UINT32_MAX;
	fixture.slices[1].weight = 2;
	check_refused(&fixture, "the weights add up to more than 2^32");
	begin(&fixture, COLLECT_ALL_REDUCE, 3, 1);
	fixture.it.algorithm = COLLECT_DIRECT;
	check_refused(&fixture, "number 0 is not at least 64");
	fixture.it.name = "a b";
	check_refused(&fixture, "the name is not 1 to 31 printable characters");
	fixture.it.name = "01234567890123456789012345678901";
	check_refused(&fixture, "the name is not 1 to 31 printable characters");
}

TEST(running_out_of_memory_leaves_nothing_behind)
{
	static struct fixture fixture;
	random_make(&fixture, COLLECT_ALL_REDUCE, 4, 3);
	int status = COLLECT_E_MEMORY;
	for (uint64_t nth = 1; status == COLLECT_E_MEMORY; nth++) {
		collect_plan *plan = NULL;
		size_t blocks = col_alloc_blocks();
		col_alloc_fail_at(nth);
		status = collect_definition_plan(&fixture.it, 0, 1, &plan);
		if (!col_alloc_has_failed())
			CHECK_EQ(status, 0);
		collect_plan_destroy(&plan);
		CHECK_EQ(col_alloc_blocks(), blocks);
	}
	CHECK_EQ(status, 0);
	col_alloc_fail_at(0);
}
