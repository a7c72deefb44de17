/*
 * Operations: the queue, running the head, completing it exactly once.
 *
 * Contract
 *  - An op completes once per start: its status leaves COLLECT_PENDING once, and then everything
 *    else in it is final and the caller's memory is not touched any more.
 *  - The source is only read until the op is delivered, also where it is the target: so a re-run
 *    finds it untouched.
 *  - How an op is delivered is told in comm.h.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/size.h"
#include "comm/comm.h"

/* A copy of so many bytes is not read again soon: it bypasses the cache. */
#define STREAMING_BYTES (4u << 20)

void col__op_release(struct collect_op *op)
{
	if (atomic_fetch_sub(&op->holds, 1) != 1)
		return;
	col_free(op->scaled);
	col_free(op);
}

void col__op_complete(struct collect_op *op, int status)
{
	op->completed_ns = col_clock_ns();
	/* Sequentially consistent, as are the waiter's two steps: either it sees this status, or its
	 * sleep is seen and ended. */
	atomic_store(&op->status, status);
	col_engine_op_completed(op->comm->engine);
}

int col__op_submit(struct collect_comm *comm, struct collect_op *op)
{
	if (comm->ops_count >= COL_OPS_MAX)
		return COLLECT_E_FULL;
	atomic_fetch_add(&op->holds, 1);
	atomic_store(&op->status, COLLECT_PENDING);
	op->next = NULL;
	op->is_queued = true;
	op->is_uprooted = false;
	op->is_given_up = false;
	op->is_late = false;
	op->is_whole = false;
	op->is_scaled = false;
	op->attempts = 0;
	op->number = ++comm->submitted;
	op->submitted_ns = comm->engine->now_ns;
	if (comm->ops_tail != NULL)
		comm->ops_tail->next = op;
	else
		comm->ops_head = op;
	if (comm->scope != 0)
		col__scope_wake(comm);
	comm->ops_tail = op;
	comm->ops_count++;
	if (comm->ops_head == op)
		col__op_start_next(comm);
	return COLLECT_OK;
}

static struct collect_op *head_pop(struct collect_comm *comm)
{
	struct collect_op *op = comm->ops_head;
	comm->ops_head = op->next;
	if (comm->ops_head == NULL)
		comm->ops_tail = NULL;
	if (comm->ops_head == NULL && comm->scope != 0)
		col__scope_rest(comm);
	comm->ops_count--;
	comm->phase = COL_PHASE_WAITING;
	op->is_queued = false;
	return op;
}

static int area_reserve(struct col_result *area, uint64_t bytes)
{
	if (area->capacity >= bytes)
		return COLLECT_OK;
	col_free(area->bytes);
	*area = (struct col_result){.bytes = col_alloc(bytes)};
	if (area->bytes == NULL)
		return COLLECT_E_MEMORY;
	area->capacity = bytes;
	return COLLECT_OK;
}

/* ---- running the head ---- */

/* Everything on which members must agree for their frames to fit together. */
static uint32_t recipe_digest(const struct collect_comm *comm, const struct collect_op *op)
{
	uint32_t parts[5] = {op->digest, op->is_shared ? UINT32_MAX : (uint32_t)op->algorithm,
	                     comm->member_count, comm->engine->options.chunk_bytes,
	                     comm->recipe.commit_bytes};
	return col_crc32c(parts, sizeof(parts));
}

/* Whether the call fits so many members. */
static bool fits(const struct collect_op *op, uint32_t member_count)
{
	if (!col__call_has_blocks(op->call.collective) || op->call.world == 0)
		return true;
	/* Without a shape, fewer blocks than there is room for are fine. */
	return op->is_shaped ? op->call.world == member_count : op->call.world >= member_count;
}

