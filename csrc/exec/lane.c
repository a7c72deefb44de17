/*
 * One lane: its iterations, and what each opcode does.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "exec/exec.h"

/* What a step works on. */
struct context {
	struct col_exec *exec;
	struct col_iteration *iteration;
	const struct col_step *step;
	const uint8_t *in;
	uint8_t *out;
	uint64_t offset; /* in the slice */
	uint32_t bytes;
	struct col_buffer *wire; /* the frame that came, if the opcode receives and it is not in OUT */
};

static size_t element_count(const struct context *context)
{
	return context->bytes / context->exec->element_bytes;
}

/* target = a op b, in the element's own type. */
static void reduce(const struct context *context, void *target, const void *a, const void *b)
{
	const struct col_exec *exec = context->exec;
	exec->kernels->reduce[exec->dtype][exec->reduce_op](target, a, b, element_count(context));
}

/* OUT is written anew: the sum that it stood for is nobody's any more. */
static void total_forget(struct context *context)
{
	struct col_iteration *iteration = context->iteration;
	if (iteration->total == NULL)
		return;
	col_pool_put(&context->exec->totals, iteration->total);
	iteration->total = NULL;
}

/* Rounds the sum into OUT. */
static void total_settle(struct context *context, uint32_t divisor)
{
	const struct col_exec *exec = context->exec;
	if (context->iteration->total == NULL)
		return;
	exec->kernels->narrow[exec->dtype](context->out, context->iteration->total,
	                                   element_count(context), divisor);
	total_forget(context);
}

/* OUT = a op b, one of which may be OUT. False: out of memory. */
static bool reduce_out(struct context *context, const uint8_t *a, const uint8_t *b)
{
	struct col_exec *exec = context->exec;
	struct col_iteration *iteration = context->iteration;
	col_widen_fn *widen = exec->kernels->widen[exec->dtype][exec->reduce_op];
	if (widen == NULL) {
		reduce(context, context->out, a, b);
		return true;
	}
	bool is_left = b == context->out;
	if (iteration->total != NULL && (is_left || a == context->out)) {
		exec->kernels->widen_add[exec->dtype][exec->reduce_op](
			iteration->total, is_left ? a : b, element_count(context), is_left);
		return true;
	}
	if (iteration->total == NULL)
		iteration->total = col_pool_get(&exec->totals);
	if (iteration->total == NULL)
		return false;
	widen(iteration->total, a, b, element_count(context));
	return true;
}

static void send(const struct context *context, uint32_t rank, const uint8_t *payload,
                 struct col_buffer *buffer)
{
	struct col_exec *exec = context->exec;
	struct col_frame frame = {
		.kind = COL_FRAME_DATA,
		.lane = context->step->peer_lane,
		.step = context->step->peer_step,
		.offset = context->offset,
		.length = context->bytes,
	};
	context->iteration->lane->sends_pending++;
	exec->events->send(exec->user, rank, &frame, payload, buffer, context->iteration->lane);
}

/* False: out of memory. */
static bool send_copy(struct context *context)
{
	struct col_buffer *buffer = col_buffers_get(context->exec->buffers, context->bytes);
	if (buffer == NULL)
		return false;
	total_settle(context, 1);
	memcpy(buffer->bytes, context->out, context->bytes);
	send(context, context->step->peer, buffer->bytes, buffer);
	return true;
}

/* wire = a op b, one of which is the wire; then it goes on to the next rank. */
static void reduce_send(struct context *context, const uint8_t *a, const uint8_t *b)
{
	struct col_buffer *wire = context->wire;
	reduce(context, wire->bytes, a, b);
	context->wire = NULL; /* the link's now */
	send(context, context->step->next, wire->bytes, wire);
}

/* The frame's bytes into OUT, unless they landed there. */
static void store(struct context *context, const uint8_t *bytes)
{
	total_forget(context);
	/* In and out of a block that stays where it is are the same memory. */
	if (bytes != NULL && bytes != context->out)
		memcpy(context->out, bytes, context->bytes);
}

