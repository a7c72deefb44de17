/*
 * A stream in shared memory: two byte rings in a file that is mapped by both ends, and has no name
 * any more once it is.
 *
 * Indices count bytes from the beginning and never wrap; a place in the ring is an index modulo its
 * size. Each end keeps its own index in private memory and publishes it, so the other can neither
 * move it nor make this end reach beyond the ring.
 *
 * No wake-up is lost. A reader that goes to sleep stores `reader_sleeps` and then loads `tail`; a
 * writer stores `tail` and then loads `reader_sleeps`. All four are sequentially consistent, so in
 * their one order either the reader's load comes after the writer's store, and it sees the bytes,
 * or the writer's load comes after the reader's store, and it wakes the reader. The same holds for
 * a writer that waits for room, with `writer_sleeps` and `head`; there the reader wakes only when
 * WAKE_ROOM is free, and the writer's look is content with less.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/size.h"
#include "base/status.h"
#include "transport/stream.h"

#define PAGE_BYTES 4096u
/* Processors fetch cache lines in pairs. */
#define LINE _Alignas(128)
#define MAGIC 0x31305253474e4952ull /* "RINGSR01" */
/* Copied between two looks at the other end: it goes on with them while this one copies more. */
#define STEP_BYTES 32768u
/* Of a ring, the room that is worth a write, and the room that a sleeping writer is woken for. */
#define LOOK_ROOM(ring_bytes) ((ring_bytes) / 8)
#define WAKE_ROOM(ring_bytes) ((ring_bytes) / 2)

/* The flags lie beside the index that is stored just before they are looked at. */
struct ring {
	LINE _Atomic uint64_t tail; /* bytes ever written; by the writer */
	_Atomic uint32_t reader_sleeps; /* 1 by the reader, 0 by whoever comes first */
	LINE _Atomic uint64_t head; /* bytes ever read; by the reader */
	_Atomic uint32_t writer_sleeps; /* 1 by the writer, 0 by whoever comes first */
};

struct segment {
	_Atomic uint64_t magic; /* written last */
	uint64_t nonce;
	uint64_t ring_bytes;
	_Atomic uint32_t is_attached;
	struct ring rings[2]; /* from the maker; to the maker */
};

#define SEGMENT_HEAD_BYTES ((sizeof(struct segment) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES)

struct col_rings {
	struct segment *segment;
	size_t segment_bytes;
	struct ring *in;
	struct ring *out;
	uint8_t *in_bytes;
	uint8_t *out_bytes;
	uint64_t ring_bytes;
	uint64_t head;      /* of `in`; what `in` tells is never read back */
	uint64_t tail;      /* of `out` */
	uint64_t seen_tail; /* of `in`, when last looked at */
	uint64_t seen_head; /* of `out` */
	bool is_linked;     /* its name may still exist */
	char path[64];
};

/* ---- bytes ---- */

/* Bytes that can be read, or -EPROTO. Looks only when it knows of none. */
static ssize_t readable(struct col_rings *rings)
{
	if (rings->seen_tail == rings->head)
		rings->seen_tail = atomic_load_explicit(&rings->in->tail, memory_order_acquire);
	uint64_t count = rings->seen_tail - rings->head;
	return count > rings->ring_bytes ? -EPROTO : (ssize_t)count;
}

/* Room that is free, or -EPROTO. */
static ssize_t writable(struct col_rings *rings)
{
	uint64_t used = rings->tail - rings->seen_head;
	if (used == rings->ring_bytes) {
		rings->seen_head = atomic_load_explicit(&rings->out->head, memory_order_acquire);
		used = rings->tail - rings->seen_head;
	}
	return used > rings->ring_bytes ? -EPROTO : (ssize_t)(rings->ring_bytes - used);
}

static bool wakes(_Atomic uint32_t *sleeps)
{
	return atomic_load(sleeps) != 0 && atomic_exchange(sleeps, 0) != 0;
}

static void head_publish(struct col_stream *stream)
{
	struct col_rings *rings = stream->rings;
	atomic_store(&rings->in->head, rings->head);
	/* More may have come since: then it is woken early, and sleeps again. */
	uint64_t room = rings->ring_bytes - (rings->seen_tail - rings->head);
	if (room >= WAKE_ROOM(rings->ring_bytes) && wakes(&rings->in->writer_sleeps))
		stream->must_wake = true;
}

static void tail_publish(struct col_stream *stream)
{
	struct col_rings *rings = stream->rings;
	atomic_store(&rings->out->tail, rings->tail);
	if (wakes(&rings->out->reader_sleeps))
		stream->must_wake = true;
}

