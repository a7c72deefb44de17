/*
 * Runs the plans of a whole world, with sets of ranks in place of numbers.
 *
 * The first run has one chunk per slice and follows values: what a buffer or frame holds is
 * which ranks' contributions it is the sum of. Further runs have several chunks and no values; they
 * look for deadlocks by trying several orders in which whatever can go on does.
 *
 * Two kinds of *agent* go on. A task is one iteration of a lane: it runs until a frame is missing,
 * and queues what it sends. A link takes the oldest frame that is queued for it, if there is a
 * credit. Arrival of a frame, a frame to send, and a credit make agents ready; so a run costs one
 * visit per step and chunk, and one per frame.
 */
#include "plan/plan_run.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/prng.h"
#include "plan/plan_value.h"

#define FRAME_NONE 0xffffffffu
#define CHUNKS_MAX 32 /* bits of a step's mail */

/* STUBBORN: at random, but half of the agents, always the same, are seldom picked. */
enum order { OLDEST_FIRST, NEWEST_FIRST, RANDOM, STUBBORN };

struct schedule {
	uint32_t chunk_count;
	uint32_t window; /* iterations of a lane that are under way at once */
	enum order order;
	bool is_uneven; /* slices differ in their number of chunks, 0 included */
};

#define WINDOW_MAX COL_PLAN_CHECK_WINDOW
static const struct schedule schedules[] = {
	{.chunk_count = 1, .window = 1, .order = OLDEST_FIRST},
	{.chunk_count = 4, .window = 1, .order = RANDOM},
	{.chunk_count = 18, .window = WINDOW_MAX, .order = OLDEST_FIRST},
	{.chunk_count = 18, .window = WINDOW_MAX, .order = NEWEST_FIRST},
	{.chunk_count = 18, .window = WINDOW_MAX, .order = RANDOM, .is_uneven = true},
	{.chunk_count = 18, .window = WINDOW_MAX, .order = STUBBORN},
};
#define VALUES_SCHEDULE 0 /* the one that follows values */

enum task_state { READY, AWAITS_FRAME, PASSED };

struct task {
	struct col_place at;
	uint32_t chunk;
	enum task_state state; /* PASSED: through all steps, or not begun */
};

struct frame {
	uint32_t next; /* that is queued behind it, or that is free too */
	struct col_place from;
	uint32_t chunk;
	uint32_t value;
};

struct link {
	uint32_t unconsumed; /* frames that hold a credit */
	uint32_t head;       /* frames that wait for one */
	uint32_t tail;
	bool is_ready;
};

struct lane {
	uint32_t begun;
	uint32_t completed;
};

struct run {
	const struct col_world *world;
	struct schedule schedule;
	uint32_t credit;
	bool has_values;
	struct task *tasks;    /* WINDOW_MAX per lane */
	struct lane *lanes;
	struct link *links;    /* from * rank_count + to */
	uint32_t *mail;        /* per step: bit c: the frame of chunk c has come */
	uint32_t *mail_values; /* per step */
	uint32_t *outs;        /* value of OUT: rank * slice_count + slice */
	uint32_t *owners;      /* per slice */
	uint32_t *ready;       /* circular; tasks, then links; each at most once */
	uint32_t ready_head;
	uint32_t ready_count;
	uint32_t task_count;
	uint32_t link_count;
	struct frame *frames; /* pool */
	uint32_t frame_count;
	uint32_t frame_free;
	struct col_values values;
	struct col_prng prng;
};

/* ---- what a step does to values ------------------------------------------------------------ */

/* *sum becomes the sum of *sum and `part`, both of which it takes. */
static int sum_add(struct run *run, struct col_place at, uint32_t *sum, uint32_t part)
{
	if (*sum == COL_VALUE_NONE)
		return col_world_reject(run->world, at, "it reads OUT before anything is written");
	uint32_t twice = col_value_common(&run->values, *sum, part);
	if (twice != COL_RANK_NONE)
		return col_world_reject(run->world, at, "it adds the part of rank %" PRIu32
		                        " a second time", twice);
	return col_value_add(&run->values, sum, part);
}

