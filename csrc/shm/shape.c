/*
 * Who gives and gets what: a call as pieces of its source and target, one for each rank, in bytes.
 *
 *	collective        source                    target
 *	all-reduce        slices, by owner          the same slices
 *	reduce            slices, by owner          the same slices, of the root
 *	reduce-scatter    blocks, by owner          the own block
 *	all-gather        the own block             blocks, by owner
 *	gather            the own block             blocks, of the root
 *	broadcast         the root's slice is all   the same
 *	scatter           blocks, of the root       the own block
 *	all-to-all        blocks, by receiver       blocks, by sender
 *
 * "The own block" is a list, too: the pieces before and after it are empty.
 */
#include <string.h>

#include "base/size.h"
#include "shm/state.h"

#define SLICE_BYTES 64u /* slices are cut at whole cache lines */
#define BYTES_MAX ((size_t)1 << 46)

static bool is_reducing(int collective)
{
	return collective == COLLECT_ALL_REDUCE || collective == COLLECT_REDUCE
	       || collective == COLLECT_REDUCE_SCATTER;
}

/* ---- cutting ------------------------------------------------------------------------------- */

/* One piece, rank's; nothing for the others. */
static void cut_one(size_t *at, uint32_t rank_count, uint32_t rank, size_t bytes)
{
	for (uint32_t index = 0; index <= rank_count; index++)
		at[index] = index <= rank ? 0 : bytes;
}

/* Equal slices, in whole cache lines but for the last. */
static void cut_even(size_t *at, uint32_t rank_count, size_t bytes)
{
	size_t lines = bytes / SLICE_BYTES;
	for (uint32_t index = 0; index < rank_count; index++)
		at[index] = lines * index / rank_count * SLICE_BYTES;
	at[rank_count] = bytes;
}

static bool cut_blocks(size_t *at, uint32_t rank_count, const uint64_t *counts, uint64_t count,
                       size_t element_bytes)
{
	at[0] = 0;
	for (uint32_t index = 0; index < rank_count; index++) {
		uint64_t elements = counts != NULL ? counts[index] : count;
		if (elements > BYTES_MAX / element_bytes)
			return false;
		at[index + 1] = at[index] + elements * element_bytes;
		if (at[index + 1] > BYTES_MAX)
			return false;
	}
	return true;
}

static bool pieces_cut(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	const struct col_shm_call *call = &flow->call;
	uint32_t ranks = shm->rank_count;
	size_t element = flow->element_bytes;
	size_t *source = flow->source_at;
	size_t *target = flow->target_at;
	size_t blocks[COL_SHM_RANKS_MAX + 1];

	if (!cut_blocks(blocks, ranks, call->counts, call->count, element))
		return false;
	size_t own = blocks[shm->rank + 1] - blocks[shm->rank];
	size_t bytes = blocks[1];
	switch (call->collective) {
	case COLLECT_ALL_REDUCE:
	case COLLECT_REDUCE:
		cut_even(source, ranks, call->count * element);
		cut_even(target, ranks, call->count * element);
		return true;
	case COLLECT_BROADCAST:
		cut_one(source, ranks, call->root, call->count * element);
		cut_one(target, ranks, call->root, call->count * element);
		return true;
	case COLLECT_REDUCE_SCATTER:
	case COLLECT_SCATTER:
		memcpy(source, blocks, sizeof(blocks));
		cut_one(target, ranks, shm->rank, own);
		return true;
	case COLLECT_ALL_GATHER:
	case COLLECT_GATHER:
		cut_one(source, ranks, shm->rank, own);
		memcpy(target, blocks, sizeof(blocks));
		return true;
	case COLLECT_ALL_TO_ALL:
		memcpy(source, blocks, sizeof(blocks));
		memcpy(target, blocks, sizeof(blocks));
		return call->target_counts == NULL
		       || cut_blocks(target, ranks, call->target_counts, 0, element);
	default: /* a barrier */
		cut_one(source, ranks, 0, bytes * 0);
		cut_one(target, ranks, 0, bytes * 0);
		return true;
	}
}

/* ---- what the stages do -------------------------------------------------------------------- */

static void stages_choose(struct col__flow *flow)
{
	int collective = flow->call.collective;
	flow->has_copies = is_reducing(collective) || collective == COLLECT_SCATTER
	                   || collective == COLLECT_ALL_TO_ALL;
	flow->has_fetches = collective != COLLECT_REDUCE_SCATTER && collective != COLLECT_SCATTER
	                    && collective != COLLECT_ALL_TO_ALL;
	if (is_reducing(collective))
		flow->middle = COL__MIDDLE_REDUCE;
	else
		flow->middle = flow->has_copies ? COL__MIDDLE_TAKE : COL__MIDDLE_OFFER;
}

static int call_check(const struct col_shm *shm, const struct col_shm_call *call)
{
	if (call->collective < 0 || call->collective >= COLLECT_COLLECTIVE_COUNT)
		return COLLECT_E_INVALID;
	if (!col_dtype_is_valid(call->dtype) || !col_reduce_op_is_valid(call->reduce_op))
		return COLLECT_E_INVALID;
	if (call->root >= shm->rank_count)
		return COLLECT_E_INVALID;
	if ((call->counts != NULL) != (call->target_counts != NULL)
	    && call->collective == COLLECT_ALL_TO_ALL)
		return COLLECT_E_INVALID;
	if (!is_reducing(call->collective))
		return COLLECT_OK;
	if (shm->kernels->reduce_many[call->dtype][call->reduce_op] == NULL)
		return COLLECT_E_UNAVAILABLE;
	return COLLECT_OK;
}

int col__shape(struct col_shm *shm, const struct col_shm_call *call)
{
	struct col__flow *flow = &shm->flow;
	int status = call_check(shm, call);
	if (status != COLLECT_OK)
		return status;
	flow->call = *call;
	flow->element_bytes = col_dtype_bytes(call->dtype);
	flow->target = call->target;
	flow->divisor = call->reduce_op == COLLECT_AVG ? shm->rank_count : 1;
	flow->is_scaled = is_reducing(call->collective) && call->reduce_op == COLLECT_PREMUL_SUM;
	flow->is_ragged = call->collective == COLLECT_ALL_TO_ALL && call->counts != NULL;
	if (!pieces_cut(shm))
		return COLLECT_E_INVALID;
	flow->call.counts = NULL; /* the caller's no longer */
	flow->call.target_counts = NULL;
	stages_choose(flow);
	return COLLECT_OK;
}

size_t col__shape_post_bytes(const struct col_shm *shm)
{
	const struct col__flow *flow = &shm->flow;
	uint32_t ranks = shm->rank_count;
	size_t longest = 0;
	if (flow->is_ragged)
		return SIZE_MAX;
	switch (flow->call.collective) {
	case COLLECT_ALL_GATHER:
	case COLLECT_GATHER:
		for (uint32_t rank = 0; rank < ranks; rank++) {
			size_t bytes = flow->target_at[rank + 1] - flow->target_at[rank];
			longest = bytes > longest ? bytes : longest;
		}
		return longest;
	default:
		return flow->source_at[ranks];
	}
}