/* How many bytes to copy at once, at this index: not over the end of the ring. */
static size_t step_bytes(const struct col_rings *rings, uint64_t index, size_t wanted,
                         size_t possible)
{
	size_t run = rings->ring_bytes - index % rings->ring_bytes;
	size_t step = col_min_u64(col_min_u64(wanted, possible), run);
	return col_min_u64(step, STEP_BYTES);
}

static ssize_t shm_read(struct col_stream *stream, const struct iovec *parts, int part_count)
{
	struct col_rings *rings = stream->rings;
	size_t total = 0;
	size_t unpublished = 0;
	ssize_t count = 1;
	if (rings == NULL)
		return -EBADF;
	for (int i = 0; i < part_count && count > 0; i++) {
		uint8_t *target = parts[i].iov_base;
		for (size_t rest = parts[i].iov_len; rest > 0;) {
			count = readable(rings);
			if (count <= 0)
				break;
			size_t step = step_bytes(rings, rings->head, rest, (size_t)count);
			memcpy(target, rings->in_bytes + rings->head % rings->ring_bytes, step);
			target += step;
			rest -= step;
			total += step;
			rings->head += step;
			unpublished += step;
			if (unpublished >= STEP_BYTES) {
				head_publish(stream);
				unpublished = 0;
			}
		}
	}
	if (unpublished > 0)
		head_publish(stream);
	if (count < 0)
		return count;
	return total > 0 ? (ssize_t)total : -EAGAIN;
}

static ssize_t shm_write(struct col_stream *stream, const struct iovec *parts, int part_count)
{
	struct col_rings *rings = stream->rings;
	size_t total = 0;
	size_t unpublished = 0;
	ssize_t room = 1;
	if (rings == NULL)
		return -EPIPE;
	for (int i = 0; i < part_count && room > 0; i++) {
		const uint8_t *source = parts[i].iov_base;
		for (size_t rest = parts[i].iov_len; rest > 0;) {
			room = writable(rings);
			if (room <= 0)
				break;
			size_t step = step_bytes(rings, rings->tail, rest, (size_t)room);
			memcpy(rings->out_bytes + rings->tail % rings->ring_bytes, source, step);
			source += step;
			rest -= step;
			total += step;
			rings->tail += step;
			unpublished += step;
			if (unpublished >= STEP_BYTES) {
				tail_publish(stream);
				unpublished = 0;
			}
		}
	}
	if (unpublished > 0)
		tail_publish(stream);
	if (room < 0)
		return room;
	return total > 0 ? (ssize_t)total : -EAGAIN;
}

static void shm_want_write(struct col_stream *stream, bool wants)
{
	(void)stream;
	(void)wants;
}

bool col_stream_shm_can_read(const struct col_stream *stream)
{
	const struct col_rings *rings = stream->rings;
	return rings != NULL && atomic_load(&rings->in->tail) != rings->head;
}

bool col_stream_shm_can_write(const struct col_stream *stream)
{
	const struct col_rings *rings = stream->rings;
	if (rings == NULL)
		return false;
	uint64_t used = rings->tail - atomic_load(&rings->out->head);
	return used > rings->ring_bytes ||
	       rings->ring_bytes - used >= LOOK_ROOM(rings->ring_bytes);
}

void col_stream_shm_arm(struct col_stream *stream, bool wants_room)
{
	struct col_rings *rings = stream->rings;
	if (rings == NULL)
		return;
	atomic_store(&rings->in->reader_sleeps, 1);
	if (wants_room)
		atomic_store(&rings->out->writer_sleeps, 1);
}

void col_stream_shm_disarm(struct col_stream *stream)
{
	struct col_rings *rings = stream->rings;
	if (rings == NULL)
		return;
	atomic_store_explicit(&rings->in->reader_sleeps, 0, memory_order_relaxed);
	atomic_store_explicit(&rings->out->writer_sleeps, 0, memory_order_relaxed);
}

/* ---- the segment ---- */

static void rings_close(struct col_rings *rings)
{
	if (rings->is_linked)
		unlink(rings->path);
	if (rings->segment != NULL)
		munmap(rings->segment, rings->segment_bytes);
	col_free(rings);
}

static void shm_close(struct col_stream *stream)
{
	if (stream->rings != NULL)
		rings_close(stream->rings);
	stream->rings = NULL;
}

