/* The running half of plan_check: plan_check.c looks at steps, plan_run.c executes them. */
#ifndef COL_PLAN_PLAN_RUN_H
#define COL_PLAN_PLAN_RUN_H

#include "plan/plan.h"
#include "plan/plan_check.h"

/* The plans of all ranks, whose lanes and steps are numbered through, and where to say what is
 * wrong with them. */
struct col_world {
	struct collect_plan *const *plans;
	uint32_t rank_count;
	uint32_t slice_count;
	uint32_t *lane_base; /* rank_count + 1: number of rank's first lane */
	uint32_t *step_base; /* rank_count + 1 */
	char *reason_out;
	size_t reason_capacity;
};

struct col_place {
	uint32_t rank;
	uint32_t lane;
	uint32_t step; /* in the lane */
};

const struct col_step *col_world_step(const struct col_world *world, struct col_place at);

/* The step's number among all steps of all ranks. */
uint32_t col_world_step_number(const struct col_world *world, struct col_place at);

/* Writes "rank 1 lane 0 step 2 (recv of slice 3): " and the rest; returns COLLECT_E_INVALID. */
int col_world_reject(const struct col_world *world, struct col_place at, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Runs plans whose sends and receives match. 0, COLLECT_E_INVALID, COLLECT_E_MEMORY. */
int col_world_run(const struct col_world *world, uint32_t credit);

#endif
