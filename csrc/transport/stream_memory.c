#include "transport/stream.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"

/* Bytes under way in one direction. Freed by the second of its two ends to close. */
struct col_pipe {
	size_t capacity;
	size_t count;
	size_t head; /* index of the oldest byte */
	bool is_closed;
	uint8_t bytes[];
};

static struct col_pipe *pipe_create(size_t capacity)
{
	struct col_pipe *pipe = col_alloc(sizeof(*pipe) + capacity);
	if (pipe != NULL)
		*pipe = (struct col_pipe){.capacity = capacity};
	return pipe;
}

static size_t pipe_put(struct col_pipe *pipe, const uint8_t *source, size_t count)
{
	size_t room = pipe->capacity - pipe->count;
	count = count < room ? count : room;
	for (size_t done = 0; done < count;) {
		size_t tail = (pipe->head + pipe->count) % pipe->capacity;
		size_t run = pipe->capacity - tail;
		run = run < count - done ? run : count - done;
		memcpy(pipe->bytes + tail, source + done, run);
		pipe->count += run;
		done += run;
	}
	return count;
}

static size_t pipe_get(struct col_pipe *pipe, uint8_t *target, size_t count)
{
	count = count < pipe->count ? count : pipe->count;
	for (size_t done = 0; done < count;) {
		size_t run = pipe->capacity - pipe->head;
		run = run < count - done ? run : count - done;
		memcpy(target + done, pipe->bytes + pipe->head, run);
		pipe->head = (pipe->head + run) % pipe->capacity;
		pipe->count -= run;
		done += run;
	}
	return count;
}

static ssize_t memory_read(struct col_stream *stream, const struct iovec *parts, int part_count)
{
	size_t total = 0;
	if (stream->inbox == NULL)
		return -EBADF;
	for (int i = 0; i < part_count; i++)
		total += pipe_get(stream->inbox, parts[i].iov_base, parts[i].iov_len);
	if (total == 0 && !stream->inbox->is_closed)
		return -EAGAIN;
	return (ssize_t)total;
}

static ssize_t memory_write(struct col_stream *stream, const struct iovec *parts, int part_count)
{
	size_t total = 0;
	if (stream->outbox == NULL || stream->outbox->is_closed)
		return -EPIPE;
	for (int i = 0; i < part_count; i++)
		total += pipe_put(stream->outbox, parts[i].iov_base, parts[i].iov_len);
	return total == 0 ? -EAGAIN : (ssize_t)total;
}

static void memory_want_write(struct col_stream *stream, bool wants)
{
	stream->wants_write = wants;
}

static void pipe_let_go(struct col_pipe **pipe)
{
	if (*pipe == NULL)
		return;
	if ((*pipe)->is_closed)
		col_free(*pipe);
	else
		(*pipe)->is_closed = true;
	*pipe = NULL;
}

static void memory_close(struct col_stream *stream)
{
	pipe_let_go(&stream->inbox);
	pipe_let_go(&stream->outbox);
}

static const struct col_stream_ops memory_ops = {
	.read = memory_read,
	.write = memory_write,
	.want_write = memory_want_write,
	.close = memory_close,
};

int col_stream_memory_pair(struct col_stream *a, struct col_stream *b, size_t capacity)
{
	struct col_pipe *forth = pipe_create(capacity);
	struct col_pipe *back = pipe_create(capacity);
	if (forth == NULL || back == NULL) {
		col_free(forth);
		col_free(back);
		return COLLECT_E_MEMORY;
	}
	*a = (struct col_stream){.ops = &memory_ops, .outbox = forth, .inbox = back};
	*b = (struct col_stream){.ops = &memory_ops, .outbox = back, .inbox = forth};
	a->watch.fd = -1;
	b->watch.fd = -1;
	return COLLECT_OK;
}

bool col_stream_memory_pump(struct col_stream *stream)
{
	if (stream->inbox == NULL)
		return false;
	bool can_read = stream->inbox->count > 0 || stream->inbox->is_closed;
	bool can_write = stream->wants_write && (stream->outbox->is_closed ||
	                                         stream->outbox->count < stream->outbox->capacity);
	if (can_read || can_write)
		stream->ready(stream, can_read, can_write);
	return can_read || can_write;
}
