/* An operation's life: which path it takes, and what ends it. */
#include "shm/shm.h"

#include <sched.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "shm/state.h"

/* Before the first yield, while nobody who is waited for needs this processor: some microseconds,
 * in which the ranks of another processor can take turns. */
#define PAUSES 200u

static inline void pause_briefly(void)
{
#ifdef __x86_64__
	__builtin_ia32_pause();
#else
	atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* ---- whose turn it is ---------------------------------------------------------------------- */

static void processor_tell(struct col_shm *shm)
{
	uint32_t processor = (uint32_t)sched_getcpu();
	if (processor == shm->processor)
		return;
	shm->processor = processor;
	atomic_store_explicit(&shm->ranks[shm->rank].processor.value, processor, memory_order_relaxed);
}

/* Whether a rank that is waited for can, as far as it told, not run before this one yields. */
static bool is_in_the_way(const struct col_shm *shm)
{
	for (uint64_t missing = shm->missing; missing != 0; missing &= missing - 1) {
		const struct segment_flag *told = &shm->ranks[__builtin_ctzll(missing)].processor;
		if (atomic_load_explicit(&told->value, memory_order_relaxed) == shm->processor)
			return true;
	}
	return false;
}

/* ---- an operation -------------------------------------------------------------------------- */

static void flow_reset(struct col__flow *flow)
{
	flow->path = COL__PATH_NONE;
	flow->block_count = 0;
	flow->copied = 0;
	flow->reduced = 0;
	flow->fetched = 0;
	flow->area_bytes = 0;
	flow->direct_at = 0;
	flow->is_streaming = false;
	flow->is_deferred = false;
	flow->needs_announcements = false;
	flow->reads_sources = false;
	flow->writes_targets = false;
	flow->is_committed = false;
	flow->is_done = false;
	flow->is_finished = false;
	flow->is_broken = false;
}

/* Two ranks exchange what is too short for slices to pay. */
static int path_begin(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	if (shm->rank_count == 2 && flow->call.collective == COLLECT_ALL_REDUCE
	    && !flow->reads_sources) {
		size_t bytes = flow->source_at[shm->rank_count];
		for (uint32_t rank = 0; rank <= shm->rank_count; rank++)
			flow->source_at[rank] = rank <= shm->rank ? 0 : bytes;
		flow->path = COL__PATH_EXCHANGE;
		flow->has_copies = false;
		flow->middle = COL__MIDDLE_OFFER;
	}
	return col__pipeline_begin(shm);
}

int col_shm_start(struct col_shm *shm, const struct col_shm_call *call)
{
	if (shm->flow.path != COL__PATH_NONE)
		return COLLECT_E_BUSY;
	if (shm->is_aborted)
		return COLLECT_E_ABORTED;
	int status = col__shape(shm, call);
	if (status != COLLECT_OK)
		return status;
	flow_reset(&shm->flow);
	processor_tell(shm);
	shm->has_lent_target = false;
	size_t longest = col__shape_post_bytes(shm);
	if (longest <= shm->post_bytes) {
		col__post_begin(shm, longest);
		return COLLECT_OK;
	}
	col__announce(shm);
	shm->flow.path = COL__PATH_ANNOUNCED;
	return shm->flow.needs_announcements ? COLLECT_OK : path_begin(shm);
}

static int announced_advance(struct col_shm *shm)
{
	int progress = col__announcements_read(shm);
	if (progress != COL_SHM_MOVED)
		return progress == COL_SHM_STUCK && col__is_aborted(shm) ? COLLECT_E_ABORTED : progress;
	int status = shm->flow.path == COL__PATH_DIRECT ? col__direct_begin(shm) : path_begin(shm);
	return status == COLLECT_OK ? COL_SHM_MOVED : status;
}

static int path_advance(struct col_shm *shm)
{
	if (shm->is_aborted)
		return shm->flow.is_done ? COL_SHM_DONE : COLLECT_E_ABORTED;
	switch (shm->flow.path) {
	case COL__PATH_POST: return col__post_advance(shm);
	case COL__PATH_EXCHANGE:
	case COL__PATH_PIPELINE: return col__pipeline_advance(shm);
	case COL__PATH_DIRECT: return col__direct_advance(shm);
	case COL__PATH_ANNOUNCED: return announced_advance(shm);
	case COL__PATH_NONE: break;
	}
	return COLLECT_E_INVALID;
}

/* Whether a rank is already in an operation that comes after this one, or is another one. */
static bool is_passed(struct col_shm *shm)
{
	bool is_post = shm->flow.path == COL__PATH_POST;
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		struct segment_rank *lines = &shm->ranks[rank];
		uint64_t number = atomic_load_explicit(&lines->announcement.number, memory_order_acquire);
		bool is_ahead = number > shm->long_number;
		for (int slot = 0; slot < 2 && !is_post; slot++) {
			number = atomic_load_explicit(&lines->posts[slot].number, memory_order_acquire);
			is_ahead |= number > shm->post_number;
		}
		if (is_ahead) {
			shm->culprit = rank;
			return true;
		}
	}
	return false;
}

