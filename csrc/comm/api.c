/*
 * The public functions that are not beside what they act on: arguments are checked here, and
 * nothing else happens here.
 */
#include "base/alloc.h"
#include "base/size.h"
#include "base/status.h"
#include "comm/comm.h"

const char *collect_version(void)
{
	return "0.1.0";
}

const char *collect_status_name(int status)
{
	return col_status_name(status);
}

const char *collect_opcode_name(int opcode)
{
	return col_opcode_name(opcode);
}

int collect_isa_select(int isa)
{
	return col_kernels_select(isa);
}

size_t collect_heap_blocks(void)
{
	return col_alloc_blocks();
}

static bool has_kernel(int dtype, int reduce_op)
{
	return col_dtype_is_valid(dtype) && col_reduce_op_is_valid(reduce_op) &&
	       col_kernels()->reduce[dtype][reduce_op] != NULL;
}

int collect_kernel_reduce(void *target, const void *a, const void *b, size_t count, int dtype,
                          int reduce_op)
{
	if (!col_dtype_is_valid(dtype) || !col_reduce_op_is_valid(reduce_op))
		return COLLECT_E_INVALID;
	if (!has_kernel(dtype, reduce_op))
		return COLLECT_E_UNAVAILABLE;
	col_kernels()->reduce[dtype][reduce_op](target, a, b, count);
	return COLLECT_OK;
}

int collect_comm_abort(collect_comm *comm)
{
	col_engine_enter(comm->engine);
	col__op_give_up_all(comm, COLLECT_E_ABORTED);
	col_engine_leave(comm->engine);
	return COLLECT_OK;
}

uint64_t collect_comm_lend(collect_comm *comm, uint64_t passed, uint64_t limit)
{
	col_engine_enter(comm->engine);
	comm->boundaries_passed = col_max_u64(comm->boundaries_passed, passed);
	comm->boundaries_limit = limit;
	passed = comm->boundaries_passed;
	col_engine_leave(comm->engine);
	return passed;
}

uint32_t collect_comm_pending(collect_comm *comm)
{
	col_engine_enter(comm->engine);
	uint32_t count = comm->ops_count;
	col_engine_leave(comm->engine);
	return count;
}

void collect_comm_progress(collect_comm *comm, uint64_t *submitted_out, uint64_t *delivered_out)
{
	col_engine_enter(comm->engine);
	*submitted_out = comm->submitted;
	*delivered_out = comm->consumed_status == COLLECT_OK ? comm->consumed_op : 0;
	col_engine_leave(comm->engine);
}

uint32_t collect_comm_links(collect_comm *comm, struct collect_link_info *infos_out,
                            uint32_t capacity)
{
	uint32_t count = 0;
	col_engine_enter(comm->engine);
	uint64_t now_ns = comm->engine->now_ns;
	for (const struct col_link *link = comm->links; link != NULL; link = link->next, count++) {
		if (count >= capacity)
			continue;
		struct col_link_figures figures;
		col_link_figures_get(link, &figures);
		infos_out[count] = (struct collect_link_info){
			.peer = link->options.peer,
			.is_up = link->state == COL_LINK_UP,
			.streams = link->options.stream_count,
			.sent_bytes = link->sent_bytes,
			.received_bytes = link->received_bytes,
			/* Forgiven silence may reach beyond now. */
			.silent_ns = now_ns > link->heard_ns ? now_ns - link->heard_ns : 0,
			.rtt_min_ns = figures.rtt_min_ns,
			.delivery_bytes_per_s = figures.delivery_bytes_per_s,
			.retransmitted_bytes = figures.retransmitted_bytes,
			.shared_bytes = link->shm_bytes,
		};
	}
	col_engine_leave(comm->engine);
	return count;
}

void collect_comm_kill_at(collect_comm *comm, uint64_t op, uint32_t frame)
{
	col_engine_enter(comm->engine);
	comm->kill_op = op != 0 ? op : comm->submitted + 1;
	comm->kill_frames = frame > 0 ? frame : 1;
	col_engine_leave(comm->engine);
}

int collect_comm_start(collect_comm *comm, const struct collect_call *call, collect_op **op_out)
{
	struct collect_op *op;
	col_engine_enter(comm->engine);
	int status = col__call_make(comm, call, &op);
	if (status == COLLECT_OK) {
		op->deadline_ns = call->deadline_ns;
		status = col__op_submit(comm, op);
		if (status < 0)
			col__op_release(op);
	}
	col_engine_leave(comm->engine);
	if (status == COLLECT_OK)
		*op_out = op;
	return status;
}

int collect_op_prepare(collect_comm *comm, const struct collect_call *call, collect_op **op_out)
{
	struct collect_op *op;
	if (call->is_produced)
		return COLLECT_E_INVALID;
	col_engine_enter(comm->engine);
	int status = col__call_make(comm, call, &op);
	col_engine_leave(comm->engine);
	if (status < 0)
		return status;
	op->is_prepared = true;
	*op_out = op;
	return COLLECT_OK;
}