static void scale(struct context *context)
{
	const struct col_exec *exec = context->exec;
	if (context->iteration->total != NULL)
		total_settle(context, exec->divisor);
	else if (exec->divisor > 1)
		exec->kernels->divide[exec->dtype](context->out, element_count(context), exec->divisor);
}

/* False: out of memory. */
static bool execute(struct context *context)
{
	const struct col_step *step = context->step;
	uint8_t *wire = context->wire != NULL ? context->wire->bytes : NULL;
	switch ((enum col_opcode)step->opcode) {
	case COL_SEND_IN:
		send(context, step->peer, context->in, NULL);
		return true;
	case COL_SEND_OUT:
		total_settle(context, 1);
		send(context, step->peer, context->out, NULL);
		return true;
	case COL_SEND_COPY:
		return send_copy(context);
	case COL_RECV:
		store(context, wire);
		return true;
	case COL_RECV_SEND:
		store(context, wire);
		send(context, step->next, context->out, NULL);
		return true;
	case COL_RECV_REDUCE:
		return reduce_out(context, context->out, wire);
	case COL_RECV_REDUCE_OUT:
		return reduce_out(context, wire, context->out);
	case COL_RECV_REDUCE_IN:
		return reduce_out(context, wire, context->in);
	case COL_IN_REDUCE_RECV:
		return reduce_out(context, context->in, wire);
	case COL_RECV_REDUCE_SEND:
		reduce_send(context, wire, context->in);
		return true;
	case COL_IN_REDUCE_SEND:
		reduce_send(context, context->in, wire);
		return true;
	case COL_OUT_REDUCE_SEND:
		total_settle(context, 1);
		reduce_send(context, context->out, wire);
		return true;
	case COL_REDUCE_IN:
		return reduce_out(context, context->out, context->in);
	case COL_COPY_IN:
		store(context, context->in);
		return true;
	case COL_OPCODE_COUNT:
		break;
	}
	COL_ASSERT(false);
	return false;
}

/* Takes the frame of (step, chunk) out of the lane's list. False: it has not come. */
static bool early_take(struct col_lane_run *lane, uint32_t step, uint64_t chunk,
                       struct col_buffer **buffer_out)
{
	for (struct col_early **at = &lane->early; *at != NULL; at = &(*at)->next) {
		struct col_early *early = *at;
		if (early->step != step || early->chunk != chunk)
			continue;
		*at = early->next;
		*buffer_out = early->buffer;
		col_pool_put(&lane->exec->earlies, early);
		return true;
	}
	return false;
}

/* Runs the iteration's steps until one must wait. */
static void iteration_advance(struct col_lane_run *lane, struct col_iteration *iteration)
{
	struct col_exec *exec = lane->exec;
	const struct col_lane *shape = &exec->plan->lanes[lane->index];
	uint64_t offset = iteration->chunk * exec->chunk_bytes;
	struct context context = {
		.exec = exec,
		.iteration = iteration,
		.in = lane->in != NULL ? lane->in + offset : NULL,
		.out = lane->out != NULL ? lane->out + offset : NULL,
		.offset = offset,
		.bytes = col__exec_chunk_bytes(lane, iteration->chunk),
	};
	if (iteration->pc == shape->step_count)
		return;
	while (iteration->pc < shape->step_count && !exec->is_starved) {
		context.step = &exec->plan->steps[shape->step_begin + iteration->pc];
		context.wire = NULL;
		/* The caller has yet to write it. */
		if (iteration->chunk >= lane->readable && col_opcode_reads_in(context.step->opcode) != 0)
			return;
		bool receives = col_opcode_receives(context.step->opcode);
		if (receives &&
		    !early_take(lane, iteration->pc, iteration->chunk, &context.wire))
			return;
		iteration->pc++;
		if (!execute(&context))
			exec->is_starved = true;
		else if ((context.step->flags & COL_STEP_SCALE) != 0)
			scale(&context);
		col_buffer_put(context.wire);
		if (receives)
			exec->events->consumed(exec->user, context.step->peer, context.bytes);
	}
	if (exec->is_starved)
		return;
	total_settle(&context, 1);
	if (exec->is_watched)
		exec->events->finished(exec->user);
}

