#include "transport/link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/status.h"

static void outbound_free(struct col_link *link, struct col_outbound *outbound)
{
	col_buffer_put(outbound->buffer);
	col_pool_put(link->options.outbounds, outbound);
}

void col__link_stream_reset_sending(struct col_link_stream *stream)
{
	if (stream->sending != NULL)
		outbound_free(stream->link, stream->sending);
	stream->sending = NULL;
	stream->head_bytes = 0;
	stream->written_bytes = 0;
}

int col_link_send(struct col_link *link, const struct col_frame *frame, const uint8_t *payload,
                  struct col_buffer *buffer, void *token)
{
	struct col_outbound *outbound = NULL;
	int status = COLLECT_E_CLOSED;
	if (!col_link_can_send(link))
		goto fail;
	status = COLLECT_E_MEMORY;
	outbound = col_pool_get(link->options.outbounds);
	if (outbound == NULL)
		goto fail;
	*outbound = (struct col_outbound){
		.frame = *frame, .payload = payload, .buffer = buffer, .token = token};
	if (link->queue_tail != NULL)
		link->queue_tail->next = outbound;
	else
		link->queue_head = outbound;
	link->queue_tail = outbound;
	col__link_flush(link);
	return COLLECT_OK;
fail:
	col_buffer_put(buffer);
	if (status == COLLECT_E_MEMORY)
		col__link_lose(link, COLLECT_LOSS_RESET, "out of memory");
	return status;
}

void col_link_consume(struct col_link *link, uint32_t bytes)
{
	/* What came over an earlier connection is none of this one's. */
	uint32_t unconsumed = link->taken - link->consumed;
	uint32_t charge = col__frame_charge(bytes);
	link->consumed += charge < unconsumed ? charge : unconsumed;
	/* The peer learns it from any frame's header; a frame of its own only when it may soon
	 * have to wait. */
	if (link->consumed - link->advertised >= link->options.window_bytes / 4 &&
	    link->state == COL_LINK_UP) {
		link->wants_credit = true;
		col__link_flush(link);
	}
}

static void head_encode(struct col_link_stream *stream, struct col_frame *frame)
{
	struct col_link *link = stream->link;
	frame->group = (uint32_t)link->options.key;
	frame->delivered = *link->options.delivered;
	frame->credit = link->consumed;
	link->advertised = link->consumed;
	link->wants_credit = false;
	link->wants_heartbeat = false;
	col_frame_encode(frame, stream->head);
	stream->head_bytes = COL_FRAME_HEADER_BYTES;
	stream->written_bytes = 0;
}

void col__link_stream_greet(struct col_link_stream *stream)
{
	struct col_link *link = stream->link;
	struct col_frame frame = {.kind = COL_FRAME_HELLO,
	                          .attempt = link->opened_epoch,
	                          .length = COL_FRAME_HELLO_BYTES};
	struct col_hello hello = {.key = link->options.key,
	                          .source = link->options.self,
	                          .target = link->options.peer,
	                          .stream = stream->index,
	                          .stream_count = link->options.stream_count};
	head_encode(stream, &frame);
	col_hello_encode(&hello, stream->head + COL_FRAME_HEADER_BYTES);
	stream->head_bytes += COL_FRAME_HELLO_BYTES;
}

static bool has_credit(const struct col_link *link, uint32_t length)
{
	uint32_t unconsumed = link->charged - link->granted;
	return (uint64_t)unconsumed + col__frame_charge(length) <= link->options.window_bytes;
}

/* Loads the stream with what to write next. False: nothing may be written now. */
static bool stream_load(struct col_link_stream *stream)
{
	struct col_link *link = stream->link;
	if (stream->state != COL_STREAM_OPEN)
		return false;
	struct col_outbound *next = link->queue_head;
	if (next != NULL && has_credit(link, next->frame.length)) {
		link->queue_head = next->next;
		if (link->queue_head == NULL)
			link->queue_tail = NULL;
		link->charged += col__frame_charge(next->frame.length);
		head_encode(stream, &next->frame);
		stream->sending = next;
		return true;
	}
	if (link->wants_credit || link->wants_heartbeat) {
		struct col_frame frame = {
			.kind = link->wants_credit ? COL_FRAME_CREDIT : COL_FRAME_HEARTBEAT};
		head_encode(stream, &frame);
		return true;
	}
	return false;
}

static size_t stream_total(const struct col_link_stream *stream)
{
	return stream->head_bytes + (stream->sending != NULL ? stream->sending->frame.length : 0);
}

