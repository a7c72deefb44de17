/*
 * Long messages through the segment, block by block. A block is a chunk of each piece, and passes
 * through up to three stages, each of which counts its blocks in a flag of its rank:
 *
 *	copied    the chunks of others' pieces are in their inboxes
 *	reduced   the own piece's chunk is made of the own source and the inbox, or is the own
 *	          source; it is in the outbox, or in the target
 *	fetched   the chunks of the outboxes are in the target
 *
 * Blocks are numbered through all operations of the epoch, so that one operation's slots are
 * protected from the next one's by the same rule as within one: a slot is written again when its
 * readers' flags have passed it.
 *
 * A collective whose result comes through outboxes is done when every rank has reduced its last
 * block: whatever has not been fetched by then is in the outboxes, because a slot waits for all
 * to fetch it. One whose result is made of the inboxes is done when every rank has copied its
 * last block, for the same reason. That is why no round of confirmations is needed.
 *
 * With two ranks an all-reduce exchanges whole chunks instead: the same bytes go from core to
 * core, and one wait is less.
 */
#include <stddef.h>
#include <string.h>

#include "base/alloc.h"
#include "base/size.h"
#include "shm/state.h"

#define PAGE_BYTES ((size_t)4 << 10)
#define PART_BYTES ((size_t)16 << 10)    /* stays in the first-level cache */
#define ADVANCE_BYTES ((size_t)1 << 20)  /* what one call moves, about */
#define STREAMING_BYTES ((size_t)4 << 20) /* longer targets bypass the cache */

/* ---- places -------------------------------------------------------------------------------- */

static size_t slot_of(const struct col_shm *shm, uint64_t block)
{
	return (shm->block_base + block) % shm->slot_count * shm->chunk_bytes + shm->flow.shift;
}

static uint8_t *outbox(const struct col_shm *shm, uint32_t owner, uint64_t block)
{
	size_t ring_bytes = (size_t)shm->slot_count * shm->chunk_bytes;
	return shm->outboxes + owner * ring_bytes + slot_of(shm, block);
}

static uint8_t *inbox(const struct col_shm *shm, uint32_t owner, uint32_t from, uint64_t block)
{
	size_t ring_bytes = (size_t)shm->slot_count * shm->chunk_bytes;
	size_t ring = (size_t)owner * shm->rank_count + from;
	return shm->inboxes + ring * ring_bytes + slot_of(shm, block);
}

/* The part of piece `piece` that block `block` takes: where it begins in the array, and its
 * bytes. */
static size_t part_of(const struct col_shm *shm, const size_t *at, uint32_t piece, uint64_t block,
                      size_t *bytes_out)
{
	size_t length = at[piece + 1] - at[piece];
	size_t begin = (size_t)col_min_u64(block * shm->chunk_bytes, length);
	*bytes_out = (size_t)col_min_u64(length - begin, shm->chunk_bytes);
	return at[piece] + begin;
}

static size_t longest_of(const struct col_shm *shm, const size_t *at)
{
	size_t longest = 0;
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		size_t length = at[rank + 1] - at[rank];
		longest = length > longest ? length : longest;
	}
	return longest;
}

/* ---- flags --------------------------------------------------------------------------------- */

static bool have_all(struct col_shm *shm, size_t flag, uint64_t *least, uint64_t number)
{
	if (*least >= number)
		return true;
	uint64_t found = UINT64_MAX;
	uint64_t missing = 0;
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		const struct segment_flag *line =
			(const void *)((const uint8_t *)&shm->ranks[rank] + flag);
		uint64_t value = atomic_load_explicit(&line->value, memory_order_acquire);
		found = value < found ? value : found;
		missing |= value < number ? 1ull << rank : 0;
	}
	*least = found;
	shm->missing |= missing;
	return missing == 0;
}

static bool all_have_copied(struct col_shm *shm, uint64_t number)
{
	return have_all(shm, offsetof(struct segment_rank, copied), &shm->least_copied, number);
}

static bool all_have_reduced(struct col_shm *shm, uint64_t number)
{
	return have_all(shm, offsetof(struct segment_rank, reduced), &shm->least_reduced, number);
}

static bool all_have_fetched(struct col_shm *shm, uint64_t number)
{
	return have_all(shm, offsetof(struct segment_rank, fetched), &shm->least_fetched, number);
}

/* The number that a flag must have before the slot of this block can be written. */
static uint64_t freeing_number(const struct col_shm *shm, uint64_t block)
{
	uint64_t number = shm->block_base + block + 1;
	return number > shm->slot_count ? number - shm->slot_count : 0;
}

bool col__pipeline_is_committed(struct col_shm *shm)
{
	const struct col__flow *flow = &shm->flow;
	if (flow->block_count == 0)
		return false;
	uint64_t end = shm->block_base + flow->block_count;
	bool ends_with_copies = flow->has_copies && !flow->has_fetches && !flow->reads_sources;
	return ends_with_copies ? all_have_copied(shm, end) : all_have_reduced(shm, end);
}

