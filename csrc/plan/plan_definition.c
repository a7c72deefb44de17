/* From a definition's edges to the routes of plan_build.h; what is no tree is refused here. */
#include "plan/plan_definition.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "plan/plan_build.h"
#include "plan/plan_check.h"

/* A rank in a slice. In lists of a slice, its children and targets begin at … */
struct place {
	struct col_node node;
	uint32_t child_begin;
	uint32_t target_begin;
};

struct col_trees {
	const struct collect_definition *definition; /* borrowed */
	uint32_t world;
	uint32_t parts;        /* slices of a block; 1 where there are no blocks */
	bool reduces;
	struct place *places;  /* slice * world + rank; owned, as the rest */
	uint32_t *origins;     /* by slice: who completes it, or contributes it */
	uint32_t *children;    /* ranks; world of them for each slice */
	uint32_t *targets;     /* likewise */
	uint8_t *marks;        /* by rank, see cycle_check */
};

struct reason {
	char *text_out;
	size_t capacity;
};

__attribute__((format(printf, 2, 3)))
static int refuse(struct reason reason, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	if (reason.text_out != NULL)
		(void)vsnprintf(reason.text_out, reason.capacity, format, arguments);
	va_end(arguments);
	return COLLECT_E_INVALID;
}

/* ---- ranges -------------------------------------------------------------------------------- */

bool col_definition_can(int collective)
{
	return collective >= 0 && collective < COLLECT_COLLECTIVE_COUNT &&
	       collective != COLLECT_ALL_TO_ALL && collective != COLLECT_BARRIER;
}

static bool name_is_valid(const char *name)
{
	size_t length = 0;
	if (name == NULL)
		return false;
	for (; length < COLLECT_NAME_BYTES_MAX && name[length] != '\0'; length++)
		if (name[length] <= ' ' || name[length] > '~')
			return false;
	return length > 0 && length < COLLECT_NAME_BYTES_MAX;
}

static int ranges_check(const struct collect_definition *it, struct reason reason)
{
	if (!name_is_valid(it->name))
		return refuse(reason, "the name is not 1 to %d printable characters",
		              COLLECT_NAME_BYTES_MAX - 1);
	if (it->algorithm < COLLECT_ALGORITHM_DEFINED)
		return refuse(reason, "number %d is not at least %d", it->algorithm,
		              COLLECT_ALGORITHM_DEFINED);
	if (!col_definition_can(it->collective))
		return refuse(reason, "%s cannot be defined", col__collective_name(it->collective));
	if (it->world < 2 || it->world > COLLECT_RANKS_MAX)
		return refuse(reason, "a world of %" PRIu32 " ranks is not in 2 to %d", it->world,
		              COLLECT_RANKS_MAX);
	if (it->slices == NULL || it->slice_count == 0 || it->slice_count > COLLECT_SLICES_MAX)
		return refuse(reason, "%" PRIu32 " slices are not in 1 to %d", it->slice_count,
		              COLLECT_SLICES_MAX);
	if ((uint64_t)it->slice_count * it->world > COLLECT_PLACES_MAX)
		return refuse(reason, "%" PRIu32 " slices of %" PRIu32 " ranks are more than %d places",
		              it->slice_count, it->world, COLLECT_PLACES_MAX);
	if (col_collective_has_blocks(it->collective) && it->slice_count % it->world != 0)
		return refuse(reason, "%" PRIu32 " slices are not as many for each of %" PRIu32 " blocks",
		              it->slice_count, it->world);
	return 0;
}

static int cut_check(const struct collect_definition *it, struct reason reason)
{
	bool has_blocks = col_collective_has_blocks(it->collective);
	uint32_t parts = has_blocks ? it->slice_count / it->world : 1;
	uint64_t weight_sum = 0;
	for (uint32_t slice = 0; slice < it->slice_count; slice++) {
		const struct collect_slice *at = &it->slices[slice];
		uint32_t block = has_blocks ? slice / parts : 0;
		weight_sum += at->weight;
		if (at->block != block)
			return refuse(reason, "slice %" PRIu32 ": it is of block %" PRIu32 " and must be of "
			              "block %" PRIu32, slice, at->block, block);
		if (at->weight == 0 || (has_blocks && at->weight != 1))
			return refuse(reason, "slice %" PRIu32 ": weight %" PRIu32 " is not %s", slice,
			              at->weight, has_blocks ? "1, as blocks' slices have" : "at least 1");
	}
	if (weight_sum > COL_WEIGHT_SUM_MAX)
		return refuse(reason, "the weights add up to more than 2^32");
	return 0;
}

