/* Sub-groups of a world, and operations of theirs. */
#ifndef COL_TEST_SCOPES_H
#define COL_TEST_SCOPES_H

#include "comm/world.h"

/* One sub-group: the comm of each member, by peer. */
struct scope {
	uint32_t name;
	uint32_t mask;
	collect_comm *comms[WORLD_MAX];
};

/* Makes it on the peers of `makers`; its members are those of `mask`, the last peer first if
 * is_reversed. */
void scope_make(struct world *world, struct scope *scope, uint32_t makers, bool is_reversed);
void scope_open(struct world *world, struct scope *scope, uint32_t name, uint32_t mask);
/* On all its members that are still there. */
void scope_close(struct scope *scope);

/* An all-reduce of int64, in place, the sum. */
collect_op *sum_begin(collect_comm *comm, int64_t *values, size_t count);
/* Waits for it; checks how it ends. */
struct collect_op_info op_end(collect_op *op, int status);

/* One round of all-reduces on all members of each scope: all begin, then all end. Element i of peer
 * r is (r + 1) * (i % 5 + 1) + the scope's name. */
void scopes_check(struct scope *scopes, uint32_t scope_count, size_t count);

#endif
