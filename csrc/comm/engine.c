#include "comm/engine.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/size.h"
#include "base/status.h"
#include "comm/comm.h"

/* A waiting caller polls for so long before it sleeps in the kernel: a wake-up costs about 30 us,
 * so polling longer than that twice over would be waste. It yields between polls, because ranks may
 * outnumber cores. */
#define SPIN_NS (60 * COL_NS_PER_US)
/* How long the I/O thread leaves the loop to callers after one has driven. */
#define LINGER_NS (200 * COL_NS_PER_US)
/* While shared memory moves, the links are looked at every so many rounds. */
#define POLL_ROUNDS 16u
/* How often a thread looks again that another thread should have woken. */
#define LOOK_NS COL_NS_PER_MS
/* … and the I/O thread at least so often, while a caller drives on and on. */
#define AWAY_NS_MAX (64 * COL_NS_PER_MS)
/* While it polls, a caller with so few links reads from them directly, and asks the loop, and the
 * clock, only now and then: on one link that halves the cost of a small operation. */
#define DIRECT_LINKS_MAX 3u
#define DIRECT_ROUNDS 16u
#define EVENTS_CAPACITY 4096u
#define OUTBOUNDS_IDLE_MAX 4096u

/* ---- the baton ---- */

static void cond_wait_ns(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t duration_ns)
{
	uint64_t until_ns = col_clock_ns() + duration_ns;
	struct timespec until = {.tv_sec = (time_t)(until_ns / COL_NS_PER_S),
	                         .tv_nsec = (long)(until_ns % COL_NS_PER_S)};
	pthread_cond_timedwait(cond, mutex, &until);
}

static bool baton_take(struct collect_engine *engine)
{
	bool is_free = false;
	return atomic_compare_exchange_strong(&engine->is_held, &is_free, true);
}

void col_engine_enter(struct collect_engine *engine)
{
	if (atomic_load(&engine->urgent) > 0 || !baton_take(engine)) {
		pthread_mutex_lock(&engine->mutex);
		atomic_fetch_add(&engine->urgent, 1);
		if (atomic_load(&engine->is_held))
			col_loop_wake(&engine->loop);
		while (!baton_take(engine))
			pthread_cond_wait(&engine->free_cond, &engine->mutex);
		atomic_fetch_sub(&engine->urgent, 1);
		pthread_mutex_unlock(&engine->mutex);
	}
	engine->now_ns = col_clock_ns();
}

static bool engine_try_enter(struct collect_engine *engine)
{
	return atomic_load(&engine->urgent) == 0 && baton_take(engine);
}

static bool has_pending(const struct collect_engine *engine)
{
	for (const struct collect_comm *comm = engine->comms; comm != NULL; comm = comm->next)
		if (comm->ops_head != NULL)
			return true;
	return false;
}

static void baton_leave(struct collect_engine *engine)
{
	atomic_store(&engine->is_held, false);
	if (atomic_load(&engine->urgent) == 0)
		return;
	pthread_mutex_lock(&engine->mutex);
	pthread_cond_broadcast(&engine->free_cond);
	pthread_mutex_unlock(&engine->mutex);
}

static void io_call(struct collect_engine *engine)
{
	pthread_mutex_lock(&engine->mutex);
	pthread_cond_signal(&engine->io_cond);
	pthread_mutex_unlock(&engine->mutex);
}

static void engine_leave(struct collect_engine *engine, bool by_caller)
{
	bool is_pending = has_pending(engine);
	if (by_caller)
		atomic_store_explicit(&engine->driven_ns, is_pending ? 0 : engine->now_ns,
		                      memory_order_relaxed);
	baton_leave(engine);
	if (by_caller && (is_pending || atomic_load(&engine->is_io_away)))
		io_call(engine);
}

/* ---- driving ---- */

static void engine_tick(struct collect_engine *engine)
{
	uint64_t elapsed_ns = engine->now_ns - engine->ticked_ns;
	if (elapsed_ns < engine->tick_ns)
		return;
	engine->ticked_ns = engine->now_ns;
	/* If this process itself was stopped, the others' silence proves nothing. */
	uint64_t stopped_ns = elapsed_ns > 4 * engine->tick_ns ? elapsed_ns : 0;
	col_listener_tick(&engine->listener);
	for (struct collect_comm *comm = engine->comms; comm != NULL; comm = comm->next)
		col_comm_tick(comm, stopped_ns);
}

/* One round. Returns what col_loop_poll does. */
static int engine_poll(struct collect_engine *engine, uint64_t timeout_ns)
{
	int count = col_loop_poll(&engine->loop, timeout_ns);
	engine->now_ns = col_clock_ns();
	engine->polled_ns = engine->now_ns;
	engine_tick(engine);
	return count;
}

