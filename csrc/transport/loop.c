#include "transport/loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/status.h"

/* Events taken per poll: enough for every stream of a busy world of 64, small enough for the stack.
 * */
#define EVENTS_MAX 64

int col_loop_init(struct col_loop *loop)
{
	loop->wake_fd = -1;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0)
		return col_status_from_errno(errno);
	loop->wake_fd = col_loop_signal_open();
	struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = NULL}};
	if (loop->wake_fd < 0 ||
	    epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) < 0) {
		int status = col_status_from_errno(errno);
		col_loop_fini(loop);
		return status;
	}
	return COLLECT_OK;
}

void col_loop_fini(struct col_loop *loop)
{
	if (loop->wake_fd >= 0)
		close(loop->wake_fd);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	loop->wake_fd = -1;
	loop->epoll_fd = -1;
}

static struct epoll_event watch_event(struct col_watch *watch)
{
	return (struct epoll_event){
		.events = EPOLLIN | (watch->wants_write ? (uint32_t)EPOLLOUT : 0u),
		.data = {.ptr = watch},
	};
}

int col_loop_add(struct col_loop *loop, struct col_watch *watch, int fd, bool wants_write)
{
	watch->fd = fd;
	watch->wants_write = wants_write;
	struct epoll_event event = watch_event(watch);
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
		watch->fd = -1;
		return col_status_from_errno(errno);
	}
	return COLLECT_OK;
}

void col_loop_want_write(struct col_loop *loop, struct col_watch *watch, bool wants_write)
{
	if (watch->fd < 0 || watch->wants_write == wants_write)
		return;
	watch->wants_write = wants_write;
	struct epoll_event event = watch_event(watch);
	int result = epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event);
	COL_ASSERT(result == 0);
}

void col_loop_remove(struct col_loop *loop, struct col_watch *watch)
{
	if (watch->fd < 0)
		return;
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->fd = -1;
}

static int timeout_ms(uint64_t timeout_ns)
{
	uint64_t ms = (timeout_ns + COL_NS_PER_MS - 1) / COL_NS_PER_MS;
	return ms > 60000 ? 60000 : (int)ms;
}

void col_loop_wait(struct col_loop *loop, uint64_t timeout_ns)
{
	struct epoll_event event;
	epoll_wait(loop->epoll_fd, &event, 1, timeout_ms(timeout_ns));
}

int col_loop_poll(struct col_loop *loop, uint64_t timeout_ns)
{
	struct epoll_event events[EVENTS_MAX];
	int count = epoll_wait(loop->epoll_fd, events, EVENTS_MAX, timeout_ms(timeout_ns));
	if (count < 0)
		return -1;
	for (int i = 0; i < count; i++) {
		struct col_watch *watch = events[i].data.ptr;
		if (watch == NULL) {
			col_loop_signal_clear(loop->wake_fd);
			continue;
		}
		/* An earlier callback of this round may have removed it. */
		if (watch->fd < 0)
			continue;
		bool has_failed = (events[i].events & (EPOLLERR | EPOLLHUP)) != 0;
		watch->ready(watch, has_failed || (events[i].events & EPOLLIN) != 0,
		             has_failed || (events[i].events & EPOLLOUT) != 0);
	}
	return count;
}

void col_loop_wake(struct col_loop *loop)
{
	col_loop_signal_set(loop->wake_fd);
}

int col_loop_signal_open(void)
{
	return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

void col_loop_signal_set(int fd)
{
	uint64_t one = 1;
	/* A full counter is as readable as one more would make it. */
	ssize_t written = write(fd, &one, sizeof(one));
	COL_ASSERT(written == (ssize_t)sizeof(one) || errno == EAGAIN);
}

void col_loop_signal_clear(int fd)
{
	uint64_t count;
	ssize_t got = read(fd, &count, sizeof(count));
	COL_ASSERT(got == (ssize_t)sizeof(count) || errno == EAGAIN);
}

void col_loop_signal_close(int fd)
{
	if (fd >= 0)
		close(fd);
}