/* OUT holds what the step wrote; what do its flags say about that? */
static int out_check(struct run *run, struct col_place at, uint32_t *out)
{
	const struct col_world *world = run->world;
	const struct col_step *step = col_world_step(world, at);
	if (step->flags == 0)
		return 0;
	uint32_t missing = col_value_missing(&run->values, *out);
	if (missing != COL_RANK_NONE)
		return col_world_reject(world, at, "it is complete without the part of rank %" PRIu32,
		                        missing);

	if ((step->flags & COL_STEP_SCALE) != 0) {
		uint32_t *owner = &run->owners[step->slice];
		if (*out == COL_VALUE_FULL)
			return col_world_reject(world, at, "it scales what is scaled");
		if (*owner != COL_RANK_NONE)
			return col_world_reject(world, at, "rank %" PRIu32 " completes this slice too", *owner);
		*owner = at.rank;
		col_value_free(&run->values, *out);
		*out = COL_VALUE_FULL;
	}
	if ((step->flags & COL_STEP_FINAL) != 0) {
		if (*out != COL_VALUE_FULL)
			return col_world_reject(world, at, "it is final and was never scaled");
		*out = COL_VALUE_FINAL;
	}
	return 0;
}

/* `frame` is what the step received, which it takes; *wire_out what it sends. */
static int step_apply(struct run *run, struct col_place at, uint32_t frame, uint32_t *wire_out)
{
	const struct col_step *step = col_world_step(run->world, at);
	uint32_t *out = &run->outs[(size_t)at.rank * run->world->slice_count + step->slice];
	if (col_opcode_writes_out(step->opcode) && *out == COL_VALUE_FINAL)
		return col_world_reject(run->world, at, "it changes OUT, which is final");

	bool stores = true; /* in OUT, over what was there */
	uint32_t stored = frame;
	int status = 0;
	switch ((enum col_opcode)step->opcode) {
	case COL_SEND_IN:
		*wire_out = at.rank;
		return 0;
	case COL_SEND_OUT:
		if (*out != COL_VALUE_FINAL)
			return col_world_reject(run->world, at, "it sends OUT before it is final");
		*wire_out = COL_VALUE_FULL;
		return 0;
	case COL_RECV_REDUCE_SEND:
		*wire_out = frame;
		return sum_add(run, at, wire_out, at.rank);
	case COL_RECV:
		break;
	case COL_RECV_SEND:
		*wire_out = frame;
		status = col_value_copy(&run->values, frame, &stored);
		break;
	case COL_RECV_REDUCE_IN:
	case COL_IN_REDUCE_RECV:
		status = sum_add(run, at, &stored, at.rank);
		break;
	case COL_COPY_IN:
		stored = at.rank;
		break;
	case COL_RECV_REDUCE:
		stores = false;
		status = sum_add(run, at, out, frame);
		break;
	case COL_REDUCE_IN:
		stores = false;
		status = sum_add(run, at, out, at.rank);
		break;
	case COL_OPCODE_COUNT:
	default:
		COL_ASSERT(false);
	}
	if (status < 0)
		return status;
	if (stores) {
		col_value_free(&run->values, *out);
		*out = stored;
	}
	return out_check(run, at, out);
}

/* ---- agents -------------------------------------------------------------------------------- */

static void agent_ready(struct run *run, uint32_t agent)
{
	uint32_t capacity = run->task_count + run->link_count;
	COL_ASSERT(run->ready_count < capacity);
	run->ready[(run->ready_head + run->ready_count++) % capacity] = agent;
}

static bool is_stubborn(uint32_t agent)
{
	return (agent * 0x9e3779b9u & 0x80000000u) != 0;
}

