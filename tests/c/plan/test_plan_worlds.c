/* What builders make passes the check: every algorithm and collective, many worlds. */
#include "base/prng.h"
#include "harness.h"
#include "plan/plan.h"
#include "plan/plans.h"

static void check_recipe(const struct collect_recipe *recipe, int collective, uint32_t world,
                         uint32_t root, uint32_t credit)
{
	char reason[256] = "";
	int status = collect_plan_check(recipe, collective, world, root, credit, reason,
	                                sizeof(reason));
	if (status != 0)
		FAIL("algorithm %d, collective %d, world %u, root %u, credit %u: %s", recipe->algorithm,
		     collective, (unsigned)world, (unsigned)root, (unsigned)credit, reason);
}

/* Rings in a random order, owners with random weights, hosts of random sizes. */
static void check_world(uint32_t world, uint32_t credit)
{
	static uint32_t order[COLLECT_RANKS_MAX];
	static uint32_t weights[COLLECT_RANKS_MAX];
	static uint32_t hosts[COLLECT_RANKS_MAX];
	struct col_prng prng;
	col_prng_init(&prng, world);
	for (uint32_t rank = 0; rank < world; rank++) {
		uint32_t other = (uint32_t)col_prng_below(&prng, rank + 1);
		order[rank] = order[other];
		order[other] = rank;
		weights[rank] = 1 + (uint32_t)col_prng_below(&prng, 9);
		hosts[rank] = (uint32_t)col_prng_below(&prng, world / 4 + 1);
	}
	FOR_EACH_PLAN(algorithm, collective) {
		struct collect_recipe recipe = recipe_of(algorithm);
		recipe.order = order;
		recipe.weights = weights;
		recipe.hosts = hosts;
		check_recipe(&recipe, collective, world, (uint32_t)col_prng_below(&prng, world), credit);
	}
}

TEST(every_builder_passes_for_worlds_to_32)
{
	for (uint32_t world = 1; world <= 32; world++)
		check_world(world, 1);
}

TEST(every_builder_passes_for_worlds_to_52)
{
	for (uint32_t world = 33; world <= 52; world++)
		check_world(world, 1);
}

TEST(every_builder_passes_for_worlds_to_64)
{
	for (uint32_t world = 53; world <= 64; world++)
		check_world(world, 1);
}

TEST(every_builder_passes_for_some_larger_worlds)
{
	check_world(100, 1);
	check_world(127, 1);
	check_world(129, 1);
}

TEST(every_builder_of_few_slices_passes_for_1000_ranks)
{
	FOR_EACH_PLAN(algorithm, collective) {
		struct collect_plan *plan;
		struct collect_recipe recipe = recipe_of(algorithm);
		uint32_t root = root_of(collective, 999);
		CHECK_EQ(col_plan_build(&recipe, collective, 1000, root, 0, &plan), 0);
		bool is_quick = plan->slice_count <= 2;
		col_plan_destroy(&plan);
		if (is_quick && algorithm != COLLECT_EXCHANGE)
			check_recipe(&recipe, collective, 1000, root, 1);
	}
}

TEST(every_builder_passes_with_any_credit)
{
	for (uint32_t credit = 1; credit <= 20; credit++)
		for (uint32_t world = 1; world <= 9; world++)
			check_world(world, credit);
}

TEST(every_root_passes)
{
	FOR_EACH_PLAN(algorithm, collective) {
		struct collect_recipe recipe = recipe_of(algorithm);
		for (uint32_t world = 2; world <= 9 && is_rooted(collective); world++)
			for (uint32_t root = 0; root < world; root++)
				check_recipe(&recipe, collective, world, root, 1);
	}
}

TEST(levels_of_any_radices_pass)
{
	static const struct {
		uint32_t count;
		uint32_t radices[4];
	} levels[] = {
		{1, {7}}, {2, {2, 3}}, {2, {3, 2}}, {3, {2, 3, 4}}, {3, {4, 1, 3}}, {4, {2, 2, 2, 2}},
		{4, {3, 2, 2, 3}}, {2, {1, 5}}, {3, {5, 4, 5}},
	};
	for (size_t i = 0; i < sizeof(levels) / sizeof(*levels); i++) {
		uint32_t world = 1;
		struct collect_recipe recipe = recipe_of(COLLECT_HIERARCHICAL);
		recipe.level_count = levels[i].count;
		for (uint32_t level = 0; level < levels[i].count; level++) {
			recipe.radices[level] = levels[i].radices[level];
			world *= levels[i].radices[level];
		}
		for (int collective = 0; collective < COLLECT_COLLECTIVE_COUNT; collective++)
			if (collect_algorithm_has(COLLECT_HIERARCHICAL, collective))
				for (uint32_t root = 0; root < world; root += world / 3 + 1)
					check_recipe(&recipe, collective, world, root, 1);
	}
}