/* ---- trees --------------------------------------------------------------------------------- */

static struct place *places_of(const struct col_trees *trees, uint32_t slice)
{
	return &trees->places[(size_t)slice * trees->world];
}

static uint32_t *parent_of(struct place *place, bool is_reduce)
{
	return is_reduce ? &place->node.parent : &place->node.source;
}

/* Everybody's parent. */
static int parents_read(struct col_trees *trees, uint32_t slice, bool is_reduce,
                        struct reason reason)
{
	const struct collect_slice *it = &trees->definition->slices[slice];
	const struct collect_edge *edges = is_reduce ? it->reduce : it->spread;
	uint32_t count = is_reduce ? it->reduce_count : it->spread_count;
	const char *tree = is_reduce ? "reduce" : "spread";
	struct place *places = places_of(trees, slice);
	if (count >= trees->world || (count > 0 && edges == NULL))
		return refuse(reason, "slice %" PRIu32 ": %s has %" PRIu32 " edges; %" PRIu32
		              " ranks make a tree with %" PRIu32, slice, tree, count, trees->world,
		              trees->world - 1);
	for (uint32_t i = 0; i < count; i++) {
		struct collect_edge edge = edges[i];
		if (edge.rank >= trees->world || edge.parent >= trees->world || edge.rank == edge.parent)
			return refuse(reason, "slice %" PRIu32 ": %s has an edge from %" PRIu32 " to %" PRIu32
			              ", which are not two of the ranks 0 to %" PRIu32, slice, tree, edge.rank,
			              edge.parent, trees->world - 1);
		uint32_t *parent = parent_of(&places[edge.rank], is_reduce);
		if (*parent != COL_RANK_NONE)
			return refuse(reason, "slice %" PRIu32 ": %s gives rank %" PRIu32 " two parents, %"
			              PRIu32 " and %" PRIu32, slice, tree, edge.rank, *parent, edge.parent);
		*parent = edge.parent;
	}
	return 0;
}

/* marks: ends above, or on the way that is followed. */
enum { UNSEEN, ENDS, FOLLOWED };

static int cycle_check(struct col_trees *trees, uint32_t slice, bool is_reduce,
                       struct reason reason)
{
	struct place *places = places_of(trees, slice);
	memset(trees->marks, UNSEEN, trees->world);
	for (uint32_t rank = 0; rank < trees->world; rank++) {
		uint32_t at = rank;
		for (; at != COL_RANK_NONE && trees->marks[at] == UNSEEN;
		     at = *parent_of(&places[at], is_reduce))
			trees->marks[at] = FOLLOWED;
		if (at != COL_RANK_NONE && trees->marks[at] == FOLLOWED)
			return refuse(reason, "slice %" PRIu32 ": %s is a cycle: from rank %" PRIu32
			              " by way of rank %" PRIu32 " back to rank %" PRIu32, slice,
			              is_reduce ? "reduce" : "spread", at,
			              *parent_of(&places[at], is_reduce), at);
		for (at = rank; at != COL_RANK_NONE && trees->marks[at] == FOLLOWED;
		     at = *parent_of(&places[at], is_reduce))
			trees->marks[at] = ENDS;
	}
	return 0;
}

/* The children of each rank, in the order of the edges. */
static void lists_fill(struct col_trees *trees, uint32_t slice, bool is_reduce)
{
	const struct collect_slice *it = &trees->definition->slices[slice];
	const struct collect_edge *edges = is_reduce ? it->reduce : it->spread;
	uint32_t count = is_reduce ? it->reduce_count : it->spread_count;
	struct place *places = places_of(trees, slice);
	uint32_t *list = (is_reduce ? trees->children : trees->targets) + (size_t)slice * trees->world;
	for (uint32_t i = 0; i < count; i++) {
		struct col_node *parent = &places[edges[i].parent].node;
		if (is_reduce)
			places[edges[i].rank].node.child_index = parent->child_count++;
		else
			parent->target_count++;
	}
	uint32_t begin = 0;
	for (uint32_t rank = 0; rank < trees->world; rank++) {
		struct place *place = &places[rank];
		*(is_reduce ? &place->child_begin : &place->target_begin) = begin;
		begin += is_reduce ? place->node.child_count : place->node.target_count;
		/* For now, where the next one goes. */
		if (!is_reduce)
			place->node.target_count = 0;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct place *parent = &places[edges[i].parent];
		if (is_reduce)
			list[parent->child_begin + places[edges[i].rank].node.child_index] = edges[i].rank;
		else
			list[parent->target_begin + parent->node.target_count++] = edges[i].rank;
	}
}

