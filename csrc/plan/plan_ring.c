/*
 * Ring, in both directions at once: half of every rank's share goes clockwise, half the other way.
 *
 * The clockwise sum of the slice that rank j owns starts at the rank behind j with that rank's
 * part, travels once around, each rank adding its own, and is complete at j, which scales it. Then
 * the result travels the same way once more. The other half does the same in the other direction.
 *
 *     reduce   j+1 ──► j+2 ──► … ──► j-1 ──► j      gather   j ──► j+1 ──► … ──► j-1
 *
 * reduce_scatter is the first journey and all_gather the second, of two parts of every block.
 * reduce and broadcast are one chain in each direction, to the root or from it: the payload's
 * halves.
 *
 * Cost for p ranks and S bytes: an all_reduce takes 2(p-1) dependent hops; each rank sends and
 * receives 2(p-1)/p S, half of it on each of its two links. A slice is summed in the order of the
 * journey: the same on every rank and in every run, but another than rank order.
 *
 * The recipe may give the order of the ring; places on the ring are numbered, ranks stand at them.
 *
 * Source: Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of
 * workstations", with half of the payload each way round.
 */
#include "base/alloc.h"
#include "base/assert.h"
#include "plan/plan_build.h"

struct ring {
	uint32_t world;
	const uint32_t *order; /* rank at a place; NULL: the same number */
	uint32_t *places;      /* place of a rank; owned; NULL likewise */
};

static int ring_init(struct ring *ring, const struct col_request *request)
{
	*ring = (struct ring){.world = request->world, .order = request->recipe->order};
	if (ring->order == NULL)
		return 0;
	ring->places = col_alloc(ring->world * sizeof(*ring->places));
	if (ring->places == NULL)
		return COLLECT_E_MEMORY;
	for (uint32_t rank = 0; rank < ring->world; rank++)
		ring->places[rank] = COL_RANK_NONE;
	for (uint32_t place = 0; place < ring->world; place++) {
		uint32_t rank = ring->order[place];
		if (rank >= ring->world || ring->places[rank] != COL_RANK_NONE)
			return COLLECT_E_INVALID;
		ring->places[rank] = place;
	}
	return 0;
}

static uint32_t place_of(const struct ring *ring, uint32_t rank)
{
	return ring->places == NULL ? rank : ring->places[rank];
}

/* The rank `distance` places further in the slice's direction: odd slices go the other way. */
static uint32_t ahead(const struct col_route *route, uint32_t rank, uint32_t distance)
{
	const struct ring *ring = route->context;
	uint32_t step = route->slice % 2 == 0 ? distance : ring->world - distance;
	uint32_t place = (place_of(ring, rank) + step) % ring->world;
	return ring->order == NULL ? place : ring->order[place];
}

/* How many places `rank` is ahead of the slice's owner. */
static uint32_t distance_of(const struct col_route *route, uint32_t rank)
{
	const struct ring *ring = route->context;
	uint32_t from = place_of(ring, route->owner);
	uint32_t to = place_of(ring, rank);
	uint32_t clockwise = (to + ring->world - from) % ring->world;
	return route->slice % 2 == 0 ? clockwise : (ring->world - clockwise) % ring->world;
}

/* Lanes are in the order in which sums arrive: those that begin at the rank come first. */
static struct col_node ring_node(const struct col_route *route, uint32_t rank)
{
	uint32_t world = route->world;
	uint32_t distance = distance_of(route, rank);
	bool is_rooted = route->root != COL_RANK_NONE;
	struct col_node node = {
		.lane = is_rooted ? route->slice
		                  : 2 * ((distance + world - 1) % world) + route->slice % 2,
		.parent = distance == 0 ? COL_RANK_NONE : ahead(route, rank, 1),
		.child_count = distance != 1,
		.own_at = distance != 1,
		.source = COL_RANK_NONE,
	};
	if (route->collective == COLLECT_REDUCE || route->collective == COLLECT_REDUCE_SCATTER)
		return node;
	node.source = distance == 0 ? COL_RANK_NONE : ahead(route, rank, world - 1);
	node.target_count = distance != world - 1;
	return node;
}

static uint32_t ring_child(const struct col_route *route, uint32_t rank, uint32_t index)
{
	(void)index;
	return ahead(route, rank, route->world - 1);
}

static uint32_t ring_target(const struct col_route *route, uint32_t rank, uint32_t index)
{
	(void)index;
	return ahead(route, rank, 1);
}

static const struct col_routing ring_routing = {ring_node, ring_child, ring_target};

static int lanes_add(struct collect_plan *plan, const struct ring *ring)
{
	struct col_route route = {
		.routing = &ring_routing,
		.context = ring,
		.collective = plan->collective,
		.world = plan->world,
		.root = plan->root,
	};
	int status = 0;
	for (uint32_t lane = 0; lane < plan->slice_count && status == 0; lane++) {
		route.slice = lane % 2;
		if (plan->root != COL_RANK_NONE) {
			route.owner = plan->root;
		} else {
			uint32_t distance = (lane / 2 + 1) % plan->world;
			route.owner = ahead(&route, plan->rank, (plan->world - distance) % plan->world);
			route.slice += 2 * route.owner;
		}
		status = col__route_add(plan, &route);
	}
	return status;
}

int col__build_ring(const struct col_request *request, struct collect_plan **plan_out)
{
	struct ring ring;
	struct collect_plan *plan = NULL;
	int status = ring_init(&ring, request);
	bool has_blocks = col_collective_has_blocks(request->collective);
	bool is_rooted = request->root != COL_RANK_NONE;
	if (status == 0)
		status = col__plan_create(request, COLLECT_RING, is_rooted ? 2 : 2 * request->world,
		                          has_blocks ? 2 : 1, &plan);
	if (status == 0)
		status = lanes_add(plan, &ring);
	col_free(ring.places);
	if (status < 0) {
		col_plan_destroy(&plan);
		return status;
	}
	*plan_out = plan;
	return 0;
}
