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
/* How often a thread looks again that nobody wakes: who waits for shared memory, and the I/O thread
 * while callers come and go, so that none of them has to call it. */
#define LOOK_NS COL_NS_PER_MS
#define LOOK_NS_MAX (4 * COL_NS_PER_MS)
/* A signal does not end a wait for another thread: it is noticed as late as this. */
#define SIGNAL_NS (50 * COL_NS_PER_MS)
/* While it polls, a caller with so few links reads from them directly, and asks the loop, and the
 * clock, only now and then: on one link that halves the cost of a small operation. */
#define DIRECT_LINKS_MAX 3u
#define DIRECT_ROUNDS 16u
/*
 * Between ranks that share a processor a yield takes some 20 us: the other one sends what is waited
 * for. When it takes so long, the processor went for a whole turn to somebody who has nothing to do
 * with it; then callers sleep as soon as nothing is there, for who is woken goes before who runs on
 * and on. They yield again after so many sleeps, and then less and less often until a row of
 * yields is fast.
 */
#define YIELD_SLOW_NS COL_NS_PER_MS
#define YIELDS_ROW 256u
#define SLEEPS_MIN 1024u
#define SLEEPS_MAX 16384u
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

/* Wakes whoever sleeps until the baton is left. Each of the three says so, and then looks whether
 * it is held; here it is left, and then they are looked for. So either they see it free, or are
 * seen. */
static void baton_leave(struct collect_engine *engine)
{
	atomic_store(&engine->is_held, false);
	bool is_urgent = atomic_load(&engine->urgent) > 0;
	bool has_sleepers = atomic_load(&engine->sleepers) > 0;
	bool is_io_away = atomic_load(&engine->is_io_away);
	if (!is_urgent && !has_sleepers && !is_io_away)
		return;
	pthread_mutex_lock(&engine->mutex);
	if (is_urgent)
		pthread_cond_broadcast(&engine->free_cond);
	if (has_sleepers)
		pthread_cond_broadcast(&engine->done_cond);
	if (is_io_away)
		pthread_cond_signal(&engine->io_cond);
	pthread_mutex_unlock(&engine->mutex);
}

/* With the baton, by a caller that looked or slept: it may have used up the wake-up that the I/O
 * thread relies on. Either the I/O thread sees is_unarmed before it sleeps, or this sees it asleep:
 * each stores its own flag and then loads the other's, sequentially consistent. Whether it must be
 * woken. */
static bool io_recall(struct collect_engine *engine)
{
	bool must_arm = false;
	for (const struct collect_comm *comm = engine->comms; comm != NULL; comm = comm->next)
		must_arm = must_arm || col_comm_must_arm(comm);
	if (!must_arm)
		return false;
	atomic_store(&engine->is_unarmed, true);
	return atomic_load(&engine->is_io_asleep);
}

/* A caller leaves: the I/O thread lingers, for the caller most likely comes back. If it sleeps in
 * the loop, then no longer than to the next tick. */
static void caller_leave(struct collect_engine *engine, bool has_looked)
{
	bool must_wake = engine->io_until_ns > engine->due_ns;
	if (must_wake)
		engine->io_until_ns = engine->due_ns;
	must_wake |= has_looked && io_recall(engine);
	atomic_store_explicit(&engine->driven_ns, engine->now_ns, memory_order_relaxed);
	atomic_fetch_add_explicit(&engine->drives, 1, memory_order_relaxed);
	baton_leave(engine);
	if (must_wake)
		col_loop_wake(&engine->loop);
}

/* ---- driving ---- */

/* A deadline asks for a tick, which comes tick_ns from now at the earliest. */
static void tick_ask(struct collect_engine *engine, uint64_t deadline_ns)
{
	uint64_t soon_ns = engine->now_ns + engine->tick_ns;
	engine->due_ns = col_min_u64(engine->due_ns, col_max_u64(soon_ns, deadline_ns));
}

static void tick_ask_for_head(struct collect_engine *engine, const struct collect_comm *comm)
{
	const struct collect_op *op = comm->ops_head;
	if (op != NULL && op->deadline_ns != 0 && !op->is_late)
		tick_ask(engine, op->deadline_ns);
}