/* Everybody but one sends its sum to somebody. */
static int owner_find(struct col_trees *trees, uint32_t slice, struct reason reason)
{
	struct place *places = places_of(trees, slice);
	uint32_t owner = COL_RANK_NONE;
	uint32_t other = COL_RANK_NONE;
	for (uint32_t rank = 0; rank < trees->world; rank++) {
		if (places[rank].node.parent != COL_RANK_NONE)
			continue;
		bool is_first = owner == COL_RANK_NONE;
		bool is_better = !is_first && places[owner].node.child_count == 0;
		if (!is_first)
			other = is_better ? owner : rank;
		if (is_first || is_better)
			owner = rank;
	}
	COL_ASSERT(owner != COL_RANK_NONE); /* else there is a cycle */
	if (other != COL_RANK_NONE && places[other].node.child_count > 0)
		return refuse(reason, "slice %" PRIu32 ": two owners: neither rank %" PRIu32 " nor rank %"
		              PRIu32 " sends its sum to anybody", slice, owner, other);
	if (other != COL_RANK_NONE)
		return refuse(reason, "slice %" PRIu32 ": the part of rank %" PRIu32 " is missing: reduce "
		              "has no parent for it", slice, other);
	trees->origins[slice] = owner;
	return 0;
}

/* Own parts stand where their ranks would, but not behind what is forwarded as it comes. */
static void own_parts_place(struct col_trees *trees, uint32_t slice)
{
	struct place *places = places_of(trees, slice);
	for (uint32_t rank = 0; rank < trees->world; rank++) {
		struct col_node *node = &places[rank].node;
		const uint32_t *children =
			trees->children + (size_t)slice * trees->world + places[rank].child_begin;
		while (node->own_at < node->child_count && children[node->own_at] < rank)
			node->own_at++;
		bool forwards = node->parent != COL_RANK_NONE && node->child_count > 1;
		if (forwards && node->own_at == node->child_count)
			node->own_at--;
	}
}

static bool is_needer(const struct col_trees *trees, uint32_t slice, uint32_t rank)
{
	struct collect_plan plan = {
		.collective = trees->definition->collective,
		.world = trees->world,
		.root = 0,
		.parts = trees->parts,
	};
	return col_plan_needs(&plan, slice, rank);
}

static int spread_check(struct col_trees *trees, uint32_t slice, struct reason reason)
{
	struct place *places = places_of(trees, slice);
	uint32_t origin = trees->origins[slice];
	if (places[origin].node.source != COL_RANK_NONE)
		return refuse(reason, "slice %" PRIu32 ": spread sends to rank %" PRIu32 ", where it "
		              "begins", slice, origin);
	for (uint32_t rank = 0; rank < trees->world; rank++) {
		const struct col_node *node = &places[rank].node;
		bool has = rank == origin || node->source != COL_RANK_NONE;
		if (node->target_count > 0 && !has)
			return refuse(reason, "slice %" PRIu32 ": spread has rank %" PRIu32 " send what nobody "
			              "sends to it", slice, rank);
		if (!has && is_needer(trees, slice, rank))
			return refuse(reason, "slice %" PRIu32 ": spread has nobody send to rank %" PRIu32
			              ", which needs the result", slice, rank);
	}
	return 0;
}

static int slice_read(struct col_trees *trees, uint32_t slice, struct reason reason)
{
	struct place *places = places_of(trees, slice);
	for (uint32_t rank = 0; rank < trees->world; rank++)
		places[rank].node = (struct col_node){.parent = COL_RANK_NONE, .source = COL_RANK_NONE};
	/* Who contributes what is not reduced: the root, which is rank 0, or whose block it is. */
	trees->origins[slice] = trees->definition->slices[slice].block;
	if (trees->definition->collective == COLLECT_SCATTER)
		trees->origins[slice] = 0;
	if (!trees->reduces && trees->definition->slices[slice].reduce_count > 0)
		return refuse(reason, "slice %" PRIu32 ": %s reduces nothing", slice,
		              col__collective_name(trees->definition->collective));
	for (int is_reduce = trees->reduces; is_reduce >= 0; is_reduce--) {
		int status = parents_read(trees, slice, is_reduce, reason);
		if (status == 0)
			status = cycle_check(trees, slice, is_reduce, reason);
		if (status < 0)
			return status;
		lists_fill(trees, slice, is_reduce);
		status = is_reduce ? owner_find(trees, slice, reason) : spread_check(trees, slice, reason);
		if (status < 0)
			return status;
		if (is_reduce)
			own_parts_place(trees, slice);
	}
	return 0;
}

