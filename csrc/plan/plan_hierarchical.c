/*
 * Hierarchical: direct exchange level by level, first within the innermost groups.
 *
 * With a rank's number in a mixed radix (host, site, world: the innermost digit first) a slice's
 * sum is collected for the owner's first digit within each innermost group, then for its second
 * digit among the ranks that agree on the first, and so on. Each rank sends its sum to the rank
 * that has the owner's digit at the lowest level at which they differ:
 *
 *     hosts {0 1 2} {3 4 5}, owner 1      0 ─┐        3 ─┐
 *                                            ├─► 1 ◄─────┼─ 4
 *                                         2 ─┘        5 ─┘
 *
 * The distribution is the same tree, from the owner. Slices have all ranks as owners, so the work
 * of every level is spread over all ranks, and what crosses the outer links has been summed up
 * before. A reduce ends, and a broadcast begins, with a hop between owner and root. An all_to_all
 * takes a block to the target's digits one after the other (plan_transit.c).
 *
 * Where hosts have different numbers of ranks there are two levels, and the rank that stands for
 * the owner on another host is the one at the same place, modulo the host's size.
 *
 * Cost for p ranks with radices r1 … rm and S bytes: an all_reduce takes 2m dependent hops; each
 * rank sends and receives 2(p-1)/p S, of which 2(h-1)/h S of a host with h hosts cross its border;
 * Σ(r-1) links per rank.
 *
 * Source: Cho et al. 2019, "BlueConnect: decomposing all-reduce for deep learning on heterogeneous
 * network hierarchy", has the levels; each of them is direct exchange here.
 */
#include "base/assert.h"
#include "plan/plan_build.h"
#include "plan/plan_levels.h"

/* ---- trees by digits ----------------------------------------------------------------------- */

/* The lowest level at which two ranks differ; the number of levels when they are the same. */
static uint32_t level_of(const struct col_levels *levels, uint32_t rank, uint32_t owner)
{
	uint32_t level = 0;
	while (level < levels->count &&
	       col__levels_digit(levels, rank, level) == col__levels_digit(levels, owner, level))
		level++;
	return level;
}

static uint32_t children_below(const struct col_levels *levels, uint32_t level)
{
	uint32_t count = 0;
	for (uint32_t below = 0; below < level; below++)
		count += levels->radices[below] - 1;
	return count;
}

static struct col_node digits_node(const struct col_levels *levels, uint32_t rank, uint32_t owner)
{
	uint32_t level = level_of(levels, rank, owner);
	struct col_node node = {
		.parent = COL_RANK_NONE,
		.child_count = children_below(levels, level),
	};
	if (level < levels->count) {
		uint32_t digit = col__levels_digit(levels, rank, level);
		uint32_t wanted = col__levels_digit(levels, owner, level);
		node.parent = col__levels_with(levels, rank, level, wanted);
		node.child_index = node.child_count + digit - (digit > wanted);
	}
	return node;
}

static uint32_t digits_child(const struct col_levels *levels, uint32_t rank, uint32_t index)
{
	uint32_t level = 0;
	while (index >= levels->radices[level] - 1)
		index -= levels->radices[level++] - 1;
	uint32_t own = col__levels_digit(levels, rank, level);
	return col__levels_with(levels, rank, level, index + (index >= own));
}

/* Outer levels first, and of a level first the rank behind. */
static uint32_t digits_target(const struct col_levels *levels, uint32_t rank, uint32_t owner,
                              uint32_t index)
{
	uint32_t level = level_of(levels, rank, owner) - 1;
	while (index >= levels->radices[level] - 1)
		index -= levels->radices[level--] - 1;
	uint32_t digit = col__levels_digit(levels, rank, level) + 1 + index;
	return col__levels_with(levels, rank, level, digit % levels->radices[level]);
}

/* ---- trees by hosts ------------------------------------------------------------------------ */

/* Who collects for the owner on a host. */
static uint32_t stand_in(const struct col_levels *levels, uint32_t host, uint32_t owner)
{
	if (host == levels->hosts[owner])
		return owner;
	return col__levels_member(levels, host, levels->indices[owner]);
}

static struct col_node hosts_node(const struct col_levels *levels, uint32_t rank, uint32_t owner)
{
	uint32_t host = levels->hosts[rank];
	uint32_t first = stand_in(levels, host, owner);
	if (rank != first) {
		uint32_t index = levels->indices[rank];
		return (struct col_node){
			.parent = first,
			.child_index = index - (index > levels->indices[first]),
		};
	}
	uint32_t inner = col__levels_host_size(levels, host) - 1;
	if (rank == owner)
		return (struct col_node){
			.parent = COL_RANK_NONE,
			.child_count = inner + levels->host_count - 1,
		};
	uint32_t home = levels->hosts[owner];
	return (struct col_node){
		.parent = owner,
		.child_index = col__levels_host_size(levels, home) - 1 + host - (host > home),
		.child_count = inner,
	};
}

static uint32_t hosts_child(const struct col_levels *levels, uint32_t rank, uint32_t owner,
                            uint32_t index)
{
	uint32_t host = levels->hosts[rank];
	uint32_t inner = col__levels_host_size(levels, host) - 1;
	if (index < inner)
		return col__levels_member(levels, host, index + (index >= levels->indices[rank]));
	uint32_t other = index - inner;
	return stand_in(levels, other + (other >= host), owner);
}

static uint32_t hosts_target(const struct col_levels *levels, uint32_t rank, uint32_t owner,
                             uint32_t index)
{
	uint32_t host = levels->hosts[rank];
	uint32_t outer = rank == owner ? levels->host_count - 1 : 0;
	if (index < outer)
		return stand_in(levels, (host + 1 + index) % levels->host_count, owner);
	return col__levels_member(levels, host, levels->indices[rank] + 1 + index - outer);
}

