#include "exec/exec.h"

#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "plan/plan_check.h"

#define EARLIES_IDLE_MAX 1024u

_Static_assert(COL_EXEC_DEPTH == COL_PLAN_CHECK_WINDOW, "the checker runs as many chunks at once");

/*
 * A received result may land in OUT before its step's turn only if no earlier step of its lane
 * writes the slice: otherwise it would be overwritten, or be read as something else.
 */
static void mark_straight(struct col_exec *exec, uint8_t *is_written)
{
	const struct collect_plan *plan = exec->plan;
	for (uint32_t l = 0; l < plan->lane_count; l++) {
		memset(is_written, 0, plan->slice_count);
		for (uint32_t s = 0; s < plan->lanes[l].step_count; s++) {
			uint32_t index = plan->lanes[l].step_begin + s;
			const struct col_step *step = &plan->steps[index];
			bool stores = step->opcode == COL_RECV || step->opcode == COL_RECV_SEND;
			exec->goes_straight[index] = stores && !is_written[step->slice];
			if (col_opcode_writes_out(step->opcode))
				is_written[step->slice] = 1;
		}
	}
}

int col_exec_init(struct col_exec *exec, const struct collect_plan *plan, uint32_t chunk_bytes,
                  struct col_buffers *buffers, const struct col_exec_events *events, void *user)
{
	memset(exec, 0, sizeof(*exec));
	exec->plan = plan;
	exec->chunk_bytes = chunk_bytes;
	exec->buffers = buffers;
	exec->events = events;
	exec->user = user;
	exec->kernels = col_kernels();
	col_pool_init(&exec->earlies, sizeof(struct col_early), EARLIES_IDLE_MAX);
	exec->lanes = col_alloc_zeroed(plan->lane_count, sizeof(*exec->lanes));
	exec->goes_straight = col_alloc_zeroed(plan->step_count, 1);
	uint8_t *is_written = col_alloc_zeroed(plan->slice_count, 1);
	if (exec->lanes == NULL || exec->goes_straight == NULL || is_written == NULL) {
		col_free(is_written);
		col_exec_fini(exec);
		return COLLECT_E_MEMORY;
	}
	mark_straight(exec, is_written);
	col_free(is_written);
	for (uint32_t i = 0; i < plan->lane_count; i++) {
		exec->lanes[i].exec = exec;
		exec->lanes[i].index = i;
	}
	return COLLECT_OK;
}

void col_exec_fini(struct col_exec *exec)
{
	if (exec->lanes != NULL)
		col_exec_stop(exec);
	col_free(exec->lanes);
	col_free(exec->goes_straight);
	col_pool_fini(&exec->earlies);
	memset(exec, 0, sizeof(*exec));
}

static void lane_queue(struct col_lane_run *lane)
{
	if (lane->is_queued)
		return;
	lane->is_queued = true;
	lane->next = lane->exec->queue;
	lane->exec->queue = lane;
}

/* Looks at every queued lane. Sends may complete meanwhile and queue more: one loop takes all, so
 * that nothing recurses. */
static void advance(struct col_exec *exec)
{
	if (exec->is_advancing)
		return;
	exec->is_advancing = true;
	while (exec->is_running && exec->queue != NULL) {
		struct col_lane_run *lane = exec->queue;
		exec->queue = lane->next;
		lane->is_queued = false;
		col__exec_lane_advance(lane);
	}
	exec->is_advancing = false;
	if (exec->is_running && exec->lanes_left == 0) {
		exec->is_running = false;
		exec->events->done(exec->user);
	}
}

void col_exec_start(struct col_exec *exec, const struct col_run *run)
{
	COL_ASSERT(!exec->is_running && exec->queue == NULL);
	const struct collect_plan *plan = exec->plan;
	exec->run = *run;
	exec->is_running = true;
	exec->lanes_left = 0;
	/* Each rank begins with its own lane, then its right neighbour's: no owner is asked by all at
	 * once. The queue is a stack, so the first is pushed last. */
	for (uint32_t i = plan->lane_count; i-- > 0;) {
		struct col_lane_run *lane = &exec->lanes[(i + plan->rank) % plan->lane_count];
		lane->begun = 0;
		lane->completed = 0;
		lane->sends_pending = 0;
		lane->is_done = false;
		lane->iterations =
			col_plan_iterations(plan, lane->index, run->bytes, exec->chunk_bytes);
		if (lane->iterations == 0)
			continue;
		exec->lanes_left++;
		lane_queue(lane);
	}
	advance(exec);
}

static void consume(struct col_exec *exec, const struct col_lane_run *lane, uint32_t step,
                    uint64_t chunk)
{
	uint32_t index = exec->plan->lanes[lane->index].step_begin + step;
	const struct col_step *it = &exec->plan->steps[index];
	struct col_span span = col__exec_chunk(exec, it->slice, chunk);
	exec->events->consumed(exec->user, it->peer, (uint32_t)(span.end - span.begin));
}

