#include "exec/layout.h"

#include <stddef.h>

/* Begin and end of a block, in bytes. */
static struct col_span block_span(const uint64_t *blocks_at, uint64_t bytes, uint32_t block)
{
	if (blocks_at == NULL)
		return (struct col_span){block * bytes, (block + 1) * bytes};
	return (struct col_span){blocks_at[block], blocks_at[block + 1]};
}

/* Slice source * world + target of an all-to-all. What is only passed on has the size of all the
 * others: with counts no plan passes anything on. */
static struct col_extent find_all_to_all(const struct col_layout *layout, uint32_t slice)
{
	const struct collect_plan *plan = layout->plan;
	uint32_t from = slice / plan->world;
	uint32_t to = slice % plan->world;
	struct col_extent extent = {.bytes = layout->bytes};
	if (to == plan->rank) {
		struct col_span span = block_span(layout->target_at, layout->bytes, from);
		extent.out = layout->target + span.begin;
		extent.bytes = span.end - span.begin;
	}
	if (from == plan->rank) {
		struct col_span span = block_span(layout->blocks_at, layout->bytes, to);
		extent.in = layout->source + span.begin;
		extent.bytes = span.end - span.begin;
	}
	return extent;
}

struct col_extent col_layout_find(const struct col_layout *layout, uint32_t slice)
{
	const struct collect_plan *plan = layout->plan;
	int collective = plan->collective;
	if (collective == COLLECT_ALL_TO_ALL)
		return find_all_to_all(layout, slice);
	bool source_has_blocks =
		collective == COLLECT_REDUCE_SCATTER || collective == COLLECT_SCATTER;
	bool target_has_blocks = collective == COLLECT_ALL_GATHER || collective == COLLECT_GATHER;
	struct col_span block = {0, layout->bytes};
	struct col_span span;
	if (source_has_blocks || target_has_blocks) {
		block = block_span(layout->blocks_at, layout->bytes, slice / plan->parts);
		span = col_plan_part(plan, slice % plan->parts, block.end - block.begin);
	} else {
		span = col_plan_slice(plan, slice, layout->bytes);
	}
	struct col_extent extent = {.bytes = span.end - span.begin};
	if (col_plan_contributes(plan, slice, plan->rank))
		extent.in = layout->source + (source_has_blocks ? block.begin : 0) + span.begin;
	if (col_plan_needs(plan, slice, plan->rank))
		extent.out = layout->target + (target_has_blocks ? block.begin : 0) + span.begin;
	return extent;
}
