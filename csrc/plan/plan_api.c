/* The public functions on plans. Their arguments come from outside, so they are checked here. */
#include <stdarg.h>
#include <stdio.h>

#include "base/alloc.h"
#include "plan/plan_build.h"
#include "plan/plan_check.h"
#include "plan/plan_definition.h"

int collect_algorithm_has(int algorithm, int collective)
{
	return col__algorithm_has(algorithm, collective);
}

/* `root` as builders want it: ignored where the collective has none. */
static uint32_t root_of(int collective, uint32_t root)
{
	return col__collective_has_root(collective) ? root : COL_RANK_NONE;
}

int collect_plan_create(const struct collect_recipe *recipe, int collective, uint32_t world,
                        uint32_t root, uint32_t rank, collect_plan **plan_out)
{
	if (plan_out == NULL || recipe == NULL)
		return COLLECT_E_INVALID;
	return col_plan_build(recipe, collective, world, root_of(collective, root), rank, plan_out);
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

uint32_t collect_plan_lane_slice(const collect_plan *plan, uint32_t lane)
{
	return lane < plan->lane_count ? plan->lanes[lane].slice : COL_RANK_NONE;
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

	struct col_span span = col_collective_has_blocks(plan->collective)
		? col_plan_part(plan, slice % plan->parts, bytes)
		: col_plan_slice(plan, slice, bytes);
	*begin_out = span.begin;
	*end_out = span.end;
	return 0;
}

size_t collect_plan_print(const collect_plan *plan, char *text_out, size_t capacity)
{
	return col_plan_print(plan, text_out, text_out == NULL ? 0 : capacity);
}

__attribute__((format(printf, 3, 4)))
static int check_refuse(char *reason_out, size_t capacity, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	if (reason_out != NULL)
		(void)vsnprintf(reason_out, capacity, format, arguments);
	va_end(arguments);
	return COLLECT_E_INVALID;
}

static int plans_check(const struct collect_recipe *recipe, int collective, uint32_t world,
                       uint32_t root, uint32_t credit, char *reason_out, size_t capacity)
{
	struct collect_plan **plans = col_alloc_zeroed(world, sizeof(struct collect_plan *));
	if (plans == NULL)
		return COLLECT_E_MEMORY;
	int status = 0;
	for (uint32_t rank = 0; rank < world && status == 0; rank++)
		status = col_plan_build(recipe, collective, world, root, rank, &plans[rank]);
	if (status == COLLECT_E_INVALID)
		(void)check_refuse(reason_out, capacity, "the recipe does not fit %s %s of %u ranks",
		                   col__algorithm_name(recipe->algorithm),
		                   col__collective_name(collective), (unsigned)world);
	if (status == 0)
		status = col_plan_check(plans, world, credit, reason_out, capacity);
	for (uint32_t rank = 0; rank < world; rank++)
		col_plan_destroy(&plans[rank]);
	col_free(plans);
	return status;
}

int collect_plan_check(const struct collect_recipe *recipe, int collective, uint32_t world,
                       uint32_t root, uint32_t credit, char *reason_out, size_t capacity)
{
	if (recipe == NULL)
		return check_refuse(reason_out, capacity, "there is no recipe");
	if (!col__algorithm_has(recipe->algorithm, collective))
		return check_refuse(reason_out, capacity, "there is no plan %d for collective %d",
		                    recipe->algorithm, collective);
	if (world == 0 || world > COLLECT_RANKS_MAX)
		return check_refuse(reason_out, capacity, "a world of %u ranks is not in 1 to %u",
		                    (unsigned)world, COLLECT_RANKS_MAX);
	root = root_of(collective, root);
	if (root != COL_RANK_NONE && root >= world)
		return check_refuse(reason_out, capacity, "root %u is no rank of %u", (unsigned)root,
		                    (unsigned)world);
	return plans_check(recipe, collective, world, root, credit, reason_out, capacity);
}

int collect_definition_check(const struct collect_definition *definition, char *reason_out,
                             size_t capacity)
{
	struct col_trees *trees;
	if (definition == NULL)
		return check_refuse(reason_out, capacity, "there is no definition");
	int status = col_trees_create(definition, reason_out, capacity, &trees);
	if (status < 0)
		return status;
	status = col_trees_prove(trees, 1, reason_out, capacity);
	col_trees_destroy(&trees);
	return status;
}

int collect_definition_plan(const struct collect_definition *definition, uint32_t root,
                            uint32_t rank, collect_plan **plan_out)
{
	struct col_trees *trees;
	if (definition == NULL || plan_out == NULL)
		return COLLECT_E_INVALID;
	int status = col_trees_create(definition, NULL, 0, &trees);
	if (status < 0)
		return status;
	status = col_trees_build(trees, root_of(definition->collective, root), rank, plan_out);
	col_trees_destroy(&trees);
	return status;
}