/* What began since the last tick may need the next one sooner. */
static void tick_ask_for_all(struct collect_engine *engine)
{
	for (const struct collect_comm *comm = engine->comms; comm != NULL; comm = comm->next) {
		tick_ask_for_head(engine, comm);
		if (comm->messages.count > 0)
			tick_ask(engine, comm->messages.next_deadline_ns);
		for (const struct col_link *link = comm->links; link != NULL; link = link->next)
			if (link->state == COL_LINK_IDLE || link->state == COL_LINK_DIALING)
				tick_ask(engine, engine->now_ns);
	}
}

static void engine_tick(struct collect_engine *engine)
{
	if (engine->now_ns < engine->due_ns)
		return;
	/* If this process itself was stopped, the others' silence proves nothing. */
	uint64_t late_ns = engine->now_ns - engine->due_ns;
	uint64_t stopped_ns = late_ns > 3 * engine->tick_ns ? late_ns : 0;
	col_listener_tick(&engine->listener);
	for (struct collect_comm *comm = engine->comms; comm != NULL; comm = comm->next)
		col_comm_tick(comm, stopped_ns);
	engine->due_ns = engine->now_ns + engine->idle_ns;
	tick_ask_for_all(engine);
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
	bool has_looked = engine->now_ns > engine->polled_ns + LOOK_NS;
	if (has_looked)
		engine_poll(engine, 0);
	tick_ask_for_all(engine);
	caller_leave(engine, has_looked);
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
	return engine->due_ns > engine->now_ns ? engine->due_ns - engine->now_ns : 0;
}

/* Whether the head can go on when something comes over the link, as far as is known. A guess: what
 * comes over the others is found by the loop, only later. */
static bool is_awaited(const struct collect_comm *comm, const struct col_link *link)
{
	if (comm->phase != COL_PHASE_RUNNING || comm->runner == NULL || comm->messages.count > 0)
		return true;
	return col_link_is_blocked(link) ||
	       col_exec_awaits(&comm->runner->exec, col__rank_of(comm, link));
}

/* Whether something moved on the comm's links. They may be lost meanwhile, but none is removed:
 * that is left to the tick. */
static bool links_poll(const struct collect_comm *comm)
{
	bool has_moved = false;
	for (struct col_link *link = col_comm_base(comm)->links; link != NULL; link = link->next)
		if (link->state == COL_LINK_UP && is_awaited(comm, link))
			has_moved |= col_link_poll(link) > 0;
	return has_moved;
}

static bool has_few_links(const struct collect_comm *comm)
{
	uint32_t count = 0;
	for (const struct col_link *link = col_comm_base(comm)->links; link != NULL; link = link->next)
		count += link->options.stream_count;
	return count > 0 && count <= DIRECT_LINKS_MAX;
}

/* Lets others run, and learns whether that brings anything. */
static void yield(struct col_turns *turns)
{
	uint64_t before_ns = col_clock_ns();
	sched_yield();
	if (col_clock_ns() > before_ns + YIELD_SLOW_NS) {
		turns->sleeps = (uint32_t)col_min_u64(2 * turns->sleeps, SLEEPS_MAX);
		turns->sleeps_left = turns->sleeps;
		turns->fast = 0;
	} else if (++turns->fast == YIELDS_ROW) {
		turns->sleeps = SLEEPS_MIN / 2;
		turns->fast = 0;
	}
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
		if (moves)
			continue;
		if (engine->turns.sleeps_left > 0)
			break;
		yield(&engine->turns);
	}
	return has_moved;
}

/* Nothing moved. Whether it is time to sleep. */
static bool may_sleep(struct collect_engine *engine, const struct collect_comm *comm,
                      uint64_t spin_until_ns)
{
	if (engine->now_ns >= spin_until_ns)
		return true;
	/* Who sleeps over shared memory is not woken by who writes, but costs him a frame. */
	if (comm->share.is_running || engine->turns.sleeps_left == 0)
		return false;
	engine->turns.sleeps_left--;
	return true;
}

/* With the baton, as a caller. False: a signal came. */
static bool drive(struct collect_engine *engine, struct collect_comm *comm,
                  bool (*is_done)(void *), void *argument, uint64_t deadline_ns)
{
	const struct collect_op *head = comm->ops_head;
	tick_ask_for_head(engine, comm);
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
		if (!has_moved && may_sleep(engine, comm, spin_until_ns)) {
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
			yield(&engine->turns);
	}
	return true;
}

