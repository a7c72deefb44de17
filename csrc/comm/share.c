/*
 * Sharing: when all members of an epoch are on one host, operations whose algorithm is left to the
 * library run over a shared segment (shm/shm.h) instead of the links.
 *
 *   state    meaning                                              left by
 *   OFF      this epoch's members do not share                    install
 *   IDLE     they may, but no op has been started (a sub-group's)  an op, anybody's word
 *   OPENING  ranks make the segment, or attach; no op starts      everybody's word
 *   ON       every member has attached: ops run over the segment  install
 *
 * Rank 0 makes the segment and says so to everybody by a frame SHARE; each other rank attaches when
 * that word comes, and says to everybody whether it could. A host is thus never believed by
 * its name: containers that only look alike find no segment. When somebody could not, nobody
 * shares in this epoch, and everybody knows it before the first op.
 *
 * An op over the segment is delivered as by commit: done anywhere means whole everywhere. A freeze
 * aborts the segment for good, and it is kept until the verdict: whoever was whole completes its
 * result from it.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "comm/comm.h"
#include "shm/shm.h"

/* Rounds of col_shm_spin between two looks at anything else. */
#define ROUNDS 64u

static bool is_on_one_host(const struct collect_comm *comm)
{
	const uint32_t *hosts = comm->recipe.hosts;
	if (hosts == NULL || comm->recipe.transport == COLLECT_TRANSPORT_TCP ||
	    comm->member_count < 2 || comm->member_count > COL_SHM_RANKS_MAX)
		return false;
	for (uint32_t rank = 1; rank < comm->member_count; rank++)
		if (hosts[rank] != hosts[0])
			return false;
	return true;
}

/* Whom the segment's ranks wake is asleep in its event loop: any frame will do. */
static void wake(void *user, uint32_t rank)
{
	struct collect_comm *comm = user;
	col_link_nudge(comm->by_rank[rank]);
}

/* ---- opening ---- */

static int segment_open(struct collect_comm *comm)
{
	char name[COL_SHM_NAME_BYTES];
	struct col_shm_options options = {
		.nonce = comm->key ^ comm->epoch,
		.rank = comm->self_rank,
		.rank_count = comm->member_count,
		.wake = wake,
		.user = comm,
	};
	snprintf(name, sizeof(name), "collect-%016llx-%016llx", (unsigned long long)comm->members[0],
	         (unsigned long long)(comm->key ^ comm->epoch));
	if (comm->self_rank == 0)
		return col_shm_create(name, &options, &comm->share.shm);
	return col_shm_attach(name, &options, &comm->share.shm);
}

static void opening_check(struct collect_comm *comm)
{
	struct col_share *share = &comm->share;
	if (share->state == COL_SHARE_IDLE)
		col__share_begin(comm);
	if (share->state != COL_SHARE_OPENING || !share->has_spoken || share->words_missing > 0)
		return;
	share->state = share->is_refused ? COL_SHARE_OFF : COL_SHARE_ON;
	if (share->is_refused)
		col_shm_close(&share->shm);
	col__op_start_next(comm);
}

/* Opens the segment and tells everybody whether it could. */
static void speak(struct collect_comm *comm)
{
	struct col_share *share = &comm->share;
	struct col_frame frame = {
		.kind = COL_FRAME_SHARE,
		.group = comm->scope,
		.attempt = comm->epoch,
		.step = segment_open(comm) == COLLECT_OK,
	};
	share->has_spoken = true;
	share->is_refused = share->is_refused || frame.step == 0;
	for (uint32_t rank = 0; rank < comm->member_count; rank++)
		if (rank != comm->self_rank)
			(void)col_link_send(comm->by_rank[rank], &frame, NULL, NULL, NULL);
}

void col__share_open(struct collect_comm *comm)
{
	struct col_share *share = &comm->share;
	if (share->must_disown && share->old != NULL)
		(void)col_shm_disown(share->old);
	col_shm_close(&share->old);
	*share = (struct col_share){.state = COL_SHARE_OFF};
	if (!is_on_one_host(comm))
		return;
	/* There may be hundreds of sub-groups, and few in use. */
	share->state = COL_SHARE_IDLE;
	if (comm->scope == 0)
		col__share_begin(comm);
}

void col__share_begin(struct collect_comm *comm)
{
	comm->share.state = COL_SHARE_OPENING;
	comm->share.words_missing = comm->member_count - 1;
	if (comm->self_rank == 0)
		speak(comm);
}

void col__share_word(struct collect_comm *comm, uint32_t rank, bool could)
{
	struct col_share *share = &comm->share;
	if (share->state == COL_SHARE_IDLE)
		col__share_begin(comm);
	if (share->state != COL_SHARE_OPENING || (share->words >> rank & 1) != 0)
		return;
	share->words |= (uint64_t)1 << rank;
	share->words_missing--;
	share->is_refused = share->is_refused || !could;
	if (rank == 0)
		speak(comm);
	opening_check(comm);
}

