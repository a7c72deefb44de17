/* What can be told about plans without running them: their shape, and that sends meet receives. */
#include "plan/plan_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "plan/plan_run.h"

#define LANE_NONE 0xffffffffu

const struct col_step *col_world_step(const struct col_world *world, struct col_place at)
{
	const struct collect_plan *plan = world->plans[at.rank];
	return &plan->steps[plan->lanes[at.lane].step_begin + at.step];
}

uint32_t col_world_step_number(const struct col_world *world, struct col_place at)
{
	const struct collect_plan *plan = world->plans[at.rank];
	return world->step_base[at.rank] + plan->lanes[at.lane].step_begin + at.step;
}

int col_world_reject(const struct col_world *world, struct col_place at, const char *format, ...)
{
	const struct col_step *step = col_world_step(world, at);
	char text[256];
	va_list arguments;
	va_start(arguments, format);
	(void)vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	(void)snprintf(world->reason_out, world->reason_capacity,
	               "rank %" PRIu32 " lane %" PRIu32 " step %" PRIu32 " (%s of slice %" PRIu32
	               "): %s", at.rank, at.lane, at.step, col_opcode_name(step->opcode), step->slice,
	               text);
	return COLLECT_E_INVALID;
}

/* For what is wrong with a rank's plan as a whole. */
static int reject_plan(const struct col_world *world, uint32_t rank, const char *text)
{
	(void)snprintf(world->reason_out, world->reason_capacity, "rank %" PRIu32 ": %s", rank, text);
	return COLLECT_E_INVALID;
}

/* ---- shape --------------------------------------------------------------------------------- */

static int is_other_rank(const struct col_world *world, uint32_t self, uint32_t rank)
{
	return rank < world->rank_count && rank != self;
}

static int step_shape_check(const struct col_world *world, struct col_place at)
{
	const struct col_step *step = col_world_step(world, at);
	const struct col_lane *lane = &world->plans[at.rank]->lanes[at.lane];
	if (step->opcode >= COL_OPCODE_COUNT)
		return col_world_reject(world, at, "opcode %u does not exist", (unsigned)step->opcode);
	if (step->slice >= world->slice_count)
		return col_world_reject(world, at, "there are %" PRIu32 " slices", world->slice_count);
	if (step->slice < lane->slice_first || step->slice > lane->slice_last)
		return col_world_reject(world, at, "its lane is for slices %" PRIu32 " to %" PRIu32,
		                        lane->slice_first, lane->slice_last);

	int receives = col_opcode_receives(step->opcode);
	int sends = col_opcode_sends(step->opcode);
	if (receives || sends) {
		if (!is_other_rank(world, at.rank, step->peer))
			return col_world_reject(world, at, "its peer is no other rank");
	} else if (step->peer != COL_RANK_NONE) {
		return col_world_reject(world, at, "it has a peer and needs none");
	}
	if (receives && sends) {
		if (!is_other_rank(world, at.rank, step->next))
			return col_world_reject(world, at, "it forwards to no other rank");
	} else if (step->next != COL_RANK_NONE) {
		return col_world_reject(world, at, "it has a next rank and does not forward");
	}

	if ((step->flags & ~(unsigned)(COL_STEP_FINAL | COL_STEP_SCALE)) != 0)
		return col_world_reject(world, at, "it has unknown flags");
	if (step->flags != 0 && !col_opcode_writes_out(step->opcode))
		return col_world_reject(world, at, "it is final or scaled but writes no OUT");
	if ((step->flags & COL_STEP_SCALE) != 0 && step->opcode == COL_RECV_SEND)
		return col_world_reject(world, at, "it scales what it forwards unchanged");
	return 0;
}

/* Lanes run at once, so a slice of OUT that two of them touched would depend on timing.
 * slice_lanes: which lane touches each slice. */
