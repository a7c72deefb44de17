/* What can be told about plans without running them: their shape, and that sends meet receives. */
#include "plan/plan_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "plan/plan_build.h"
#include "plan/plan_world.h"

int col__world_reject(const struct col_world *world, struct col_place at, const char *format, ...)
{
	const struct col_step *step = col__world_step(world, at);
	char text[256];
	va_list arguments;
	va_start(arguments, format);
	(void)vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	(void)snprintf(world->reason_out, world->reason_capacity,
	               "rank %" PRIu32 " lane %" PRIu32 " step %" PRIu32 " (%s of slice %" PRIu32
	               "): %s", at.rank, at.lane, at.step, col_opcode_name(step->opcode),
	               col__world_lane(world, at)->slice, text);
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
	const struct collect_plan *plan = world->plans[at.rank];
	const struct col_step *step = col__world_step(world, at);
	if (step->opcode >= COL_OPCODE_COUNT)
		return col__world_reject(world, at, "opcode %u does not exist", (unsigned)step->opcode);
	int receives = col_opcode_receives(step->opcode);
	int sends = col_opcode_sends(step->opcode);
	if (receives || sends) {
		if (!is_other_rank(world, at.rank, step->peer))
			return col__world_reject(world, at, "its peer is no other rank");
	} else if (step->peer != COL_RANK_NONE) {
		return col__world_reject(world, at, "it has a peer and needs none");
	}
	if (receives && sends) {
		if (!is_other_rank(world, at.rank, step->next))
			return col__world_reject(world, at, "it forwards to no other rank");
	} else if (step->next != COL_RANK_NONE) {
		return col__world_reject(world, at, "it has a next rank and does not forward");
	}

	if ((step->flags & ~(unsigned)(COL_STEP_FINAL | COL_STEP_SCALE)) != 0)
		return col__world_reject(world, at, "it has unknown flags");
	if (step->flags != 0 && !col_opcode_writes_out(step->opcode))
		return col__world_reject(world, at, "it is final or scaled but writes no OUT");
	if ((step->flags & COL_STEP_SCALE) != 0 && step->opcode == COL_RECV_SEND)
		return col__world_reject(world, at, "it scales what it forwards unchanged");
	if ((step->flags & COL_STEP_SCALE) != 0 && !col__collective_reduces(plan->collective))
		return col__world_reject(world, at, "it scales what is no sum");
	if (step->flags == COL_STEP_SCALE)
		return col__world_reject(world, at, "it completes a sum that is not final");
	if (step->flags == COL_STEP_FINAL && !col_plan_needs(plan, plan->lanes[at.lane].slice, at.rank))
		return col__world_reject(world, at, "it is final on a rank that does not need it");
	if (col_opcode_reads_in(step->opcode) &&
	    !col_plan_contributes(plan, plan->lanes[at.lane].slice, at.rank))
		return col__world_reject(world, at, "it reads IN and contributes nothing to the slice");
	return 0;
}

/* Lanes run at once, so a slice that two of them worked on would depend on timing. seen: for each
 * slice, one more than the last rank that has a lane for it. */
static int lane_shape_check(const struct col_world *world, uint32_t rank, uint32_t lane,
                            uint32_t *seen)
{
	const struct collect_plan *plan = world->plans[rank];
	const struct col_lane *it = &plan->lanes[lane];
	if (it->step_begin > plan->step_count || it->step_count > plan->step_count - it->step_begin)
		return reject_plan(world, rank, "a lane has steps that the plan has not");
	if (it->step_count == 0)
		return reject_plan(world, rank, "a lane has no steps");
	struct col_place at = {rank, lane, 0};
	if (it->slice >= world->slice_count)
		return col__world_reject(world, at, "there are %" PRIu32 " slices", world->slice_count);
	if (seen[it->slice] == rank + 1)
		return col__world_reject(world, at, "another lane works on this slice too");
	seen[it->slice] = rank + 1;

	int status = 0;
	for (; at.step < it->step_count && status == 0; at.step++)
		status = step_shape_check(world, at);
	return status;
}

static bool is_cut_alike(const struct collect_plan *a, const struct collect_plan *b)
{
	if (a->slice_count != b->slice_count || a->parts != b->parts ||
	    a->weight_sum != b->weight_sum || (a->weights == NULL) != (b->weights == NULL))
		return false;
	return a->weights == NULL ||
	       memcmp(a->weights, b->weights, a->slice_count * sizeof(*a->weights)) == 0;
}

