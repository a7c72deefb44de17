/*
 * Direct exchange: every slice has an owner, and everything goes straight to it or from it.
 *
 *     rank 0   IN[1] ──┐
 *     rank 1   IN[1] ──┼──► owner 1: ((IN0 op IN1) op IN2), scale ──┬──► OUT[1] of rank 0
 *     rank 2   IN[1] ──┘                                           └──► OUT[1] of rank 2
 *
 * The owner adds in rank order, its own part at its own place, so the bits of the result depend
 * neither on arrival nor on chunks. The lanes of a rank begin with the slice that it owns and go on
 * with those of the ranks behind it, so that ranks do not all begin with the same receiver.
 *
 *     all_reduce       everybody to the owner, the owner to everybody     2 hops
 *     reduce           everybody to the owner, the owner to the root      2
 *     broadcast        the root to the owner, the owner to everybody      2
 *     reduce_scatter   everybody to the owner                             1
 *     all_gather       the owner to everybody                             1
 *     gather, scatter, all_to_all   straight                              1
 *
 * The root of a reduce or broadcast owns no slice: it has to take or send the whole payload once
 * anyway. With two ranks it owns the only one, and one hop is enough.
 *
 * Cost for p ranks and S bytes: an all_reduce sends and receives 2(p-1)/p S per rank, which is the
 * least possible, and the hops do not grow with p; every rank is linked to every other. Owner
 * weights move load from slow ranks to fast ones: with a share f a rank sends (1 + f (p-2)) S.
 *
 * Source: an all-reduce as a reduce-scatter followed by an all-gather is Rabenseifner's (2004,
 * "Optimization of collective reduction operations"), who halves and doubles; here all pairs
 * exchange at once.
 */
#include "base/alloc.h"
#include "base/assert.h"
#include "plan/plan_build.h"

/* ---- owners -------------------------------------------------------------------------------- */

/* Slices are numbered by owner, from rank 0 on or from the one behind the root. */
static uint32_t owner_first(const struct collect_plan *plan)
{
	bool is_root_left_out = plan->root != COL_RANK_NONE && plan->slice_count > 1;
	return is_root_left_out ? plan->root + 1 : 0;
}

static uint32_t owner_of(const struct collect_plan *plan, uint32_t slice)
{
	if (plan->slice_count == 1)
		return plan->root == COL_RANK_NONE ? 0 : plan->root;
	return (owner_first(plan) + slice) % plan->world;
}

/* The slice of a rank's first lane: its own. The root without one begins with the first. */
static uint32_t slice_first(const struct col_route *route, uint32_t rank)
{
	const struct collect_plan *plan = route->context;
	if (plan->slice_count == 1)
		return 0;
	return (rank + plan->world - owner_first(plan) % plan->world) % plan->world % plan->slice_count;
}

/* ---- trees of one level -------------------------------------------------------------------- */

static struct col_node star_node(const struct col_route *route, uint32_t rank)
{
	const struct collect_plan *plan = route->context;
	uint32_t owner = route->owner;
	uint32_t root = route->root;
	bool is_owner = rank == owner;
	struct col_node node = {
		.lane = (route->slice + plan->slice_count - slice_first(route, rank)) % plan->slice_count,
		.parent = is_owner ? COL_RANK_NONE : owner,
		.child_index = rank - (rank > owner),
		.child_count = is_owner ? route->world - 1 : 0,
		.own_at = is_owner ? owner : 0,
		.source = COL_RANK_NONE,
	};
	switch (route->collective) {
	case COLLECT_REDUCE_SCATTER:
		break;
	case COLLECT_REDUCE:
		node.target_count = is_owner && owner != root;
		node.source = rank == root && owner != root ? owner : COL_RANK_NONE;
		break;
	case COLLECT_BROADCAST:
		node.source = rank == root ? COL_RANK_NONE : is_owner ? root : owner;
		node.target_count = is_owner ? route->world - 1 - (owner != root) : rank == root;
		break;
	default:
		node.source = is_owner ? COL_RANK_NONE : owner;
		node.target_count = is_owner ? route->world - 1 : 0;
	}
	return node;
}

static uint32_t star_child(const struct col_route *route, uint32_t rank, uint32_t index)
{
	COL_ASSERT(rank == route->owner);
	return index + (index >= rank);
}

static uint32_t star_target(const struct col_route *route, uint32_t rank, uint32_t index)
{
	uint32_t world = route->world;
	if (rank != route->owner)
		return route->owner;
	if (route->collective == COLLECT_REDUCE)
		return route->root;
	uint32_t distance = index + 1;
	if (route->collective == COLLECT_BROADCAST && rank != route->root)
		distance += distance >= (route->root + world - rank) % world;
	return (rank + distance) % world;
}

static const struct col_routing star_routing = {star_node, star_child, star_target};

/* ---- paths of one hop ---------------------------------------------------------------------- */

/* Of the ranks' numbers modulo the world, where lanes begin with the rank's own slice. all_to_all:
 * the lanes 2k-1 and 2k send to the kth rank behind and receive from the kth before. */
static uint32_t path_lane(const struct col_route *route, uint32_t rank)
{
	uint32_t distance = (route->other + route->world - route->owner) % route->world;
	switch (route->collective) {
	case COLLECT_ALL_TO_ALL:
		return distance == 0 ? 0 : 2 * distance - (rank == route->owner);
	case COLLECT_GATHER:
		return rank == route->root ? (route->owner + route->world - rank) % route->world : 0;
	default:
		return rank == route->root ? distance : 0;
	}
}