/* The same as an event: no rank had aborted when it came. */
static bool commit(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	if (!flow->is_committed)
		flow->is_committed = col__pipeline_is_committed(shm) && !col__is_aborted(shm)
		                     && col__digests_agree(shm);
	return flow->is_committed;
}

/* ---- stages -------------------------------------------------------------------------------- */

/* Into a slot of `reader`'s. */
static void source_lend(struct col_shm *shm, uint32_t reader, uint8_t *slot, size_t at,
                        size_t bytes)
{
	const struct col__flow *flow = &shm->flow;
	const uint8_t *source = (const uint8_t *)flow->call.source + at;
	if (flow->is_scaled)
		shm->kernels->scale[flow->call.dtype](slot, source, bytes / flow->element_bytes,
		                                      flow->call.factor);
	else
		col__lend(shm, reader, slot, source, bytes);
}

static size_t block_copy(struct col_shm *shm, uint64_t block)
{
	const struct col__flow *flow = &shm->flow;
	size_t moved = 0;
	if (flow->call.collective == COLLECT_SCATTER && shm->rank != flow->call.root)
		return 0;
	/* Each rank begins with another owner. A scaled source is copied for the own inbox, too. */
	for (uint32_t step = 1; step <= shm->rank_count; step++) {
		uint32_t owner = (shm->rank + step) % shm->rank_count;
		size_t bytes;
		size_t at = part_of(shm, flow->source_at, owner, block, &bytes);
		if (bytes == 0 || (owner == shm->rank && !flow->is_scaled))
			continue;
		source_lend(shm, owner, inbox(shm, owner, shm->rank, block), at, bytes);
		moved += bytes;
	}
	return moved;
}

/* Whether the own slice of a result goes straight into the own target, too. */
static bool keeps_result(const struct col_shm *shm)
{
	const struct col__flow *flow = &shm->flow;
	return flow->middle == COL__MIDDLE_REDUCE && !flow->is_deferred && col__target_is_mine(shm);
}

/* Reduces the own chunk into the outbox, by way of the first-level cache. Moves the sources. */
static void result_lend(struct col_shm *shm, uint64_t block, const void **sources, size_t bytes)
{
	const struct col__flow *flow = &shm->flow;
	_Alignas(64) uint8_t result[PART_BYTES];
	uint8_t *slot = outbox(shm, shm->rank, block);
	uint8_t *target = NULL;
	size_t unused;
	if (keeps_result(shm))
		target = flow->target + part_of(shm, flow->target_at, shm->rank, block, &unused);
	for (size_t at = 0; at < bytes; at += sizeof(result)) {
		size_t part = col_min_u64(bytes - at, sizeof(result));
		shm->kernels->reduce_many[flow->call.dtype][flow->call.reduce_op](
			result, sources, shm->rank_count, part / flow->element_bytes, flow->divisor, false);
		col__lend(shm, shm->rank, slot + at, result, part);
		if (target != NULL)
			shm->kernels->copy(target + at, result, part, flow->is_streaming);
		for (uint32_t rank = 0; rank < shm->rank_count; rank++)
			sources[rank] = (const uint8_t *)sources[rank] + part;
	}
}

static size_t middle_reduce(struct col_shm *shm, uint64_t block)
{
	const struct col__flow *flow = &shm->flow;
	const void *sources[COL_SHM_RANKS_MAX];
	size_t bytes;
	size_t at = part_of(shm, flow->source_at, shm->rank, block, &bytes);
	if (bytes == 0)
		return 0;
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		if (flow->reads_sources)
			sources[rank] = flow->sources[rank] + at;
		else if (rank == shm->rank && !flow->is_scaled)
			sources[rank] = (const uint8_t *)flow->call.source + at;
		else
			sources[rank] = inbox(shm, shm->rank, rank, block);
	}
	if (flow->has_fetches)
		result_lend(shm, block, sources, bytes);
	else
		shm->kernels->reduce_many[flow->call.dtype][flow->call.reduce_op](
			flow->target + (at - flow->source_at[shm->rank]), sources, shm->rank_count,
			bytes / flow->element_bytes, flow->divisor, flow->is_streaming);
	return bytes * shm->rank_count;
}

static size_t middle_offer(struct col_shm *shm, uint64_t block)
{
	const struct col__flow *flow = &shm->flow;
	size_t bytes;
	size_t at = part_of(shm, flow->source_at, shm->rank, block, &bytes);
	if (bytes > 0)
		source_lend(shm, shm->rank, outbox(shm, shm->rank, block), at, bytes);
	return bytes;
}