/* What could not be checked before the members were known. */
static int head_check(const struct collect_comm *comm, const struct collect_op *op, uint32_t root)
{
	bool is_rootless = op->call.root != 0 && root == COL_RANK_NONE;
	if (!fits(op, comm->member_count) || is_rootless || op->is_uprooted)
		return COLLECT_E_MEMBERS;
	if (op->shape.target_bytes > 0 && op->call.target == NULL)
		return COLLECT_E_INVALID;
	if (op->target_at == NULL)
		return COLLECT_OK;
	uint32_t self = comm->self_rank;
	uint64_t to_self = op->blocks_at[self + 1] - op->blocks_at[self];
	uint64_t from_self = op->target_at[self + 1] - op->target_at[self];
	return to_self == from_self ? COLLECT_OK : COLLECT_E_INVALID;
}

/* factor * source, once for all attempts. */
static int head_scale(struct collect_op *op)
{
	if (op->call.reduce_op != COLLECT_PREMUL_SUM || op->is_scaled || op->is_token)
		return COLLECT_OK;
	bool has_blocks = col__call_has_blocks(op->call.collective);
	uint64_t bytes = has_blocks ? op->shape.payload_bytes : op->shape.layout_bytes;
	if (op->scaled == NULL)
		op->scaled = col_alloc(bytes);
	if (op->scaled == NULL)
		return COLLECT_E_MEMORY;
	col_kernels()->scale[op->call.dtype](op->scaled, op->call.source, bytes / op->element_bytes,
	                                     op->call.factor);
	op->is_scaled = true;
	return COLLECT_OK;
}

static const uint8_t *source_of(const struct collect_op *op)
{
	if (op->is_token)
		return (const uint8_t *)&op->token;
	return op->is_scaled ? op->scaled : op->call.source;
}

/* Members whose word for the head has not come yet. */
static uint32_t words_count_missing(struct collect_comm *comm)
{
	uint64_t number = comm->ops_head->number;
	uint32_t missing = 0;
	for (uint32_t rank = 0; rank < comm->member_count; rank++) {
		const struct col_word *word = &comm->words[rank];
		bool is_mismatch = word->op == number && word->digest != comm->digest;
		if (rank != comm->self_rank && (word->op < number || is_mismatch))
			missing++;
		if (is_mismatch)
			col__mesh_mismatch(comm, comm->members[rank]);
	}
	return missing;
}

/* Over links: everything that can go wrong before the first frame. */
static int head_lay_out(struct collect_comm *comm, uint32_t root)
{
	struct collect_op *op = comm->ops_head;
	int status = col__runner_find(comm, op, root);
	if (status == COLLECT_OK)
		status = head_scale(op);
	if (status < 0)
		return status;
	bool is_unknown = op->target_at != NULL;
	op->commits = is_unknown || op->shape.payload_bytes >= comm->recipe.commit_bytes ||
	              !col__call_waits_for_all(op);
	op->is_direct = op->commits &&
	                col__call_can_be_direct(op, comm->member_count, comm->self_rank);
	if (!op->is_direct && area_reserve(&comm->result, op->shape.result_bytes) < 0)
		return COLLECT_E_MEMORY;
	struct col_run run = {
		.layout = {
			.plan = op->runner->plan,
			.source = source_of(op),
			.target = op->is_direct ? op->call.target : comm->result.bytes,
			.bytes = op->shape.layout_bytes,
			.blocks_at = op->blocks_at,
			.target_at = op->target_at,
		},
		.dtype = op->is_token ? COLLECT_INT64 : op->call.dtype,
		.reduce_op = op->is_token ? COLLECT_SUM : op->call.reduce_op,
	};
	return area_reserve(&comm->scratch, col_exec_lay_out(&op->runner->exec, &run));
}