static uint32_t agent_pick(struct run *run)
{
	uint32_t capacity = run->task_count + run->link_count;
	uint32_t last = (run->ready_head + run->ready_count - 1) % capacity;
	uint32_t pick = run->ready_head;
	if (run->schedule.order == NEWEST_FIRST)
		pick = last;
	uint32_t tries = run->schedule.order == RANDOM ? 1 : run->schedule.order == STUBBORN ? 8 : 0;
	for (; tries > 0; tries--) {
		uint32_t offset = (uint32_t)col_prng_below(&run->prng, run->ready_count);
		pick = (run->ready_head + offset) % capacity;
		if (!is_stubborn(run->ready[pick]))
			break;
	}

	uint32_t agent = run->ready[pick];
	run->ready_count--;
	if (pick == run->ready_head)
		run->ready_head = (run->ready_head + 1) % capacity;
	else
		run->ready[pick] = run->ready[last];
	return agent;
}

static uint32_t lane_number(const struct run *run, struct col_place at)
{
	return run->world->lane_base[at.rank] + at.lane;
}

/* Where the iteration of `chunk` has its task. */
static uint32_t task_number(const struct run *run, uint32_t lane, uint32_t chunk)
{
	return lane * WINDOW_MAX + chunk % run->schedule.window;
}

/* Completes and begins iterations of a lane, in order. */
static void lane_advance(struct run *run, uint32_t lane)
{
	struct lane *it = &run->lanes[lane];
	while (it->completed < it->begun) {
		if (run->tasks[task_number(run, lane, it->completed)].state != PASSED)
			break;
		it->completed++;
	}
	while (it->begun < run->schedule.chunk_count &&
	       it->begun - it->completed < run->schedule.window) {
		uint32_t index = task_number(run, lane, it->begun);
		struct task *task = &run->tasks[index];
		task->chunk = it->begun++;
		task->at.step = 0;
		task->state = READY;
		agent_ready(run, index);
	}
}

static void link_ready(struct run *run, uint32_t number)
{
	struct link *link = &run->links[number];
	if (link->is_ready || link->head == FRAME_NONE || link->unconsumed >= run->credit)
		return;
	link->is_ready = true;
	agent_ready(run, run->task_count + number);
}

static int frames_grow(struct run *run)
{
	uint32_t count = run->frame_count == 0 ? 1024 : run->frame_count * 2;
	struct frame *frames = col_alloc_zeroed(count, sizeof(*frames));
	if (frames == NULL)
		return COLLECT_E_MEMORY;
	if (run->frame_count > 0)
		memcpy(frames, run->frames, run->frame_count * sizeof(*frames));
	for (uint32_t i = run->frame_count; i < count; i++) {
		frames[i].next = run->frame_free;
		run->frame_free = i;
	}
	col_free(run->frames);
	run->frames = frames;
	run->frame_count = count;
	return 0;
}

/* Queues a frame of the task's step. */
static int frame_queue(struct run *run, const struct task *task, uint32_t to, uint32_t value)
{
	if (run->frame_free == FRAME_NONE) {
		int status = frames_grow(run);
		if (status < 0)
			return status;
	}
	uint32_t number = task->at.rank * run->world->rank_count + to;
	struct link *link = &run->links[number];
	uint32_t index = run->frame_free;
	run->frame_free = run->frames[index].next;
	run->frames[index] = (struct frame){FRAME_NONE, task->at, task->chunk, value};
	if (link->head == FRAME_NONE)
		link->head = index;
	else
		run->frames[link->tail].next = index;
	link->tail = index;
	link_ready(run, number);
	return 0;
}

/* The oldest frame takes a credit and arrives. */
static void link_run(struct run *run, uint32_t number)
{
	struct link *link = &run->links[number];
	uint32_t index = link->head;
	struct frame frame = run->frames[index];
	link->is_ready = false;
	link->head = frame.next;
	link->unconsumed++;
	run->frames[index].next = run->frame_free;
	run->frame_free = index;

	const struct col_step *step = col_world_step(run->world, frame.from);
	struct col_place to = {number % run->world->rank_count, step->peer_lane, step->peer_step};
	uint32_t mail = col_world_step_number(run->world, to);
	run->mail[mail] |= 1u << frame.chunk;
	if (run->has_values)
		run->mail_values[mail] = frame.value;

	uint32_t receiver_index = task_number(run, lane_number(run, to), frame.chunk);
	struct task *receiver = &run->tasks[receiver_index];
	if (receiver->state == AWAITS_FRAME && receiver->chunk == frame.chunk &&
	    receiver->at.step == to.step) {
		receiver->state = READY;
		agent_ready(run, receiver_index);
	}
	link_ready(run, number);
}