static size_t middle_take(struct col_shm *shm, uint64_t block)
{
	const struct col__flow *flow = &shm->flow;
	bool is_scatter = flow->call.collective == COLLECT_SCATTER;
	size_t moved = 0;
	for (uint32_t step = 0; step < shm->rank_count; step++) {
		uint32_t from = (shm->rank + step) % shm->rank_count;
		if (is_scatter && from != flow->call.root)
			continue;
		size_t bytes;
		uint32_t piece = is_scatter ? shm->rank : from;
		size_t at = part_of(shm, flow->target_at, piece, block, &bytes);
		const uint8_t *source = inbox(shm, shm->rank, from, block);
		if (from == shm->rank)
			source = (const uint8_t *)flow->call.source + flow->source_at[shm->rank]
			         + (at - flow->target_at[piece]);
		if (bytes == 0 || source == flow->target + at)
			continue;
		shm->kernels->copy(flow->target + at, source, bytes, flow->is_streaming);
		moved += bytes;
	}
	return moved;
}

static size_t block_reduce(struct col_shm *shm, uint64_t block)
{
	switch (shm->flow.middle) {
	case COL__MIDDLE_REDUCE: return middle_reduce(shm, block);
	case COL__MIDDLE_OFFER: return middle_offer(shm, block);
	case COL__MIDDLE_TAKE: return middle_take(shm, block);
	}
	return 0;
}

static size_t fetch_exchanged(struct col_shm *shm, uint64_t block)
{
	const struct col__flow *flow = &shm->flow;
	const void *sources[COL_SHM_RANKS_MAX];
	size_t bytes;
	size_t at = part_of(shm, flow->source_at, shm->rank, block, &bytes);
	for (uint32_t rank = 0; rank < shm->rank_count; rank++)
		sources[rank] = outbox(shm, rank, block);
	if (!flow->is_scaled)
		sources[shm->rank] = (const uint8_t *)flow->call.source + at;
	shm->kernels->reduce_many[flow->call.dtype][flow->call.reduce_op](
		flow->target + at, sources, shm->rank_count, bytes / flow->element_bytes, flow->divisor,
		flow->is_streaming);
	return bytes * shm->rank_count;
}

static size_t block_fetch(struct col_shm *shm, uint64_t block)
{
	const struct col__flow *flow = &shm->flow;
	if (flow->path == COL__PATH_EXCHANGE)
		return fetch_exchanged(shm, block);
	size_t moved = 0;
	for (uint32_t step = 0; step < shm->rank_count; step++) {
		uint32_t owner = (shm->rank + step) % shm->rank_count;
		size_t bytes;
		size_t at = part_of(shm, flow->target_at, owner, block, &bytes);
		const uint8_t *source = outbox(shm, owner, block);
		/* What this rank offered it takes from its source, if it is not there already. */
		if (flow->middle == COL__MIDDLE_OFFER && owner == shm->rank)
			source = (const uint8_t *)flow->call.source + flow->source_at[owner]
			         + (at - flow->target_at[owner]);
		bool is_kept = owner == shm->rank && keeps_result(shm);
		if (bytes == 0 || is_kept || source == flow->target + at)
			continue;
		shm->kernels->copy(flow->target + at, source, bytes, flow->is_streaming);
		moved += bytes;
	}
	return moved;
}

/* ---- the operation ------------------------------------------------------------------------- */

bool col__target_is_mine(const struct col_shm *shm)
{
	int collective = shm->flow.call.collective;
	return (collective != COLLECT_REDUCE && collective != COLLECT_GATHER)
	       || shm->rank == shm->flow.call.root;
}

bool col__target_hides_source(const struct col_shm *shm)
{
	const struct col__flow *flow = &shm->flow;
	const uint8_t *source = flow->call.source;
	const uint8_t *target = flow->call.target;
	bool is_gathering = flow->middle == COL__MIDDLE_OFFER && flow->path != COL__PATH_EXCHANGE;
	if (source == NULL || target == NULL || is_gathering
	    || flow->call.collective == COLLECT_SCATTER)
		return false;
	return col__target_is_mine(shm) && source < target + flow->target_at[shm->rank_count]
	       && target < source + flow->source_at[shm->rank_count];
}

int col__area_take(struct col__flow *flow, size_t bytes)
{
	if (bytes > flow->area_capacity) {
		col_free(flow->area);
		flow->area_capacity = 0;
		flow->area = col_alloc(bytes);
		if (flow->area == NULL)
			return COLLECT_E_MEMORY;
		flow->area_capacity = bytes;
	}
	flow->area_bytes = bytes;
	flow->target = flow->area;
	return COLLECT_OK;
}

/* One short block does not always use the beginning of a slot, but each time another part, as
 * lend.c needs it. All ranks know alike how long it is, unless pieces are ragged. */
