/*
 * Direct exchange.
 *
 * The payload has one slice per rank, and rank j owns slice j. Everybody sends each slice of its
 * input straight to that slice's owner. The owner adds what arrives in rank order, its own part at
 * its own place, scales once, and sends the result straight back to everybody.
 *
 *     rank 0   IN[1] ──┐
 *     rank 1   IN[1] ──┼──► owner 1: ((IN0 op IN1) op IN2), scale ──┬──► OUT[1] of rank 0
 *     rank 2   IN[1] ──┘                                           └──► OUT[1] of rank 2
 *
 * Lane j on every rank is slice j: one exchange with one owner. A frame that is early waits for its
 * turn, so the bits of the result depend neither on arrival nor on chunks.
 *
 * Cost for p ranks and S bytes: 2 dependent hops; each rank sends (and receives) its p-1 foreign
 * slices and p-1 copies of its own, 2(p-1)/p S; every rank is linked to every other.
 * The volume is that of a ring and the least possible; the hops do not grow with p. An owner sends
 * results to the rank behind it first, so that owners do not all begin with the same receiver.
 *
 * Source: reduce-scatter by direct exchange followed by an all-gather, as in Rabenseifner 2004,
 * "Optimization of collective reduction operations", with all pairs at once instead of halving.
 */
#include "base/assert.h"
#include "plan/plan.h"

/* Appends a step that sends nothing. */
static void take(struct collect_plan *plan, enum col_opcode opcode, uint32_t slice, uint32_t peer)
{
	col_plan_step_add(plan, (struct col_step){
		.opcode = (uint16_t)opcode,
		.slice = slice,
		.peer = peer,
		.next = COL_RANK_NONE,
	});
}

static void send(struct collect_plan *plan, enum col_opcode opcode, uint32_t slice, uint32_t peer,
                 uint32_t peer_step)
{
	col_plan_step_add(plan, (struct col_step){
		.opcode = (uint16_t)opcode,
		.slice = slice,
		.peer = peer,
		.next = COL_RANK_NONE,
		.peer_lane = (uint16_t)(plan->lane_count - 1),
		.peer_step = (uint16_t)peer_step,
	});
}

/* The sum in rank order. Owners 0 and 1 join their own part to the first frame, which saves them a
 * step: from then on, step q-1 adds rank q's part. For the others step q adds rank q's, their
 * own included. */
static void owner_reduce(struct collect_plan *plan, uint32_t slice)
{
	uint32_t owner = plan->rank;
	if (owner == 0)
		take(plan, COL_IN_REDUCE_RECV, slice, 1);
	else if (owner == 1)
		take(plan, COL_RECV_REDUCE_IN, slice, 0);
	else
		take(plan, COL_RECV, slice, 0);

	for (uint32_t rank = owner < 2 ? 2 : 1; rank < plan->world; rank++) {
		if (rank == owner)
			take(plan, COL_REDUCE_IN, slice, COL_RANK_NONE);
		else
			take(plan, COL_RECV_REDUCE, slice, rank);
	}
	plan->steps[plan->step_count - 1].flags = COL_STEP_FINAL | COL_STEP_SCALE;
}

/* Where owner_reduce expects the part of `rank`. */
static uint32_t owner_step(uint32_t owner, uint32_t rank)
{
	return owner < 2 && rank > 0 ? rank - 1 : rank;
}

void col_plan_exchange_add(struct collect_plan *plan, uint32_t slice, uint32_t owner)
{
	COL_ASSERT(plan->world >= 2);
	col_plan_lane_begin(plan);
	if (plan->rank != owner) {
		send(plan, COL_SEND_IN, slice, owner, owner_step(owner, plan->rank));
		take(plan, COL_RECV, slice, owner);
		plan->steps[plan->step_count - 1].flags = COL_STEP_FINAL;
		return;
	}
	owner_reduce(plan, slice);
	for (uint32_t distance = 1; distance < plan->world; distance++)
		send(plan, COL_SEND_OUT, slice, (owner + distance) % plan->world, 1);
}

int col_plan_build_direct(uint32_t world, uint32_t rank, struct collect_plan **plan_out)
{
	if (world == 0 || world > COLLECT_RANKS_MAX || rank >= world)
		return COLLECT_E_INVALID;
	if (world == 1)
		return col_plan_build_alone(COLLECT_DIRECT, plan_out);

	struct collect_plan *plan;
	uint32_t step_capacity = 2 * (world - 1) + 2 * world;
	int status = col_plan_create(COLLECT_DIRECT, world, rank, world, world, step_capacity, &plan);
	if (status < 0)
		return status;
	for (uint32_t owner = 0; owner < world; owner++)
		col_plan_exchange_add(plan, owner, owner);
	*plan_out = plan;
	return 0;
}
