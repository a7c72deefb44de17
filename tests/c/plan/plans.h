/* What the tests of plans share: recipes, worlds, and what there is to build. */
#ifndef TEST_PLAN_PLANS_H
#define TEST_PLAN_PLANS_H

#include "plan/plan.h"

/* A recipe for one algorithm. hosts of the hierarchical one: NULL. */
static inline struct collect_recipe recipe_of(int algorithm)
{
	return (struct collect_recipe){.algorithm = algorithm};
}

static inline bool is_rooted(int collective)
{
	return collective == COLLECT_BROADCAST || collective == COLLECT_REDUCE ||
	       collective == COLLECT_GATHER || collective == COLLECT_SCATTER;
}

static inline uint32_t root_of(int collective, uint32_t root)
{
	return is_rooted(collective) ? root : COL_RANK_NONE;
}

#define FOR_EACH_PLAN(algorithm, collective) \
	for (int algorithm = 0; algorithm < COLLECT_ALGORITHM_COUNT; algorithm++) \
		for (int collective = 0; collective < COLLECT_COLLECTIVE_COUNT; collective++) \
			if (collect_algorithm_has(algorithm, collective))

#endif
