/*
 * Looks for deadlocks: runs the plans of a whole world without values, with several chunks, in
 * several orders in which whatever can go on does.
 *
 * Two kinds of *agent* go on. A task is one iteration of a lane: it runs until a frame is missing,
 * and queues what it sends. A link takes the oldest frame that is queued for it, if there is a
 * credit. Arrival of a frame, a frame to send, and a credit make agents ready; so a run costs one
 * visit per step and chunk, and one per frame.
 */
#include "plan/plan_world.h"

#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/prng.h"

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

/* Small worlds are tried in all orders; of large ones, as many as VISITS_MAX allows, at least one.
 * In these a window and chunks as few as possible meet the most obstacles per visit. */
#define VISITS_MAX 400000u /* steps times chunks */
static const struct schedule schedules[] = {
	{.chunk_count = 2, .window = 1, .order = NEWEST_FIRST},
	{.chunk_count = 18, .window = 8, .order = RANDOM, .is_uneven = true},
	{.chunk_count = 18, .window = 8, .order = STUBBORN},
	{.chunk_count = 3, .window = 1, .order = STUBBORN},
	{.chunk_count = 18, .window = 8, .order = OLDEST_FIRST},
	{.chunk_count = 18, .window = 8, .order = NEWEST_FIRST},
	{.chunk_count = 4, .window = 1, .order = RANDOM},
};

enum task_state { BEGUN, READY, AWAITS_FRAME, PASSED };

struct task {
	uint16_t step;
	uint8_t chunk;
	uint8_t state; /* enum task_state; PASSED: through all steps, or not begun */
};

struct frame {
	uint32_t next; /* that is queued behind it, or that is free too */
	uint32_t lane; /* number of the sender's lane */
	uint16_t step;
	uint16_t chunk;
};

struct link {
	uint32_t unconsumed; /* frames that hold a credit */
	uint32_t head;       /* frames that wait for one */
	uint32_t tail;
	bool is_ready;
};

struct lane {
	uint8_t begun;
	uint8_t completed;
	bool is_starting; /* the last one that begun has not run yet */
	bool is_driven;   /* by frames: its first step receives */
};

struct run {
	const struct col_world *world;
	struct schedule schedule;
	uint32_t credit;
	struct task *tasks;  /* chunk_count per lane */
	struct lane *lanes;
	struct link *links;  /* from * rank_count + to */
	uint32_t *mail;      /* by step: bit c: the frame of chunk c has come */
	uint32_t *ready;     /* circular; tasks, then links; each at most once */
	uint32_t ready_head;
	uint32_t ready_count;
	uint32_t task_count;
	uint32_t link_count;
	struct frame *frames; /* pool */
	uint32_t frame_count;
	uint32_t frame_free;
	struct col_prng prng;
};

/* ---- agents -------------------------------------------------------------------------------- */

static uint32_t ready_place(const struct run *run, uint32_t offset)
{
	uint32_t capacity = run->task_count + run->link_count;
	uint32_t place = run->ready_head + offset;
	return place < capacity ? place : place - capacity;
}

static void agent_ready(struct run *run, uint32_t agent)
{
	COL_ASSERT(run->ready_count < run->task_count + run->link_count);
	run->ready[ready_place(run, run->ready_count++)] = agent;
}

static bool is_stubborn(uint32_t agent)
{
	return (agent * 0x9e3779b9u & 0x80000000u) != 0;
}

static uint32_t agent_pick(struct run *run)
{
	uint32_t last = ready_place(run, run->ready_count - 1);
	uint32_t pick = run->schedule.order == NEWEST_FIRST ? last : run->ready_head;
	uint32_t tries = run->schedule.order == RANDOM ? 1 : run->schedule.order == STUBBORN ? 8 : 0;
	for (; tries > 0; tries--) {
		uint64_t offset = (col_prng_next(&run->prng) >> 32) * run->ready_count >> 32;
		pick = ready_place(run, (uint32_t)offset);
		if (!is_stubborn(run->ready[pick]))
			break;
	}

	uint32_t agent = run->ready[pick];
	run->ready_count--;
	if (pick == run->ready_head)
		run->ready_head = ready_place(run, 1);
	else
		run->ready[pick] = run->ready[last];
	return agent;
}

