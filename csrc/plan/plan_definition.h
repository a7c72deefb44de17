/*
 * Definitions: algorithms of the caller's own, as trees (struct collect_definition). Nothing of
 * them is trusted: their shape is checked before anything is made of it, and the plans of all ranks
 * are proven before one runs.
 */
#ifndef COL_PLAN_PLAN_DEFINITION_H
#define COL_PLAN_PLAN_DEFINITION_H

#include "plan/plan.h"

/* A definition whose shape is right, with everybody's place in its trees. */
struct col_trees;

/*
 * The definition is borrowed until the trees are destroyed. COLLECT_E_INVALID: something is out of
 * its range, or no tree: reason_out (capacity bytes; may be NULL) names slice and rank.
 * COLLECT_E_MEMORY.
 */
int col_trees_create(const struct collect_definition *definition, char *reason_out,
                     size_t capacity, struct col_trees **trees_out);
void col_trees_destroy(struct col_trees **trees);

/* The plan of `rank`, with the trees turned to `root`: a rank, or COL_RANK_NONE where the
 * collective has none. COLLECT_E_INVALID, COLLECT_E_MEMORY. */
int col_trees_build(const struct col_trees *trees, uint32_t root, uint32_t rank,
                    struct collect_plan **plan_out);

/* col_plan_check of all ranks' plans. Roots differ in nothing but the ranks' names, so one is
 * enough. */
int col_trees_prove(const struct col_trees *trees, uint32_t credit, char *reason_out,
                    size_t capacity);

/* Whether definitions can be of this collective. */
bool col_definition_can(int collective);

#endif