static size_t shift_of(const struct col_shm *shm, size_t longest)
{
	const struct col__flow *flow = &shm->flow;
	size_t stride = (longest + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
	if (flow->is_ragged || flow->block_count != 1 || longest == 0)
		return 0;
	return shm->block_base / shm->slot_count % (shm->chunk_bytes / stride) * stride;
}

/* Stages that this rank has nothing to do in are passed at once. */
static void stages_skip(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	struct segment_rank *own = &shm->ranks[shm->rank];
	uint64_t end = shm->block_base + flow->block_count;
	if (!flow->has_copies || flow->reads_sources) {
		flow->copied = flow->block_count;
		col__post(shm, &own->copied.value, end);
	}
	if (!flow->has_fetches || !col__target_is_mine(shm)) {
		flow->fetched = flow->block_count;
		col__post(shm, &own->fetched.value, end);
	}
}

int col__pipeline_begin(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	size_t target_bytes = flow->target_at[shm->rank_count];
	size_t longest = longest_of(shm, flow->source_at);
	if (flow->path != COL__PATH_EXCHANGE) {
		flow->path = COL__PATH_PIPELINE;
		size_t from = longest_of(shm, flow->target_at);
		longest = from > longest ? from : longest;
	}
	if (flow->block_count == 0)
		flow->block_count = col_div_ceil(longest, shm->chunk_bytes);
	if (flow->block_count == 0)
		flow->block_count = 1;
	flow->shift = shift_of(shm, longest);
	flow->is_streaming = target_bytes >= STREAMING_BYTES;
	if (col__target_hides_source(shm)) {
		flow->is_deferred = flow->block_count <= shm->slot_count;
		int status = flow->is_deferred ? COLLECT_OK : col__area_take(flow, target_bytes);
		if (status != COLLECT_OK)
			return status;
	}
	stages_skip(shm);
	return COLLECT_OK;
}

static bool may_copy(struct col_shm *shm)
{
	const struct col__flow *flow = &shm->flow;
	return flow->copied < flow->block_count
	       && all_have_reduced(shm, freeing_number(shm, flow->copied));
}

static bool may_reduce(struct col_shm *shm)
{
	const struct col__flow *flow = &shm->flow;
	if (flow->reduced == flow->block_count)
		return false;
	uint64_t number = shm->block_base + flow->reduced + 1;
	if (flow->has_copies && !flow->reads_sources && !all_have_copied(shm, number))
		return false;
	if (flow->has_fetches)
		return all_have_fetched(shm, freeing_number(shm, flow->reduced));
	return !flow->is_deferred || commit(shm);
}

static bool may_fetch(struct col_shm *shm)
{
	const struct col__flow *flow = &shm->flow;
	if (flow->fetched == flow->block_count)
		return false;
	if (flow->is_deferred && !commit(shm))
		return false;
	return all_have_reduced(shm, shm->block_base + flow->fetched + 1);
}

static void finish(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	if (flow->area_bytes > 0)
		shm->kernels->copy(flow->call.target, flow->area, flow->area_bytes, flow->is_streaming);
}

int col__pipeline_advance(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	struct segment_rank *own = &shm->ranks[shm->rank];
	size_t moved = 0;
	bool has_moved = false;
	for (bool goes_on = true; goes_on && moved < ADVANCE_BYTES;) {
		goes_on = false;
		shm->missing = 0;
		if (!flow->is_committed && col__is_aborted(shm))
			return COLLECT_E_ABORTED;
		if (may_copy(shm)) {
			moved += block_copy(shm, flow->copied++);
			col__post(shm, &own->copied.value, shm->block_base + flow->copied);
			goes_on = true;
		}
		if (may_reduce(shm)) {
			moved += block_reduce(shm, flow->reduced++);
			col__post(shm, &own->reduced.value, shm->block_base + flow->reduced);
			goes_on = true;
		}
		if (may_fetch(shm)) {
			moved += block_fetch(shm, flow->fetched++);
			col__post(shm, &own->fetched.value, shm->block_base + flow->fetched);
			goes_on = true;
		}
		has_moved |= goes_on;
	}
	bool is_through = flow->copied == flow->block_count && flow->reduced == flow->block_count
	                  && flow->fetched == flow->block_count;
	if (!is_through || !commit(shm)) {
		if (has_moved)
			return COL_SHM_MOVED;
		return col__digests_agree(shm) ? COL_SHM_STUCK : COLLECT_E_INVALID;
	}
	finish(shm);
	shm->block_base += flow->block_count;
	return COL_SHM_DONE;
}

/* What is left lies in the segment and in the own source; nothing is posted. */
void col__pipeline_complete(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	while (flow->reduced < flow->block_count)
		block_reduce(shm, flow->reduced++);
	while (flow->fetched < flow->block_count)
		block_fetch(shm, flow->fetched++);
	finish(shm);
}
