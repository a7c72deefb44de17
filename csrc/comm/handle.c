/*
 * Operations, as their callers hold them: starting one again, waiting, asking, giving it up.
 */
#include <string.h>

#include "base/clock.h"
#include "comm/comm.h"

/* A caller that waits anyway stays for so many rounds of shared memory when it starts an op:
 * yields, of which each takes 0.4 us when nobody else wants the processor. */
#define RUN_ROUNDS 100u

static bool is_complete(void *argument)
{
	struct collect_op *op = argument;
	return atomic_load(&op->status) != COLLECT_PENDING;
}

static uint64_t deadline_of(uint64_t now_ns, uint64_t timeout_ns)
{
	return now_ns + timeout_ns < now_ns ? UINT64_MAX : now_ns + timeout_ns;
}

/* ---- the comm may go while callers hold its ops ---- */

/* False: it is closed. */
static inline bool comm_enter(struct collect_comm *comm)
{
	/* Before the look; who closes looks for those inside afterwards: one of us sees the other. */
	atomic_fetch_add(&comm->inside, 1);
	if (!atomic_load(&comm->is_closed))
		return true;
	atomic_fetch_sub(&comm->inside, 1);
	return false;
}

static inline void comm_leave(struct collect_comm *comm)
{
	atomic_fetch_sub_explicit(&comm->inside, 1, memory_order_release);
}

int collect_op_wait(collect_op *op, uint64_t timeout_ns)
{
	struct collect_comm *comm = op->comm;
	if (!is_complete(op) && comm_enter(comm)) {
		col_engine_wait(comm->engine, comm, is_complete, op,
		                deadline_of(col_clock_ns(), timeout_ns));
		comm_leave(comm);
	}
	return atomic_load_explicit(&op->status, memory_order_acquire);
}

/* ---- starting again ---- */

/* With the baton. */
static int op_restart(struct collect_op *op, uint64_t deadline_ns)
{
	if (!op->is_prepared)
		return COLLECT_E_INVALID;
	/* Its caller may have given it up while the others still wait for a verdict about it. */
	if (op->is_queued)
		return COLLECT_E_BUSY;
	uint64_t limit_ns = op->call.deadline_ns;
	if (deadline_ns == 0 && limit_ns != 0)
		deadline_ns = deadline_of(op->comm->engine->now_ns, limit_ns);
	op->deadline_ns = deadline_ns;
	return col__op_submit(op->comm, op);
}

int collect_op_start(collect_op *op, uint64_t deadline_ns)
{
	struct collect_comm *comm = op->comm;
	if (!comm_enter(comm))
		return COLLECT_E_CLOSED;
	col_engine_enter(comm->engine);
	int status = op_restart(op, deadline_ns);
	if (status == COLLECT_OK)
		op->fitting_epoch = comm->epoch;
	col_engine_leave(comm->engine);
	comm_leave(comm);
	return status;
}

/* With the baton, which it leaves. */
static int op_run(struct collect_op *op)
{
	struct collect_comm *comm = op->comm;
	struct collect_engine *engine = comm->engine;
	bool fits = op->call.world == 0 || op->fitting_epoch == comm->epoch;
	engine->patience = RUN_ROUNDS;
	int status = fits ? op_restart(op, 0) : COLLECT_E_BOUNDARY;
	engine->patience = 0;
	if (status < 0 || is_complete(op)) {
		col_engine_leave(engine);
		return status < 0 ? status : atomic_load(&op->status);
	}
	uint64_t deadline_ns = deadline_of(engine->now_ns, COLLECT_RUN_NS);
	if (col_engine_drive(engine, comm, is_complete, op, deadline_ns))
		col_engine_wait(engine, comm, is_complete, op, deadline_ns);
	return atomic_load_explicit(&op->status, memory_order_acquire);
}

int collect_op_run(collect_op *op)
{
	struct collect_comm *comm = op->comm;
	if (!comm_enter(comm))
		return COLLECT_E_CLOSED;
	col_engine_enter(comm->engine);
	int status = op_run(op);
	comm_leave(comm);
	return status;
}

int collect_op_run_on(collect_op *op, const void *source, void *target, uint64_t count)
{
	struct collect_comm *comm = op->comm;
	if (!comm_enter(comm))
		return COLLECT_E_CLOSED;
	col_engine_enter(comm->engine);
	int status = col__call_aim(op, source, target, count);
	if (status == COLLECT_OK)
		status = op_run(op);
	else
		col_engine_leave(comm->engine);
	comm_leave(comm);
	return status;
}

/* ---- looking, and giving up ---- */

void collect_op_info_get(collect_op *op, struct collect_op_info *info_out)
{
	memset(info_out, 0, sizeof(*info_out));
	info_out->status = atomic_load_explicit(&op->status, memory_order_acquire);
	info_out->submitted_ns = op->submitted_ns;
	info_out->op = op->number;
	if (info_out->status == COLLECT_PENDING)
		return;
	if (op->message != NULL) {
		info_out->peer = op->message->peer;
		info_out->bytes = op->message->length;
	}
	info_out->attempt = op->attempt;
	info_out->completed_ns = op->completed_ns;
	info_out->attempts = op->attempts;
	info_out->participants = op->participants;
	info_out->algorithm = op->algorithm;
	info_out->is_shared = op->is_shared || (op->used_shm && !op->used_sockets);
	info_out->is_mixed = op->used_shm && op->used_sockets;
}

void collect_op_release(collect_op **op)
{
	if (*op != NULL)
		col__op_release(*op);
	*op = NULL;
}
