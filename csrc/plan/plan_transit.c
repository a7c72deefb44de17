/*
 * The hierarchical all-to-all: a block changes one digit at a time, the innermost first, from its
 * source's to its target's. With hosts of different sizes it goes first to the rank of its source's
 * host that is at the target's place there, then to the target.
 *
 *     digits (a, b) ──► (a', b) ──► (a', b')
 *
 * A rank's lanes: first its own blocks, by distance; then what comes to it, in an order that sender
 * and receiver can both compute.
 */
#include "plan/plan_levels.h"

/* ---- by digits ----------------------------------------------------------------------------- */

/* What comes over level `level`: any lower digits of the source, another digit of the level, any
 * higher digits of the target. */
static uint32_t level_lane(const struct col_levels *levels, const struct col_route *route,
                           uint32_t rank, uint32_t level)
{
	uint32_t base = levels->world;
	for (uint32_t below = 0; below < level; below++)
		base += levels->world / levels->radices[below] * (levels->radices[below] - 1);
	uint32_t radix = levels->radices[level];
	uint32_t digit = col__levels_digit(levels, rank, level);
	uint32_t before = col__levels_digit(levels, route->owner, level);
	uint32_t turn = (before + radix - digit) % radix - 1;
	uint32_t high = route->other / levels->strides[level + 1];
	uint32_t low = route->owner % levels->strides[level];
	return base + (high * (radix - 1) + turn) * levels->strides[level] + low;
}

static struct col_node digits_node(const struct col_route *route, uint32_t rank)
{
	const struct col_levels *levels = route->context;
	struct col_node node = {
		.lane = (route->other + levels->world - rank) % levels->world,
		.parent = COL_RANK_NONE,
		.source = COL_RANK_NONE,
		.target_count = rank != route->other,
	};
	for (uint32_t level = levels->count; level-- > 0;) {
		uint32_t before = col__levels_digit(levels, route->owner, level);
		if (before == col__levels_digit(levels, rank, level))
			continue;
		node.source = col__levels_with(levels, rank, level, before);
		node.lane = level_lane(levels, route, rank, level);
		break;
	}
	return node;
}

static uint32_t digits_target(const struct col_route *route, uint32_t rank, uint32_t index)
{
	const struct col_levels *levels = route->context;
	(void)index;
	uint32_t level = 0;
	while (col__levels_digit(levels, rank, level) == col__levels_digit(levels, route->other, level))
		level++;
	return col__levels_with(levels, rank, level,
	                        col__levels_digit(levels, route->other, level));
}

static const struct col_routing digits_routing = {digits_node, NULL, digits_target};

/* ---- by hosts ------------------------------------------------------------------------------ */

/* Through whom a block goes; its source or target where it goes straight. */
static uint32_t between(const struct col_levels *levels, uint32_t source, uint32_t target)
{
	uint32_t host = levels->hosts[source];
	if (host == levels->hosts[target])
		return target;
	return col__levels_member(levels, host, levels->indices[target]);
}

/* How many places of `host` are those of `rank` modulo the size of its host. */
static uint32_t places_count(const struct col_levels *levels, uint32_t rank, uint32_t host)
{
	uint32_t size = col__levels_host_size(levels, host);
	uint32_t index = levels->indices[rank];
	uint32_t step = col__levels_host_size(levels, levels->hosts[rank]);
	return size > index ? (size - index - 1) / step + 1 : 0;
}

/* For how many ranks of the hosts before `end` the rank is between its own host and theirs. */
static uint32_t targets_before(const struct col_levels *levels, uint32_t rank, uint32_t end)
{
	uint32_t count = 0;
	for (uint32_t host = 0; host < end; host++)
		if (host != levels->hosts[rank])
			count += places_count(levels, rank, host);
	return count;
}

static uint32_t between_lane(const struct col_levels *levels, const struct col_route *route,
                             uint32_t rank)
{
	uint32_t target = route->other;
	uint32_t step = col__levels_host_size(levels, levels->hosts[rank]);
	uint32_t place = targets_before(levels, rank, levels->hosts[target]) +
	                 levels->indices[target] / step;
	uint32_t count = targets_before(levels, rank, levels->host_count);
	uint32_t source = levels->indices[route->owner];
	source -= source > levels->indices[rank];
	return 2 * levels->world - 1 + source * count + place;
}

