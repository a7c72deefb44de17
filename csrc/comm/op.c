/*
 * Operations: the queue, running the head, completing it exactly once.
 *
 * Contract
 *  - An op completes once: its status leaves COLLECT_PENDING once, and then everything else in it
 *    is final and the caller's memory is not touched any more.
 *  - The input is only read until the op completes; the result is gathered in `result` and copied
 * to
 *    the caller at delivery. So a re-run always finds the input untouched, also in place.
 *  - The result of the last delivered op is retained for members that lack it.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/size.h"
#include "comm/comm.h"

void col__op_release(struct collect_op *op)
{
	if (atomic_fetch_sub(&op->holds, 1) == 1)
		col_free(op);
}

static void op_complete(struct collect_op *op, int status)
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
	op->number = ++comm->submitted;
	op->submitted_ns = comm->engine->now_ns;
	if (comm->ops_tail != NULL)
		comm->ops_tail->next = op;
	else
		comm->ops_head = op;
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
	comm->ops_count--;
	comm->phase = COL_PHASE_WAITING;
	return op;
}

/* Room for the head's result. */
static int result_reserve(struct collect_comm *comm, size_t bytes)
{
	if (comm->result.capacity >= bytes)
		return COLLECT_OK;
	col_free(comm->result.bytes);
	comm->result = (struct col_result){.bytes = col_alloc(bytes)};
	if (comm->result.bytes == NULL)
		return COLLECT_E_MEMORY;
	comm->result.capacity = bytes;
	return COLLECT_OK;
}

/* Everything on which members must agree for their frames to fit together. */
static uint32_t recipe_digest(const struct collect_comm *comm, const struct collect_op *op)
{
	uint32_t parts[4] = {op->digest, (uint32_t)comm->plan->algorithm, comm->member_count,
	                     comm->engine->options.chunk_bytes};
	return col_crc32c(parts, sizeof(parts));
}

static void head_run(struct collect_comm *comm)
{
	struct collect_op *op = comm->ops_head;
	comm->phase = COL_PHASE_RUNNING;
	comm->digest = recipe_digest(comm, op);
	op->attempt = comm->epoch;
	op->participants = comm->member_count;
	op->attempts++;
	struct col_run run = {
		.in = op->source,
		.out = comm->result.bytes,
		.bytes = op->bytes,
		.dtype = op->dtype,
		.reduce_op = op->reduce_op,
	};
	col_exec_start(&comm->exec, &run);
	col__mesh_offer_waiting(comm);
}

void col__op_start_next(struct collect_comm *comm)
{
	/* An op may be over before head_run returns, as in a world of one: the loop below takes the
	 * next, so that a long queue is no deep stack. */
	if (comm->is_starting)
		return;
	comm->is_starting = true;
	while (comm->ops_head != NULL && comm->phase == COL_PHASE_WAITING && !comm->is_frozen &&
	       comm->epoch != 0) {
		struct collect_op *op = comm->ops_head;
		if (op->number <= comm->consumed_op) {
			/* A verdict failed it before it was submitted here. */
			head_pop(comm);
			if (!op->is_given_up)
				op_complete(op, COLLECT_E_FAILED);
			col__op_release(op);
		} else if (op->is_given_up) {
			comm->phase = COL_PHASE_ABANDONED;
			col__mesh_post(comm, COLLECT_EVENT_ABORTED, comm->self, 0, "aborted by the caller");
		} else if (result_reserve(comm, op->bytes) < 0) {
			/* The others wait for it: it must be settled like any abort. */
			op->is_given_up = true;
			op_complete(op, COLLECT_E_MEMORY);
		} else {
			head_run(comm);
		}
	}
	comm->is_starting = false;
}

/* The areas of results are about to change hands: no link may read or write one any more. A needer
 * that gave up does not wait for its repair; a hostile peer may send a frame twice. */
static void links_purge(struct collect_comm *comm)
{
	for (struct col_link *link = comm->links; link != NULL; link = link->next)
		col_link_purge(link);
}

