#include "exec/exec.h"

#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/size.h"

#define EARLIES_IDLE_MAX 1024u
#define TOTALS_IDLE_MAX 64u
#define NO_SCRATCH UINT64_MAX

/*
 * A received result may land in OUT before its step's turn only if no earlier step of its lane
 * writes the slice: otherwise it would be overwritten, or be read as something else.
 */
static void lane_mark(struct col_exec *exec, struct col_lane_run *lane)
{
	const struct col_lane *shape = &exec->plan->lanes[lane->index];
	lane->is_begun_by_frames =
		shape->step_count > 0 &&
		col_opcode_receives(exec->plan->steps[shape->step_begin].opcode) != 0;
	for (uint32_t s = 0; s < shape->step_count; s++) {
		uint32_t index = shape->step_begin + s;
		int opcode = exec->plan->steps[index].opcode;
		bool stores = opcode == COL_RECV || opcode == COL_RECV_SEND;
		exec->goes_straight[index] = stores && !lane->writes_out;
		lane->writes_out |= col_opcode_writes_out(opcode) != 0;
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
	/* The elements that are widened have two bytes. */
	col_pool_init(&exec->totals, chunk_bytes / 2 * sizeof(float), TOTALS_IDLE_MAX);
	exec->lanes = col_alloc_zeroed(plan->lane_count, sizeof(*exec->lanes));
	exec->goes_straight = col_alloc_zeroed(plan->step_count, 1);
	if (exec->lanes == NULL || exec->goes_straight == NULL) {
		col_exec_fini(exec);
		return COLLECT_E_MEMORY;
	}
	for (uint32_t i = 0; i < plan->lane_count; i++) {
		exec->lanes[i].exec = exec;
		exec->lanes[i].index = i;
		exec->lanes[i].window = exec->lanes[i].few;
		exec->lanes[i].capacity = COL_EXEC_DEPTH;
		lane_mark(exec, &exec->lanes[i]);
	}
	return COLLECT_OK;
}

void col_exec_fini(struct col_exec *exec)
{
	if (exec->lanes != NULL)
		col_exec_stop(exec);
	for (uint32_t i = 0; exec->lanes != NULL && i < exec->plan->lane_count; i++)
		if (exec->lanes[i].window != exec->lanes[i].few)
			col_free(exec->lanes[i].window);
	col_free(exec->lanes);
	col_free(exec->goes_straight);
	col_pool_fini(&exec->earlies);
	col_pool_fini(&exec->totals);
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
	while (exec->is_running && !exec->is_starved && exec->queue != NULL) {
		struct col_lane_run *lane = exec->queue;
		exec->queue = lane->next;
		lane->is_queued = false;
		col__exec_lane_advance(lane);
	}
	exec->is_advancing = false;
	if (!exec->is_running)
		return;
	if (exec->is_starved) {
		exec->events->starved(exec->user);
	} else if (exec->lanes_left == 0) {
		exec->is_running = false;
		exec->events->done(exec->user);
	}
}

/* Whole chunks of IN that are there, up to the first that is not. */
static uint64_t readable_count(const struct col_lane_run *lane)
{
	const struct col_exec *exec = lane->exec;
	if (exec->produced == NULL || lane->in == NULL)
		return lane->iterations;
	uint64_t begin = (uint64_t)(lane->in - exec->source);
	uint64_t end = begin + lane->bytes;
	uint64_t there = col_ranges_gap(exec->produced, begin, end).begin;
	return there == end ? lane->iterations : (there - begin) / exec->chunk_bytes;
}

uint64_t col_exec_lay_out(struct col_exec *exec, const struct col_run *run)
{
	COL_ASSERT(!exec->is_running && exec->queue == NULL);
	uint64_t scratch_bytes = 0;
	exec->kernels = col_kernels();
	exec->dtype = run->dtype;
	exec->reduce_op = run->reduce_op;
	exec->element_bytes = (uint32_t)col_dtype_bytes(run->dtype);
	exec->divisor = run->reduce_op == COLLECT_AVG ? exec->plan->world : 1;
	exec->source = run->layout.source;
	exec->produced = run->produced;
	exec->is_watched = false;
	for (uint32_t i = 0; i < exec->plan->lane_count; i++) {
		struct col_lane_run *lane = &exec->lanes[i];
		struct col_extent extent = col_layout_find(&run->layout, exec->plan->lanes[i].slice);
		lane->in = extent.in;
		lane->out = extent.out;
		lane->bytes = extent.bytes;
		lane->iterations = col_div_ceil(extent.bytes, exec->chunk_bytes);
		lane->readable = readable_count(lane);
		lane->scratch_at = NO_SCRATCH;
		if (lane->out == NULL && lane->writes_out) {
			lane->scratch_at = scratch_bytes;
			/* Whole quanta, so that every slice is aligned as memory is. */
			scratch_bytes += col_div_ceil(extent.bytes, COL_SLICE_QUANTUM) * COL_SLICE_QUANTUM;
		}
	}
	return scratch_bytes;
}

void col_exec_start(struct col_exec *exec, uint8_t *scratch)
{
	COL_ASSERT(!exec->is_running && exec->queue == NULL);
	const struct collect_plan *plan = exec->plan;
	exec->is_running = true;
	exec->is_starved = false;
	exec->lanes_left = 0;
	/* Each rank begins with its own lane, then its right neighbour's: no owner is asked by all at
	 * once. The queue is a stack, so the first is pushed last. */
	for (uint32_t i = plan->lane_count; i-- > 0;) {
		struct col_lane_run *lane = &exec->lanes[(i + plan->rank) % plan->lane_count];
		lane->begun = 0;
		lane->completed = 0;
		lane->sends_pending = 0;
		lane->is_done = false;
		if (lane->iterations == 0)
			continue;
		if (lane->scratch_at != NO_SCRATCH)
			lane->out = scratch + lane->scratch_at;
		exec->lanes_left++;
		lane_queue(lane);
	}
	advance(exec);
}

void col_exec_produced(struct col_exec *exec)
{
	COL_ASSERT(exec->is_running);
	for (uint32_t i = exec->plan->lane_count; i-- > 0;) {
		struct col_lane_run *lane = &exec->lanes[i];
		uint64_t before = lane->readable;
		lane->readable = readable_count(lane);
		if (lane->readable > before)
			lane_queue(lane);
	}
	advance(exec);
}

static uint32_t sender_of(const struct col_lane_run *lane, uint32_t step)
{
	const struct collect_plan *plan = lane->exec->plan;
	return plan->steps[plan->lanes[lane->index].step_begin + step].peer;
}

static void lane_stop(struct col_lane_run *lane)
{
	struct col_exec *exec = lane->exec;
	lane->is_queued = false;
	while (lane->early != NULL) {
		struct col_early *early = lane->early;
		lane->early = early->next;
		exec->events->consumed(exec->user, sender_of(lane, early->step),
		                       col__exec_chunk_bytes(lane, early->chunk));
		col_buffer_put(early->buffer);
		col_pool_put(&exec->earlies, early);
	}
	for (uint64_t i = lane->completed; i < lane->begun; i++) {
		struct col_iteration *iteration = col__exec_iteration(lane, i);
		if (iteration->total != NULL)
			col_pool_put(&exec->totals, iteration->total);
		iteration->total = NULL;
	}
}

void col_exec_stop(struct col_exec *exec)
{
	exec->is_running = false;
	exec->queue = NULL;
	for (uint32_t i = 0; i < exec->plan->lane_count; i++)
		lane_stop(&exec->lanes[i]);
}

static bool was_received(const struct col_lane_run *lane, uint32_t step, uint64_t chunk)
{
	if (chunk < lane->completed)
		return true;
	if (chunk < lane->begun && col__exec_iteration(lane, chunk)->pc > step)
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
	const struct col_lane_run *lane = &exec->lanes[frame->lane];
	if (frame->offset >= lane->bytes || frame->offset % exec->chunk_bytes != 0)
		return refuse("a frame that is not a chunk of its slice");
	uint64_t chunk = frame->offset / exec->chunk_bytes;
	if (frame->length != col__exec_chunk_bytes(lane, chunk))
		return refuse("a frame of another length than its chunk");
	if (was_received(lane, frame->step, chunk))
		return refuse("a frame that came before");
	if (exec->goes_straight[index])
		return (struct col_sink){.place = COL_PLACE_EXEC, .target = lane->out + frame->offset};
	struct col_buffer *buffer = col_buffers_get(exec->buffers, frame->length);
	if (buffer == NULL)
		return refuse("out of memory");
	return (struct col_sink){.place = COL_PLACE_EXEC, .target = buffer->bytes, .buffer = buffer};
}

int col_exec_arrived(struct col_exec *exec, const struct col_frame *frame,
                     const struct col_sink *sink)
{
	COL_ASSERT(exec->is_running);
	struct col_lane_run *lane = &exec->lanes[frame->lane];
	uint64_t chunk = frame->offset / exec->chunk_bytes;
	/* Two copies may have been under way on two streams. */
	if (was_received(lane, frame->step, chunk)) {
		col_buffer_put(sink->buffer);
		exec->events->consumed(exec->user, sender_of(lane, frame->step), frame->length);
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

bool col_exec_awaits(const struct col_exec *exec, uint32_t rank)
{
	for (uint32_t i = 0; i < exec->plan->lane_count; i++) {
		const struct col_lane_run *lane = &exec->lanes[i];
		const struct col_lane *shape = &exec->plan->lanes[i];
		/* An empty lane keeps what it had begun in an earlier run, all of it over. */
		for (uint64_t chunk = lane->completed; chunk < lane->begun; chunk++) {
			uint32_t pc = col__exec_iteration(lane, chunk)->pc;
			if (pc < shape->step_count && exec->plan->steps[shape->step_begin + pc].peer == rank)
				return true;
		}
	}
	return false;
}

void col_exec_sent(void *token)
{
	struct col_lane_run *lane = token;
	COL_ASSERT(lane->sends_pending > 0);
	lane->sends_pending--;
	if (lane->sends_pending > 0)
		return;
	lane_queue(lane);
	advance(lane->exec);
}
