/*
 * The engine: one event loop, one I/O thread, one listening port, one event queue.
 *
 * Everything below it (links, executors, comms) is owned by whoever holds the *baton*. Three kinds
 * of holder:
 *  - a control call (install, freeze, submit, …) enters, changes something, leaves; it goes before
 *    the others;
 *  - a thread that waits for an op drives the loop itself, so that no other thread has to be
 *    woken for a small operation;
 *  - the I/O thread drives when nobody else does. It stays away for a moment after a caller has
 *    driven, because callers tend to come back; while they come and go it takes over within 4 ms
 *    without being called.
 *
 * Ticks look after deadlines, silence and heartbeats. They come when a deadline asks for one, and
 * at least 20 times in the silence that counts as a loss.
 *
 * Nobody sleeps in the kernel with the baton unless it can be woken through the loop.
 */
#ifndef COL_COMM_ENGINE_H
#define COL_COMM_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "include/collect.h"
#include "transport/link.h"
#include "transport/listener.h"

/* Events that wait to be read. */
#define COL_EVENTS_CAPACITY 4096u

/* Whether yielding the processor brings the peers on; see engine.c. */
struct col_turns {
	uint32_t fast;        /* yields in a row that were fast */
	uint32_t sleeps;      /* for which yields are left out when one is slow */
	uint32_t sleeps_left; /* … still */
};

struct collect_engine {
	struct collect_engine_options options;
	struct col_loop loop;
	struct col_listener listener;
	struct col_buffers buffers;
	struct col_pool outbounds;
	uint64_t now_ns; /* of the last poll or entry */
	uint64_t tick_ns;      /* between two ticks at least, */
	uint64_t idle_ns;      /* … and at most */
	uint64_t due_ns;       /* of the next tick */
	uint64_t io_until_ns;  /* until when the I/O thread may sleep in the loop */
	uint64_t heartbeat_ns;
	uint64_t polled_ns;
	struct col_turns turns;
	uint32_t patience; /* rounds of shared memory that a start may stay for */
	struct collect_comm *comms; /* list */

	pthread_t thread;
	bool has_thread;
	pthread_mutex_t mutex; /* for sleeping, and guards from here to the event queue's end */
	pthread_cond_t free_cond; /* the baton was left */
	pthread_cond_t done_cond; /* some op completed */
	pthread_cond_t io_cond;   /* the I/O thread should look */
	bool is_stopping;
	struct collect_event *events; /* circular; owned */
	uint32_t events_head;
	uint32_t events_tail;
	int event_fd;

	/* Who leaves the baton looks for who sleeps afterwards, who sleeps says so and looks for the
	 * baton afterwards; both sequentially consistent, so one of them sees the other. */
	atomic_bool is_held;        /* the baton */
	atomic_uint urgent;         /* control calls that wait for the baton */
	atomic_uint sleepers;       /* threads in done_cond */
	atomic_bool is_io_away;     /* the I/O thread sleeps until it is called */
	atomic_bool is_io_asleep;   /* the I/O thread sleeps in the loop, or is about to … */
	atomic_bool is_unarmed;     /* … and must not before it has armed what the loop does not see */
	_Atomic uint64_t driven_ns; /* when a caller left last */
	_Atomic uint64_t drives;    /* how often one has */
};

/* Takes the baton for a control call. */
void col_engine_enter(struct collect_engine *engine);
/* Leaves it; the I/O thread goes on at once if work is pending. */
void col_engine_leave(struct collect_engine *engine);

/* Drives, or sleeps while another thread drives, until is_done(argument), the deadline, or a
 * signal. is_done is called without the baton too. The frames that it waits for come over the
 * comm's links. */
void col_engine_wait(struct collect_engine *engine, struct collect_comm *comm,
                     bool (*is_done)(void *argument), void *argument, uint64_t deadline_ns);
/* With the baton, instead of col_engine_leave: drives first. False: a signal came. */
bool col_engine_drive(struct collect_engine *engine, struct collect_comm *comm,
                      bool (*is_done)(void *argument), void *argument, uint64_t deadline_ns);

/* Without the baton: sleeps for a moment, in which others get on. */
void col_engine_pause(struct collect_engine *engine);

/* With the baton: wakes threads that wait for an op. */
void col_engine_op_completed(struct collect_engine *engine);
/* With the baton: queues an event. Refusals give way when the queue is half full. */
void col_engine_post(struct collect_engine *engine, const struct collect_event *event);

#endif