void col__op_head_finish(struct collect_comm *comm, int status, uint64_t attempt)
{
	struct collect_op *op = head_pop(comm);
	bool is_delivered = status == COLLECT_OK && !op->is_given_up;
	comm->consumed_op = op->number;
	comm->consumed_attempt = attempt;
	comm->consumed_status = status;
	if (is_delivered) {
		struct col_result result = comm->result;
		links_purge(comm);
		if (op->count > 0)
			memcpy(op->target, result.bytes, op->bytes);
		comm->result = comm->retained;
		comm->retained = result;
		comm->retained_op = op->number;
		comm->retained_bytes = op->bytes;
		op->attempt = attempt;
	}
	if (!op->is_given_up)
		op_complete(op, status);
	col__op_release(op);
	col__op_start_next(comm);
}

void col__op_stop(struct collect_comm *comm)
{
	links_purge(comm);
	if (comm->exec.lanes != NULL)
		col_exec_stop(&comm->exec);
	col_free(comm->repair_has);
	comm->repair_has = NULL;
	comm->phase = COL_PHASE_WAITING;
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
		op_complete(op, status);
	}
	if (was_abandoned)
		comm->phase = COL_PHASE_ABANDONED;
	else
		col__op_start_next(comm);
}

/* ---- repair ---- */

void col__op_repair_finish(struct collect_comm *comm, uint64_t attempt)
{
	col__mesh_post(comm, COLLECT_EVENT_REPAIRED, comm->self, 0, "");
	col__op_head_finish(comm, COLLECT_OK, attempt);
}

void col__op_repair_begin(struct collect_comm *comm, uint64_t attempt)
{
	struct collect_op *op = comm->ops_head;
	uint64_t chunks = col_div_ceil(op->bytes, comm->engine->options.chunk_bytes);
	comm->repair_has = col_alloc_zeroed(chunks, 1);
	if (comm->repair_has == NULL || result_reserve(comm, op->bytes) < 0) {
		/* Others have delivered it, so it counts as consumed; only this caller lacks it. */
		col_free(comm->repair_has);
		comm->repair_has = NULL;
		op->is_given_up = true;
		op_complete(op, COLLECT_E_MEMORY);
		col__op_repair_finish(comm, attempt);
		return;
	}
	comm->repair_attempt = attempt;
	comm->repair_missing = chunks;
	comm->phase = COL_PHASE_REPAIRING;
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
	(void)col_link_send(comm->by_rank[rank], frame, payload, buffer, token);
}

static void exec_consumed(void *user, uint32_t rank, uint32_t bytes)
{
	struct collect_comm *comm = user;
	col_link_consume(comm->by_rank[rank], bytes);
}

static void exec_done(void *user)
{
	struct collect_comm *comm = user;
	COL_ASSERT(comm->phase == COL_PHASE_RUNNING && !comm->is_frozen);
	col__op_head_finish(comm, COLLECT_OK, comm->epoch);
}

const struct col_exec_events col__op_exec_events = {
	.send = exec_send,
	.consumed = exec_consumed,
	.done = exec_done,
};

/* ---- the caller's side ---- */

static bool is_complete(void *argument)
{
	struct collect_op *op = argument;
	return atomic_load(&op->status) != COLLECT_PENDING;
}

int collect_op_wait(collect_op *op, uint64_t timeout_ns)
{
	if (!is_complete(op)) {
		uint64_t now_ns = col_clock_ns();
		uint64_t deadline_ns = now_ns + timeout_ns < now_ns ? UINT64_MAX : now_ns + timeout_ns;
		col_engine_wait(op->comm->engine, is_complete, op, deadline_ns);
	}
	return atomic_load_explicit(&op->status, memory_order_acquire);
}

void collect_op_info_get(collect_op *op, struct collect_op_info *info_out)
{
	memset(info_out, 0, sizeof(*info_out));
	info_out->status = atomic_load_explicit(&op->status, memory_order_acquire);
	info_out->submitted_ns = op->submitted_ns;
	if (info_out->status == COLLECT_PENDING)
		return;
	info_out->op = op->number;
	info_out->attempt = op->attempt;
	info_out->completed_ns = op->completed_ns;
	info_out->attempts = op->attempts;
	info_out->participants = op->participants;
}

void collect_op_release(collect_op **op)
{
	if (*op != NULL)
		col__op_release(*op);
	*op = NULL;
}
