/*
 * Proves the plans of a whole world: slice by slice, by running them on expressions in place of
 * numbers.
 *
 * What a step computes does not depend on timing: every frame has one place where it belongs, a
 * lane is sequential, and a slice of OUT belongs to one lane. So one run in any order shows what is
 * in every buffer, in every order. Only a deadlock depends on the order in which links' credits are
 * taken; it is looked for with several iterations under way, in several seeded orders: a search and
 * not a proof, of executors that do what plan.h says.
 */
#ifndef COL_PLAN_PLAN_CHECK_H
#define COL_PLAN_PLAN_CHECK_H

#include "plan/plan.h"

/*
 * plans[r] is rank r's. Proves: every send meets exactly one receive and the other way round; every
 * needer of every slice ends with every contribution in it exactly once, final, and scaled once if
 * it is a sum; where several ranks complete a slice they evaluate the same expression, which is the
 * fold in rank order where the plan says so; IN is read by contributors only; OUT is read after it
 * was written, and left alone when it is final or a frame points into it; one lane per rank works
 * on a slice. And that nothing deadlocks, in the orders tried, when at most `credit` (at least 1)
 * frames per link are unconsumed: a data frame takes a credit when it is sent, frames of a link go
 * in the order in which lanes asked, and the receiver's step gives the credit back when it takes
 * the frame.
 *
 * 0; COLLECT_E_INVALID with the rank, lane and step in reason_out; COLLECT_E_MEMORY.
 */
int col_plan_check(struct collect_plan *const *plans, uint32_t world, uint32_t credit,
                   char *reason_out, size_t capacity);

#endif
