#include "transport/link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/size.h"
#include "base/status.h"

/* Pause between two rounds over a peer's candidate addresses, and the longest one candidate may
 * keep the others waiting. */
#define REDIAL_NS (20 * COL_NS_PER_MS)
#define CANDIDATE_NS (1000 * COL_NS_PER_MS)

static void link_stream_ready(struct col_stream *base, bool can_read, bool can_write);

void col_link_init(struct col_link *link, const struct col_link_options *options)
{
	COL_ASSERT(options->stream_count >= 1 && options->stream_count <= COLLECT_STREAMS_MAX);
	memset(link, 0, sizeof(*link));
	link->options = *options;
	for (uint32_t i = 0; i < COL_LINK_STREAMS; i++) {
		link->streams[i].link = link;
		link->streams[i].index = i;
		link->streams[i].stream.watch.fd = -1;
	}
}

void col_link_fini(struct col_link *link)
{
	col_link_close(link);
	for (uint32_t i = 0; i < COL_LINK_STREAMS; i++) {
		col_free(link->streams[i].buffer);
		link->streams[i].buffer = NULL;
	}
}

void col__link_stream_close(struct col_link_stream *stream)
{
	if (stream->state == COL_STREAM_CLOSED)
		return;
	stream->stream.ops->close(&stream->stream);
	stream->state = COL_STREAM_CLOSED;
	col__link_stream_reset_sending(stream);
	if (stream->has_frame && stream->sink.buffer != NULL)
		col_buffer_put(stream->sink.buffer);
	stream->has_frame = false;
	stream->begin = 0;
	stream->end = 0;
	stream->is_blocked = false;
}

static void streams_close(struct col_link *link)
{
	for (uint32_t i = 0; i < COL_LINK_STREAMS; i++)
		col__link_stream_close(&link->streams[i]);
	link->charged = 0;
	link->granted = 0;
	link->taken = 0;
	link->consumed = 0;
	link->advertised = 0;
	link->wants_heartbeat = false;
	link->is_dialer = false;
	link->figures = (struct col_link_figures){0};
	link->measured_ns = 0;
	link->probe = (struct col_link_probe){0};
}

void col_link_close(struct col_link *link)
{
	link->state = COL_LINK_IDLE;
	streams_close(link);
	col__link_drop_outbounds(link);
	if (link->options.events->closed != NULL)
		link->options.events->closed(link->options.user, link);
}

void col__link_lose(struct col_link *link, int loss, const char *detail)
{
	if (link->state == COL_LINK_LOST)
		return;
	col_link_close(link);
	link->state = COL_LINK_LOST;
	link->loss = loss;
	link->options.events->lost(link->options.user, link, loss, detail);
}

void col__link_stream_broken(struct col_link_stream *stream, const char *detail)
{
	struct col_link *link = stream->link;
	if (stream->state == COL_STREAM_OPEN) {
		col__link_lose(link, COLLECT_LOSS_RESET, detail);
		return;
	}
	/* It never carried a frame. The link does without it, or the next tick tries again: the peer
	 * may only just not be ready for us. */
	col__link_stream_close(stream);
	if (stream->index == 0)
		link->redial_ns = *link->options.now_ns;
}

int col__link_stream_prepare(struct col_link_stream *stream)
{
	if (stream->buffer == NULL)
		stream->buffer = col_alloc(COL_RECEIVE_BYTES);
	stream->stream.ready = link_stream_ready;
	return stream->buffer == NULL ? COLLECT_E_MEMORY : COLLECT_OK;
}

/* Dials the current candidate (stream 0), or the one that answered (the others). */
static int stream_dial(struct col_link_stream *stream, const struct col_endpoint *endpoint)
{
	int status = col__link_stream_prepare(stream);
	if (status < 0)
		return status;
	status = col_stream_tcp_dial(&stream->stream, stream->link->options.loop, endpoint);
	if (status == COLLECT_OK)
		stream->state = COL_STREAM_CONNECTING;
	return status;
}

static void dial_next(struct col_link *link)
{
	struct col_link_stream *first = &link->streams[0];
	uint64_t now_ns = *link->options.now_ns;
	col__link_stream_close(first);
	if (col_endpoint_parse(link->addresses, link->candidate, &link->endpoint) < 0) {
		/* Past the last one: begin again after a pause. */
		link->candidate = 0;
		link->redial_ns = now_ns + REDIAL_NS;
		return;
	}
	link->candidate++;
	link->redial_ns = now_ns + CANDIDATE_NS;
	if (stream_dial(first, &link->endpoint) < 0)
		link->redial_ns = now_ns;
}