/* Where the iteration of `chunk` has its task. */
static uint32_t task_number(const struct run *run, uint32_t lane, uint32_t chunk)
{
	return lane * run->schedule.chunk_count + chunk;
}

/* Completes and begins iterations of a lane, in order: each has done what it can when the next one
 * begins. */
static void lane_advance(struct run *run, uint32_t number, uint32_t chunk_count)
{
	struct lane *lane = &run->lanes[number];
	while (lane->completed < lane->begun &&
	       run->tasks[task_number(run, number, lane->completed)].state == PASSED)
		lane->completed++;
	uint32_t under_way = (uint32_t)(lane->begun - lane->completed);
	if (!lane->is_starting && lane->begun < chunk_count &&
	    (lane->is_driven || under_way < run->schedule.window)) {
		uint32_t index = task_number(run, number, lane->begun);
		run->tasks[index] = (struct task){.chunk = lane->begun++, .state = BEGUN};
		lane->is_starting = true;
		agent_ready(run, index);
	}
}

static uint32_t chunk_count_of(const struct run *run, uint32_t slice)
{
	uint32_t count = run->schedule.chunk_count;
	return run->schedule.is_uneven ? (slice + count) % (count + 1) : count;
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

static int frame_queue(struct run *run, struct col_place from, uint32_t chunk, uint32_t to)
{
	if (run->frame_free == FRAME_NONE) {
		int status = frames_grow(run);
		if (status < 0)
			return status;
	}
	uint32_t number = from.rank * run->world->rank_count + to;
	struct link *link = &run->links[number];
	uint32_t index = run->frame_free;
	run->frame_free = run->frames[index].next;
	run->frames[index] = (struct frame){
		.next = FRAME_NONE,
		.lane = run->world->lane_base[from.rank] + from.lane,
		.step = (uint16_t)from.step,
		.chunk = (uint16_t)chunk,
	};
	if (link->head == FRAME_NONE)
		link->head = index;
	else
		run->frames[link->tail].next = index;
	link->tail = index;
	link_ready(run, number);
	return 0;
}

static struct col_place frame_from(const struct run *run, const struct frame *frame)
{
	struct col_place at = col__world_place(run->world, frame->lane);
	at.step = frame->step;
	return at;
}

/* The oldest frame takes a credit and arrives. */
static void link_run(struct run *run, uint32_t number)
{
	const struct col_world *world = run->world;
	struct link *link = &run->links[number];
	uint32_t index = link->head;
	struct frame frame = run->frames[index];
	link->is_ready = false;
	link->head = frame.next;
	link->unconsumed++;
	run->frames[index].next = run->frame_free;
	run->frame_free = index;

	struct col_place to = col__step_target(col__world_step(world, frame_from(run, &frame)));
	run->mail[col__world_step_number(world, to)] |= 1u << frame.chunk;
	uint32_t receiver_index = task_number(run, world->lane_base[to.rank] + to.lane, frame.chunk);
	struct task *receiver = &run->tasks[receiver_index];
	if (receiver->state == AWAITS_FRAME && receiver->chunk == frame.chunk &&
	    receiver->step == to.step) {
		receiver->state = READY;
		agent_ready(run, receiver_index);
	}
	link_ready(run, number);
}

/* Runs a task as far as it goes. */
static int task_run(struct run *run, uint32_t index)
{
	const struct col_world *world = run->world;
	struct task *task = &run->tasks[index];
	uint32_t number = index / run->schedule.chunk_count;
	struct col_place at = col__world_place(world, number);
	const struct col_lane *lane = col__world_lane(world, at);
	bool is_start = task->state == BEGUN;
	bool waits = false;
	for (; task->step < lane->step_count; task->step++) {
		at.step = task->step;
		const struct col_step *step = col__world_step(world, at);
		bool receives = col_opcode_receives(step->opcode) != 0;
		if (receives && !(run->mail[col__world_step_number(world, at)] >> task->chunk & 1)) {
			waits = true;
			break;
		}
		if (receives) {
			uint32_t link = step->peer * world->rank_count + at.rank;
			run->links[link].unconsumed--;
			link_ready(run, link);
		}
		if (col_opcode_sends(step->opcode)) {
			int status = frame_queue(run, at, task->chunk, receives ? step->next : step->peer);
			if (status < 0)
				return status;
		}
	}
	task->state = waits ? AWAITS_FRAME : PASSED;
	if (is_start)
		run->lanes[number].is_starting = false;
	if (is_start || !waits)
		lane_advance(run, number, chunk_count_of(run, lane->slice));
	return 0;
}

/* ---- runs ---------------------------------------------------------------------------------- */

static void run_fini(struct run *run)
{
	col_free(run->tasks);
	col_free(run->lanes);
	col_free(run->links);
	col_free(run->mail);
	col_free(run->ready);
	col_free(run->frames);
}

/* Every lane's first iterations, ready to run. Fini is due in any case. */
static int run_begin(struct run *run, const struct col_world *world, uint32_t credit,
                     const struct schedule *schedule)
{
	COL_ASSERT(schedule->chunk_count <= CHUNKS_MAX);
	size_t task_count = (size_t)world->lane_count * schedule->chunk_count;
	size_t link_count = (size_t)world->rank_count * world->rank_count;
	*run = (struct run){
		.world = world,
		.schedule = *schedule,
		.credit = credit,
		.task_count = (uint32_t)task_count,
		.link_count = (uint32_t)link_count,
		.frame_free = FRAME_NONE,
		.tasks = col_alloc_zeroed(task_count, sizeof(struct task)),
		.lanes = col_alloc_zeroed(world->lane_count, sizeof(struct lane)),
		.links = col_alloc_zeroed(link_count, sizeof(struct link)),
		.mail = col_alloc_zeroed(world->step_count, sizeof(uint32_t)),
		.ready = col_alloc_zeroed(task_count + link_count, sizeof(uint32_t)),
	};
	if (run->tasks == NULL || run->lanes == NULL || run->links == NULL || run->mail == NULL ||
	    run->ready == NULL)
		return COLLECT_E_MEMORY;
	col_prng_init(&run->prng, 1);
	for (uint32_t i = 0; i < run->link_count; i++)
		run->links[i].head = FRAME_NONE;
	for (uint32_t i = 0; i < run->task_count; i++)
		run->tasks[i].state = PASSED;
	for (uint32_t lane = 0; lane < world->lane_count; lane++) {
		struct col_place at = col__world_place(world, lane);
		uint32_t slice = col__world_lane(world, at)->slice;
		run->lanes[lane].is_driven = col_opcode_receives(col__world_step(world, at)->opcode) != 0;
		lane_advance(run, lane, chunk_count_of(run, slice));
	}
	return 0;
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
		return col__world_reject(world, frame_from(run, frame), "deadlock: chunk %u waits for a "
		                         "credit to rank %" PRIu32 ", of %" PRIu32 " per link",
		                         (unsigned)frame->chunk, i % world->rank_count, run->credit);
	}
	for (uint32_t i = 0; i < run->task_count; i++) {
		const struct task *task = &run->tasks[i];
		struct col_place at = col__world_place(world, i / run->schedule.chunk_count);
		at.step = task->step;
		if (task->state == AWAITS_FRAME)
			return col__world_reject(world, at, "deadlock: chunk %u waits for a frame from rank %"
			                         PRIu32, (unsigned)task->chunk,
			                         col__world_step(world, at)->peer);
	}
	return 0;
}

static int schedule_run(const struct col_world *world, uint32_t credit,
                        const struct schedule *schedule)
{
	struct run run;
	int status = run_begin(&run, world, credit, schedule);
	while (status == 0 && run.ready_count > 0) {
		uint32_t agent = agent_pick(&run);
		if (agent < run.task_count)
			status = task_run(&run, agent);
		else
			link_run(&run, agent - run.task_count);
	}
	if (status == 0)
		status = run_end(&run);
	run_fini(&run);
	return status;
}

int col__world_run(const struct col_world *world, uint32_t credit)
{
	uint64_t visits = 0;
	int status = 0;
	for (size_t i = 0; i < sizeof(schedules) / sizeof(*schedules) && status == 0; i++) {
		visits += (uint64_t)world->step_count * schedules[i].chunk_count;
		if (i == 0 || visits <= VISITS_MAX)
			status = schedule_run(world, credit, &schedules[i]);
	}
	return status;
}
