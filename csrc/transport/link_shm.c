/*
 * A link's stream in shared memory: how it opens, and who looks at it.
 *
 *   end       state     meaning                                                 left by
 *   dialer    GREETING  the segment is made; its frames still take the sockets  the other's hello
 *   acceptor  OPEN      it has attached; its hello is the first thing it wrote
 *
 * So each end writes only what the other one already reads, and what was half written to a socket
 * goes on there.
 */
#include "transport/link.h"

#include "base/status.h"

static struct col_link_stream *closed_stream(struct col_link *link)
{
	struct col_link_stream *stream = &link->streams[COL_LINK_SHM];
	bool is_free = link->state == COL_LINK_UP && stream->state == COL_STREAM_CLOSED;
	return is_free ? stream : NULL;
}

int col_link_shm_make(struct col_link *link, const struct col_rings_options *options)
{
	struct col_link_stream *stream = closed_stream(link);
	if (stream == NULL)
		return COLLECT_E_CLOSED;
	int status = col__link_stream_prepare(stream);
	if (status == COLLECT_OK)
		status = col_stream_shm_make(&stream->stream, options);
	if (status == COLLECT_OK)
		stream->state = COL_STREAM_GREETING;
	return status;
}

int col_link_shm_attach(struct col_link *link, const struct col_rings_options *options)
{
	struct col_link_stream *stream = closed_stream(link);
	if (stream == NULL)
		return COLLECT_E_CLOSED;
	int status = col__link_stream_prepare(stream);
	if (status == COLLECT_OK)
		status = col_stream_shm_attach(&stream->stream, options);
	if (status < 0)
		return status;
	stream->state = COL_STREAM_GREETING;
	col__link_stream_greet(stream);
	col__link_stream_opened(stream, 0);
	col__link_flush(link);
	return COLLECT_OK;
}

void col_link_shm_refused(struct col_link *link)
{
	struct col_link_stream *stream = &link->streams[COL_LINK_SHM];
	/* Of what is open already it is not true. */
	if (stream->state == COL_STREAM_GREETING)
		col__link_stream_close(stream);
}

int col_link_shm_poll(struct col_link *link)
{
	struct col_link_stream *stream = &link->streams[COL_LINK_SHM];
	bool has_moved = false;
	if (stream->state == COL_STREAM_CLOSED)
		return 0;
	if (stream->is_blocked && col_stream_shm_can_write(&stream->stream)) {
		stream->is_blocked = false;
		has_moved = true;
		col__link_flush(link);
	}
	/* That may have lost the link. */
	if (stream->state != COL_STREAM_CLOSED && col_stream_shm_can_read(&stream->stream))
		has_moved |= col__link_readable(stream);
	if (link->state != COL_LINK_UP)
		return COLLECT_E_CLOSED;
	return has_moved;
}

void col_link_shm_arm(struct col_link *link)
{
	struct col_link_stream *stream = &link->streams[COL_LINK_SHM];
	if (stream->state != COL_STREAM_CLOSED)
		col_stream_shm_arm(&stream->stream, stream->is_blocked);
}

void col_link_shm_disarm(struct col_link *link)
{
	struct col_link_stream *stream = &link->streams[COL_LINK_SHM];
	if (stream->state != COL_STREAM_CLOSED)
		col_stream_shm_disarm(&stream->stream);
}

void col__link_shm_drain(struct col_link *link)
{
	struct col_link_stream *stream = &link->streams[COL_LINK_SHM];
	/* What was written before the socket ended is visible now; who still writes has had its turn
	 * after so much. */
	uint64_t begin = link->shm_bytes;
	while (stream->state != COL_STREAM_CLOSED && col_stream_shm_can_read(&stream->stream) &&
	       link->shm_bytes - begin < COL_RING_BYTES_MAX)
		if (!col__link_readable(stream))
			break;
}