/* Room for one more iteration. False: out of memory. */
static bool window_grow(struct col_lane_run *lane)
{
	uint32_t capacity = 2 * lane->capacity;
	struct col_iteration *window = col_alloc_zeroed(capacity, sizeof(*window));
	if (window == NULL)
		return false;
	for (uint64_t i = lane->completed; i < lane->begun; i++)
		window[i % capacity] = *col__exec_iteration(lane, i);
	if (lane->window != lane->few)
		col_free(lane->window);
	lane->window = window;
	lane->capacity = capacity;
	return true;
}

/* Frames need not come in the order of chunks: with one that begins an iteration, all before it
 * begin too, and wait. */
static bool may_begin(const struct col_lane_run *lane)
{
	if (lane->begun == lane->iterations)
		return false;
	if (lane->begun - lane->completed < COL_EXEC_DEPTH)
		return true;
	if (!lane->is_begun_by_frames)
		return false;
	for (const struct col_early *early = lane->early; early != NULL; early = early->next)
		if (early->step == 0 && early->chunk >= lane->begun)
			return true;
	return false;
}

/* Takes the iterations that are over from the front of those that are under way. */
static void lane_retire(struct col_lane_run *lane)
{
	uint32_t step_count = lane->exec->plan->lanes[lane->index].step_count;
	while (lane->completed < lane->begun &&
	       col__exec_iteration(lane, lane->completed)->pc == step_count)
		lane->completed++;
}

void col__exec_lane_advance(struct col_lane_run *lane)
{
	struct col_exec *exec = lane->exec;
	for (uint64_t i = lane->completed; i < lane->begun; i++)
		iteration_advance(lane, col__exec_iteration(lane, i));
	lane_retire(lane);
	/* Each does what it can before the next begins. */
	while (!exec->is_starved && may_begin(lane)) {
		if (lane->begun - lane->completed == lane->capacity && !window_grow(lane)) {
			exec->is_starved = true;
			break;
		}
		struct col_iteration *iteration = col__exec_iteration(lane, lane->begun);
		*iteration = (struct col_iteration){.lane = lane, .chunk = lane->begun};
		lane->begun++;
		iteration_advance(lane, iteration);
		if (!exec->is_starved)
			lane_retire(lane);
	}
	if (exec->is_starved)
		return;
	if (lane->completed == lane->iterations && lane->sends_pending == 0 && !lane->is_done) {
		lane->is_done = true;
		exec->lanes_left--;
	}
}

void col_exec_watch(struct col_exec *exec)
{
	exec->is_watched = true;
}

/* Where chunks [first, last) of a lane lie in the target, as far as they are not known. */
static struct col_range chunks_unknown(const struct col_lane_run *lane, uint64_t out_at,
                                       uint64_t first, uint64_t last,
                                       const struct col_ranges *known)
{
	uint64_t begin = out_at + first * lane->exec->chunk_bytes;
	uint64_t end = last == lane->iterations ? lane->bytes : last * lane->exec->chunk_bytes;
	return col_ranges_gap(known, begin, out_at + end);
}

struct col_range col_exec_final_next(const struct col_exec *exec, const uint8_t *target,
                                     const struct col_ranges *known)
{
	struct col_range none = {0, 0};
	for (uint32_t i = 0; i < exec->plan->lane_count; i++) {
		const struct col_lane_run *lane = &exec->lanes[i];
		if (lane->out == NULL || lane->scratch_at != UINT64_MAX || lane->iterations == 0)
			continue;
		uint64_t out_at = (uint64_t)(lane->out - target);
		uint32_t step_count = exec->plan->lanes[i].step_count;
		struct col_range range = chunks_unknown(lane, out_at, 0, lane->completed, known);
		for (uint64_t chunk = lane->completed; chunk < lane->begun && range.begin == range.end;
		     chunk++)
			if (col__exec_iteration(lane, chunk)->pc == step_count)
				range = chunks_unknown(lane, out_at, chunk, chunk + 1, known);
		if (range.begin < range.end)
			return range;
	}
	return none;
}
