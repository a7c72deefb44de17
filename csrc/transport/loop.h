/*
 * The event loop: the only caller of epoll and eventfd.
 *
 * Owner: whoever holds the engine's baton (comm/engine.h). Two calls need no baton: col_loop_wait
 * and col_loop_wake.
 */
#ifndef COL_TRANSPORT_LOOP_H
#define COL_TRANSPORT_LOOP_H

#include <stdbool.h>
#include <stdint.h>

/* What is watched. Embedded in its owner; the memory must outlive the poll in which it is
 * removed. */
struct col_watch {
	int fd; /* -1: not watched */
	bool wants_write;
	/* Level-triggered: called in every poll while the descriptor is ready. An error counts as
	 * both; the read or write then tells what it was. */
	void (*ready)(struct col_watch *watch, bool can_read, bool can_write);
};

struct col_loop {
	int epoll_fd;
	int wake_fd;
};

int col_loop_init(struct col_loop *loop);
void col_loop_fini(struct col_loop *loop);

/* Watches fd for reading, and for writing when wants_write. */
int col_loop_add(struct col_loop *loop, struct col_watch *watch, int fd, bool wants_write);
void col_loop_want_write(struct col_loop *loop, struct col_watch *watch, bool wants_write);
/* Does not close the descriptor. */
void col_loop_remove(struct col_loop *loop, struct col_watch *watch);

/* Sleeps until something is ready or timeout_ns has passed; dispatches nothing, touches no watch.
 * */
void col_loop_wait(struct col_loop *loop, uint64_t timeout_ns);

/* Waits likewise (0: not at all), then calls the watches that are ready. Returns how many, or -1
 * when a signal cut the wait short. */
int col_loop_poll(struct col_loop *loop, uint64_t timeout_ns);

/* Ends a wait or poll that is under way, or the next one. From any thread. */
void col_loop_wake(struct col_loop *loop);

/* An eventfd for others (the engine's event queue): created, signalled, drained, closed here. */
int col_loop_signal_open(void);
void col_loop_signal_set(int fd);
void col_loop_signal_clear(int fd);
void col_loop_signal_close(int fd);

#endif
