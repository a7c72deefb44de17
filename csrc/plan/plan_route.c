/* From trees to steps: a rank's lane of a slice. */
#include "plan/plan_build.h"

#include "base/assert.h"

#define FINAL ((unsigned)COL_STEP_FINAL)
#define COMPLETE ((unsigned)(COL_STEP_FINAL | COL_STEP_SCALE))

struct col_step col__step_take(enum col_opcode opcode, uint32_t peer, unsigned flags)
{
	return (struct col_step){
		.opcode = (uint8_t)opcode,
		.flags = (uint8_t)flags,
		.peer = peer,
		.next = COL_RANK_NONE,
	};
}

struct col_step col__step_send(enum col_opcode opcode, uint32_t peer, uint32_t lane, uint32_t step)
{
	COL_ASSERT(lane <= UINT16_MAX && step <= UINT16_MAX);
	return (struct col_step){
		.opcode = (uint8_t)opcode,
		.peer_lane = (uint16_t)lane,
		.peer_step = (uint16_t)step,
		.peer = peer,
		.next = COL_RANK_NONE,
	};
}

/* ---- reduction ----------------------------------------------------------------------------- */

/* A rank's own part is joined to the first child's frame where it stands next to it; elsewhere it
 * takes a step of its own. A rank without children sends (or copies) its part: one step. */
uint32_t col__reduction_steps(uint32_t child_count, uint32_t own_at)
{
	if (child_count == 0)
		return 1;
	return child_count + (own_at > 1);
}

uint32_t col__reduction_step(uint32_t own_at, uint32_t index)
{
	return index + (own_at > 1 && index >= own_at);
}

static enum col_opcode take_opcode(const struct col_node *node, uint32_t index)
{
	if (index > 0)
		return COL_RECV_REDUCE;
	switch (node->own_at) {
	case 0:  return COL_IN_REDUCE_RECV;
	case 1:  return COL_RECV_REDUCE_IN;
	default: return COL_RECV;
	}
}

/* The last child's step of a rank that has a parent forwards what it makes. */
static enum col_opcode forward_opcode(const struct col_node *node)
{
	if (node->child_count > 1)
		return COL_OUT_REDUCE_SEND;
	return node->own_at == 0 ? COL_IN_REDUCE_SEND : COL_RECV_REDUCE_SEND;
}

static void takes_add(struct collect_plan *plan, const struct col_route *route,
                      const struct col_node *node, uint32_t count)
{
	for (uint32_t index = 0; index < count; index++) {
		if (index == node->own_at && index > 1)
			col__plan_step_add(plan, col__step_take(COL_REDUCE_IN, COL_RANK_NONE, 0));
		uint32_t child = route->routing->child(route, plan->rank, index);
		col__plan_step_add(plan, col__step_take(take_opcode(node, index), child, 0));
	}
}

void col__reduction_complete(struct collect_plan *plan, const struct col_route *route,
                             const struct col_node *node)
{
	if (node->child_count == 0)
		col__plan_step_add(plan, col__step_take(COL_COPY_IN, COL_RANK_NONE, 0));
	takes_add(plan, route, node, node->child_count);
	if (node->own_at > 1 && node->own_at == node->child_count)
		col__plan_step_add(plan, col__step_take(COL_REDUCE_IN, COL_RANK_NONE, 0));
	plan->steps[plan->step_count - 1].flags = COMPLETE;
}

static void reduction_forward(struct collect_plan *plan, const struct col_route *route,
                              const struct col_node *node)
{
	struct col_node parent = route->routing->node(route, node->parent);
	uint32_t step = col__reduction_step(parent.own_at, node->child_index);
	if (node->child_count == 0) {
		col__plan_step_add(plan, col__step_send(COL_SEND_IN, node->parent, parent.lane, step));
		return;
	}
	COL_ASSERT(node->child_count == 1 || node->own_at < node->child_count);
	uint32_t last = node->child_count - 1;
	takes_add(plan, route, node, last);
	if (last == node->own_at && last > 1)
		col__plan_step_add(plan, col__step_take(COL_REDUCE_IN, COL_RANK_NONE, 0));
	uint32_t child = route->routing->child(route, plan->rank, last);
	struct col_step forward = col__step_send(forward_opcode(node), child, parent.lane, step);
	forward.next = node->parent;
	col__plan_step_add(plan, forward);
}

/* ---- distribution -------------------------------------------------------------------------- */

/* A send of what is complete to the target `index`, which takes it after its reduction. */
static struct col_step target_send(const struct collect_plan *plan, const struct col_route *route,
                                   enum col_opcode opcode, uint32_t index)
{
	uint32_t target = route->routing->target(route, plan->rank, index);
	struct col_node there = route->routing->node(route, target);
	uint32_t step = 0;
	if (col__collective_reduces(route->collective))
		step = col__reduction_steps(there.child_count, there.own_at);
	return col__step_send(opcode, target, there.lane, step);
}

static void distribution_add(struct collect_plan *plan, const struct col_route *route,
                             const struct col_node *node)
{
	unsigned flags = col_plan_needs(plan, route->slice, plan->rank) ? FINAL : 0;
	enum col_opcode opcode = COL_SEND_OUT;
	if (node->source != COL_RANK_NONE && node->target_count == 1) {
		struct col_step step = target_send(plan, route, COL_RECV_SEND, 0);
		step.next = step.peer;
		step.peer = node->source;
		step.flags = (uint8_t)flags;
		col__plan_step_add(plan, step);
		return;
	}
	bool is_origin = node->source == COL_RANK_NONE && !col__collective_reduces(route->collective);
	if (node->source != COL_RANK_NONE)
		col__plan_step_add(plan, col__step_take(COL_RECV, node->source, flags));
	else if (is_origin)
		opcode = COL_SEND_IN;
	for (uint32_t index = 0; index < node->target_count; index++)
		col__plan_step_add(plan, target_send(plan, route, opcode, index));
	if (is_origin && flags != 0)
		col__plan_step_add(plan, col__step_take(COL_COPY_IN, COL_RANK_NONE, flags));
}

int col__route_add(struct collect_plan *plan, const struct col_route *route)
{
	struct col_node node = route->routing->node(route, plan->rank);
	COL_ASSERT(node.lane == plan->lane_count);
	uint32_t room = col__reduction_steps(node.child_count, node.own_at) + node.target_count + 2;
	int status = col__plan_reserve(plan, room);
	if (status < 0)
		return status;

	col__plan_lane_begin(plan, route->slice);
	if (col__collective_reduces(route->collective)) {
		if (node.parent == COL_RANK_NONE)
			col__reduction_complete(plan, route, &node);
		else
			reduction_forward(plan, route, &node);
	}
	distribution_add(plan, route, &node);
	return 0;
}
