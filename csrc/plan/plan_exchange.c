/*
 * Exchange: everybody sends everybody its whole input, and everybody adds in rank order.
 *
 *     rank 0   IN ──┬──► rank 1: ((IN0 op IN1) op IN2)
 *                   └──► rank 2: ((IN0 op IN1) op IN2)
 *
 * Every rank evaluates the same expression, so the bits agree although nobody sends a result.
 *
 * Cost for p ranks and S bytes: 1 hop; each rank sends and receives (p-1) S and reduces as much.
 * Right for small payloads and for two ranks.
 *
 * Source: the flat all-to-all broadcast; DeepSpeed's small-message path does the same in shared
 * memory.
 */
#include "plan/plan_build.h"

/* Everybody is an owner: its children are all others, in rank order. */
static struct col_node exchange_node(const struct col_route *route, uint32_t rank)
{
	return (struct col_node){
		.parent = COL_RANK_NONE,
		.child_count = route->world - 1,
		.own_at = rank,
		.source = COL_RANK_NONE,
	};
}

static uint32_t exchange_child(const struct col_route *route, uint32_t rank, uint32_t index)
{
	(void)route;
	return index + (index >= rank);
}

static const struct col_routing exchange_routing = {exchange_node, exchange_child, NULL};

int col__build_exchange(const struct col_request *request, struct collect_plan **plan_out)
{
	uint32_t world = request->world;
	uint32_t rank = request->rank;
	struct collect_plan *plan;
	int status = col__plan_create(request, COLLECT_EXCHANGE, 1, 1, &plan);
	if (status < 0)
		return status;
	status = col__plan_reserve(plan, 2 * world);
	if (status < 0) {
		col_plan_destroy(&plan);
		return status;
	}

	col__plan_lane_begin(plan, 0);
	for (uint32_t distance = 1; distance < world; distance++) {
		uint32_t peer = (rank + distance) % world;
		uint32_t step = world - 1 + col__reduction_step(peer, rank - (rank > peer));
		col__plan_step_add(plan, col__step_send(COL_SEND_IN, peer, 0, step));
	}
	struct col_route route = {.routing = &exchange_routing, .world = world};
	struct col_node node = exchange_node(&route, rank);
	col__reduction_complete(plan, &route, &node);
	plan->is_rank_ordered = true;
	*plan_out = plan;
	return 0;
}
