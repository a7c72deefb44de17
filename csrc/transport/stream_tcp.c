#include "transport/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/status.h"

/*
 * Unsent bytes that the kernel may hold for one socket. An abort cannot take them back, so they are
 * bounded; a chunk keeps a long path full, and two the shortest one, where what is sent is still
 * in the cache when it is received.
 */
#define UNSENT_BYTES_MAX (256 * 1024)
#define UNSENT_BYTES_MAX_LOOPBACK (512 * 1024)

_Static_assert(sizeof(struct sockaddr_in6) <= sizeof(((struct col_endpoint *)0)->storage),
               "an endpoint holds an IPv6 address");

static int errno_of(ssize_t result)
{
	(void)result;
	return errno == EWOULDBLOCK || errno == EINTR ? -EAGAIN : -errno;
}

static ssize_t tcp_read(struct col_stream *stream, const struct iovec *parts, int part_count)
{
	/* One part is the usual case, and has the shorter way in. */
	ssize_t got = part_count == 1 ? recv(stream->watch.fd, parts->iov_base, parts->iov_len, 0)
	                              : readv(stream->watch.fd, parts, part_count);
	return got >= 0 ? got : errno_of(got);
}

static ssize_t tcp_write(struct col_stream *stream, const struct iovec *parts, int part_count)
{
	struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)parts,
	                         .msg_iovlen = (size_t)part_count};
	ssize_t put = sendmsg(stream->watch.fd, &message, MSG_NOSIGNAL);
	return put >= 0 ? put : errno_of(put);
}

static void tcp_want_write(struct col_stream *stream, bool wants)
{
	col_loop_want_write(stream->loop, &stream->watch, wants);
}

static void tcp_close(struct col_stream *stream)
{
	int fd = stream->watch.fd;
	if (fd < 0)
		return;
	col_loop_remove(stream->loop, &stream->watch);
	close(fd);
}

static const struct col_stream_ops tcp_ops = {
	.read = tcp_read,
	.write = tcp_write,
	.want_write = tcp_want_write,
	.close = tcp_close,
};

static void tcp_ready(struct col_watch *watch, bool can_read, bool can_write)
{
	struct col_stream *stream =
		(struct col_stream *)((char *)watch - offsetof(struct col_stream, watch));
	stream->ready(stream, can_read, can_write);
}

/* "host:port" or "[host]:port", not terminated. */
static int endpoint_from(const char *text, size_t length, struct col_endpoint *endpoint_out)
{
	char host[INET6_ADDRSTRLEN + 1];
	const char *colon = memrchr(text, ':', length);
	if (colon == NULL)
		return COLLECT_E_ADDRESS;
	const char *begin = text;
	const char *end = colon;
	if (*begin == '[' && end > begin && end[-1] == ']') {
		begin++;
		end--;
	}
	size_t host_bytes = (size_t)(end - begin);
	if (host_bytes == 0 || host_bytes >= sizeof(host))
		return COLLECT_E_ADDRESS;
	memcpy(host, begin, host_bytes);
	host[host_bytes] = 0;

	char *rest;
	unsigned long port = strtoul(colon + 1, &rest, 10);
	if (rest != text + length || port == 0 || port > 65535)
		return COLLECT_E_ADDRESS;

	memset(endpoint_out, 0, sizeof(*endpoint_out));
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
		endpoint_out->bytes = sizeof(v4);
		memcpy(endpoint_out->storage, &v4, sizeof(v4));
		return COLLECT_OK;
	}
	if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
		endpoint_out->bytes = sizeof(v6);
		memcpy(endpoint_out->storage, &v6, sizeof(v6));
		return COLLECT_OK;
	}
	return COLLECT_E_ADDRESS;
}

int col_endpoint_parse(const char *addresses, uint32_t index, struct col_endpoint *endpoint_out)
{
	const char *begin = addresses;
	for (;;) {
		size_t length = strcspn(begin, ",");
		if (index == 0)
			return endpoint_from(begin, length, endpoint_out);
		if (begin[length] == 0)
			return COLLECT_E_ADDRESS;
		begin += length + 1;
		index--;
	}
}

