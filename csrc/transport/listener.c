#include "transport/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/status.h"

#define VISIT_NS (5 * COL_NS_PER_S)
#define BACKLOG 512
#define ACCEPTS_MAX 64 /* per readiness */

/* The backlog holds whoever comes meanwhile. */
static void listener_pause(struct col_listener *listener)
{
	col_loop_remove(listener->loop, &listener->watch);
}

/* Where this fails, the next tick tries again. */
static void listener_resume(struct col_listener *listener)
{
	if (listener->fd >= 0 && listener->watch.fd < 0)
		(void)col_loop_add(listener->loop, &listener->watch, listener->fd, false);
}

static void visitor_leave(struct col_visitor *visitor, const char *reason)
{
	struct col_listener *listener = visitor->listener;
	if (reason != NULL)
		listener->events->refused(listener->user, visitor->from, reason);
	visitor->stream.ops->close(&visitor->stream);
	visitor->listener = NULL;
	listener_resume(listener);
}

/* The hello is complete: the socket leaves the visitor's hands. */
static void visitor_greeted(struct col_visitor *visitor)
{
	struct col_listener *listener = visitor->listener;
	struct col_frame frame;
	struct col_hello hello;
	enum col_frame_reason reason = col_frame_decode(visitor->bytes, &frame);
	if (reason != COL_FRAME_VALID || frame.kind != COL_FRAME_HELLO) {
		visitor_leave(visitor, reason != COL_FRAME_VALID ? col_frame_reason_text(reason)
		                                                 : "no greeting");
		return;
	}
	col_hello_decode(visitor->bytes + COL_FRAME_HEADER_BYTES, &hello);
	hello.window_bytes = frame.credit;
	int fd = visitor->stream.watch.fd;
	col_loop_remove(listener->loop, &visitor->stream.watch);
	visitor->listener = NULL;
	listener_resume(listener);
	const char *refusal = listener->events->greeted(listener->user, fd, &hello, frame.attempt);
	if (refusal != NULL)
		listener->events->refused(listener->user, visitor->from, refusal);
}

static void visitor_ready(struct col_stream *stream, bool can_read, bool can_write)
{
	struct col_visitor *visitor = (struct col_visitor *)(void *)stream;
	(void)can_read;
	(void)can_write;
	/* Never more than the hello: what follows is for the link. */
	struct iovec part = {visitor->bytes + visitor->got, sizeof(visitor->bytes) - visitor->got};
	ssize_t got = stream->ops->read(stream, &part, 1);
	if (got == -EAGAIN)
		return;
	if (got <= 0) {
		visitor_leave(visitor, visitor->got == 0 ? "closed without a greeting"
		                                         : "closed in the middle of its greeting");
		return;
	}
	visitor->got += (size_t)got;
	if (visitor->got >= COL_FRAME_HEADER_BYTES) {
		struct col_frame frame;
		enum col_frame_reason reason = col_frame_decode(visitor->bytes, &frame);
		if (reason != COL_FRAME_VALID) {
			visitor_leave(visitor, col_frame_reason_text(reason));
			return;
		}
	}
	if (visitor->got == sizeof(visitor->bytes))
		visitor_greeted(visitor);
}

static void address_print(const struct sockaddr_storage *name, char *text_out, size_t capacity)
{
	char host[INET6_ADDRSTRLEN] = "?";
	if (name->ss_family == AF_INET) {
		struct sockaddr_in v4;
		memcpy(&v4, name, sizeof(v4));
		inet_ntop(AF_INET, &v4.sin_addr, host, sizeof(host));
		snprintf(text_out, capacity, "%s:%u", host, ntohs(v4.sin_port));
	} else {
		struct sockaddr_in6 v6;
		memcpy(&v6, name, sizeof(v6));
		inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof(host));
		snprintf(text_out, capacity, "[%s]:%u", host, ntohs(v6.sin6_port));
	}
}

static struct col_visitor *visitor_free(struct col_listener *listener)
{
	for (size_t i = 0; i < COL_VISITORS_MAX; i++)
		if (listener->visitors[i].listener == NULL)
			return &listener->visitors[i];
	return NULL;
}