void col_engine_leave(struct collect_engine *engine)
{
	/* Callers may come one after another with nothing to wait for, as over shared memory; the I/O
	 * thread stays away meanwhile. */
	if (engine->now_ns > engine->polled_ns + LOOK_NS)
		engine_poll(engine, 0);
	/* The caller most likely waits for what it began: the I/O thread lingers. */
	atomic_store_explicit(&engine->driven_ns, engine->now_ns, memory_order_relaxed);
	baton_leave(engine);
	if (atomic_load_explicit(&engine->is_io_away, memory_order_relaxed))
		io_call(engine);
	col_engine_op_completed(engine); /* who slept may drive now */
}

/* Shared memory tells nobody that something came: who drives must look. */
static bool engine_progress(struct collect_engine *engine)
{
	bool has_moved = false;
	for (struct collect_comm *comm = engine->comms; comm != NULL; comm = comm->next)
		has_moved = col_comm_progress(comm) || has_moved;
	return has_moved;
}

/* Before a sleep. False: do not sleep now. */
static bool engine_arm(struct collect_engine *engine, uint64_t *sleep_ns)
{
	for (struct collect_comm *comm = engine->comms; comm != NULL; comm = comm->next)
		if (!col_comm_arm(comm))
			*sleep_ns = col_min_u64(*sleep_ns, LOOK_NS);
	return !engine_progress(engine);
}

static void engine_disarm(struct collect_engine *engine)
{
	for (struct collect_comm *comm = engine->comms; comm != NULL; comm = comm->next)
		col_comm_disarm(comm);
}

static uint64_t until_tick(const struct collect_engine *engine)
{
	uint64_t due_ns = engine->ticked_ns + engine->tick_ns;
	return due_ns > engine->now_ns ? due_ns - engine->now_ns : 0;
}

/* Whether something moved on the comm's links. They may be lost meanwhile, but none is removed:
 * that is left to the tick. */
static bool links_poll(const struct collect_comm *comm)
{
	bool has_moved = false;
	for (struct col_link *link = col_comm_base(comm)->links; link != NULL; link = link->next)
		has_moved |= link->state == COL_LINK_UP && col_link_poll(link) > 0;
	return has_moved;
}

static bool has_few_links(const struct collect_comm *comm)
{
	uint32_t count = 0;
	for (const struct col_link *link = col_comm_base(comm)->links; link != NULL; link = link->next)
		count += link->options.stream_count;
	return count > 0 && count <= DIRECT_LINKS_MAX;
}

/* Whether something moved, of shared memory or on few links. */
static bool look(struct collect_engine *engine, struct collect_comm *comm, uint32_t direct_rounds,
                 bool (*is_done)(void *), void *argument)
{
	bool has_moved = engine_progress(engine);
	if (comm->share.is_running)
		return has_moved;
	for (uint32_t i = 0; i < direct_rounds && !is_done(argument); i++) {
		bool moves = links_poll(comm);
		has_moved |= moves;
		if (!moves)
			sched_yield();
	}
	return has_moved;
}

/* With the baton, as a caller. False: a signal came. */
static bool drive(struct collect_engine *engine, struct collect_comm *comm,
                  bool (*is_done)(void *), void *argument, uint64_t deadline_ns)
{
	const struct collect_op *head = comm->ops_head;
	/* Who has waited for long, and comes again after a look at other things, polls no more. */
	bool is_late = head != NULL && engine->now_ns > head->submitted_ns + LOOK_NS;
	uint64_t spin_until_ns = engine->now_ns + (is_late ? 0 : SPIN_NS);
	uint32_t direct_rounds = has_few_links(comm) && !is_late ? DIRECT_ROUNDS : 0;
	for (uint32_t round = 1; !is_done(argument) && engine->now_ns < deadline_ns &&
	                         atomic_load_explicit(&engine->urgent, memory_order_relaxed) == 0;
	     round++) {
		bool has_moved = look(engine, comm, direct_rounds, is_done, argument);
		if (is_done(argument))
			break;
		/* Who moves through shared memory looks at the links only now and then. */
		if (has_moved && comm->share.is_running && round % POLL_ROUNDS != 0)
			continue;
		uint64_t timeout_ns = 0;
		if (engine->now_ns >= spin_until_ns && !has_moved) {
			timeout_ns = col_min_u64(until_tick(engine), deadline_ns - engine->now_ns);
			if (!engine_arm(engine, &timeout_ns))
				timeout_ns = 0;
		}
		int count = engine_poll(engine, timeout_ns);
		if (timeout_ns > 0)
			engine_disarm(engine);
		if (count < 0)
			return false;
		if (count > 0 || has_moved)
			spin_until_ns = engine->now_ns + SPIN_NS;
		else if (timeout_ns == 0)
			sched_yield();
	}
	return true;
}

