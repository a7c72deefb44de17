/*
 * One lane: its iterations, and what each opcode does.
 */
#include <string.h>

#include "base/assert.h"
#include "exec/exec.h"

/* What a step works on. */
struct context {
	struct col_exec *exec;
	struct col_iteration *iteration;
	const struct col_step *step;
	struct col_span span;
	struct col_buffer *wire; /* the frame that came, if the opcode receives and it is not in OUT */
};

static uint8_t *out_at(const struct context *context)
{
	return context->exec->run.out + context->span.begin;
}

static const uint8_t *in_at(const struct context *context)
{
	return context->exec->run.in + context->span.begin;
}

static uint32_t span_bytes(const struct context *context)
{
	return (uint32_t)(context->span.end - context->span.begin);
}

static void reduce(const struct context *context, void *target, const void *a, const void *b)
{
	const struct col_run *run = &context->exec->run;
	size_t count = span_bytes(context) / col_dtype_bytes(run->dtype);
	context->exec->kernels->reduce[run->dtype][run->reduce_op](target, a, b, count);
}

static void send(const struct context *context, uint32_t rank, const uint8_t *payload,
                 struct col_buffer *buffer)
{
	struct col_exec *exec = context->exec;
	struct col_frame frame = {
		.kind = COL_FRAME_DATA,
		.lane = context->step->peer_lane,
		.step = context->step->peer_step,
		.offset = context->span.begin,
		.length = span_bytes(context),
	};
	context->iteration->lane->sends_pending++;
	exec->events->send(exec->user, rank, &frame, payload, buffer, context->iteration->lane);
}

/* The frame's bytes into OUT, unless they landed there. */
static void store(const struct context *context)
{
	if (context->wire != NULL)
		memcpy(out_at(context), context->wire->bytes, span_bytes(context));
}

static void execute(struct context *context)
{
	const struct col_step *step = context->step;
	uint8_t *wire = context->wire != NULL ? context->wire->bytes : NULL;
	switch ((enum col_opcode)step->opcode) {
	case COL_SEND_IN:
		send(context, step->peer, in_at(context), NULL);
		break;
	case COL_SEND_OUT:
		send(context, step->peer, out_at(context), NULL);
		break;
	case COL_RECV:
		store(context);
		break;
	case COL_RECV_SEND:
		store(context);
		send(context, step->next, out_at(context), NULL);
		break;
	case COL_RECV_REDUCE:
		reduce(context, out_at(context), out_at(context), wire);
		break;
	case COL_RECV_REDUCE_IN:
		reduce(context, out_at(context), wire, in_at(context));
		break;
	case COL_IN_REDUCE_RECV:
		reduce(context, out_at(context), in_at(context), wire);
		break;
	case COL_RECV_REDUCE_SEND:
		reduce(context, wire, wire, in_at(context));
		send(context, step->next, wire, context->wire);
		context->wire = NULL; /* the link's now */
		break;
	case COL_REDUCE_IN:
		reduce(context, out_at(context), out_at(context), in_at(context));
		break;
	case COL_COPY_IN:
		memcpy(out_at(context), in_at(context), span_bytes(context));
		break;
	case COL_OPCODE_COUNT:
		COL_ASSERT(false);
	}
	const struct col_run *run = &context->exec->run;
	if ((step->flags & COL_STEP_SCALE) != 0 && run->reduce_op == COLLECT_AVG)
		context->exec->kernels->divide[run->dtype](
			out_at(context), span_bytes(context) / col_dtype_bytes(run->dtype),
			context->exec->plan->world);
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
	while (iteration->pc < shape->step_count) {
		struct context context = {
			.exec = exec,
			.iteration = iteration,
			.step = &exec->plan->steps[shape->step_begin + iteration->pc],
		};
		context.span = col__exec_chunk(exec, context.step->slice, iteration->chunk);
		if (span_bytes(&context) == 0) {
			iteration->pc++;
			continue;
		}
		bool receives = col_opcode_receives(context.step->opcode);
		if (receives &&
		    !early_take(lane, iteration->pc, iteration->chunk, &context.wire))
			return;
		iteration->pc++;
		execute(&context);
		col_buffer_put(context.wire);
		if (receives)
			exec->events->consumed(exec->user, context.step->peer, span_bytes(&context));
	}
}

void col__exec_lane_advance(struct col_lane_run *lane)
{
	const struct col_lane *shape = &lane->exec->plan->lanes[lane->index];
	uint64_t completed;
	do {
		completed = lane->completed;
		while (lane->begun < lane->iterations && lane->begun - completed < COL_EXEC_DEPTH) {
			lane->window[lane->begun % COL_EXEC_DEPTH] =
				(struct col_iteration){.lane = lane, .chunk = lane->begun};
			lane->begun++;
		}
		for (uint64_t i = completed; i < lane->begun; i++)
			iteration_advance(lane, &lane->window[i % COL_EXEC_DEPTH]);
		while (lane->completed < lane->begun) {
			const struct col_iteration *oldest = &lane->window[lane->completed % COL_EXEC_DEPTH];
			if (oldest->pc < shape->step_count)
				break;
			lane->completed++;
		}
	} while (lane->completed != completed && lane->completed < lane->iterations);
	if (lane->completed == lane->iterations && lane->sends_pending == 0 && !lane->is_done) {
		lane->is_done = true;
		lane->exec->lanes_left--;
	}
}