static int lane_shape_check(const struct col_world *world, uint32_t rank, uint32_t lane,
                            uint32_t *slice_lanes)
{
	const struct collect_plan *plan = world->plans[rank];
	const struct col_lane *it = &plan->lanes[lane];
	if (it->step_begin > plan->step_count || it->step_count > plan->step_count - it->step_begin)
		return reject_plan(world, rank, "a lane has steps that the plan has not");

	for (uint32_t index = 0; index < it->step_count; index++) {
		struct col_place at = {rank, lane, index};
		int status = step_shape_check(world, at);
		if (status < 0)
			return status;
		const struct col_step *step = col_world_step(world, at);
		if (!col_opcode_writes_out(step->opcode) && step->opcode != COL_SEND_OUT)
			continue;
		if (slice_lanes[step->slice] == LANE_NONE)
			slice_lanes[step->slice] = lane;
		else if (slice_lanes[step->slice] != lane)
			return col_world_reject(world, at, "lane %" PRIu32 " touches this slice of OUT too",
			                        slice_lanes[step->slice]);
	}
	return 0;
}

static int plan_shape_check(const struct col_world *world, uint32_t rank, uint32_t *slice_lanes)
{
	const struct collect_plan *plan = world->plans[rank];
	const struct collect_plan *first = world->plans[0];
	if (plan->rank != rank || plan->world != world->rank_count)
		return reject_plan(world, rank, "the plan is for another rank or world");
	if (plan->slice_count != first->slice_count || plan->weight_sum != first->weight_sum ||
	    (plan->weights == NULL) != (first->weights == NULL))
		return reject_plan(world, rank, "it cuts the payload in another way than rank 0");
	if (plan->weights != NULL &&
	    memcmp(plan->weights, first->weights, plan->slice_count * sizeof(*plan->weights)) != 0)
		return reject_plan(world, rank, "it cuts the payload in another way than rank 0");

	for (uint32_t slice = 0; slice < world->slice_count; slice++)
		slice_lanes[slice] = LANE_NONE;
	for (uint32_t lane = 0; lane < plan->lane_count; lane++) {
		int status = lane_shape_check(world, rank, lane, slice_lanes);
		if (status < 0)
			return status;
	}
	return 0;
}

/* ---- matching ------------------------------------------------------------------------------ */

static int send_match(const struct col_world *world, struct col_place at, uint8_t *is_awaited)
{
	const struct col_step *step = col_world_step(world, at);
	uint32_t target = col_opcode_receives(step->opcode) ? step->next : step->peer;
	const struct collect_plan *plan = world->plans[target];
	if (step->peer_lane >= plan->lane_count ||
	    step->peer_step >= plan->lanes[step->peer_lane].step_count)
		return col_world_reject(world, at, "rank %" PRIu32 " has no lane %u step %u", target,
		                        (unsigned)step->peer_lane, (unsigned)step->peer_step);

	struct col_place there = {target, step->peer_lane, step->peer_step};
	const struct col_step *receive = col_world_step(world, there);
	if (!col_opcode_receives(receive->opcode))
		return col_world_reject(world, at, "rank %" PRIu32 " lane %u step %u (%s) does not receive",
		                        target, (unsigned)step->peer_lane, (unsigned)step->peer_step,
		                        col_opcode_name(receive->opcode));
	if (receive->peer != at.rank || receive->slice != step->slice)
		return col_world_reject(world, at, "rank %" PRIu32 " lane %u step %u expects slice %" PRIu32
		                        " from rank %" PRIu32, target, (unsigned)step->peer_lane,
		                        (unsigned)step->peer_step, receive->slice, receive->peer);

	uint32_t number = col_world_step_number(world, there);
	if (!is_awaited[number])
		return col_world_reject(world, at, "rank %" PRIu32 " lane %u step %u gets a second frame",
		                        target, (unsigned)step->peer_lane, (unsigned)step->peer_step);
	is_awaited[number] = 0;
	return 0;
}

typedef int place_check(const struct col_world *world, struct col_place at, uint8_t *is_awaited);

