/*
 * The public functions that are not beside what they act on: arguments are checked here, and
 * nothing else happens here.
 */
#include <string.h>

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

uint32_t collect_comm_pending(collect_comm *comm)
{
	col_engine_enter(comm->engine);
	uint32_t count = comm->ops_count;
	col_engine_leave(comm->engine);
	return count;
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
		infos_out[count] = (struct collect_link_info){
			.peer = link->options.peer,
			.is_up = link->state == COL_LINK_UP,
			.streams = link->options.stream_count,
			.sent_bytes = link->sent_bytes,
			.received_bytes = link->received_bytes,
			/* Forgiven silence may reach beyond now. */
			.silent_ns = now_ns > link->heard_ns ? now_ns - link->heard_ns : 0,
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

static uint32_t call_digest(size_t count, int dtype, int reduce_op)
{
	uint64_t parts[4] = {1 /* all_reduce */, count, (uint64_t)dtype, (uint64_t)reduce_op};
	return col_crc32c(parts, sizeof(parts));
}

static int all_reduce_check(const void *source, const void *target, size_t count, int dtype,
                            int reduce_op, size_t *bytes_out)
{
	if (!col_dtype_is_valid(dtype) || !col_reduce_op_is_valid(reduce_op))
		return COLLECT_E_INVALID;
	if (count > 0 && (source == NULL || target == NULL))
		return COLLECT_E_INVALID;
	if (!has_kernel(dtype, reduce_op))
		return COLLECT_E_UNAVAILABLE;
	if (!col_size_multiply(count, col_dtype_bytes(dtype), bytes_out) || *bytes_out > PTRDIFF_MAX)
		return COLLECT_E_INVALID;
	uintptr_t a = (uintptr_t)source;
	uintptr_t b = (uintptr_t)target;
	bool overlaps = a != b && a < b + *bytes_out && b < a + *bytes_out;
	return overlaps ? COLLECT_E_INVALID : COLLECT_OK;
}

int collect_comm_all_reduce(collect_comm *comm, const void *source, void *target, size_t count,
                            int dtype, int reduce_op, uint64_t deadline_ns, collect_op **op_out)
{
	size_t bytes = 0;
	int status = all_reduce_check(source, target, count, dtype, reduce_op, &bytes);
	if (status < 0)
		return status;
	struct collect_op *op = col_alloc_zeroed(1, sizeof(*op));
	if (op == NULL)
		return COLLECT_E_MEMORY;
	op->comm = comm;
	atomic_init(&op->status, COLLECT_PENDING);
	atomic_init(&op->holds, 1);
	op->source = source;
	op->target = target;
	op->bytes = bytes;
	op->count = count;
	op->dtype = dtype;
	op->reduce_op = reduce_op;
	op->digest = call_digest(count, dtype, reduce_op);
	op->deadline_ns = deadline_ns;
	if (count == 0) {
		op->token = 1;
		op->source = (const uint8_t *)&op->token;
		op->bytes = sizeof(op->token);
		op->dtype = COLLECT_INT64;
		op->reduce_op = COLLECT_SUM;
	}
	col_engine_enter(comm->engine);
	status = col__op_submit(comm, op);
	col_engine_leave(comm->engine);
	if (status < 0) {
		col_free(op);
		return status;
	}
	*op_out = op;
	return COLLECT_OK;
}