static bool slice_has_chunk(const struct run *run, uint32_t slice, uint32_t chunk)
{
	uint32_t count = run->schedule.chunk_count;
	return chunk < (run->schedule.is_uneven ? (slice + count) % (count + 1) : count);
}

/* Runs a task as far as it goes. */
static int task_run(struct run *run, uint32_t index)
{
	struct task *task = &run->tasks[index];
	const struct col_world *world = run->world;
	uint32_t step_count = world->plans[task->at.rank]->lanes[task->at.lane].step_count;
	for (; task->at.step < step_count; task->at.step++) {
		const struct col_step *step = col_world_step(world, task->at);
		if (!slice_has_chunk(run, step->slice, task->chunk))
			continue;

		uint32_t number = col_world_step_number(world, task->at);
		bool receives = col_opcode_receives(step->opcode);
		if (receives && !(run->mail[number] >> task->chunk & 1)) {
			task->state = AWAITS_FRAME;
			return 0;
		}
		uint32_t value = COL_VALUE_NONE;
		int status = 0;
		if (run->has_values)
			status = step_apply(run, task->at, receives ? run->mail_values[number] : COL_VALUE_NONE,
			                    &value);
		if (receives) {
			uint32_t link = step->peer * world->rank_count + task->at.rank;
			run->links[link].unconsumed--;
			link_ready(run, link);
		}
		if (status == 0 && col_opcode_sends(step->opcode))
			status = frame_queue(run, task, receives ? step->next : step->peer, value);
		if (status < 0)
			return status;
	}
	task->state = PASSED;
	lane_advance(run, lane_number(run, task->at));
	return 0;
}

/* ---- runs ---------------------------------------------------------------------------------- */

static void run_fini(struct run *run)
{
	col_free(run->tasks);
	col_free(run->lanes);
	col_free(run->links);
	col_free(run->mail);
	col_free(run->mail_values);
	col_free(run->outs);
	col_free(run->owners);
	col_free(run->ready);
	col_free(run->frames);
	col_values_fini(&run->values);
}

static int run_init(struct run *run, const struct col_world *world, uint32_t credit)
{
	uint32_t rank_count = world->rank_count;
	uint32_t lane_count = world->lane_base[rank_count];
	size_t step_count = world->step_base[rank_count];
	size_t task_count = (size_t)lane_count * WINDOW_MAX;
	size_t link_count = (size_t)rank_count * rank_count;
	size_t out_count = (size_t)rank_count * world->slice_count;
	*run = (struct run){
		.world = world,
		.credit = credit,
		.task_count = (uint32_t)task_count,
		.link_count = (uint32_t)link_count,
		.frame_free = FRAME_NONE,
		.tasks = col_alloc_zeroed(task_count, sizeof(struct task)),
		.lanes = col_alloc_zeroed(lane_count, sizeof(struct lane)),
		.links = col_alloc_zeroed(link_count, sizeof(struct link)),
		.mail = col_alloc_zeroed(step_count, sizeof(uint32_t)),
		.mail_values = col_alloc_zeroed(step_count, sizeof(uint32_t)),
		.outs = col_alloc_zeroed(out_count, sizeof(uint32_t)),
		.owners = col_alloc_zeroed(world->slice_count, sizeof(uint32_t)),
		.ready = col_alloc_zeroed(task_count + link_count, sizeof(uint32_t)),
	};
	col_values_init(&run->values, rank_count);
	if (run->tasks == NULL || run->lanes == NULL || run->links == NULL || run->mail == NULL ||
	    run->mail_values == NULL || run->outs == NULL || run->owners == NULL ||
	    run->ready == NULL) {
		run_fini(run);
		return COLLECT_E_MEMORY;
	}
	memset(run->outs, 0xff, out_count * sizeof(uint32_t));
	memset(run->owners, 0xff, world->slice_count * sizeof(uint32_t));
	return 0;
}