static void visitor_enter(struct col_visitor *visitor, struct col_listener *listener, int fd,
                          const struct sockaddr_storage *name)
{
	visitor->got = 0;
	visitor->deadline_ns = *listener->now_ns + VISIT_NS;
	address_print(name, visitor->from, sizeof(visitor->from));
	visitor->stream.ready = visitor_ready;
	if (col_stream_tcp_adopt(&visitor->stream, listener->loop, fd) == COLLECT_OK)
		visitor->listener = listener;
}

static void listener_ready(struct col_watch *watch, bool can_read, bool can_write)
{
	struct col_listener *listener =
		(struct col_listener *)((char *)watch - offsetof(struct col_listener, watch));
	(void)can_read;
	(void)can_write;
	for (int i = 0; i < ACCEPTS_MAX; i++) {
		struct sockaddr_storage name;
		socklen_t bytes = sizeof(name);
		struct col_visitor *visitor = visitor_free(listener);
		if (visitor == NULL) {
			listener_pause(listener);
			return;
		}
		int fd = accept4(listener->fd, (struct sockaddr *)&name, &bytes,
		                 SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			/* Without descriptors or memory the port would stay ready, and nothing else run. */
			if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
				listener_pause(listener);
			return;
		}
		visitor_enter(visitor, listener, fd, &name);
	}
}

static int listen_on(const struct sockaddr_storage *name, socklen_t bytes)
{
	int one = 1;
	int zero = 0;
	int fd = socket(name->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (name->ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, (const struct sockaddr *)name, bytes) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

static socklen_t name_from(const char *address, uint16_t port, struct sockaddr_storage *name_out)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	memset(name_out, 0, sizeof(*name_out));
	if (inet_pton(AF_INET, address, &v4.sin_addr) == 1) {
		memcpy(name_out, &v4, sizeof(v4));
		return sizeof(v4);
	}
	if (inet_pton(AF_INET6, address, &v6.sin6_addr) == 1) {
		memcpy(name_out, &v6, sizeof(v6));
		return sizeof(v6);
	}
	return 0;
}

int col_listener_open(struct col_listener *listener, struct col_loop *loop, const char *address,
                      uint16_t port, const uint64_t *now_ns)
{
	struct sockaddr_storage name;
	memset(listener, 0, sizeof(*listener));
	listener->loop = loop;
	listener->now_ns = now_ns;
	listener->fd = -1;
	listener->watch.fd = -1;
	listener->watch.ready = listener_ready;
	socklen_t bytes = name_from(address, port, &name);
	if (bytes == 0)
		return COLLECT_E_ADDRESS;
	int fd = listen_on(&name, bytes);
	if (fd < 0)
		return COLLECT_E_ADDRESS;
	bytes = sizeof(name);
	int status = COLLECT_E_SYSTEM;
	if (getsockname(fd, (struct sockaddr *)&name, &bytes) == 0)
		status = col_loop_add(loop, &listener->watch, fd, false);
	if (status < 0) {
		close(fd);
		return status;
	}
	struct sockaddr_in v4; /* the port stands in the same place for both families */
	memcpy(&v4, &name, sizeof(v4));
	listener->port = ntohs(v4.sin_port);
	listener->fd = fd;
	return COLLECT_OK;
}

void col_listener_close(struct col_listener *listener)
{
	int fd = listener->fd;
	listener->fd = -1;
	for (size_t i = 0; i < COL_VISITORS_MAX; i++)
		if (listener->visitors[i].listener != NULL)
			visitor_leave(&listener->visitors[i], NULL);
	if (listener->loop == NULL || fd < 0)
		return;
	col_loop_remove(listener->loop, &listener->watch);
	close(fd);
}

void col_listener_tick(struct col_listener *listener)
{
	for (size_t i = 0; i < COL_VISITORS_MAX; i++) {
		struct col_visitor *visitor = &listener->visitors[i];
		if (visitor->listener != NULL && *listener->now_ns >= visitor->deadline_ns)
			visitor_leave(visitor, "no greeting in time");
	}
	listener_resume(listener);
}
