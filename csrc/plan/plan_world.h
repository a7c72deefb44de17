/* The plans of a whole world while they are checked: plan_check.c looks at steps, plan_proof.c
 * follows what they compute, plan_run.c looks for deadlocks. */
#ifndef COL_PLAN_PLAN_WORLD_H
#define COL_PLAN_PLAN_WORLD_H

#include "plan/plan.h"

/* All ranks' lanes and steps are numbered through. */
struct col_world {
	struct collect_plan *const *plans;
	uint32_t rank_count;
	uint32_t slice_count;
	uint32_t lane_count;
	uint32_t step_count;
	uint32_t *lane_base; /* rank_count + 1: number of rank's first lane; owned, as the rest */
	uint32_t *step_base; /* rank_count + 1 */
	uint32_t *lane_rank; /* by lane's number */
	char *reason_out;
	size_t reason_capacity;
};

struct col_place {
	uint32_t rank;
	uint32_t lane;
	uint32_t step; /* in the lane */
};

static inline const struct col_lane *col__world_lane(const struct col_world *world,
                                                     struct col_place at)
{
	return &world->plans[at.rank]->lanes[at.lane];
}

static inline const struct col_step *col__world_step(const struct col_world *world,
                                                     struct col_place at)
{
	return &world->plans[at.rank]->steps[col__world_lane(world, at)->step_begin + at.step];
}

/* The step's number among all steps of all ranks. */
static inline uint32_t col__world_step_number(const struct col_world *world, struct col_place at)
{
	return world->step_base[at.rank] + col__world_lane(world, at)->step_begin + at.step;
}

/* The beginning of the lane with a number. */
static inline struct col_place col__world_place(const struct col_world *world, uint32_t lane)
{
	uint32_t rank = world->lane_rank[lane];
	return (struct col_place){.rank = rank, .lane = lane - world->lane_base[rank]};
}

/* Where a send's frame belongs. */
static inline struct col_place col__step_target(const struct col_step *step)
{
	uint32_t rank = col_opcode_receives(step->opcode) ? step->next : step->peer;
	return (struct col_place){rank, step->peer_lane, step->peer_step};
}

/* Writes "rank 1 lane 0 step 2 (recv of slice 3): " and the rest; returns COLLECT_E_INVALID. */
int col__world_reject(const struct col_world *world, struct col_place at, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Follow what plans compute whose sends and receives match. COLLECT_E_INVALID, COLLECT_E_MEMORY. */
int col__world_prove(const struct col_world *world);
/* Look for a deadlock of such plans. Likewise. */
int col__world_run(const struct col_world *world, uint32_t credit);

#endif