int col_shm_advance(struct col_shm *shm)
{
	int progress = path_advance(shm);
	/* Who has rightly passed this operation has done its part of it: that must show now. */
	if (progress == COL_SHM_STUCK && is_passed(shm)) {
		progress = path_advance(shm);
		if (progress == COL_SHM_STUCK)
			return COLLECT_E_INVALID;
	}
	if (progress == COL_SHM_DONE)
		shm->flow.path = COL__PATH_NONE;
	return progress;
}

int col_shm_spin(struct col_shm *shm, uint32_t rounds)
{
	uint32_t pauses = 0;
	uint32_t yields = 0;
	for (;;) {
		int progress = path_advance(shm);
		if (progress == COL_SHM_DONE) {
			shm->flow.path = COL__PATH_NONE;
			return progress;
		}
		if (progress == COL_SHM_MOVED) {
			pauses = 0;
			yields = 0;
			continue;
		}
		if (progress != COL_SHM_STUCK || yields >= rounds)
			return progress;
		if (pauses < PAUSES && !is_in_the_way(shm)) {
			pauses++;
			pause_briefly();
		} else {
			yields++;
			sched_yield();
			processor_tell(shm);
		}
	}
}

int col_shm_run(struct col_shm *shm, const struct col_shm_call *call, uint32_t rounds)
{
	int status = col_shm_start(shm, call);
	return status == COLLECT_OK ? col_shm_spin(shm, rounds) : status;
}

/* Once it is committed here it may be delivered elsewhere, and its source may be half overwritten:
 * what is left to do takes no other rank. */
void col_shm_abort(struct col_shm *shm)
{
	struct col__flow *flow = &shm->flow;
	if (shm->is_aborted)
		return;
	shm->is_aborted = true;
	col__abort_post(shm);
	if (flow->path == COL__PATH_NONE || !flow->is_committed)
		return;
	col__pipeline_complete(shm);
	flow->is_done = true;
}

bool col_shm_is_whole(struct col_shm *shm)
{
	COL_ASSERT(shm->is_aborted);
	switch (shm->flow.path) {
	case COL__PATH_POST: return col__post_is_seen(shm);
	case COL__PATH_EXCHANGE:
	case COL__PATH_PIPELINE: return col__pipeline_is_committed(shm);
	case COL__PATH_DIRECT: return col__direct_is_committed(shm);
	case COL__PATH_ANNOUNCED:
	case COL__PATH_NONE: break;
	}
	return false;
}

void col_shm_complete(struct col_shm *shm)
{
	COL_ASSERT(col_shm_is_whole(shm));
	if (shm->flow.path == COL__PATH_POST)
		col__post_take(shm);
	else if (shm->flow.path == COL__PATH_DIRECT)
		col__direct_complete(shm);
	else
		col__pipeline_complete(shm);
	shm->flow.path = COL__PATH_NONE;
}

int col_shm_disown(struct col_shm *shm)
{
	COL_ASSERT(shm->is_aborted);
	return shm->has_lent_target ? col__heap_disown(shm->flow.call.target) : COLLECT_OK;
}