void col_exec_stop(struct col_exec *exec)
{
	exec->is_running = false;
	exec->queue = NULL;
	for (uint32_t i = 0; i < exec->plan->lane_count; i++) {
		struct col_lane_run *lane = &exec->lanes[i];
		lane->is_queued = false;
		while (lane->early != NULL) {
			struct col_early *early = lane->early;
			lane->early = early->next;
			consume(exec, lane, early->step, early->chunk);
			col_buffer_put(early->buffer);
			col_pool_put(&exec->earlies, early);
		}
	}
}

struct col_span col__exec_chunk(const struct col_exec *exec, uint32_t slice, uint64_t chunk)
{
	struct col_span span = col_plan_slice(exec->plan, slice, exec->run.bytes);
	uint64_t length = span.end - span.begin;
	uint64_t offset = chunk * exec->chunk_bytes;
	if (offset >= length)
		return (struct col_span){span.end, span.end};
	uint64_t rest = length - offset;
	uint64_t begin = span.begin + offset;
	return (struct col_span){begin, begin + (rest < exec->chunk_bytes ? rest : exec->chunk_bytes)};
}

static bool was_received(const struct col_lane_run *lane, uint32_t step, uint64_t chunk)
{
	if (chunk < lane->completed)
		return true;
	if (chunk < lane->begun && lane->window[chunk % COL_EXEC_DEPTH].pc > step)
		return true;
	for (const struct col_early *early = lane->early; early != NULL; early = early->next)
		if (early->step == step && early->chunk == chunk)
			return true;
	return false;
}

static struct col_sink refuse(const char *reason)
{
	return (struct col_sink){.place = COL_PLACE_REFUSE, .reason = reason};
}

struct col_sink col_exec_place(struct col_exec *exec, uint32_t rank, const struct col_frame *frame)
{
	const struct collect_plan *plan = exec->plan;
	if (frame->lane >= plan->lane_count || frame->step >= plan->lanes[frame->lane].step_count)
		return refuse("a frame for a lane or step that the plan does not have");
	uint32_t index = plan->lanes[frame->lane].step_begin + frame->step;
	const struct col_step *step = &plan->steps[index];
	if (!col_opcode_receives(step->opcode) || step->peer != rank)
		return refuse("a frame for a step that receives nothing from this peer");
	struct col_span slice = col_plan_slice(plan, step->slice, exec->run.bytes);
	if (frame->offset < slice.begin || (frame->offset - slice.begin) % exec->chunk_bytes != 0)
		return refuse("a frame that is not a chunk of its slice");
	uint64_t chunk = (frame->offset - slice.begin) / exec->chunk_bytes;
	struct col_span span = col__exec_chunk(exec, step->slice, chunk);
	if (frame->length == 0 || frame->length != span.end - span.begin)
		return refuse("a frame of another length than its chunk");
	if (was_received(&exec->lanes[frame->lane], frame->step, chunk))
		return refuse("a frame that came before");
	if (exec->goes_straight[index])
		return (struct col_sink){.place = COL_PLACE_EXEC, .target = exec->run.out + span.begin};
	struct col_buffer *buffer = col_buffers_get(exec->buffers, frame->length);
	if (buffer == NULL)
		return refuse("out of memory");
	return (struct col_sink){.place = COL_PLACE_EXEC, .target = buffer->bytes, .buffer = buffer};
}

int col_exec_arrived(struct col_exec *exec, const struct col_frame *frame,
                     const struct col_sink *sink)
{
	COL_ASSERT(exec->is_running);
	const struct collect_plan *plan = exec->plan;
	struct col_lane_run *lane = &exec->lanes[frame->lane];
	uint32_t index = plan->lanes[frame->lane].step_begin + frame->step;
	struct col_span slice = col_plan_slice(plan, plan->steps[index].slice, exec->run.bytes);
	uint64_t chunk = (frame->offset - slice.begin) / exec->chunk_bytes;
	/* Two copies may have been under way on two streams. */
	if (was_received(lane, frame->step, chunk)) {
		col_buffer_put(sink->buffer);
		exec->events->consumed(exec->user, plan->steps[index].peer, frame->length);
		return COLLECT_OK;
	}
	struct col_early *early = col_pool_get(&exec->earlies);
	if (early == NULL) {
		col_buffer_put(sink->buffer);
		return COLLECT_E_MEMORY;
	}
	*early = (struct col_early){
		.next = lane->early,
		.step = frame->step,
		.chunk = chunk,
		.buffer = sink->buffer,
	};
	lane->early = early;
	lane_queue(lane);
	advance(exec);
	return COLLECT_OK;
}

void col_exec_sent(struct col_exec *exec, void *token)
{
	struct col_lane_run *lane = token;
	COL_ASSERT(lane->sends_pending > 0);
	lane->sends_pending--;
	if (lane->sends_pending > 0)
		return;
	lane_queue(lane);
	advance(exec);
}
