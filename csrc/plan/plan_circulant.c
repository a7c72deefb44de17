/*
 * Circulant: reduce-scatter and all-gather in ⌈log2 p⌉ rounds each, for every p.
 *
 * The skips are p halved upward, again and again: s0 = p, s1 = ⌈p/2⌉, …, 1. In round k every rank r
 * sends what it has for the ranks s_k to s_{k-1} - 1 ahead of it to rank r + s_k, and adds what
 * comes from rank r - s_k. Seen from one slice this is a tree: with i the distance by which its
 * owner is ahead of a rank,
 *
 *     the parent is at distance i - s_k, where s_k ≤ i < s_{k-1}
 *     the children are at i + s_k for the rounds k with i < s_{k-1} - s_k, in the order of rounds
 *
 * and the all-gather is the same tree from the owner, its rounds in reverse. There are no rounds in
 * the plan: a rank goes on with a slice when it has what the slice needs.
 *
 * Cost for p ranks and S bytes: an all_reduce takes 2⌈log2 p⌉ dependent hops; each rank sends and
 * receives 2(p-1)/p S in 2(p-1) messages; 2⌈log2 p⌉ links per rank. Right above the number of ranks
 * that can all be linked to each other.
 *
 * Source: Träff 2024, "Optimal, non-pipelined reduce-scatter and allreduce algorithms",
 * arXiv:2410.14234, with skips by halving.
 */
#include "base/assert.h"
#include "plan/plan_build.h"

#define ROUNDS_MAX 16u

struct circulant {
	uint32_t slice_count;
	uint32_t round_count;
	uint32_t skips[ROUNDS_MAX + 1]; /* [0] is the world */
};

static void circulant_init(struct circulant *circulant, uint32_t world, uint32_t slice_count)
{
	*circulant = (struct circulant){.slice_count = slice_count, .skips = {world}};
	for (uint32_t skip = world; skip > 1;) {
		skip = (skip + 1) / 2;
		circulant->skips[++circulant->round_count] = skip;
	}
}

static uint32_t distance_of(const struct col_route *route, uint32_t rank)
{
	return (route->owner + route->world - rank) % route->world;
}

static bool has_child(const struct circulant *circulant, uint32_t distance, uint32_t round)
{
	return distance < circulant->skips[round - 1] - circulant->skips[round];
}

/* The number of children of the rounds before `end`. */
static uint32_t children_before(const struct circulant *circulant, uint32_t distance, uint32_t end)
{
	uint32_t count = 0;
	for (uint32_t round = 1; round < end; round++)
		count += has_child(circulant, distance, round);
	return count;
}

static struct col_node circulant_node(const struct col_route *route, uint32_t rank)
{
	const struct circulant *circulant = route->context;
	uint32_t distance = distance_of(route, rank);
	struct col_node node = {
		.lane = circulant->slice_count == 1 ? 0 : distance,
		.parent = COL_RANK_NONE,
		.child_count = children_before(circulant, distance, circulant->round_count + 1),
		.source = COL_RANK_NONE,
	};
	if (distance > 0) {
		uint32_t round = 1;
		while (distance < circulant->skips[round])
			round++;
		uint32_t skip = circulant->skips[round];
		node.parent = (rank + skip) % route->world;
		node.child_index = children_before(circulant, distance - skip, round);
	}
	if (route->collective != COLLECT_REDUCE_SCATTER) {
		node.source = node.parent;
		node.target_count = node.child_count;
	}
	return node;
}

static uint32_t circulant_child(const struct col_route *route, uint32_t rank, uint32_t index)
{
	const struct circulant *circulant = route->context;
	uint32_t distance = distance_of(route, rank);
	for (uint32_t round = 1; round <= circulant->round_count; round++) {
		if (has_child(circulant, distance, round) && index-- == 0)
			return (rank + route->world - circulant->skips[round]) % route->world;
	}
	COL_ASSERT(false);
}

/* The child of the last round has the largest subtree, so it gets the result first. */
static uint32_t circulant_target(const struct col_route *route, uint32_t rank, uint32_t index)
{
	uint32_t count = circulant_node(route, rank).child_count;
	return circulant_child(route, rank, count - 1 - index);
}

static const struct col_routing circulant_routing = {
	circulant_node, circulant_child, circulant_target,
};

int col__build_circulant(const struct col_request *request, struct collect_plan **plan_out)
{
	uint32_t slice_count = request->collective == COLLECT_BARRIER ? 1 : request->world;
	struct collect_plan *plan;
	int status = col__plan_create(request, COLLECT_CIRCULANT, slice_count, 1, &plan);
	if (status < 0)
		return status;
	struct circulant circulant;
	circulant_init(&circulant, request->world, slice_count);
	struct col_route route = {
		.routing = &circulant_routing,
		.context = &circulant,
		.collective = request->collective,
		.world = request->world,
		.root = COL_RANK_NONE,
	};
	for (uint32_t lane = 0; lane < slice_count && status == 0; lane++) {
		if (slice_count > 1) {
			route.owner = (request->rank + lane) % request->world;
			route.slice = route.owner;
		}
		status = col__route_add(plan, &route);
	}
	if (status < 0) {
		col_plan_destroy(&plan);
		return status;
	}
	*plan_out = plan;
	return 0;
}