static int plan_shape_check(const struct col_world *world, uint32_t rank, uint32_t *seen)
{
	const struct collect_plan *plan = world->plans[rank];
	const struct collect_plan *first = world->plans[0];
	if (plan->rank != rank || plan->world != world->rank_count)
		return reject_plan(world, rank, "the plan is for another rank or world");
	if (plan->collective != first->collective || plan->root != first->root ||
	    plan->is_rank_ordered != first->is_rank_ordered)
		return reject_plan(world, rank, "it is of another collective than rank 0's");
	if (!is_cut_alike(plan, first))
		return reject_plan(world, rank, "it cuts the payload in another way than rank 0");
	for (uint32_t lane = 0; lane < plan->lane_count; lane++) {
		int status = lane_shape_check(world, rank, lane, seen);
		if (status < 0)
			return status;
	}
	return 0;
}

/* ---- matching ------------------------------------------------------------------------------ */

static int send_match(const struct col_world *world, struct col_place at, uint8_t *is_awaited)
{
	const struct col_step *step = col__world_step(world, at);
	uint32_t target = col_opcode_receives(step->opcode) ? step->next : step->peer;
	const struct collect_plan *plan = world->plans[target];
	if (step->peer_lane >= plan->lane_count ||
	    step->peer_step >= plan->lanes[step->peer_lane].step_count)
		return col__world_reject(world, at, "rank %" PRIu32 " has no lane %u step %u", target,
		                         (unsigned)step->peer_lane, (unsigned)step->peer_step);

	struct col_place there = {target, step->peer_lane, step->peer_step};
	const struct col_step *receive = col__world_step(world, there);
	if (!col_opcode_receives(receive->opcode))
		return col__world_reject(world, at, "rank %" PRIu32 " lane %u step %u (%s) does not "
		                         "receive", target, (unsigned)step->peer_lane,
		                         (unsigned)step->peer_step, col_opcode_name(receive->opcode));
	uint32_t slice = plan->lanes[step->peer_lane].slice;
	if (receive->peer != at.rank || slice != col__world_lane(world, at)->slice)
		return col__world_reject(world, at, "rank %" PRIu32 " lane %u step %u expects slice %"
		                         PRIu32 " from rank %" PRIu32, target, (unsigned)step->peer_lane,
		                         (unsigned)step->peer_step, slice, receive->peer);

	uint32_t number = col__world_step_number(world, there);
	if (!is_awaited[number])
		return col__world_reject(world, at, "rank %" PRIu32 " lane %u step %u gets a second frame",
		                         target, (unsigned)step->peer_lane, (unsigned)step->peer_step);
	is_awaited[number] = 0;
	return 0;
}

typedef int place_check(const struct col_world *world, struct col_place at, uint8_t *is_awaited);

static int receive_note(const struct col_world *world, struct col_place at, uint8_t *is_awaited)
{
	if (col_opcode_receives(col__world_step(world, at)->opcode))
		is_awaited[col__world_step_number(world, at)] = 1;
	return 0;
}

static int send_check(const struct col_world *world, struct col_place at, uint8_t *is_awaited)
{
	if (!col_opcode_sends(col__world_step(world, at)->opcode))
		return 0;
	return send_match(world, at, is_awaited);
}

static int receive_check(const struct col_world *world, struct col_place at, uint8_t *is_awaited)
{
	if (!is_awaited[col__world_step_number(world, at)])
		return 0;
	return col__world_reject(world, at, "rank %" PRIu32 " sends nothing here",
	                         col__world_step(world, at)->peer);
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
	uint32_t rank_count = world->rank_count;
	world->lane_base = col_alloc_zeroed(rank_count + 1, sizeof(uint32_t));
	world->step_base = col_alloc_zeroed(rank_count + 1, sizeof(uint32_t));
	if (world->lane_base == NULL || world->step_base == NULL)
		return COLLECT_E_MEMORY;
	for (uint32_t rank = 0; rank < rank_count; rank++) {
		world->lane_base[rank + 1] = world->lane_base[rank] + world->plans[rank]->lane_count;
		world->step_base[rank + 1] = world->step_base[rank] + world->plans[rank]->step_count;
	}
	world->lane_count = world->lane_base[rank_count];
	world->step_count = world->step_base[rank_count];
	world->lane_rank = col_alloc_zeroed(world->lane_count, sizeof(uint32_t));
	if (world->lane_rank == NULL)
		return COLLECT_E_MEMORY;
	for (uint32_t rank = 0; rank < rank_count; rank++)
		for (uint32_t lane = world->lane_base[rank]; lane < world->lane_base[rank + 1]; lane++)
			world->lane_rank[lane] = rank;
	return 0;
}

static int shape_check(const struct col_world *world)
{
	uint32_t *seen = col_alloc_zeroed(world->slice_count, sizeof(*seen));
	if (seen == NULL)
		return COLLECT_E_MEMORY;
	int status = 0;
	for (uint32_t rank = 0; rank < world->rank_count && status == 0; rank++)
		status = plan_shape_check(world, rank, seen);
	col_free(seen);
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
		status = col__world_prove(&it);
	if (status == 0)
		status = col__world_run(&it, credit);
	col_free(it.lane_base);
	col_free(it.step_base);
	col_free(it.lane_rank);
	return status;
}