/* ---- lanes --------------------------------------------------------------------------------- */

static bool has_lane(const struct col_trees *trees, uint32_t slice, uint32_t rank)
{
	return trees->reduces || rank == trees->origins[slice] ||
	       places_of(trees, slice)[rank].node.source != COL_RANK_NONE;
}

/* A rank's lanes begin with the first slice of its own and go on with those behind it, so that
 * ranks do not all begin with the same. */
static uint32_t slice_first(const struct col_trees *trees, uint32_t rank)
{
	for (uint32_t slice = 0; slice < trees->definition->slice_count; slice++)
		if (trees->origins[slice] == rank)
			return slice;
	return 0;
}

static void lanes_number(struct col_trees *trees)
{
	uint32_t slice_count = trees->definition->slice_count;
	for (uint32_t rank = 0; rank < trees->world; rank++) {
		uint32_t first = slice_first(trees, rank);
		uint32_t lane = 0;
		for (uint32_t i = 0; i < slice_count; i++) {
			uint32_t slice = (first + i) % slice_count;
			if (has_lane(trees, slice, rank))
				places_of(trees, slice)[rank].node.lane = lane++;
		}
	}
}

/* ---- life ---------------------------------------------------------------------------------- */

void col_trees_destroy(struct col_trees **trees)
{
	if (*trees == NULL)
		return;
	col_free((*trees)->places);
	col_free((*trees)->origins);
	col_free((*trees)->children);
	col_free((*trees)->targets);
	col_free((*trees)->marks);
	col_free(*trees);
	*trees = NULL;
}

static int trees_alloc(const struct collect_definition *definition, struct col_trees **trees_out)
{
	struct col_trees *trees = col_alloc_zeroed(1, sizeof(*trees));
	if (trees == NULL)
		return COLLECT_E_MEMORY;
	size_t place_count = (size_t)definition->slice_count * definition->world;
	bool has_blocks = col_collective_has_blocks(definition->collective);
	trees->definition = definition;
	trees->world = definition->world;
	trees->parts = has_blocks ? definition->slice_count / definition->world : 1;
	trees->reduces = col__collective_reduces(definition->collective);
	trees->places = col_alloc_zeroed(place_count, sizeof(*trees->places));
	trees->origins = col_alloc_zeroed(definition->slice_count, sizeof(*trees->origins));
	trees->children = col_alloc_zeroed(place_count, sizeof(*trees->children));
	trees->targets = col_alloc_zeroed(place_count, sizeof(*trees->targets));
	trees->marks = col_alloc_zeroed(definition->world, sizeof(*trees->marks));
	*trees_out = trees;
	return trees->places != NULL && trees->origins != NULL && trees->children != NULL &&
	       trees->targets != NULL && trees->marks != NULL ? 0 : COLLECT_E_MEMORY;
}

int col_trees_create(const struct collect_definition *definition, char *reason_out,
                     size_t capacity, struct col_trees **trees_out)
{
	struct reason reason = {reason_out, capacity};
	struct col_trees *trees = NULL;
	int status = ranges_check(definition, reason);
	if (status == 0)
		status = cut_check(definition, reason);
	if (status == 0)
		status = trees_alloc(definition, &trees);
	for (uint32_t slice = 0; status == 0 && slice < definition->slice_count; slice++)
		status = slice_read(trees, slice, reason);
	if (status < 0) {
		col_trees_destroy(&trees);
		return status;
	}
	lanes_number(trees);
	*trees_out = trees;
	return 0;
}

/* ---- plans --------------------------------------------------------------------------------- */

/* A slice's trees, with ranks counted from the root on. */
struct view {
	const struct col_trees *trees;
	uint32_t slice; /* of the definition */
	uint32_t shift;
};

static uint32_t turned(const struct view *view, uint32_t rank)
{
	return rank == COL_RANK_NONE ? rank : (rank + view->shift) % view->trees->world;
}

static const struct place *place_of(const struct view *view, uint32_t rank)
{
	uint32_t world = view->trees->world;
	return &places_of(view->trees, view->slice)[(rank + world - view->shift) % world];
}

