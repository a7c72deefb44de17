/*
 * Parts of an operation: a source that is written while the op is under way, and results that are
 * told before all is done.
 *
 * Neither concerns the other members: they see frames that come later, or in another order. What is
 * final is asked of the executor when the caller asks, so an op of which nobody asks pays nothing.
 * Only what lies in the caller's target already can be told early: not what is gathered apart
 * (comm.h), nor what goes through shared memory, which gives everything at once.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/size.h"
#include "comm/comm.h"

/* ---- the source ---- */

int col__ranges_produce_later(struct collect_op *op, uint64_t source_bytes)
{
	op->production = col_alloc_zeroed(1, sizeof(*op->production));
	if (op->production == NULL)
		return COLLECT_E_MEMORY;
	op->production->bytes = source_bytes;
	return COLLECT_OK;
}

static void scale(struct collect_op *op, uint64_t begin, uint64_t end)
{
	col_kernels()->scale[op->call.dtype](op->scaled + begin,
	                                     (const uint8_t *)op->call.source + begin,
	                                     (end - begin) / op->element_bytes, op->call.factor);
}

void col__ranges_scale(struct collect_op *op)
{
	const struct col_ranges *done = &op->production->done;
	for (size_t i = 0; i < done->count; i++)
		scale(op, done->list[i].begin, done->list[i].end);
}

/* With the baton. */
static int produce(struct collect_op *op, uint64_t begin, uint64_t end)
{
	struct collect_comm *comm = op->comm;
	int status = col_ranges_add(&op->production->done, begin, end);
	if (status < 0 || begin == end)
		return status;
	if (op->is_scaled)
		scale(op, begin, end);
	if (comm->ops_head != op || comm->phase != COL_PHASE_RUNNING)
		return COLLECT_OK; /* a run that begins later finds it */
	if (!op->is_shared) {
		col_exec_produced(&comm->runner->exec);
	} else if (!col__ranges_are_missing(op)) {
		status = col__share_run(comm, op->production->root);
		if (status < 0)
			col__op_abandon(comm, status);
	}
	return COLLECT_OK;
}

static bool is_complete(const struct collect_op *op)
{
	return atomic_load(&op->status) != COLLECT_PENDING;
}

int collect_op_produce(collect_op *op, uint64_t begin, uint64_t end, uint64_t *left_out)
{
	struct col_production *production = op->production;
	if (production == NULL || begin > end || end > production->bytes / op->element_bytes)
		return COLLECT_E_INVALID;
	/* Of an op that is over the comm may be gone. */
	if (is_complete(op)) {
		*left_out = 0;
		return COLLECT_OK;
	}
	struct collect_engine *engine = op->comm->engine;
	col_engine_enter(engine);
	int status = COLLECT_OK;
	if (!is_complete(op))
		status = produce(op, begin * op->element_bytes, end * op->element_bytes);
	if (status == COLLECT_OK)
		*left_out = is_complete(op) ? 0 : (production->bytes - production->done.bytes) /
		                                          op->element_bytes;
	col_engine_leave(engine);
	return status;
}

/* ---- the target ---- */

void col__ranges_begin(struct collect_comm *comm)
{
	struct collect_op *op = comm->ops_head;
	if (op->told == NULL)
		return;
	col_exec_watch(&comm->runner->exec);
	col__ranges_changed(op);
}

void col__ranges_changed(struct collect_op *op)
{
	atomic_fetch_add(&op->told->version, 1);
	col_engine_op_completed(op->comm->engine);
}

void col__ranges_free(struct collect_op *op)
{
	if (op->production != NULL)
		col_ranges_fini(&op->production->done);
	if (op->told != NULL)
		col_ranges_fini(&op->told->ranges);
	col_free(op->production);
	col_free(op->told);
}

/* What is final in the target of an op that is not complete. */
static struct col_range final_next(struct collect_op *op)
{
	struct collect_comm *comm = op->comm;
	struct col_told *told = op->told;
	struct col_range none = {0, 0};
	bool runs = comm->phase == COL_PHASE_RUNNING || comm->phase == COL_PHASE_COMMITTING;
	if (comm->ops_head != op || !runs || op->is_shared || !op->is_direct)
		return none;
	col_exec_watch(&comm->runner->exec);
	struct col_range range =
		col_exec_final_next(&comm->runner->exec, op->call.target, &told->ranges);
	/* The last chunk says that the op is complete. */
	uint64_t bytes = range.end - range.begin;
	if (told->ranges.bytes + bytes == op->shape.target_bytes)
		range.end -= col_min_u64(bytes, comm->engine->options.chunk_bytes);
	return range;
}

/* With the baton, or when the op is complete. As collect_op_next_range; never waits. */
static int take(struct collect_op *op, struct collect_range *range_out)
{
	if (op->told == NULL)
		op->told = col_alloc_zeroed(1, sizeof(*op->told));
	if (op->told == NULL)
		return COLLECT_E_MEMORY;
	struct col_told *told = op->told;
	int status = atomic_load(&op->status);
	if (status < 0)
		return status;
	if (told->attempt != op->attempt)
		col_ranges_clear(&told->ranges);
	told->attempt = op->attempt;
	struct col_range range = status == COLLECT_OK
	                                 ? col_ranges_gap(&told->ranges, 0, op->shape.target_bytes)
	                                 : final_next(op);
	*range_out = (struct collect_range){.attempt = op->attempt};
	if (range.begin == range.end && status == COLLECT_PENDING)
		return COLLECT_PENDING;
	if (col_ranges_add(&told->ranges, range.begin, range.end) < 0)
		return COLLECT_E_MEMORY;
	range_out->begin = range.begin / op->element_bytes;
	range_out->end = range.end / op->element_bytes;
	return COLLECT_OK;
}

struct change {
	struct collect_op *op;
	uint32_t version; /* that was looked at */
};

static bool has_changed(void *argument)
{
	const struct change *change = argument;
	return is_complete(change->op) ||
	       atomic_load(&change->op->told->version) != change->version;
}

int collect_op_next_range(collect_op *op, uint64_t timeout_ns, struct collect_range *range_out)
{
	if (op->message != NULL || op->is_prepared)
		return COLLECT_E_INVALID;
	uint64_t now_ns = col_clock_ns();
	uint64_t deadline_ns = now_ns + timeout_ns < now_ns ? UINT64_MAX : now_ns + timeout_ns;
	for (;;) {
		/* Of an op that is over the comm may be gone. */
		if (is_complete(op))
			return take(op, range_out);
		struct change change = {.op = op};
		struct collect_engine *engine = op->comm->engine;
		col_engine_enter(engine);
		int status = take(op, range_out);
		if (op->told != NULL)
			change.version = atomic_load(&op->told->version);
		col_engine_leave(engine);
		if (status != COLLECT_PENDING || timeout_ns == 0)
			return status;
		col_engine_wait(engine, op->comm, has_changed, &change, deadline_ns);
		if (!has_changed(&change))
			return COLLECT_PENDING;
	}
}