static struct col_node path_node(const struct col_route *route, uint32_t rank)
{
	bool is_source = rank == route->owner;
	return (struct col_node){
		.lane = path_lane(route, rank),
		.parent = COL_RANK_NONE,
		.source = is_source ? COL_RANK_NONE : route->owner,
		.target_count = is_source && route->other != route->owner,
	};
}

static uint32_t path_target(const struct col_route *route, uint32_t rank, uint32_t index)
{
	(void)rank;
	(void)index;
	return route->other;
}

static const struct col_routing path_routing = {path_node, NULL, path_target};

static int path_add(struct collect_plan *plan, uint32_t slice, uint32_t source, uint32_t target)
{
	return col__route_add(plan, &(struct col_route){
		.routing = &path_routing,
		.collective = plan->collective,
		.world = plan->world,
		.root = plan->root,
		.slice = slice,
		.owner = source,
		.other = target,
	});
}

static int all_to_all_add(struct collect_plan *plan)
{
	uint32_t world = plan->world;
	uint32_t rank = plan->rank;
	int status = path_add(plan, rank * world + rank, rank, rank);
	for (uint32_t distance = 1; distance < world && status == 0; distance++) {
		uint32_t after = (rank + distance) % world;
		uint32_t before = (rank + world - distance) % world;
		status = path_add(plan, rank * world + after, rank, after);
		if (status == 0)
			status = path_add(plan, before * world + rank, before, rank);
	}
	return status;
}

/* gather and scatter: the root has a lane for everybody, the others one. */
static int rooted_add(struct collect_plan *plan)
{
	bool is_gather = plan->collective == COLLECT_GATHER;
	bool is_root = plan->rank == plan->root;
	int status = 0;
	for (uint32_t distance = 0; distance < (is_root ? plan->world : 1) && status == 0; distance++) {
		uint32_t rank = (plan->rank + distance) % plan->world;
		status = path_add(plan, rank, is_gather ? rank : plan->root, is_gather ? plan->root : rank);
	}
	return status;
}

/* ---- building ------------------------------------------------------------------------------ */

static int owners_add(struct collect_plan *plan)
{
	struct col_route route = {
		.routing = &star_routing,
		.context = plan,
		.collective = plan->collective,
		.world = plan->world,
		.root = plan->root,
	};
	int status = 0;
	for (uint32_t lane = 0; lane < plan->slice_count && status == 0; lane++) {
		route.slice = (slice_first(&route, plan->rank) + lane) % plan->slice_count;
		route.owner = owner_of(plan, route.slice);
		status = col__route_add(plan, &route);
	}
	return status;
}

static int weights_set(struct collect_plan *plan, const uint32_t *weights)
{
	plan->weights = col_alloc_zeroed(plan->slice_count, sizeof(*weights));
	if (plan->weights == NULL)
		return COLLECT_E_MEMORY;
	plan->weight_sum = 0;
	for (uint32_t slice = 0; slice < plan->slice_count; slice++) {
		plan->weights[slice] = weights[owner_of(plan, slice)];
		plan->weight_sum += plan->weights[slice];
	}
	bool is_right = plan->weight_sum > 0 && plan->weight_sum <= COL_WEIGHT_SUM_MAX;
	return is_right ? 0 : COLLECT_E_INVALID;
}

static int slices_add(struct collect_plan *plan, const struct collect_recipe *recipe)
{
	int collective = plan->collective;
	plan->is_rank_ordered = col__collective_reduces(collective);
	switch (collective) {
	case COLLECT_ALL_TO_ALL: return all_to_all_add(plan);
	case COLLECT_GATHER:
	case COLLECT_SCATTER:    return rooted_add(plan);
	default:                 break;
	}
	int status = 0;
	bool has_shares = !col_collective_has_blocks(collective) && plan->slice_count > 1;
	if (has_shares && recipe->weights != NULL)
		status = weights_set(plan, recipe->weights);
	return status < 0 ? status : owners_add(plan);
}

static int build(const struct col_request *request, int algorithm, uint32_t slice_count,
                 struct collect_plan **plan_out)
{
	struct collect_plan *plan;
	int status = col__plan_create(request, algorithm, slice_count, 1, &plan);
	if (status < 0)
		return status;
	status = slices_add(plan, request->recipe);
	if (status < 0) {
		col_plan_destroy(&plan);
		return status;
	}
	*plan_out = plan;
	return 0;
}

static uint32_t direct_slices(const struct col_request *request)
{
	switch (request->collective) {
	case COLLECT_ALL_TO_ALL: return request->world * request->world;
	case COLLECT_BARRIER:    return 1;
	case COLLECT_REDUCE:
	case COLLECT_BROADCAST:  return request->world - 1;
	default:                 return request->world;
	}
}

int col__build_direct(const struct col_request *request, struct collect_plan **plan_out)
{
	return build(request, COLLECT_DIRECT, direct_slices(request), plan_out);
}

int col__build_star(const struct col_request *request, struct collect_plan **plan_out)
{
	bool has_blocks = col_collective_has_blocks(request->collective);
	return build(request, COLLECT_STAR, has_blocks ? request->world : 1, plan_out);
}

int col__build_pairwise(const struct col_request *request, struct collect_plan **plan_out)
{
	return build(request, COLLECT_PAIRWISE, direct_slices(request), plan_out);
}