/* It may be over, and the op gone, when this returns; not if it returns an error. */
static int head_run(struct collect_comm *comm)
{
	struct collect_op *op = comm->ops_head;
	uint32_t root = op->call.root != 0 ? col__mesh_rank(comm, op->call.root) : COL_RANK_NONE;
	if (fits(op, comm->member_count))
		op->shape = col__call_shape(op, comm->member_count, comm->self_rank);
	int status = head_check(comm, op, root);
	if (status < 0)
		return status;
	/* All members leave the choice to the library, or none: else their digests differ. */
	op->is_shared = comm->share.state == COL_SHARE_ON && op->call.algorithm == COLLECT_AUTO;
	status = op->is_shared ? COLLECT_OK : head_lay_out(comm, root);
	if (status < 0)
		return status;
	comm->phase = COL_PHASE_RUNNING;
	comm->runner = op->is_shared ? NULL : op->runner;
	comm->digest = recipe_digest(comm, op);
	op->is_whole = false;
	op->attempt = comm->epoch;
	op->participants = comm->member_count;
	op->attempts++;
	if (op->is_shared)
		return col__share_run(comm, root);
	if (op->commits)
		comm->words_missing = words_count_missing(comm);
	col_exec_start(&comm->runner->exec, comm->scratch.bytes);
	col__mesh_offer_waiting(comm);
	return COLLECT_OK;
}

/* Why the head was given up, for who decides about it. */
static void abandoned_post(struct collect_comm *comm)
{
	char detail[COLLECT_DETAIL_BYTES_MAX];
	char call[COLLECT_DESCRIPTOR_BYTES_MAX];
	const struct collect_op *op = comm->ops_head;
	int status = atomic_load(&op->status);
	col__call_print(op, call, sizeof(call));
	if (status == COLLECT_E_MEMBERS)
		snprintf(detail, sizeof(detail), "members: %s does not fit a group of %u", call,
		         comm->member_count);
	else if (status == COLLECT_E_ABORTED || status == COLLECT_E_CLOSED)
		snprintf(detail, sizeof(detail), "aborted by the caller");
	else
		snprintf(detail, sizeof(detail), "%s cannot run here: %s", call,
		         collect_status_name(status));
	col__mesh_post(comm, COLLECT_EVENT_ABORTED, comm->self, 0, detail);
}

void col__op_start_next(struct collect_comm *comm)
{
	/* An op may be over before head_run returns, as in a world of one: the loop below takes the
	 * next, so that a long queue is no deep stack. */
	if (comm->is_starting)
		return;
	comm->is_starting = true;
	while (comm->ops_head != NULL && comm->phase == COL_PHASE_WAITING && !comm->is_frozen &&
	       comm->epoch != 0 && comm->share.state != COL_SHARE_OPENING) {
		struct collect_op *op = comm->ops_head;
		if (op->number <= comm->consumed_op) {
			/* A verdict failed it before it was submitted here. */
			head_pop(comm);
			if (!op->is_given_up)
				col__op_complete(op, COLLECT_E_FAILED);
			col__op_release(op);
		} else if (op->is_given_up) {
			comm->phase = COL_PHASE_ABANDONED;
			abandoned_post(comm);
		} else if (comm->share.state == COL_SHARE_IDLE) {
			col__share_begin(comm);
		} else {
			int status = head_run(comm);
			if (status == COLLECT_OK)
				continue; /* it may be over, and gone */
			/* The others wait for it: it must be settled like any abort. */
			comm->phase = COL_PHASE_WAITING;
			op->is_given_up = true;
			col__op_complete(op, status);
		}
	}
	comm->is_starting = false;
}

/* The areas of results are about to change hands: no link may read or write one any more. A needer
 * that gave up does not wait for its repair; a hostile peer may send a frame twice. */
static void links_purge(struct collect_comm *comm)
{
	if (comm->scope != 0)
		col__flows_purge(comm);
	for (struct col_link *link = comm->links; link != NULL; link = link->next)
		col_link_purge(link, 0);
}