bool col_engine_drive(struct collect_engine *engine, struct collect_comm *comm,
                      bool (*is_done)(void *), void *argument, uint64_t deadline_ns)
{
	bool goes_on = drive(engine, comm, is_done, argument, deadline_ns);
	engine_leave(engine, true);
	return goes_on;
}

void col_engine_wait(struct collect_engine *engine, struct collect_comm *comm,
                     bool (*is_done)(void *argument), void *argument, uint64_t deadline_ns)
{
	bool goes_on = true;
	while (goes_on && !is_done(argument)) {
		uint64_t now_ns = col_clock_ns();
		if (now_ns >= deadline_ns)
			return;
		if (engine_try_enter(engine)) {
			engine->now_ns = now_ns;
			goes_on = col_engine_drive(engine, comm, is_done, argument, deadline_ns);
			continue;
		}
		pthread_mutex_lock(&engine->mutex);
		atomic_fetch_add(&engine->sleepers, 1);
		if (!is_done(argument) &&
		    (atomic_load(&engine->is_held) || atomic_load(&engine->urgent) > 0))
			cond_wait_ns(&engine->done_cond, &engine->mutex,
			             col_min_u64(LOOK_NS, deadline_ns - now_ns));
		atomic_fetch_sub(&engine->sleepers, 1);
		pthread_mutex_unlock(&engine->mutex);
	}
}

void col_engine_op_completed(struct collect_engine *engine)
{
	if (atomic_load(&engine->sleepers) == 0)
		return;
	pthread_mutex_lock(&engine->mutex);
	pthread_cond_broadcast(&engine->done_cond);
	pthread_mutex_unlock(&engine->mutex);
}

/* Waits until the loop is the I/O thread's to take. False: the engine stops. */
static bool io_may_drive(struct collect_engine *engine)
{
	uint64_t look_ns = LOOK_NS;
	pthread_mutex_lock(&engine->mutex);
	while (!engine->is_stopping) {
		uint64_t driven_ns = atomic_load_explicit(&engine->driven_ns, memory_order_relaxed);
		if (atomic_load(&engine->is_held) || atomic_load(&engine->urgent) > 0) {
			/* The longer somebody drives, the less often this looks; who leaves then calls it. */
			atomic_store(&engine->is_io_away, look_ns > LOOK_NS);
			cond_wait_ns(&engine->io_cond, &engine->mutex, look_ns);
			atomic_store(&engine->is_io_away, false);
			look_ns = col_min_u64(2 * look_ns, AWAY_NS_MAX);
		} else if (col_clock_ns() < driven_ns + LINGER_NS) {
			cond_wait_ns(&engine->io_cond, &engine->mutex, LOOK_NS);
		} else {
			break;
		}
	}
	bool goes_on = !engine->is_stopping;
	pthread_mutex_unlock(&engine->mutex);
	return goes_on;
}

static void *io_thread(void *argument)
{
	struct collect_engine *engine = argument;
	uint64_t sleep_ns = engine->tick_ns;
	while (io_may_drive(engine)) {
		/* Sleep without the baton: what is ready is looked up again under it. */
		col_loop_wait(&engine->loop, sleep_ns);
		sleep_ns = engine->tick_ns;
		if (!engine_try_enter(engine))
			continue;
		bool goes_on;
		do {
			bool has_moved = engine_progress(engine);
			goes_on = engine_poll(engine, 0) > 0 || has_moved;
			goes_on = goes_on || !engine_arm(engine, &sleep_ns);
		} while (goes_on && atomic_load_explicit(&engine->urgent, memory_order_relaxed) == 0);
		engine_leave(engine, false);
	}
	return NULL;
}

/* ---- events ---- */

void col_engine_post(struct collect_engine *engine, const struct collect_event *event)
{
	pthread_mutex_lock(&engine->mutex);
	uint32_t count = engine->events_tail - engine->events_head;
	bool is_chatter = event->kind == COLLECT_EVENT_REFUSED;
	if (is_chatter && count >= EVENTS_CAPACITY / 2) {
		pthread_mutex_unlock(&engine->mutex);
		return;
	}
	/* Nobody has read for thousands of events: the newest matter, and a report tells the rest. */
	if (count == EVENTS_CAPACITY)
		engine->events_head++;
	struct collect_event *slot = &engine->events[engine->events_tail++ % EVENTS_CAPACITY];
	*slot = *event;
	slot->at_ns = engine->now_ns;
	pthread_mutex_unlock(&engine->mutex);
	col_loop_signal_set(engine->event_fd);
}

