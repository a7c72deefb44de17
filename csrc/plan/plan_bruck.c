/*
 * All-to-all by pairs, and through others.
 *
 * *Pairwise* is direct exchange: lane after lane every rank sends to the next one behind it and
 * receives from the next one before it; see plan_direct.c. It has a name of its own because others
 * have: their p-1 rounds wait for each other, these do not.
 *
 * *Bruck*: a block that has to go d ranks ahead goes 2^b ranks ahead for every bit b of d, lowest
 * first, so that each rank sends to ⌈log2 p⌉ others only.
 *
 *     d = 5   r ──► r+1 ──► r+5
 *
 * Cost for p ranks and S bytes of all blocks together: ⌈log2 p⌉ hops; each rank sends and receives
 * about S/2 log2 p in p/2 log2 p frames, those of one round to the same rank; ⌈log2 p⌉ links each
 * way. Right for tiny blocks where a connection to everybody is too much. All blocks are as large
 * as each other: a rank cannot know the length of what only passes through.
 *
 * Source: Bruck, Ho, Kipnis, Upfal and Weathersby 1997, "Efficient algorithms for all-to-all
 * communications in multiport message-passing systems".
 */
#include "plan/plan_build.h"

static uint32_t distance_of(const struct col_route *route)
{
	return (route->other + route->world - route->owner) % route->world;
}

/* How many distances below `world` have the bit. */
static uint32_t bit_count(uint32_t world, uint32_t bit)
{
	uint32_t rest = world % (2u << bit);
	return world / (2u << bit) * (1u << bit) + (rest > 1u << bit ? rest - (1u << bit) : 0);
}

/* The place of a distance among those that have the bit. */
static uint32_t bit_place(uint32_t distance, uint32_t bit)
{
	return distance >> (bit + 1) << bit | (distance & ((1u << bit) - 1));
}

/* A rank's lanes: what it sends itself, by distance; then, bit after bit, what comes to it from
 * 2^bit ranks before it. */
static struct col_node bruck_node(const struct col_route *route, uint32_t rank)
{
	uint32_t world = route->world;
	uint32_t distance = distance_of(route);
	uint32_t done = (rank + world - route->owner) % world;
	uint32_t left = distance - done;
	struct col_node node = {
		.lane = distance,
		.parent = COL_RANK_NONE,
		.source = COL_RANK_NONE,
		.target_count = left > 0,
	};
	if (done == 0)
		return node;
	uint32_t last = 31u - (uint32_t)__builtin_clz(done);
	node.source = (rank + world - (1u << last)) % world;
	node.lane = world + bit_place(distance, last);
	for (uint32_t bit = 0; bit < last; bit++)
		node.lane += bit_count(world, bit);
	return node;
}

static uint32_t bruck_target(const struct col_route *route, uint32_t rank, uint32_t index)
{
	(void)index;
	uint32_t left = distance_of(route) - (rank + route->world - route->owner) % route->world;
	return (rank + (left & (~left + 1))) % route->world;
}

static const struct col_routing bruck_routing = {bruck_node, NULL, bruck_target};

static int lane_add(struct collect_plan *plan, uint32_t distance, uint32_t done)
{
	uint32_t source = (plan->rank + plan->world - done) % plan->world;
	uint32_t target = (source + distance) % plan->world;
	return col__route_add(plan, &(struct col_route){
		.routing = &bruck_routing,
		.collective = plan->collective,
		.world = plan->world,
		.root = COL_RANK_NONE,
		.slice = source * plan->world + target,
		.owner = source,
		.other = target,
	});
}

static int lanes_add(struct collect_plan *plan)
{
	int status = 0;
	for (uint32_t distance = 0; distance < plan->world && status == 0; distance++)
		status = lane_add(plan, distance, 0);
	for (uint32_t bit = 1; bit < plan->world; bit <<= 1) {
		for (uint32_t distance = bit; distance < plan->world && status == 0; distance++)
			if ((distance & bit) != 0)
				status = lane_add(plan, distance, distance & (2 * bit - 1));
	}
	return status;
}

int col__build_bruck(const struct col_request *request, struct collect_plan **plan_out)
{
	struct collect_plan *plan;
	uint32_t slice_count = request->world * request->world;
	int status = col__plan_create(request, COLLECT_BRUCK, slice_count, 1, &plan);
	if (status < 0)
		return status;
	status = lanes_add(plan);
	if (status < 0) {
		col_plan_destroy(&plan);
		return status;
	}
	*plan_out = plan;
	return 0;
}