static struct col_node node_of(const struct col_route *route, uint32_t rank)
{
	struct col_node node = place_of(route->context, rank)->node;
	node.parent = turned(route->context, node.parent);
	node.source = turned(route->context, node.source);
	return node;
}

static uint32_t child_of(const struct col_route *route, uint32_t rank, uint32_t index)
{
	const struct view *view = route->context;
	size_t begin = (size_t)view->slice * view->trees->world + place_of(view, rank)->child_begin;
	return turned(view, view->trees->children[begin + index]);
}

static uint32_t target_of(const struct col_route *route, uint32_t rank, uint32_t index)
{
	const struct view *view = route->context;
	size_t begin = (size_t)view->slice * view->trees->world + place_of(view, rank)->target_begin;
	return turned(view, view->trees->targets[begin + index]);
}

static const struct col_routing defined_routing = {node_of, child_of, target_of};

static int weights_copy(const struct collect_definition *definition, struct collect_plan *plan)
{
	bool are_equal = true;
	for (uint32_t slice = 1; slice < plan->slice_count; slice++)
		are_equal &= definition->slices[slice].weight == definition->slices[0].weight;
	if (are_equal)
		return 0;
	plan->weights = col_alloc_zeroed(plan->slice_count, sizeof(*plan->weights));
	if (plan->weights == NULL)
		return COLLECT_E_MEMORY;
	plan->weight_sum = 0;
	for (uint32_t slice = 0; slice < plan->slice_count; slice++) {
		plan->weights[slice] = definition->slices[slice].weight;
		plan->weight_sum += definition->slices[slice].weight;
	}
	return 0;
}

static int lanes_add(const struct col_trees *trees, struct collect_plan *plan)
{
	struct view view = {.trees = trees, .shift = plan->root == COL_RANK_NONE ? 0 : plan->root};
	struct col_route route = {
		.routing = &defined_routing,
		.context = &view,
		.collective = plan->collective,
		.world = plan->world,
		.root = plan->root,
	};
	uint32_t rank = (plan->rank + plan->world - view.shift) % plan->world;
	uint32_t first = slice_first(trees, rank);
	int status = 0;
	for (uint32_t i = 0; i < plan->slice_count && status == 0; i++) {
		view.slice = (first + i) % plan->slice_count;
		if (!has_lane(trees, view.slice, rank))
			continue;
		/* Blocks turn with the ranks whose they are. */
		route.slice = view.slice;
		if (col_collective_has_blocks(plan->collective))
			route.slice = turned(&view, view.slice / plan->parts) * plan->parts +
			              view.slice % plan->parts;
		status = col__route_add(plan, &route);
	}
	return status;
}

int col_trees_build(const struct col_trees *trees, uint32_t root, uint32_t rank,
                    struct collect_plan **plan_out)
{
	const struct collect_definition *definition = trees->definition;
	bool is_rooted = col__collective_has_root(definition->collective);
	if (rank >= trees->world || (is_rooted ? root >= trees->world : root != COL_RANK_NONE))
		return COLLECT_E_INVALID;
	struct col_request request = {
		.collective = definition->collective,
		.world = trees->world,
		.root = root,
		.rank = rank,
	};
	struct collect_plan *plan;
	int status = col__plan_create(&request, definition->algorithm, definition->slice_count,
	                              trees->parts, &plan);
	if (status < 0)
		return status;
	(void)snprintf(plan->name, sizeof(plan->name), "%s", definition->name);
	status = weights_copy(definition, plan);
	if (status == 0)
		status = lanes_add(trees, plan);
	if (status < 0) {
		col_plan_destroy(&plan);
		return status;
	}
	*plan_out = plan;
	return 0;
}

int col_trees_prove(const struct col_trees *trees, uint32_t credit, char *reason_out,
                    size_t capacity)
{
	uint32_t world = trees->world;
	bool is_rooted = col__collective_has_root(trees->definition->collective);
	struct collect_plan **plans = col_alloc_zeroed(world, sizeof(struct collect_plan *));
	if (plans == NULL)
		return COLLECT_E_MEMORY;
	int status = 0;
	for (uint32_t rank = 0; rank < world && status == 0; rank++)
		status = col_trees_build(trees, is_rooted ? 0 : COL_RANK_NONE, rank, &plans[rank]);
	if (status == 0)
		status = col_plan_check(plans, world, credit, reason_out, capacity);
	for (uint32_t rank = 0; rank < world; rank++)
		col_plan_destroy(&plans[rank]);
	col_free(plans);
	return status;
}