/* The result is the caller's from here on. */
static void head_deliver(struct collect_comm *comm, struct collect_op *op)
{
	if (op->is_shared)
		return;
	uint64_t bytes = op->shape.target_bytes;
	if (!op->is_direct && bytes > 0)
		col_kernels()->copy(op->call.target, comm->result.bytes, bytes, bytes >= STREAMING_BYTES);
	if (op->commits || !col__call_is_retained(op))
		return;
	struct col_result result = comm->result;
	comm->result = comm->retained;
	comm->retained = result;
	comm->retained_op = op->number;
	comm->retained_bytes = op->shape.result_bytes;
}

void col__op_head_finish(struct collect_comm *comm, int status, uint64_t attempt)
{
	struct collect_op *op = head_pop(comm);
	comm->consumed_op = op->number;
	comm->consumed_attempt = attempt;
	comm->consumed_status = status;
	if (status == COLLECT_OK && !op->is_given_up) {
		if (!op->is_shared)
			links_purge(comm);
		head_deliver(comm, op);
		op->attempt = attempt;
	}
	if (!op->is_given_up)
		col__op_complete(op, status);
	col__op_release(op);
	col__op_start_next(comm);
}

void col__op_stop(struct collect_comm *comm)
{
	links_purge(comm);
	col__share_stop(comm);
	if (comm->runner != NULL)
		col_exec_stop(&comm->runner->exec);
	comm->runner = NULL;
	col_free(comm->repair_has);
	comm->repair_has = NULL;
	comm->phase = COL_PHASE_WAITING;
}

void col__op_abandon(struct collect_comm *comm, int status)
{
	struct collect_op *op = comm->ops_head;
	col__op_stop(comm);
	op->is_given_up = true;
	col__op_complete(op, status);
	col__op_start_next(comm);
}

void col__op_give_up_all(struct collect_comm *comm, int status)
{
	bool was_abandoned = comm->phase == COL_PHASE_ABANDONED;
	if (comm->ops_head == NULL)
		return;
	col__op_stop(comm);
	for (struct collect_op *op = comm->ops_head; op != NULL; op = op->next) {
		if (op->is_given_up)
			continue;
		op->is_given_up = true;
		col__op_complete(op, status);
	}
	if (was_abandoned)
		comm->phase = COL_PHASE_ABANDONED;
	else
		col__op_start_next(comm);
}

/* ---- commit ---- */

static void commit_check(struct collect_comm *comm)
{
	if (comm->phase == COL_PHASE_COMMITTING && comm->words_missing == 0)
		col__op_head_finish(comm, COLLECT_OK, comm->epoch);
}

static void commit_begin(struct collect_comm *comm)
{
	struct col_frame frame = {
		.kind = COL_FRAME_DONE,
		.group = comm->scope,
		.op = comm->ops_head->number,
		.attempt = comm->epoch,
		.digest = comm->digest,
	};
	comm->phase = COL_PHASE_COMMITTING;
	comm->ops_head->is_whole = true;
	for (uint32_t i = 1; i < comm->member_count; i++) {
		uint32_t rank = (comm->self_rank + i) % comm->member_count;
		(void)col_link_send(comm->by_rank[rank], &frame, NULL, NULL, NULL);
	}
	commit_check(comm);
}

void col__op_word(struct collect_comm *comm, uint32_t rank, const struct col_frame *frame)
{
	struct col_word *word = &comm->words[rank];
	uint64_t before = word->op;
	if (frame->op <= before)
		return;
	/* A member is one op ahead of the head at most; what it says of itself is kept until then. */
	*word = (struct col_word){.op = frame->op, .digest = frame->digest};
	const struct collect_op *op = comm->ops_head;
	bool runs = comm->phase == COL_PHASE_RUNNING || comm->phase == COL_PHASE_COMMITTING;
	if (!runs || frame->op < op->number)
		return;
	if (frame->op == op->number && frame->digest != comm->digest) {
		col__mesh_mismatch(comm, comm->members[rank]);
		return;
	}
	if (!op->commits || op->is_shared || before >= op->number)
		return;
	comm->words_missing--;
	commit_check(comm);
}

/* ---- repair ---- */

