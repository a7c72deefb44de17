/*
 * Star: direct exchange with a single slice, which rank 0 owns.
 *
 *     rank 1 ──┐                                         ┌──► rank 1
 *     rank 2 ──┼──► rank 0: ((IN0 op IN1) op IN2), scale ┼──► rank 2
 *     rank 3 ──┘                                         └──► rank 3
 *
 * Cost for p ranks and S bytes: 2 dependent hops; the hub sends and receives (p-1)S, the others S;
 * p-1 links in all. Every element goes through the same additions in the same order as in
 * plan_direct.c, so both give the same bits. Right for small payloads, and where only one rank can
 * be reached by the others.
 *
 * Source: the gather and broadcast of a flat tree; Li et al. 2024, "TPI-LLM", argues for it where
 * latency rather than volume decides.
 */
#include "plan/plan.h"

int col_plan_build_star(uint32_t world, uint32_t rank, struct collect_plan **plan_out)
{
	if (world == 0 || world > COLLECT_RANKS_MAX || rank >= world)
		return COLLECT_E_INVALID;
	if (world == 1)
		return col_plan_build_alone(COLLECT_STAR, plan_out);

	struct collect_plan *plan;
	int status = col_plan_create(COLLECT_STAR, world, rank, 1, 1, 2 * world, &plan);
	if (status < 0)
		return status;
	col_plan_exchange_add(plan, 0, 0);
	*plan_out = plan;
	return 0;
}
