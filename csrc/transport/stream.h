/*
 * A stream: an ordered, reliable, non-blocking byte channel; one socket, one end of a pair of rings
 * in shared memory, or one end of an in-memory pair for tests. A link owns its streams.
 */
#ifndef COL_TRANSPORT_STREAM_H
#define COL_TRANSPORT_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "transport/loop.h"

struct col_stream;

struct col_stream_ops {
	/* Bytes moved (> 0); 0 from read: end of file; -EAGAIN: not now; another -errno: broken. */
	ssize_t (*read)(struct col_stream *stream, const struct iovec *parts, int part_count);
	ssize_t (*write)(struct col_stream *stream, const struct iovec *parts, int part_count);
	/* Asks to be told by `ready` when a write may succeed. */
	void (*want_write)(struct col_stream *stream, bool wants);
	/* Closes; idempotent. The memory stays its owner's. */
	void (*close)(struct col_stream *stream);
};

struct col_stream {
	const struct col_stream_ops *ops;
	/* Set by the owner. can_read and can_write as in struct col_watch. */
	void (*ready)(struct col_stream *stream, bool can_read, bool can_write);
	struct col_watch watch; /* tcp */
	struct col_loop *loop;  /* tcp */
	struct col_pipe *inbox; /* memory: what this end reads … */
	struct col_pipe *outbox; /* … and writes */
	bool wants_write;        /* memory */
	struct col_rings *rings; /* shared memory */
	/* shared memory: the other end sleeps, and what was just read or written is what it sleeps for.
	 * Cleared by who wakes it. */
	bool must_wake;
};

/* One IP endpoint in the form the kernel takes. */
struct col_endpoint {
	uint32_t bytes; /* of storage in use */
	uint8_t storage[28]; /* a sockaddr_in or sockaddr_in6 */
};

/* Parses the candidate number `index` of "1.2.3.4:5,[::1]:6". COLLECT_E_ADDRESS: there is none. */
int col_endpoint_parse(const char *addresses, uint32_t index, struct col_endpoint *endpoint_out);

/* Starts to connect: `ready` with can_write when it is decided, then col_stream_tcp_error tells. */
int col_stream_tcp_dial(struct col_stream *stream, struct col_loop *loop,
                        const struct col_endpoint *endpoint);
/* Takes an accepted, non-blocking socket over; closes it on failure. */
int col_stream_tcp_adopt(struct col_stream *stream, struct col_loop *loop, int fd);
/* Closes a socket that nobody wants. */
void col_stream_tcp_refuse(int fd);
/* The pending error of the socket (0: none): errno of a failed connect. */
int col_stream_tcp_error(struct col_stream *stream);
/* Options of every data socket: no delay, a bounded unsent queue, reno on loopback and bbr
 * elsewhere. */
void col_stream_tcp_tune(int fd);
/* What the kernel has measured of a connection. */
struct col_stream_figures {
	uint64_t rtt_min_ns;
	uint64_t delivery_bytes_per_s;
	uint64_t retransmitted_bytes;
	uint64_t busy_ns;
	uint64_t receiver_limited_ns;
	uint64_t buffer_limited_ns;
};
/* False: it does not tell. */
bool col_stream_tcp_measure(int fd, struct col_stream_figures *figures_out);

/*
 * Two ends joined by two rings in a segment of shared memory, each with one writer and one reader.
 * It tells nobody of anything: each end looks, and before it sleeps it arms and looks again; the
 * other end's next read or write that it sleeps for then says so by must_wake. `ready` is never
 * called, want_write does nothing, and an end is never told that the other one closed or died: a
 * socket beside it tells.
 *
 * The other end may write anything into the segment. Its indices are checked wherever they are read
 * (-EPROTO from read and write), and bytes are copied out before anybody looks at them.
 */
#define COL_RING_BYTES_MIN 65536u
#define COL_RING_BYTES_MAX (1u << 20)

/* Both ends give the same. */
struct col_rings_options {
	uint64_t maker;      /* incarnation; of the file's name */
	uint64_t nonce;      /* of the file's name: nobody can guess it */
	uint32_t ring_bytes; /* of each ring: a power of two in [COL_RING_BYTES_MIN, _MAX] */
};

/* Makes the segment: a file of mode 0600. COLLECT_E_MEMORY; COLLECT_E_SYSTEM: errno tells. */
int col_stream_shm_make(struct col_stream *stream, const struct col_rings_options *options);
/* Attaches to it, once, and removes its name. COLLECT_E_INVALID: ring_bytes are impossible.
 * COLLECT_E_MEMORY; COLLECT_E_SYSTEM: errno tells (ENOENT: there is none here; EPROTO: the file is
 * not such a segment). */
int col_stream_shm_attach(struct col_stream *stream, const struct col_rings_options *options);
/* A load each, or two: whether a read would find something; whether there is room that is worth a
 * write. True also when the next read or write will fail. */
bool col_stream_shm_can_read(const struct col_stream *stream);
bool col_stream_shm_can_write(const struct col_stream *stream);
/* Before a sleep: asks to be woken for bytes, and for room if wants_room. Then look once more. */
void col_stream_shm_arm(struct col_stream *stream, bool wants_room);
/* After it: not any more. */
void col_stream_shm_disarm(struct col_stream *stream);

/* Two ends joined by two pipes of `capacity` bytes each. */
int col_stream_memory_pair(struct col_stream *a, struct col_stream *b, size_t capacity);
/* Tells the end what it can do now; returns whether it was told anything. */
bool col_stream_memory_pump(struct col_stream *stream);

#endif
