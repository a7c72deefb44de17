/*
 * The one listening port of a process. Connections are strangers until their hello frame is
 * read and checked; strangers are few, have little time, and are refused with a reason.
 *
 * Owner: whoever holds the engine's baton.
 */
#ifndef COL_TRANSPORT_LISTENER_H
#define COL_TRANSPORT_LISTENER_H

#include "transport/stream.h"
#include "wire/frame.h"

/* Connections that have not greeted yet. A world that forms at once is larger; the kernel's
 * backlog holds the rest. */
#define COL_VISITORS_MAX 64

struct col_listener;

struct col_listener_events {
	/* A valid hello came. fd is the callee's now. Returns NULL, or why it was refused (and closed).
	 * */
	const char *(*greeted)(void *user, int fd, const struct col_hello *hello, uint64_t epoch);
	/* A connection was refused. from: its address. */
	void (*refused)(void *user, const char *from, const char *reason);
};

struct col_visitor {
	struct col_stream stream;
	struct col_listener *listener;
	uint64_t deadline_ns;
	size_t got;
	uint8_t bytes[COL_FRAME_HEADER_BYTES + COL_FRAME_HELLO_BYTES];
	char from[64];
};

struct col_listener {
	struct col_loop *loop;
	const struct col_listener_events *events;
	void *user;
	const uint64_t *now_ns;
	int fd; /* -1: closed */
	struct col_watch watch; /* of fd; not watched while nobody can be let in */
	uint16_t port;
	struct col_visitor visitors[COL_VISITORS_MAX];
};

/* Binds `address` (numeric; "::" takes IPv4 too) and listens. COLLECT_E_ADDRESS, COLLECT_E_SYSTEM.
 * */
int col_listener_open(struct col_listener *listener, struct col_loop *loop, const char *address,
                      uint16_t port, const uint64_t *now_ns);
void col_listener_close(struct col_listener *listener);
/* Sends strangers away whose time is over, and lets others in. */
void col_listener_tick(struct col_listener *listener);

#endif