static void open_begin(struct col_link *link, enum col_link_state state, uint64_t epoch)
{
	/* What was queued while nothing was open yet still waits for the first stream. */
	if (link->state == COL_LINK_UP || link->state == COL_LINK_LOST)
		col_link_close(link);
	streams_close(link);
	link->state = state;
	link->opened_epoch = epoch;
	link->deadline_ns = *link->options.now_ns + link->options.connect_ns;
}

void col_link_dial(struct col_link *link, const char *addresses, uint64_t epoch)
{
	open_begin(link, COL_LINK_DIALING, epoch);
	snprintf(link->addresses, sizeof(link->addresses), "%s", addresses);
	link->candidate = 0;
	dial_next(link);
}

void col_link_expect(struct col_link *link, uint64_t epoch)
{
	open_begin(link, COL_LINK_IDLE, epoch);
}

void col__link_stream_opened(struct col_link_stream *stream, uint32_t peer_window_bytes)
{
	struct col_link *link = stream->link;
	stream->state = COL_STREAM_OPEN;
	if (stream->stream.watch.fd >= 0)
		col_stream_tcp_tune(stream->stream.watch.fd);
	link->heard_ns = *link->options.now_ns;
	if (stream->index != 0)
		return;
	link->is_dialer = link->state == COL_LINK_DIALING;
	link->state = COL_LINK_UP;
	link->peer_window_bytes =
		peer_window_bytes != 0 ? peer_window_bytes : link->options.window_bytes;
	/* The other streams follow to the address that answered. One that fails is done without. */
	if (link->is_dialer)
		(void)col_link_streams_set(link, link->options.stream_count);
	link->options.events->up(link->options.user, link);
}

int col_link_streams_set(struct col_link *link, uint32_t count)
{
	int result = COLLECT_OK;
	COL_ASSERT(count <= COLLECT_STREAMS_MAX);
	if (link->state != COL_LINK_UP || !link->is_dialer)
		return COLLECT_E_CLOSED;
	/* Their hellos tell the acceptor how many there are now. */
	link->options.stream_count = (uint32_t)col_max_u64(link->options.stream_count, count);
	for (uint32_t i = 1; i < count; i++) {
		if (link->streams[i].state != COL_STREAM_CLOSED)
			continue;
		int status = stream_dial(&link->streams[i], &link->endpoint);
		if (result == COLLECT_OK)
			result = status;
	}
	return result;
}

int col_link_adopt(struct col_link *link, int fd, const struct col_hello *hello, uint64_t epoch)
{
	COL_ASSERT(hello->stream < COLLECT_STREAMS_MAX);
	struct col_link_stream *stream = &link->streams[hello->stream];
	int status = COLLECT_E_BUSY;
	/* Both dialed: the greater incarnation's connection is kept, on either side. */
	if (hello->stream == 0 && link->state == COL_LINK_DIALING &&
	    link->options.self > link->options.peer)
		goto refuse;
	if (hello->stream == 0)
		open_begin(link, COL_LINK_IDLE, epoch);
	else if (link->state != COL_LINK_UP || stream->state != COL_STREAM_CLOSED ||
	         link->opened_epoch != epoch)
		goto refuse;
	status = col__link_stream_prepare(stream);
	if (status < 0)
		goto refuse;
	status = col_stream_tcp_adopt(&stream->stream, link->options.loop, fd);
	if (status < 0)
		return status;
	stream->state = COL_STREAM_GREETING;
	col__link_stream_greet(stream);
	col__link_stream_opened(stream, hello->window_bytes);
	col__link_flush(link);
	return COLLECT_OK;
refuse:
	col_stream_tcp_refuse(fd);
	return status;
}

int col_link_attach(struct col_link *link, uint32_t index, struct col_stream *base)
{
	struct col_link_stream *stream = &link->streams[index];
	int status = col__link_stream_prepare(stream);
	if (status < 0)
		return status;
	void (*ready)(struct col_stream *, bool, bool) = stream->stream.ready;
	stream->stream = *base;
	stream->stream.ready = ready;
	stream->state = COL_STREAM_GREETING;
	col__link_stream_opened(stream, 0);
	return COLLECT_OK;
}

