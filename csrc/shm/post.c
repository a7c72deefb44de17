/*
 * Short messages. Every rank posts what it gives, and its number beside it, in one of two places in
 * turn; who has seen the number of all ranks takes what it needs from the posts.
 *
 * Two are enough: who posts number n + 2 has seen all posts n + 1, and who posted those had taken
 * what it needed from the posts n.
 *
 * A post of a few bytes lies in the cache line of its number and travels with it. Longer ones lie
 * one after the other in a ring with room for three at least: the next does not touch the last, and
 * what is written has left the readers' caches (lend.c).
 */
#include <string.h>

#include "shm/state.h"

static struct segment_post *post_of(const struct col_shm *shm, uint32_t rank)
{
	return &shm->ranks[rank].posts[shm->post_number % 2];
}

/* What a rank posted; of so many bytes. */
static uint8_t *data_of(const struct col_shm *shm, uint32_t rank, size_t bytes)
{
	if (bytes <= COL__INLINE_BYTES)
		return post_of(shm, rank)->inlined;
	return shm->posts + rank * shm->posts_bytes + shm->post_at;
}

static size_t posted_bytes(const struct col_shm *shm, uint32_t rank)
{
	const struct col__flow *flow = &shm->flow;
	switch (flow->call.collective) {
	case COLLECT_ALL_GATHER:
	case COLLECT_GATHER:
		return flow->target_at[rank + 1] - flow->target_at[rank];
	case COLLECT_BROADCAST:
	case COLLECT_SCATTER:
		return rank == flow->call.root ? flow->source_at[shm->rank_count] : 0;
	default:
		return flow->source_at[shm->rank_count];
	}
}

/* The place of posts of which the longest has so many bytes. */
static void place_choose(struct col_shm *shm, size_t longest)
{
	if (longest <= COL__INLINE_BYTES)
		return;
	size_t stride = (longest + COL__LINE_BYTES - 1) / COL__LINE_BYTES * COL__LINE_BYTES;
	shm->post_at = shm->post_end + stride <= shm->posts_bytes ? shm->post_end : 0;
	shm->post_end = shm->post_at + stride;
}

void col__post_begin(struct col_shm *shm, size_t longest)
{
	struct col__flow *flow = &shm->flow;
	shm->post_number++;
	place_choose(shm, longest);
	flow->path = COL__PATH_POST;
	struct segment_post *post = post_of(shm, shm->rank);
	size_t bytes = posted_bytes(shm, shm->rank);
	uint8_t *data = data_of(shm, shm->rank, bytes);
	if (flow->is_scaled)
		shm->kernels->scale[flow->call.dtype](data, flow->call.source,
		                                      bytes / flow->element_bytes, flow->call.factor);
	else if (bytes > 0)
		col__lend(shm, shm->rank, data, flow->call.source, bytes);
	post->digest = flow->call.digest;
	col__post(shm, &post->number, shm->post_number);
}

bool col__post_is_seen(struct col_shm *shm)
{
	uint64_t missing = 0;
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		const struct segment_post *post = post_of(shm, rank);
		if (atomic_load_explicit(&post->number, memory_order_acquire) < shm->post_number)
			missing |= 1ull << rank;
	}
	shm->missing = missing;
	return missing == 0;
}

/* ---- what the target gets ------------------------------------------------------------------ */

static void take_reduced(struct col_shm *shm, size_t from, size_t bytes)
{
	const struct col__flow *flow = &shm->flow;
	const void *sources[COL_SHM_RANKS_MAX];
	size_t posted = flow->source_at[shm->rank_count];
	for (uint32_t rank = 0; rank < shm->rank_count; rank++)
		sources[rank] = data_of(shm, rank, posted) + from;
	shm->kernels->reduce_many[flow->call.dtype][flow->call.reduce_op](
		flow->target, sources, shm->rank_count, bytes / flow->element_bytes, flow->divisor, false);
}

static void take_copy(uint8_t *target, const uint8_t *data, size_t bytes)
{
	if (bytes > 0)
		memcpy(target, data, bytes);
}

/* A piece of each rank's post, beginning at `from`. */
static void take_pieces(struct col_shm *shm, size_t from)
{
	const struct col__flow *flow = &shm->flow;
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		size_t at = flow->target_at[rank];
		take_copy(flow->target + at, data_of(shm, rank, posted_bytes(shm, rank)) + from,
		          flow->target_at[rank + 1] - at);
	}
}

void col__post_take(struct col_shm *shm)
{
	const struct col__flow *flow = &shm->flow;
	uint32_t root = flow->call.root;
	size_t begin = flow->source_at[shm->rank];
	size_t end = flow->source_at[shm->rank + 1];
	const uint8_t *data;
	switch (flow->call.collective) {
	case COLLECT_REDUCE:
		if (shm->rank != root)
			break;
		/* fallthrough */
	case COLLECT_ALL_REDUCE:
		take_reduced(shm, 0, flow->source_at[shm->rank_count]);
		break;
	case COLLECT_REDUCE_SCATTER:
		take_reduced(shm, begin, end - begin);
		break;
	case COLLECT_GATHER:
		if (shm->rank != root)
			break;
		/* fallthrough */
	case COLLECT_ALL_GATHER:
		take_pieces(shm, 0);
		break;
	case COLLECT_ALL_TO_ALL: /* all have cut alike */
		take_pieces(shm, begin);
		break;
	case COLLECT_BROADCAST:
		data = data_of(shm, root, posted_bytes(shm, root));
		if (shm->rank != root || flow->target != flow->call.source)
			take_copy(flow->target, data, flow->target_at[shm->rank_count]);
		break;
	case COLLECT_SCATTER:
		data = data_of(shm, root, posted_bytes(shm, root));
		take_copy(flow->target, data + begin, end - begin);
		break;
	default:
		break;
	}
}

static bool digests_agree(struct col_shm *shm)
{
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		if (post_of(shm, rank)->digest != shm->flow.call.digest) {
			shm->culprit = rank;
			return false;
		}
	}
	return true;
}

int col__post_advance(struct col_shm *shm)
{
	if (!col__post_is_seen(shm))
		return col__is_aborted(shm) ? COLLECT_E_ABORTED : COL_SHM_STUCK;
	if (!digests_agree(shm))
		return COLLECT_E_INVALID;
	if (col__is_aborted(shm))
		return COLLECT_E_ABORTED;
	col__post_take(shm);
	return COL_SHM_DONE;
}
