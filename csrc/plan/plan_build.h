/*
 * What the algorithms share: making a plan, and the routes of slices.
 *
 * For nearly every algorithm a slice's life is two trees of ranks. In the *reduction* each rank
 * joins its children's sums and its own part, in a given order, and sends the result to its parent;
 * the rank without a parent *completes*. In the *distribution* what is complete (or, of collectives
 * that reduce nothing, the contributor's part) goes from each rank to its targets. An algorithm
 * says who is whose parent, source, child and target; plan_route.c makes the steps of it, and finds
 * the receiver's step of every send in the same description.
 */
#ifndef COL_PLAN_PLAN_BUILD_H
#define COL_PLAN_PLAN_BUILD_H

#include "plan/plan.h"

#define COL_WEIGHT_SUM_MAX ((uint64_t)1 << 32)

/* ---- plans --------------------------------------------------------------------------------- */

/* What a builder is asked for. Every field is valid, and world is at least 2. */
struct col_request {
	const struct collect_recipe *recipe;
	int collective;
	uint32_t world;
	uint32_t root; /* COL_RANK_NONE where the collective has none */
	uint32_t rank;
};

/* A plan without lanes. COLLECT_E_MEMORY. */
int col__plan_create(const struct col_request *request, int algorithm, uint32_t slice_count,
                     uint32_t parts, struct collect_plan **plan_out);
/* Room for one more lane and so many steps. COLLECT_E_MEMORY. */
int col__plan_reserve(struct collect_plan *plan, uint32_t step_count);
void col__plan_lane_begin(struct collect_plan *plan, uint32_t slice);
void col__plan_step_add(struct collect_plan *plan, struct col_step step);

/* Whether operands are combined. */
bool col__collective_reduces(int collective);
bool col__collective_has_root(int collective);
/* Static strings; "unknown". */
const char *col__collective_name(int collective);
const char *col__algorithm_name(int algorithm);
bool col__algorithm_has(int algorithm, int collective);

/* ---- routes -------------------------------------------------------------------------------- */

/* A rank's place in the trees of a slice. */
struct col_node {
	uint32_t lane;         /* of the slice at that rank */
	uint32_t parent;       /* COL_RANK_NONE: none */
	uint32_t child_index;  /* its place among the parent's children */
	uint32_t child_count;
	uint32_t own_at;       /* its own part comes after so many children; not after all of them where
	                        * there is a parent and more than one child */
	uint32_t source;       /* COL_RANK_NONE: nobody sends it what is complete */
	uint32_t target_count;
};

struct col_route;

/* An algorithm's description of its trees. The parts that a collective does not have, reduction or
 * distribution, are ignored where it does not reduce, and must be empty otherwise. */
struct col_routing {
	struct col_node (*node)(const struct col_route *route, uint32_t rank);
	uint32_t (*child)(const struct col_route *route, uint32_t rank, uint32_t index);
	uint32_t (*target)(const struct col_route *route, uint32_t rank, uint32_t index);
};

struct col_route {
	const struct col_routing *routing;
	const void *context; /* the algorithm's */
	int collective;
	uint32_t world;
	uint32_t root;
	uint32_t slice;
	uint32_t owner; /* who completes the slice or spreads it */
	uint32_t other; /* the end of a path */
};

/* Adds this rank's lane of a slice. Its number must be what the route says. COLLECT_E_MEMORY. */
int col__route_add(struct collect_plan *plan, const struct col_route *route);

/* Steps that a rank's reduction takes, and the one of them that takes the sum of child `index`. */
uint32_t col__reduction_steps(uint32_t child_count, uint32_t own_at);
uint32_t col__reduction_step(uint32_t own_at, uint32_t index);

/* Adds a completing rank's reduction: `child(index)` gives the ranks. Room is reserved. */
void col__reduction_complete(struct collect_plan *plan, const struct col_route *route,
                             const struct col_node *node);

/* Steps of one kind each. */
struct col_step col__step_take(enum col_opcode opcode, uint32_t peer, unsigned flags);
struct col_step col__step_send(enum col_opcode opcode, uint32_t peer, uint32_t lane, uint32_t step);

/* ---- builders ------------------------------------------------------------------------------ */

typedef int col_builder(const struct col_request *request, struct collect_plan **plan_out);

/* COLLECT_E_INVALID (the recipe is wrong), COLLECT_E_MEMORY. */
col_builder col__build_direct;
col_builder col__build_star;
col_builder col__build_exchange;
col_builder col__build_ring;
col_builder col__build_tree;
col_builder col__build_circulant;
col_builder col__build_doubling;
col_builder col__build_hierarchical;
col_builder col__build_pairwise;
col_builder col__build_bruck;

#endif