static void stream_connected(struct col_link_stream *stream)
{
	struct col_link *link = stream->link;
	int error = col_stream_tcp_error(&stream->stream);
	if (error != 0) {
		col__link_stream_broken(stream, strerror(error));
		return;
	}
	stream->state = COL_STREAM_GREETING;
	col__link_stream_greet(stream);
	col__link_flush(link);
}

static void link_stream_ready(struct col_stream *base, bool can_read, bool can_write)
{
	struct col_link_stream *stream = (struct col_link_stream *)(void *)base;
	if (stream->state == COL_STREAM_CONNECTING) {
		if (can_write)
			stream_connected(stream);
		return;
	}
	if (can_write && stream->is_blocked) {
		/* It goes on asking: while a long queue drains it would ask again at once. */
		stream->is_blocked = false;
		col__link_flush(stream->link);
	} else if (can_write && stream->state != COL_STREAM_CLOSED) {
		stream->stream.ops->want_write(&stream->stream, false);
	}
	if (can_read && stream->state != COL_STREAM_CLOSED)
		col__link_readable(stream);
}

static void tick_opening(struct col_link *link, uint64_t now_ns)
{
	if (link->deadline_ns != 0 && now_ns >= link->deadline_ns) {
		char detail[COLLECT_DETAIL_BYTES_MAX];
		bool has_dialed = link->state == COL_LINK_DIALING;
		snprintf(detail, sizeof(detail), "%s within %.1f s%s%.80s",
		         has_dialed ? "could not be connected" : "did not connect",
		         (double)link->options.connect_ns / 1e9, has_dialed ? "; tried " : "",
		         has_dialed ? link->addresses : "");
		col__link_lose(link, COLLECT_LOSS_UNREACHABLE, detail);
	} else if (link->state == COL_LINK_DIALING && now_ns >= link->redial_ns) {
		dial_next(link);
	}
}

void col_link_tick(struct col_link *link, uint64_t heartbeat_ns)
{
	uint64_t now_ns = *link->options.now_ns;
	if (link->state == COL_LINK_DIALING || link->state == COL_LINK_IDLE) {
		tick_opening(link, now_ns);
		return;
	}
	if (link->state != COL_LINK_UP)
		return;
	col__link_measure(link);
	if (now_ns > link->heard_ns + link->options.silence_ns) {
		char detail[COLLECT_DETAIL_BYTES_MAX];
		snprintf(detail, sizeof(detail), "nothing heard for %.3f s",
		         (double)(now_ns - link->heard_ns) / 1e9);
		col__link_lose(link, COLLECT_LOSS_SILENT, detail);
	} else if (now_ns >= link->spoke_ns + heartbeat_ns) {
		link->wants_heartbeat = true;
		col__link_flush(link);
	}
}

int col_link_poll(struct col_link *link)
{
	if (col__link_has_shm(link))
		return col_link_shm_poll(link);
	uint64_t before = link->sent_bytes + link->received_bytes;
	/* A link that is lost and opened again by `lost` is another connection. */
	for (uint32_t i = 0; i < link->options.stream_count && link->state == COL_LINK_UP; i++) {
		struct col_link_stream *stream = &link->streams[i];
		if (stream->state != COL_STREAM_OPEN)
			continue;
		if (stream->is_blocked) {
			stream->is_blocked = false;
			col__link_flush(link);
		}
		if (stream->state == COL_STREAM_OPEN)
			(void)col__link_readable(stream);
	}
	if (link->state != COL_LINK_UP)
		return COLLECT_E_CLOSED;
	return link->sent_bytes + link->received_bytes != before;
}

void col_link_forgive(struct col_link *link, uint64_t gap_ns)
{
	link->heard_ns += gap_ns;
	if (link->deadline_ns != 0)
		link->deadline_ns += gap_ns;
}

bool col_link_can_send(const struct col_link *link)
{
	return link->state == COL_LINK_UP || link->state == COL_LINK_DIALING ||
	       link->state == COL_LINK_IDLE;
}

bool col_link_is_blocked(const struct col_link *link)
{
	for (uint32_t i = 0; i < link->options.stream_count; i++)
		if (link->streams[i].is_blocked)
			return true;
	return false;
}