static bool is_loopback_address(const struct sockaddr_storage *name)
{
	if (name->ss_family == AF_INET) {
		struct sockaddr_in v4;
		memcpy(&v4, name, sizeof(v4));
		return ntohl(v4.sin_addr.s_addr) >> 24 == 127;
	}
	struct sockaddr_in6 v6;
	memcpy(&v6, name, sizeof(v6));
	return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr) ||
	       (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr) && v6.sin6_addr.s6_addr[12] == 127);
}

static bool is_same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	if (a->ss_family != b->ss_family)
		return false;
	if (a->ss_family == AF_INET) {
		struct sockaddr_in one;
		struct sockaddr_in two;
		memcpy(&one, a, sizeof(one));
		memcpy(&two, b, sizeof(two));
		return one.sin_addr.s_addr == two.sin_addr.s_addr;
	}
	struct sockaddr_in6 one;
	struct sockaddr_in6 two;
	memcpy(&one, a, sizeof(one));
	memcpy(&two, b, sizeof(two));
	return memcmp(&one.sin6_addr, &two.sin6_addr, sizeof(one.sin6_addr)) == 0;
}

/* A connection to an address of one's own goes over loopback too. */
static bool is_loopback(int fd)
{
	struct sockaddr_storage peer;
	struct sockaddr_storage self;
	socklen_t peer_bytes = sizeof(peer);
	socklen_t self_bytes = sizeof(self);
	if (getpeername(fd, (struct sockaddr *)&peer, &peer_bytes) < 0 ||
	    getsockname(fd, (struct sockaddr *)&self, &self_bytes) < 0)
		return false;
	return is_loopback_address(&peer) || is_same_address(&peer, &self);
}

void col_stream_tcp_tune(int fd)
{
	bool is_short = is_loopback(fd);
	int one = 1;
	int unsent = is_short ? UNSENT_BYTES_MAX_LOOPBACK : UNSENT_BYTES_MAX;
	/* Pacing halves loopback; on long paths a loss is no sign that they are full. Where a name is
	 * refused the kernel's default stays, which is only slower. */
	const char *control = is_short ? "reno" : "bbr";
	/* The buffers' sizes stay the kernel's to tune: naming one would end that. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, control, (socklen_t)strlen(control));
	/* On loopback acknowledgements are not waited for. */
	if (!is_short)
		setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof(one));
}

int col_stream_tcp_dial(struct col_stream *stream, struct col_loop *loop,
                        const struct col_endpoint *endpoint)
{
	struct sockaddr_storage name = {0};
	memcpy(&name, endpoint->storage, endpoint->bytes);
	stream->ops = &tcp_ops;
	stream->loop = loop;
	stream->watch.fd = -1;
	stream->watch.ready = tcp_ready;
	int fd = socket(name.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return col_status_from_errno(errno);
	if (connect(fd, (const struct sockaddr *)&name, endpoint->bytes) < 0 &&
	    errno != EINPROGRESS) {
		int status = col_status_from_errno(errno);
		close(fd);
		return status;
	}
	int status = col_loop_add(loop, &stream->watch, fd, true);
	if (status < 0)
		close(fd);
	return status;
}

int col_stream_tcp_adopt(struct col_stream *stream, struct col_loop *loop, int fd)
{
	stream->ops = &tcp_ops;
	stream->loop = loop;
	stream->watch.fd = -1;
	stream->watch.ready = tcp_ready;
	int status = col_loop_add(loop, &stream->watch, fd, false);
	if (status < 0)
		close(fd);
	return status;
}

void col_stream_tcp_refuse(int fd)
{
	close(fd);
}

int col_stream_tcp_error(struct col_stream *stream)
{
	int error = 0;
	socklen_t bytes = sizeof(error);
	if (getsockopt(stream->watch.fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0)
		return errno;
	return error;
}