static struct col_node hosts_node(const struct col_route *route, uint32_t rank)
{
	const struct col_levels *levels = route->context;
	uint32_t source = route->owner;
	uint32_t target = route->other;
	struct col_node node = {
		.lane = (target + levels->world - rank) % levels->world,
		.parent = COL_RANK_NONE,
		.source = COL_RANK_NONE,
		.target_count = rank != target,
	};
	if (rank == source)
		return node;
	uint32_t middle = between(levels, source, target);
	if (rank == target) {
		node.lane = levels->world + source - (source > rank);
		node.source = middle == target ? source : middle;
	} else {
		node.lane = between_lane(levels, route, rank);
		node.source = source;
	}
	return node;
}

static uint32_t hosts_target(const struct col_route *route, uint32_t rank, uint32_t index)
{
	(void)index;
	if (rank != route->owner)
		return route->other;
	uint32_t middle = between(route->context, route->owner, route->other);
	return middle == rank ? route->other : middle;
}

static const struct col_routing hosts_routing = {hosts_node, NULL, hosts_target};

/* ---- lanes --------------------------------------------------------------------------------- */

static int lane_add(struct collect_plan *plan, const struct col_levels *levels, uint32_t source,
                    uint32_t target)
{
	return col__route_add(plan, &(struct col_route){
		.routing = levels->count > 0 ? &digits_routing : &hosts_routing,
		.context = levels,
		.collective = plan->collective,
		.world = plan->world,
		.root = COL_RANK_NONE,
		.slice = source * plan->world + target,
		.owner = source,
		.other = target,
	});
}

static int level_add(struct collect_plan *plan, const struct col_levels *levels, uint32_t level)
{
	uint32_t radix = levels->radices[level];
	uint32_t stride = levels->strides[level];
	uint32_t digit = col__levels_digit(levels, plan->rank, level);
	uint32_t outer = levels->strides[level + 1];
	uint32_t count = plan->world / outer * (radix - 1) * stride;
	int status = 0;
	for (uint32_t lane = 0; lane < count && status == 0; lane++) {
		uint32_t low = lane % stride;
		uint32_t turn = lane / stride % (radix - 1);
		uint32_t high = lane / stride / (radix - 1);
		uint32_t source = plan->rank - plan->rank % stride + low;
		source = col__levels_with(levels, source, level, (digit + 1 + turn) % radix);
		status = lane_add(plan, levels, source, high * outer + plan->rank % outer);
	}
	return status;
}

/* What comes to the rank, and what goes through it. */
static int hosts_add(struct collect_plan *plan, const struct col_levels *levels)
{
	uint32_t rank = plan->rank;
	uint32_t home = levels->hosts[rank];
	uint32_t step = col__levels_host_size(levels, home);
	int status = 0;
	for (uint32_t source = 0; source < plan->world && status == 0; source++)
		if (source != rank)
			status = lane_add(plan, levels, source, rank);
	for (uint32_t index = 0; index < step; index++) {
		uint32_t source = col__levels_member(levels, home, index);
		for (uint32_t host = 0; host < levels->host_count && source != rank; host++) {
			uint32_t count = host == home ? 0 : places_count(levels, rank, host);
			for (uint32_t i = 0; i < count && status == 0; i++) {
				uint32_t place = levels->indices[rank] + i * step;
				status = lane_add(plan, levels, source, col__levels_member(levels, host, place));
			}
		}
	}
	return status;
}

int col__transit_add(struct collect_plan *plan, const struct col_levels *levels)
{
	int status = 0;
	for (uint32_t distance = 0; distance < plan->world && status == 0; distance++)
		status = lane_add(plan, levels, plan->rank, (plan->rank + distance) % plan->world);
	if (levels->count == 0)
		return status == 0 ? hosts_add(plan, levels) : status;
	for (uint32_t level = 0; level < levels->count && status == 0; level++)
		status = level_add(plan, levels, level);
	return status;
}