/* ---- routes -------------------------------------------------------------------------------- */

static struct col_node tree_node(const struct col_route *route, uint32_t rank)
{
	const struct col_levels *levels = route->context;
	return levels->count > 0 ? digits_node(levels, rank, route->owner)
	                         : hosts_node(levels, rank, route->owner);
}

static uint32_t tree_child(const struct col_route *route, uint32_t rank, uint32_t index)
{
	const struct col_levels *levels = route->context;
	return levels->count > 0 ? digits_child(levels, rank, index)
	                         : hosts_child(levels, rank, route->owner, index);
}

static uint32_t tree_target(const struct col_route *route, uint32_t rank, uint32_t index)
{
	const struct col_levels *levels = route->context;
	return levels->count > 0 ? digits_target(levels, rank, route->owner, index)
	                         : hosts_target(levels, rank, route->owner, index);
}

/* A broadcast's root hands the slice to the owner, and is left out where the tree reaches it. */
static void broadcast_set(const struct col_route *route, uint32_t rank, struct col_node *node)
{
	uint32_t root = route->root;
	node->source = rank == root ? COL_RANK_NONE : rank == route->owner ? root : node->parent;
	node->target_count = node->child_count;
	if (root == route->owner)
		return;
	if (rank == root)
		node->target_count++;
	else if (tree_node(route, root).parent == rank)
		node->target_count--;
}

/* A reduce is the mirror of that: the owner hands what it has to the root, which takes its tree's
 * children too, and is left out elsewhere. If the root contributed below and got the result from
 * the owner it would wait for results where the others run ahead, and trees that share links
 * deadlock. */
static void reduce_set(const struct col_route *route, uint32_t rank, struct col_node *node)
{
	uint32_t root = route->root;
	if (root == route->owner)
		return;
	struct col_node left_out = tree_node(route, root);
	if (rank == root) {
		node->parent = COL_RANK_NONE;
		node->child_count++;
		return;
	}
	if (node->parent == left_out.parent && node->child_index > left_out.child_index)
		node->child_index--;
	if (left_out.parent == rank)
		node->child_count--;
	if (rank == route->owner) {
		node->parent = root;
		node->child_index = left_out.child_count;
	}
}

static struct col_node level_node(const struct col_route *route, uint32_t rank)
{
	struct col_node node = tree_node(route, rank);
	bool is_one = route->collective == COLLECT_BARRIER;
	node.lane = is_one ? 0 : (route->slice + route->world - rank) % route->world;
	node.source = COL_RANK_NONE;
	switch (route->collective) {
	case COLLECT_REDUCE_SCATTER:
		break;
	case COLLECT_REDUCE:
		reduce_set(route, rank, &node);
		break;
	case COLLECT_BROADCAST:
		broadcast_set(route, rank, &node);
		break;
	default:
		node.source = node.parent;
		node.target_count = node.child_count;
	}
	return node;
}

static uint32_t level_child(const struct col_route *route, uint32_t rank, uint32_t index)
{
	if (route->collective != COLLECT_REDUCE || route->root == route->owner)
		return tree_child(route, rank, index);
	struct col_node left_out = tree_node(route, route->root);
	if (rank == route->root && index == left_out.child_count)
		return route->owner;
	if (rank == left_out.parent && index >= left_out.child_index)
		index++;
	return tree_child(route, rank, index);
}

static uint32_t level_target(const struct col_route *route, uint32_t rank, uint32_t index)
{
	if (route->collective != COLLECT_BROADCAST || route->root == route->owner)
		return tree_target(route, rank, index);
	if (rank == route->root)
		return index == 0 ? route->owner : tree_target(route, rank, index - 1);
	uint32_t target = tree_target(route, rank, index);
	if (target == route->root) /* the last one, whose turn does not come, is in its stead */
		target = tree_target(route, rank, tree_node(route, rank).child_count - 1);
	return target;
}

static const struct col_routing level_routing = {level_node, level_child, level_target};

static int owners_add(struct collect_plan *plan, const struct col_levels *levels)
{
	struct col_route route = {
		.routing = &level_routing,
		.context = levels,
		.collective = plan->collective,
		.world = plan->world,
		.root = plan->root,
	};
	int status = 0;
	for (uint32_t lane = 0; lane < plan->slice_count && status == 0; lane++) {
		if (plan->slice_count > 1) {
			route.owner = (plan->rank + lane) % plan->world;
			route.slice = route.owner;
		}
		status = col__route_add(plan, &route);
	}
	return status;
}

static uint32_t slices_of(const struct col_request *request)
{
	switch (request->collective) {
	case COLLECT_BARRIER:    return 1;
	case COLLECT_ALL_TO_ALL: return request->world * request->world;
	default:                 return request->world;
	}
}

int col__build_hierarchical(const struct col_request *request, struct collect_plan **plan_out)
{
	struct col_levels levels;
	struct collect_plan *plan = NULL;
	int status = col__levels_init(&levels, request);
	if (status == 0)
		status = col__plan_create(request, COLLECT_HIERARCHICAL, slices_of(request), 1, &plan);
	if (status == 0)
		status = request->collective == COLLECT_ALL_TO_ALL ? col__transit_add(plan, &levels)
		                                                   : owners_add(plan, &levels);
	col__levels_fini(&levels);
	if (status < 0) {
		col_plan_destroy(&plan);
		return status;
	}
	*plan_out = plan;
	return 0;
}