void col__op_repair_finish(struct collect_comm *comm, uint64_t attempt)
{
	col__mesh_post(comm, COLLECT_EVENT_REPAIRED, comm->self, 0, "");
	col__op_head_finish(comm, COLLECT_OK, attempt);
}

/* Members of an epoch; of the current one if it is too long ago. */
static uint32_t member_count_of(const struct collect_comm *comm, uint64_t epoch)
{
	for (uint32_t i = 0; i < COL_VIEWS_MAX; i++)
		if (comm->views[i].epoch == epoch)
			return comm->views[i].member_count;
	return comm->member_count;
}

static int repair_begin(struct collect_comm *comm, uint64_t attempt)
{
	struct collect_op *op = comm->ops_head;
	uint32_t world = member_count_of(comm, attempt);
	if (!fits(op, world))
		return COLLECT_E_MEMBERS;
	/* What is not retained by anybody was whole here, or was delivered nowhere. */
	if (!col__call_is_retained(op))
		return COLLECT_E_FAILED;
	op->shape = col__call_shape(op, world, 0);
	op->participants = world;
	op->commits = false;
	op->is_direct = false;
	uint64_t chunks =
		col_div_ceil(op->shape.result_bytes, comm->engine->options.chunk_bytes);
	comm->repair_has = col_alloc_zeroed(chunks, 1);
	if (comm->repair_has == NULL || area_reserve(&comm->result, op->shape.result_bytes) < 0)
		return COLLECT_E_MEMORY;
	comm->repair_attempt = attempt;
	comm->repair_missing = chunks;
	comm->phase = COL_PHASE_REPAIRING;
	return COLLECT_OK;
}

void col__op_repair(struct collect_comm *comm, uint64_t attempt)
{
	struct collect_op *op = comm->ops_head;
	int status = COLLECT_OK;
	if (!op->is_given_up && op->is_whole && op->is_shared)
		col__share_complete(comm);
	if (!op->is_given_up && !op->is_whole) {
		status = repair_begin(comm, attempt);
		if (status == COLLECT_OK)
			return;
		/* Others have delivered it, so it counts as consumed; only this caller lacks it. */
		col_free(comm->repair_has);
		comm->repair_has = NULL;
		op->is_given_up = true;
		col__op_complete(op, status);
	}
	col__op_repair_finish(comm, attempt);
}

void col__op_repair_check(struct collect_comm *comm)
{
	if (comm->phase != COL_PHASE_REPAIRING || comm->repair_missing > 0)
		return;
	col_free(comm->repair_has);
	comm->repair_has = NULL;
	col__op_repair_finish(comm, comm->repair_attempt);
}

/* ---- what the executor calls ---- */

static void exec_send(void *user, uint32_t rank, struct col_frame *frame, const uint8_t *payload,
                      struct col_buffer *buffer, void *token)
{
	struct collect_comm *comm = user;
	frame->op = comm->ops_head->number;
	frame->attempt = comm->epoch;
	frame->digest = comm->digest;
	/* A link that is lost has told so; the op then waits for a verdict. */
	(void)col__comm_send(comm, rank, frame, payload, buffer, token);
}

static void exec_consumed(void *user, uint32_t rank, uint32_t bytes)
{
	struct collect_comm *comm = user;
	col__comm_consume(comm, rank, bytes);
}

static void exec_done(void *user)
{
	struct collect_comm *comm = user;
	COL_ASSERT(comm->phase == COL_PHASE_RUNNING && !comm->is_frozen);
	if (comm->ops_head->commits)
		commit_begin(comm);
	else
		col__op_head_finish(comm, COLLECT_OK, comm->epoch);
}

static void exec_starved(void *user)
{
	col__op_abandon(user, COLLECT_E_MEMORY);
}

const struct col_exec_events col__op_exec_events = {
	.send = exec_send,
	.consumed = exec_consumed,
	.done = exec_done,
	.starved = exec_starved,
};