static int receive_note(const struct col_world *world, struct col_place at, uint8_t *is_awaited)
{
	if (col_opcode_receives(col_world_step(world, at)->opcode))
		is_awaited[col_world_step_number(world, at)] = 1;
	return 0;
}

static int send_check(const struct col_world *world, struct col_place at, uint8_t *is_awaited)
{
	if (!col_opcode_sends(col_world_step(world, at)->opcode))
		return 0;
	return send_match(world, at, is_awaited);
}

static int receive_check(const struct col_world *world, struct col_place at, uint8_t *is_awaited)
{
	if (!is_awaited[col_world_step_number(world, at)])
		return 0;
	return col_world_reject(world, at, "rank %" PRIu32 " sends nothing here",
	                        col_world_step(world, at)->peer);
}

static int for_each_step(const struct col_world *world, place_check *check, uint8_t *is_awaited)
{
	for (uint32_t rank = 0; rank < world->rank_count; rank++) {
		const struct collect_plan *plan = world->plans[rank];
		for (uint32_t lane = 0; lane < plan->lane_count; lane++) {
			for (uint32_t step = 0; step < plan->lanes[lane].step_count; step++) {
				int status = check(world, (struct col_place){rank, lane, step}, is_awaited);
				if (status < 0)
					return status;
			}
		}
	}
	return 0;
}

static int match_check(const struct col_world *world)
{
	uint8_t *is_awaited = col_alloc_zeroed(world->step_base[world->rank_count], 1);
	if (is_awaited == NULL)
		return COLLECT_E_MEMORY;
	int status = for_each_step(world, receive_note, is_awaited);
	if (status == 0)
		status = for_each_step(world, send_check, is_awaited);
	if (status == 0)
		status = for_each_step(world, receive_check, is_awaited);
	col_free(is_awaited);
	return status;
}

/* ---- the check ----------------------------------------------------------------------------- */

static int world_init(struct col_world *world)
{
	world->lane_base = col_alloc_zeroed(world->rank_count + 1, sizeof(*world->lane_base));
	world->step_base = col_alloc_zeroed(world->rank_count + 1, sizeof(*world->step_base));
	if (world->lane_base == NULL || world->step_base == NULL)
		return COLLECT_E_MEMORY;
	for (uint32_t rank = 0; rank < world->rank_count; rank++) {
		world->lane_base[rank + 1] = world->lane_base[rank] + world->plans[rank]->lane_count;
		world->step_base[rank + 1] = world->step_base[rank] + world->plans[rank]->step_count;
	}
	return 0;
}

static int shape_check(const struct col_world *world)
{
	uint32_t *slice_lanes = col_alloc_zeroed(world->slice_count, sizeof(*slice_lanes));
	if (slice_lanes == NULL)
		return COLLECT_E_MEMORY;
	int status = 0;
	for (uint32_t rank = 0; rank < world->rank_count && status == 0; rank++)
		status = plan_shape_check(world, rank, slice_lanes);
	col_free(slice_lanes);
	return status;
}

int col_plan_check(struct collect_plan *const *plans, uint32_t world, uint32_t credit,
                   char *reason_out, size_t capacity)
{
	COL_ASSERT(world > 0 && world <= COLLECT_RANKS_MAX);
	struct col_world it = {
		.plans = plans,
		.rank_count = world,
		.slice_count = plans[0]->slice_count,
		.reason_out = reason_out,
		.reason_capacity = reason_out == NULL ? 0 : capacity,
	};
	if (credit == 0) {
		(void)snprintf(reason_out, it.reason_capacity, "without credit nothing can be sent");
		return COLLECT_E_INVALID;
	}

	int status = world_init(&it);
	if (status == 0)
		status = shape_check(&it);
	if (status == 0)
		status = match_check(&it);
	if (status == 0)
		status = col_world_run(&it, credit);
	col_free(it.lane_base);
	col_free(it.step_base);
	return status;
}