static const struct col_stream_ops shm_ops = {
	.read = shm_read,
	.write = shm_write,
	.want_write = shm_want_write,
	.close = shm_close,
};

static int rings_create(const struct col_rings_options *options, struct col_rings **rings_out)
{
	uint32_t bytes = options->ring_bytes;
	if (bytes < COL_RING_BYTES_MIN || bytes > COL_RING_BYTES_MAX || (bytes & (bytes - 1)) != 0)
		return COLLECT_E_INVALID;
	struct col_rings *rings = col_alloc_zeroed(1, sizeof(*rings));
	if (rings == NULL)
		return COLLECT_E_MEMORY;
	rings->ring_bytes = bytes;
	rings->segment_bytes = SEGMENT_HEAD_BYTES + 2 * (size_t)bytes;
	snprintf(rings->path, sizeof(rings->path), "/dev/shm/collect-%016llx-%016llx-link",
	         (unsigned long long)options->maker, (unsigned long long)options->nonce);
	*rings_out = rings;
	return COLLECT_OK;
}

static int rings_map(struct col_rings *rings, int descriptor, uint32_t own)
{
	void *base = mmap(NULL, rings->segment_bytes, PROT_READ | PROT_WRITE,
	                  MAP_SHARED | MAP_POPULATE, descriptor, 0);
	if (base == MAP_FAILED)
		return COLLECT_E_SYSTEM;
	uint8_t *bytes = (uint8_t *)base + SEGMENT_HEAD_BYTES;
	rings->segment = base;
	rings->out = &rings->segment->rings[own];
	rings->in = &rings->segment->rings[1 - own];
	rings->out_bytes = bytes + own * rings->ring_bytes;
	rings->in_bytes = bytes + (1 - own) * rings->ring_bytes;
	return COLLECT_OK;
}

static void stream_give(struct col_stream *stream, struct col_rings *rings)
{
	stream->ops = &shm_ops;
	stream->rings = rings;
	stream->must_wake = false;
	stream->watch.fd = -1;
}

int col_stream_shm_make(struct col_stream *stream, const struct col_rings_options *options)
{
	struct col_rings *rings;
	int status = rings_create(options, &rings);
	if (status < 0)
		return status;
	int descriptor = open(rings->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	rings->is_linked = descriptor >= 0;
	/* A file system that is full is an error here, and no SIGBUS later. */
	int error = descriptor < 0
	                    ? errno
	                    : posix_fallocate(descriptor, 0, (off_t)rings->segment_bytes);
	if (error == 0 && rings_map(rings, descriptor, 0) < 0)
		error = errno;
	if (descriptor >= 0)
		close(descriptor);
	if (error != 0) {
		rings_close(rings);
		errno = error;
		return COLLECT_E_SYSTEM;
	}
	rings->segment->nonce = options->nonce;
	rings->segment->ring_bytes = rings->ring_bytes;
	atomic_store_explicit(&rings->segment->magic, MAGIC, memory_order_release);
	stream_give(stream, rings);
	return COLLECT_OK;
}

/* Whether the file is one that only this user could have made, and as long as it must be. */
static bool file_is_ours(int descriptor, size_t bytes)
{
	struct stat status;
	return fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode) &&
	       status.st_uid == geteuid() && (size_t)status.st_size == bytes;
}

static bool segment_is_ours(struct segment *segment, const struct col_rings_options *options)
{
	return atomic_load_explicit(&segment->magic, memory_order_acquire) == MAGIC &&
	       segment->nonce == options->nonce && segment->ring_bytes == options->ring_bytes &&
	       atomic_exchange(&segment->is_attached, 1) == 0;
}

int col_stream_shm_attach(struct col_stream *stream, const struct col_rings_options *options)
{
	struct col_rings *rings;
	int status = rings_create(options, &rings);
	if (status < 0)
		return status;
	int descriptor = open(rings->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	int error = descriptor < 0 ? errno : 0;
	if (error == 0 && !file_is_ours(descriptor, rings->segment_bytes))
		error = EPROTO;
	if (error == 0 && rings_map(rings, descriptor, 1) < 0)
		error = errno;
	if (descriptor >= 0)
		close(descriptor);
	if (error == 0 && !segment_is_ours(rings->segment, options))
		error = EPROTO;
	if (error != 0) {
		rings_close(rings);
		errno = error;
		return COLLECT_E_SYSTEM;
	}
	/* From here on nobody else finds it, and nobody leaves it behind. */
	unlink(rings->path);
	stream_give(stream, rings);
	return COLLECT_OK;
}
