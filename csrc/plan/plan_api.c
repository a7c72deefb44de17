/* The public functions on plans. Their arguments come from outside, so they are checked here. */
#include <stdio.h>

#include "base/alloc.h"
#include "plan/plan.h"
#include "plan/plan_check.h"

int collect_plan_create(int algorithm, uint32_t world, uint32_t rank, collect_plan **plan_out)
{
	if (plan_out == NULL)
		return COLLECT_E_INVALID;
	return col_plan_build(algorithm, world, rank, plan_out);
}

void collect_plan_destroy(collect_plan **plan)
{
	if (plan != NULL)
		col_plan_destroy(plan);
}

uint32_t collect_plan_lane_count(const collect_plan *plan)
{
	return plan->lane_count;
}

uint32_t collect_plan_slice_count(const collect_plan *plan)
{
	return plan->slice_count;
}

uint32_t collect_plan_step_count(const collect_plan *plan, uint32_t lane)
{
	return lane < plan->lane_count ? plan->lanes[lane].step_count : 0;
}

int collect_plan_step(const collect_plan *plan, uint32_t lane, uint32_t index,
                      struct collect_step *step_out)
{
	if (index >= collect_plan_step_count(plan, lane) || step_out == NULL)
		return COLLECT_E_INVALID;

	const struct col_step *step = &plan->steps[plan->lanes[lane].step_begin + index];
	*step_out = (struct collect_step){
		.opcode = step->opcode,
		.is_final = (step->flags & COL_STEP_FINAL) != 0,
		.is_scaled = (step->flags & COL_STEP_SCALE) != 0,
		.slice = step->slice,
		.peer = step->peer,
		.next = step->next,
		.peer_lane = step->peer_lane,
		.peer_step = step->peer_step,
	};
	return 0;
}

int collect_plan_slice(const collect_plan *plan, uint32_t slice, uint64_t bytes,
                       uint64_t *begin_out, uint64_t *end_out)
{
	if (slice >= plan->slice_count || bytes > COL_PLAN_BYTES_MAX || begin_out == NULL ||
	    end_out == NULL)
		return COLLECT_E_INVALID;

	struct col_span span = col_plan_slice(plan, slice, bytes);
	*begin_out = span.begin;
	*end_out = span.end;
	return 0;
}

size_t collect_plan_print(const collect_plan *plan, char *text_out, size_t capacity)
{
	return col_plan_print(plan, text_out, text_out == NULL ? 0 : capacity);
}

int collect_plan_check(int algorithm, uint32_t world, uint32_t credit, char *reason_out,
                       size_t capacity)
{
	if (world == 0 || world > COLLECT_RANKS_MAX || algorithm < 0 ||
	    algorithm >= COLLECT_ALGORITHM_COUNT) {
		if (reason_out != NULL && capacity > 0)
			(void)snprintf(reason_out, capacity, "there is no plan %d for %u ranks", algorithm,
			               (unsigned)world);
		return COLLECT_E_INVALID;
	}

	struct collect_plan **plans = col_alloc_zeroed(world, sizeof(struct collect_plan *));
	if (plans == NULL)
		return COLLECT_E_MEMORY;
	int status = 0;
	for (uint32_t rank = 0; rank < world && status == 0; rank++)
		status = col_plan_build(algorithm, world, rank, &plans[rank]);
	if (status == 0)
		status = col_plan_check(plans, world, credit, reason_out, capacity);

	for (uint32_t rank = 0; rank < world; rank++)
		col_plan_destroy(&plans[rank]);
	col_free(plans);
	return status;
}