static void stream_finished(struct col_link_stream *stream)
{
	struct col_outbound *outbound = stream->sending;
	stream->sending = NULL;
	stream->head_bytes = 0;
	stream->written_bytes = 0;
	if (outbound == NULL)
		return;
	struct col_link *link = stream->link;
	struct col_frame frame = outbound->frame;
	void *token = outbound->token;
	outbound_free(link, outbound);
	link->options.events->sent(link->options.user, link, &frame, token);
}

/* Writes what is loaded. Returns 0 when all of it went, or -errno. */
static int stream_write(struct col_link_stream *stream)
{
	struct col_link *link = stream->link;
	while (stream->written_bytes < stream_total(stream)) {
		struct iovec parts[2];
		int part_count = 0;
		size_t done = stream->written_bytes;
		if (done < stream->head_bytes) {
			parts[part_count++] = (struct iovec){stream->head + done, stream->head_bytes - done};
			done = stream->head_bytes;
		}
		size_t offset = done - stream->head_bytes;
		if (stream->sending != NULL && stream->sending->frame.length > offset)
			parts[part_count++] =
				(struct iovec){(void *)(uintptr_t)(stream->sending->payload + offset),
			                       stream->sending->frame.length - offset};
		ssize_t put = stream->stream.ops->write(&stream->stream, parts, part_count);
		if (put < 0)
			return (int)put;
		stream->written_bytes += (size_t)put;
		link->sent_bytes += (uint64_t)put;
		link->spoke_ns = *link->options.now_ns;
	}
	return 0;
}

/* Writes until the stream is full, broken, or nothing is left. False: the link is not up. */
static bool stream_flush(struct col_link_stream *stream)
{
	while (stream->state == COL_STREAM_OPEN || stream->state == COL_STREAM_GREETING) {
		if (stream_total(stream) == 0 && !stream_load(stream))
			return true;
		int error = stream_write(stream);
		if (error == -EAGAIN) {
			stream->is_blocked = true;
			stream->stream.ops->want_write(&stream->stream, true);
			return true;
		}
		if (error < 0) {
			char detail[COLLECT_DETAIL_BYTES_MAX];
			snprintf(detail, sizeof(detail), "write failed: %s", strerror(-error));
			col__link_stream_broken(stream, detail);
			return stream->link->state == COL_LINK_UP;
		}
		stream_finished(stream);
	}
	return true;
}

void col__link_flush(struct col_link *link)
{
	/* `sent` may queue more: the loop below takes it. */
	if (link->is_flushing)
		return;
	link->is_flushing = true;
	for (uint32_t i = 0; i < link->options.stream_count; i++) {
		struct col_link_stream *stream = &link->streams[i];
		if (!stream->is_blocked && !stream_flush(stream))
			break;
	}
	link->is_flushing = false;
}

/* The rest of a half-written frame must still follow its header; it is copied, because the caller
 * takes its memory back. */
static void stream_detach(struct col_link_stream *stream)
{
	struct col_link *link = stream->link;
	struct col_outbound *outbound = stream->sending;
	if (outbound == NULL)
		return;
	outbound->token = NULL;
	if (stream->written_bytes == 0) {
		link->charged -= col__frame_charge(outbound->frame.length);
		col__link_stream_reset_sending(stream);
		/* Its header would have told what we have consumed. */
		link->wants_credit = true;
		return;
	}
	if (outbound->buffer != NULL || stream->written_bytes == stream_total(stream))
		return;
	struct col_buffer *copy = col_buffers_get(link->options.buffers, outbound->frame.length);
	if (copy == NULL) {
		col__link_lose(link, COLLECT_LOSS_RESET, "out of memory");
		return;
	}
	size_t offset = stream->written_bytes > stream->head_bytes
	                        ? stream->written_bytes - stream->head_bytes
	                        : 0;
	memcpy(copy->bytes + offset, outbound->payload + offset, outbound->frame.length - offset);
	outbound->buffer = copy;
	outbound->payload = copy->bytes;
}

void col_link_purge(struct col_link *link)
{
	while (link->queue_head != NULL) {
		struct col_outbound *outbound = link->queue_head;
		link->queue_head = outbound->next;
		outbound_free(link, outbound);
	}
	link->queue_tail = NULL;
	for (uint32_t i = 0; i < link->options.stream_count; i++) {
		struct col_link_stream *stream = &link->streams[i];
		if (stream->state == COL_STREAM_CLOSED)
			continue;
		stream_detach(stream);
		if (stream->has_frame && (stream->sink.place == COL_PLACE_EXEC ||
		                          stream->sink.place == COL_PLACE_REPAIR)) {
			col_buffer_put(stream->sink.buffer);
			stream->sink = (struct col_sink){.place = COL_PLACE_DISCARD};
		}
	}
}