int collect_engine_next_event(collect_engine *engine, struct collect_event *event_out)
{
	pthread_mutex_lock(&engine->mutex);
	int has_event = engine->events_head != engine->events_tail;
	if (has_event)
		*event_out = engine->events[engine->events_head++ % EVENTS_CAPACITY];
	else
		col_loop_signal_clear(engine->event_fd);
	pthread_mutex_unlock(&engine->mutex);
	return has_event;
}

/* ---- life ---- */

static int options_check(const struct collect_engine_options *options)
{
	bool is_valid = options->bind_address != NULL && options->streams >= 1 &&
	                options->streams <= COLLECT_STREAMS_MAX && options->chunk_bytes >= 64 &&
	                options->chunk_bytes % 64 == 0 &&
	                options->chunk_bytes <= COL_FRAME_PAYLOAD_BYTES_MAX &&
	                options->window_bytes / 4 >= options->chunk_bytes &&
	                options->window_bytes <= INT32_MAX &&
	                options->silence_ns >= 10 * COL_NS_PER_MS &&
	                options->connect_ns >= COL_NS_PER_MS;
	return is_valid ? COLLECT_OK : COLLECT_E_INVALID;
}

static void sync_init(struct collect_engine *engine)
{
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_mutex_init(&engine->mutex, NULL);
	pthread_cond_init(&engine->free_cond, &attributes);
	pthread_cond_init(&engine->done_cond, &attributes);
	pthread_cond_init(&engine->io_cond, &attributes);
	pthread_condattr_destroy(&attributes);
}

int collect_engine_create(const struct collect_engine_options *options, collect_engine **engine_out)
{
	int status = options_check(options);
	if (status < 0)
		return status;
	struct collect_engine *engine = col_alloc_zeroed(1, sizeof(*engine));
	if (engine == NULL)
		return COLLECT_E_MEMORY;
	engine->options = *options;
	engine->options.bind_address = NULL;
	engine->event_fd = -1;
	engine->loop.epoll_fd = -1;
	engine->loop.wake_fd = -1;
	engine->listener.fd = -1;
	engine->listener.watch.fd = -1;
	engine->now_ns = col_clock_ns();
	engine->ticked_ns = engine->now_ns;
	engine->tick_ns = col_min_u64(options->silence_ns / 20, 50 * COL_NS_PER_MS);
	engine->heartbeat_ns = options->silence_ns / 5;
	sync_init(engine);
	col_buffers_init(&engine->buffers, options->chunk_bytes);
	col_pool_init(&engine->outbounds, sizeof(struct col_outbound), OUTBOUNDS_IDLE_MAX);
	engine->events = col_alloc_zeroed(EVENTS_CAPACITY, sizeof(*engine->events));
	status = engine->events == NULL ? COLLECT_E_MEMORY : col_loop_init(&engine->loop);
	if (status < 0)
		goto fail;
	engine->event_fd = col_loop_signal_open();
	if (engine->event_fd < 0) {
		status = col_status_from_errno(errno);
		goto fail;
	}
	status = col_listener_open(&engine->listener, &engine->loop, options->bind_address,
	                           options->port, &engine->now_ns);
	if (status < 0)
		goto fail;
	engine->listener.events = &col_comm_listener_events;
	engine->listener.user = engine;
	if (pthread_create(&engine->thread, NULL, io_thread, engine) != 0) {
		status = COLLECT_E_SYSTEM;
		goto fail;
	}
	engine->has_thread = true;
	*engine_out = engine;
	return COLLECT_OK;

fail:
	collect_engine_destroy(&engine);
	return status;
}

void collect_engine_destroy(collect_engine **engine_in)
{
	struct collect_engine *engine = *engine_in;
	if (engine == NULL)
		return;
	COL_ASSERT(engine->comms == NULL);
	if (engine->has_thread) {
		pthread_mutex_lock(&engine->mutex);
		engine->is_stopping = true;
		pthread_cond_signal(&engine->io_cond);
		pthread_mutex_unlock(&engine->mutex);
		col_loop_wake(&engine->loop);
		pthread_join(engine->thread, NULL);
	}
	col_listener_close(&engine->listener);
	col_loop_signal_close(engine->event_fd);
	col_loop_fini(&engine->loop);
	col_buffers_fini(&engine->buffers);
	col_pool_fini(&engine->outbounds);
	col_free(engine->events);
	pthread_cond_destroy(&engine->io_cond);
	pthread_cond_destroy(&engine->done_cond);
	pthread_cond_destroy(&engine->free_cond);
	pthread_mutex_destroy(&engine->mutex);
	col_free(engine);
	*engine_in = NULL;
}

uint16_t collect_engine_port(const collect_engine *engine)
{
	return engine->listener.port;
}

int collect_engine_event_fd(const collect_engine *engine)
{
	return engine->event_fd;
}