/* Every lane's first iterations, ready to run. */
static void run_begin(struct run *run, const struct schedule *schedule)
{
	const struct col_world *world = run->world;
	COL_ASSERT(schedule->window <= WINDOW_MAX && schedule->chunk_count <= CHUNKS_MAX);
	run->schedule = *schedule;
	run->ready_head = 0;
	run->ready_count = 0;
	uint32_t lane_count = world->lane_base[world->rank_count];
	memset(run->mail, 0, world->step_base[world->rank_count] * sizeof(*run->mail));
	memset(run->lanes, 0, lane_count * sizeof(*run->lanes));
	for (uint32_t i = 0; i < run->link_count; i++)
		run->links[i] = (struct link){.head = FRAME_NONE};
	col_prng_init(&run->prng, 1);

	for (uint32_t rank = 0; rank < world->rank_count; rank++) {
		for (uint32_t lane = 0; lane < world->plans[rank]->lane_count; lane++) {
			uint32_t number = world->lane_base[rank] + lane;
			for (uint32_t i = 0; i < WINDOW_MAX; i++)
				run->tasks[number * WINDOW_MAX + i] =
					(struct task){.at = {rank, lane, 0}, .state = PASSED};
			lane_advance(run, number);
		}
	}
}

/* Nothing is ready: either all is done or agents wait for each other. A link that waits for a
 * credit says more about the cause than a task that waits for a frame. */
static int run_end(struct run *run)
{
	const struct col_world *world = run->world;
	for (uint32_t i = 0; i < run->link_count; i++) {
		if (run->links[i].head == FRAME_NONE)
			continue;
		const struct frame *frame = &run->frames[run->links[i].head];
		return col_world_reject(world, frame->from, "deadlock: chunk %" PRIu32
		                        " waits for a credit to rank %" PRIu32 ", of %" PRIu32 " per link",
		                        frame->chunk, i % world->rank_count, run->credit);
	}
	for (uint32_t i = 0; i < run->task_count; i++) {
		const struct task *task = &run->tasks[i];
		if (task->state == AWAITS_FRAME)
			return col_world_reject(world, task->at, "deadlock: chunk %" PRIu32
			                        " waits for a frame from rank %" PRIu32, task->chunk,
			                        col_world_step(world, task->at)->peer);
	}
	return 0;
}

/* After the run that follows values: every rank must have every result. */
static int results_check(struct run *run)
{
	const struct col_world *world = run->world;
	for (uint32_t rank = 0; rank < world->rank_count; rank++) {
		for (uint32_t slice = 0; slice < world->slice_count; slice++) {
			if (run->outs[(size_t)rank * world->slice_count + slice] == COL_VALUE_FINAL)
				continue;
			(void)snprintf(world->reason_out, world->reason_capacity, "rank %" PRIu32
			               ": no step makes slice %" PRIu32 " final", rank, slice);
			return COLLECT_E_INVALID;
		}
	}
	return 0;
}

int col_world_run(const struct col_world *world, uint32_t credit)
{
	struct run run;
	int status = run_init(&run, world, credit);
	if (status < 0)
		return status;

	for (size_t i = 0; i < sizeof(schedules) / sizeof(*schedules) && status == 0; i++) {
		run.has_values = i == VALUES_SCHEDULE;
		run_begin(&run, &schedules[i]);
		while (run.ready_count > 0 && status == 0) {
			uint32_t agent = agent_pick(&run);
			if (agent < run.task_count)
				status = task_run(&run, agent);
			else
				link_run(&run, agent - run.task_count);
		}
		if (status == 0)
			status = run_end(&run);
		if (status == 0 && run.has_values)
			status = results_check(&run);
	}
	run_fini(&run);
	return status;
}