void col__share_retire(struct collect_comm *comm, bool has_lost)
{
	struct col_share *share = &comm->share;
	if (share->shm != NULL) {
		/* A planned switch finds nothing in flight. */
		col_shm_close(&share->old);
		share->old = share->shm;
	}
	share->shm = NULL;
	share->is_running = false;
	share->must_disown = has_lost;
	share->state = COL_SHARE_OPENING; /* until col__share_open: no op starts on its way there */
	share->has_spoken = false;
}

void col__share_close(struct collect_comm *comm)
{
	col_shm_close(&comm->share.shm);
	col_shm_close(&comm->share.old);
}

/* ---- running ---- */

static void counts_of(const uint64_t *sums, uint32_t count, size_t element_bytes,
                      uint64_t *counts_out)
{
	for (uint32_t i = 0; i < count; i++)
		counts_out[i] = (sums[i + 1] - sums[i]) / element_bytes;
}

/* The fail-point: a step counts as a frame, and nobody gets further than the end. */
static void kill_check(struct collect_comm *comm, int progress)
{
	if (comm->kill_op == 0 || comm->kill_op != comm->ops_head->number ||
	    progress == COL_SHM_STUCK)
		return;
	if (progress == COL_SHM_DONE || --comm->kill_frames == 0)
		kill(getpid(), SIGKILL);
}

/* What col_shm_advance answered. */
static void take(struct collect_comm *comm, int progress)
{
	struct col_share *share = &comm->share;
	kill_check(comm, progress);
	if (progress == COL_SHM_DONE) {
		share->is_running = false;
		comm->ops_head->is_whole = true;
		col__op_head_finish(comm, COLLECT_OK, comm->epoch);
	} else if (progress < 0) {
		/* Somebody has frozen, or called something else: a verdict will come. */
		share->is_running = false;
		if (progress == COLLECT_E_INVALID)
			col__mesh_mismatch(comm, comm->members[col_shm_culprit(share->shm)]);
		else if (progress != COLLECT_E_ABORTED)
			col__op_abandon(comm, progress);
	}
}

int col__share_run(struct collect_comm *comm, uint32_t root)
{
	const struct collect_op *op = comm->ops_head;
	uint64_t counts[2][COL_SHM_RANKS_MAX];
	struct col_shm_call call = {
		.collective = op->is_token ? COLLECT_BARRIER : op->call.collective,
		.dtype = op->call.dtype,
		.reduce_op = op->call.reduce_op,
		.root = root == COL_RANK_NONE ? 0 : root,
		.digest = comm->digest,
		.source = op->call.source,
		.target = op->call.target,
		.count = op->is_token ? 0 : op->call.count,
		.factor = op->call.factor,
	};
	if (op->blocks_at != NULL) {
		counts_of(op->blocks_at, comm->member_count, op->element_bytes, counts[0]);
		call.counts = counts[0];
	}
	if (op->target_at != NULL) {
		counts_of(op->target_at, comm->member_count, op->element_bytes, counts[1]);
		call.target_counts = counts[1];
	}
	int status = col_shm_start(comm->share.shm, &call);
	/* Aborted: somebody has frozen, as we shall. */
	if (status < 0 && status != COLLECT_E_ABORTED)
		return status;
	comm->share.is_running = status == COLLECT_OK;
	if (comm->share.is_running)
		take(comm, col_shm_spin(comm->share.shm, comm->engine->patience));
	return COLLECT_OK;
}

bool col_comm_progress(struct collect_comm *comm)
{
	if (!comm->share.is_running)
		return false;
	int progress = col_shm_spin(comm->share.shm, ROUNDS);
	/* Spinning does not look whether others are at something else. */
	if (progress == COL_SHM_STUCK)
		progress = col_shm_advance(comm->share.shm);
	take(comm, progress);
	return progress != COL_SHM_STUCK;
}

bool col_comm_arm(struct collect_comm *comm)
{
	return !comm->share.is_running || col_shm_arm(comm->share.shm);
}

void col_comm_disarm(struct collect_comm *comm)
{
	if (comm->share.is_running)
		col_shm_disarm(comm->share.shm);
}

void col__share_stop(struct collect_comm *comm)
{
	struct col_share *share = &comm->share;
	struct collect_op *op = comm->ops_head;
	if (share->shm == NULL)
		return;
	share->is_done = false;
	col_shm_abort(share->shm);
	if (comm->phase == COL_PHASE_RUNNING && op->is_shared) {
		/* It may have been done before the abort: then it is in its target already. */
		share->is_done = col_shm_advance(share->shm) == COL_SHM_DONE;
		op->is_whole = share->is_done || col_shm_is_whole(share->shm);
	}
	share->is_running = false;
}

void col__share_complete(struct collect_comm *comm)
{
	COL_ASSERT(comm->share.old != NULL);
	if (!comm->share.is_done)
		col_shm_complete(comm->share.old);
}