bool col_engine_drive(struct collect_engine *engine, struct collect_comm *comm,
                      bool (*is_done)(void *), void *argument, uint64_t deadline_ns)
{
	bool goes_on = drive(engine, comm, is_done, argument, deadline_ns);
	caller_leave(engine, true);
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
			             col_min_u64(SIGNAL_NS, deadline_ns - now_ns));
		atomic_fetch_sub(&engine->sleepers, 1);
		pthread_mutex_unlock(&engine->mutex);
	}
}

void col_engine_pause(struct collect_engine *engine)
{
	pthread_mutex_lock(&engine->mutex);
	cond_wait_ns(&engine->done_cond, &engine->mutex, LOOK_NS);
	pthread_mutex_unlock(&engine->mutex);
}

void col_engine_op_completed(struct collect_engine *engine)
{
	if (atomic_load(&engine->sleepers) == 0)
		return;
	pthread_mutex_lock(&engine->mutex);
	pthread_cond_broadcast(&engine->done_cond);
	pthread_mutex_unlock(&engine->mutex);
}

/*
 * Waits until the loop is the I/O thread's to take. False: the engine stops. While callers come and
 * go it looks every so often, so that none of them has to call it; when one has held the baton from
 * one look to the next it is likely to wait for long, and calls when it leaves.
 */
static bool io_may_drive(struct collect_engine *engine)
{
	uint64_t look_ns = LOOK_NS;
	uint64_t seen = UINT64_MAX;
	pthread_mutex_lock(&engine->mutex);
	while (!engine->is_stopping) {
		uint64_t driven_ns = atomic_load_explicit(&engine->driven_ns, memory_order_relaxed);
		uint64_t drives = atomic_load_explicit(&engine->drives, memory_order_relaxed);
		bool is_held = atomic_load(&engine->is_held);
		if (!is_held && atomic_load(&engine->urgent) == 0 &&
		    col_clock_ns() >= driven_ns + LINGER_NS)
			break;
		if (is_held && drives == seen) {
			atomic_store(&engine->is_io_away, true);
			if (atomic_load(&engine->is_held))
				pthread_cond_wait(&engine->io_cond, &engine->mutex);
			atomic_store(&engine->is_io_away, false);
			look_ns = LOOK_NS;
		} else {
			cond_wait_ns(&engine->io_cond, &engine->mutex, is_held ? look_ns : LINGER_NS);
			if (drives != seen)
				look_ns = col_min_u64(2 * look_ns, LOOK_NS_MAX);
		}
		seen = drives;
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
		atomic_store(&engine->is_io_asleep, true);
		if (!atomic_load(&engine->is_unarmed))
			col_loop_wait(&engine->loop, sleep_ns);
		atomic_store(&engine->is_io_asleep, false);
		sleep_ns = engine->tick_ns;
		if (!engine_try_enter(engine))
			continue;
		bool goes_on;
		do {
			bool has_moved = engine_progress(engine);
			goes_on = engine_poll(engine, 0) > 0 || has_moved;
			tick_ask_for_all(engine);
			sleep_ns = until_tick(engine);
			goes_on = goes_on || !engine_arm(engine, &sleep_ns);
		} while (goes_on && atomic_load_explicit(&engine->urgent, memory_order_relaxed) == 0);
		engine->io_until_ns = engine->now_ns + sleep_ns;
		atomic_store(&engine->is_unarmed, goes_on);
		baton_leave(engine);
	}
	return NULL;
}

/* ---- life ---- */

static int options_check(const struct collect_engine_options *options)
{
	bool is_valid = options->bind_address != NULL && options->streams >= 1 &&
	                options->streams <= COLLECT_STREAMS_MAX &&
	                options->streams_max <= COLLECT_STREAMS_MAX && options->chunk_bytes >= 64 &&
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
	engine->tick_ns = col_min_u64(options->silence_ns / 20, 50 * COL_NS_PER_MS);
	engine->heartbeat_ns = options->silence_ns / 5;
	engine->idle_ns = options->silence_ns / 20;
	engine->due_ns = engine->now_ns + engine->tick_ns;
	engine->turns.sleeps = SLEEPS_MIN / 2;
	sync_init(engine);
	col_buffers_init(&engine->buffers, options->chunk_bytes);
	col_pool_init(&engine->outbounds, sizeof(struct col_outbound), OUTBOUNDS_IDLE_MAX);
	engine->events = col_alloc_zeroed(COL_EVENTS_CAPACITY, sizeof(*engine->events));
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
