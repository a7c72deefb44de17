/*
 * Double binary tree: two trees over all ranks, half of the payload in each.
 *
 * In each tree the sums go up and the results down, chunk by chunk, so that all levels work at the
 * same time. A rank with children in one tree has none in the other: no rank takes and sends more
 * than about its share of both.
 *
 *     tree 0 (p = 8)   0                  places 1…p-1 form an in-order binary tree, its root's
 *                      │                  parent is place 0; of tree 1 they are numbered the other
 *                      4                  way round (p odd) or shifted by one (p even), which
 *                   ┌──┴──┐               makes the odd places, the leaves, even
 *                   2     6
 *                  ┌┴┐   ┌┴┐
 *                  1 3   5 7
 *
 * The rank at place 0 is the root of a rooted collective, else rank 0. A rank adds its left
 * subtree, its own part, its right subtree: in the order of the places, but not from the left.
 *
 * Cost for p ranks and S bytes: about 2 log2 p dependent hops for an all_reduce, half for a reduce
 * or a broadcast; each rank sends and receives at most 2 S, and S; up to six links per rank. Right
 * for payloads that are too large for a star and too small for 2(p-1) messages each.
 *
 * Source: Sanders, Speck and Träff 2009, "Two-tree algorithms for full bandwidth broadcast,
 * reduction and scan"; the tree by bits of the place as in NCCL 2.4.
 */
#include "base/assert.h"
#include "plan/plan_build.h"

#define NO_PLACE 0xffffffffu

/* A rank's place in the tree of the route's slice, and back. */
static uint32_t place_of(const struct col_route *route, uint32_t rank)
{
	uint32_t p = route->world;
	uint32_t place = (rank + p - route->owner) % p;
	if (place == 0 || route->slice == 0)
		return place;
	if (p % 2 == 1)
		return p - place;
	return place == 1 ? p - 1 : place - 1;
}

static uint32_t rank_at(const struct col_route *route, uint32_t place)
{
	uint32_t p = route->world;
	if (place != 0 && route->slice == 1)
		place = p % 2 == 1 ? p - place : place == p - 1 ? 1 : place + 1;
	return (place + route->owner) % p;
}

static uint32_t lowest_bit(uint32_t place)
{
	return place & (~place + 1);
}

static uint32_t up(uint32_t world, uint32_t place)
{
	uint32_t bit = lowest_bit(place);
	uint32_t above = (place ^ bit) | bit << 1;
	return above < world ? above : place ^ bit;
}

static uint32_t left(uint32_t place)
{
	uint32_t half = place == 0 ? 0 : lowest_bit(place) >> 1;
	return half == 0 ? NO_PLACE : place - half;
}

/* Where the right subtree would begin outside of the world, its left part is in its stead. */
static uint32_t right(uint32_t world, uint32_t place)
{
	uint32_t half = place == 0 ? 1u << 31 : lowest_bit(place) >> 1;
	while (half > 0 && place + half >= world)
		half >>= 1;
	return half == 0 ? NO_PLACE : place + half;
}

static struct col_node tree_node(const struct col_route *route, uint32_t rank)
{
	uint32_t place = place_of(route, rank);
	uint32_t lefts = left(place) != NO_PLACE;
	struct col_node node = {
		.lane = route->slice,
		.parent = COL_RANK_NONE,
		.child_count = lefts + (right(route->world, place) != NO_PLACE),
		.own_at = lefts,
		.source = COL_RANK_NONE,
	};
	if (place != 0) {
		uint32_t parent = up(route->world, place);
		node.parent = rank_at(route, parent);
		node.child_index = place > parent && parent != 0;
	}
	if (route->collective != COLLECT_REDUCE) {
		node.source = node.parent;
		node.target_count = node.child_count;
	}
	return node;
}

static uint32_t tree_child(const struct col_route *route, uint32_t rank, uint32_t index)
{
	uint32_t place = place_of(route, rank);
	uint32_t child = index == 0 ? left(place) : NO_PLACE;
	if (child == NO_PLACE)
		child = right(route->world, place);
	COL_ASSERT(child != NO_PLACE);
	return rank_at(route, child);
}

static const struct col_routing tree_routing = {tree_node, tree_child, tree_child};

int col__build_tree(const struct col_request *request, struct collect_plan **plan_out)
{
	uint32_t slice_count = request->collective == COLLECT_BARRIER ? 1 : 2;
	struct collect_plan *plan;
	int status = col__plan_create(request, COLLECT_TREE, slice_count, 1, &plan);
	if (status < 0)
		return status;
	struct col_route route = {
		.routing = &tree_routing,
		.collective = request->collective,
		.world = request->world,
		.root = request->root,
		.owner = request->root == COL_RANK_NONE ? 0 : request->root,
	};
	for (; route.slice < slice_count && status == 0; route.slice++)
		status = col__route_add(plan, &route);
	if (status < 0) {
		col_plan_destroy(&plan);
		return status;
	}
	*plan_out = plan;
	return 0;
}
