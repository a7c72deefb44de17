#include "transport/link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/status.h"

/* One write takes so many frames, or so many bytes: enough to make the system call cheap, few
 * enough that another stream gets its share. */
#define BATCH_FRAMES_MAX 32u
#define BATCH_BYTES_MAX (512u * 1024)

/* ---- outbound frames ---- */

/* NULL: out of memory. */
static struct col_outbound *outbound_get(struct col_link *link, uint32_t length)
{
	uint32_t spare = (uint32_t)__builtin_ctz(~link->spares_used);
	if (length > 0 || spare >= COL_LINK_SPARES)
		return col_pool_get(link->options.outbounds);
	link->spares_used |= 1u << spare;
	return &link->spares[spare];
}

static void outbound_free(struct col_link *link, struct col_outbound *outbound)
{
	col_buffer_put(outbound->buffer);
	for (uint32_t i = 0; i < COL_LINK_SPARES; i++) {
		if (outbound != &link->spares[i])
			continue;
		link->spares_used &= ~(1u << i);
		return;
	}
	col_pool_put(link->options.outbounds, outbound);
}

static size_t outbound_bytes(const struct col_outbound *outbound)
{
	return COL_FRAME_HEADER_BYTES + outbound->frame.length;
}

void col__link_stream_reset_sending(struct col_link_stream *stream)
{
	if (stream->sending != NULL)
		outbound_free(stream->link, stream->sending);
	stream->sending = NULL;
	stream->control_bytes = 0;
	stream->written_bytes = 0;
}

static void queue_add(struct col_queue *queue, struct col_outbound *outbound)
{
	outbound->next = NULL;
	if (queue->tail != NULL)
		queue->tail->next = outbound;
	else
		queue->head = outbound;
	queue->tail = outbound;
}

static struct col_outbound *queue_pop(struct col_queue *queue)
{
	struct col_outbound *outbound = queue->head;
	queue->head = outbound->next;
	if (queue->head == NULL)
		queue->tail = NULL;
	return outbound;
}

int col_link_send(struct col_link *link, const struct col_frame *frame, const uint8_t *payload,
                  struct col_buffer *buffer, void *token)
{
	struct col_outbound *outbound = NULL;
	int status = COLLECT_E_CLOSED;
	if (!col_link_can_send(link))
		goto fail;
	status = COLLECT_E_MEMORY;
	outbound = outbound_get(link, frame->length);
	if (outbound == NULL)
		goto fail;
	outbound->frame = *frame;
	outbound->payload = payload;
	outbound->buffer = buffer;
	outbound->token = token;
	queue_add(&link->queues[col__frame_is_free(frame) ? COL_QUEUE_FREE : COL_QUEUE_CHARGED],
	          outbound);
	col__link_flush(link);
	return COLLECT_OK;
fail:
	col_buffer_put(buffer);
	if (status == COLLECT_E_MEMORY)
		col__link_lose(link, COLLECT_LOSS_RESET, "out of memory");
	return status;
}

void col_link_nudge(struct col_link *link)
{
	if (link->state != COL_LINK_UP)
		return;
	link->wants_heartbeat = true;
	col__link_flush(link);
}

/* ---- credit ---- */

static bool wants_credit(const struct col_link *link)
{
	/* The peer learns it from any frame's header; a frame of its own only when it may soon
	 * have to wait. */
	return link->consumed - link->advertised >= link->options.window_bytes / 4;
}

void col_link_consume(struct col_link *link, uint32_t bytes)
{
	/* What came over an earlier connection is none of this one's. */
	uint32_t unconsumed = link->taken - link->consumed;
	uint32_t charge = bytes + COL_FRAME_HEADER_BYTES;
	link->consumed += charge < unconsumed ? charge : unconsumed;
	if (link->state == COL_LINK_UP && wants_credit(link))
		col__link_flush(link);
}

static bool has_credit(const struct col_link *link, uint32_t unconsumed,
                       const struct col_frame *frame)
{
	uint32_t charge = col__frame_charge(frame);
	return charge == 0 || (uint64_t)unconsumed + charge <= link->peer_window_bytes;
}

/* ---- one write ---- */

/* What one write is made of. */
struct batch {
	struct iovec parts[2 * BATCH_FRAMES_MAX + 2];
	int part_count;
	size_t bytes;
	struct col_queue *queue; /* whose first frames are in it, if any are */
};

static void batch_add(struct batch *batch, const void *bytes, size_t count)
{
	if (count == 0)
		return;
	batch->parts[batch->part_count++] = (struct iovec){(void *)(uintptr_t)bytes, count};
	batch->bytes += count;
}

static void frame_encode(struct col_link *link, struct col_frame *frame, uint8_t *head_out)
{
	frame->delivered = *link->options.delivered;
	if (frame->kind != COL_FRAME_HELLO)
		frame->credit = link->consumed;
	col_frame_encode(frame, head_out);
}

void col__link_stream_greet(struct col_link_stream *stream)
{
	struct col_link *link = stream->link;
	struct col_frame frame = {.kind = COL_FRAME_HELLO,
	                          .attempt = link->opened_epoch,
	                          .length = COL_FRAME_HELLO_BYTES,
	                          .credit = link->options.window_bytes};
	struct col_hello hello = {.key = link->options.key,
	                          .source = link->options.self,
	                          .target = link->options.peer,
	                          .stream = stream->index,
	                          .stream_count = link->options.stream_count};
	frame_encode(link, &frame, stream->control);
	col_hello_encode(&hello, stream->control + COL_FRAME_HEADER_BYTES);
	stream->control_bytes = COL_FRAME_HEADER_BYTES + COL_FRAME_HELLO_BYTES;
	stream->written_bytes = 0;
}

/* The rest of what is half written. */
static void batch_rest(struct batch *batch, const struct col_link_stream *stream)
{
	const struct col_outbound *sending = stream->sending;
	size_t written = stream->written_bytes;
	if (sending == NULL) {
		batch_add(batch, stream->control + written, stream->control_bytes - written);
	} else if (written < COL_FRAME_HEADER_BYTES) {
		batch_add(batch, sending->head + written, COL_FRAME_HEADER_BYTES - written);
		batch_add(batch, sending->payload, sending->frame.length);
	} else {
		batch_add(batch, sending->payload + (written - COL_FRAME_HEADER_BYTES),
		          outbound_bytes(sending) - written);
	}
}

/* Frames of one queue, as far as there is credit. They stay in the queue. */
static void batch_queue(struct batch *batch, struct col_link *link, struct col_queue *queue)
{
	uint32_t unconsumed = link->charged - link->granted;
	struct col_outbound *it = queue->head;
	batch->queue = queue;
	for (uint32_t i = 0; i < BATCH_FRAMES_MAX && it != NULL; i++, it = it->next) {
		if (!has_credit(link, unconsumed, &it->frame) ||
		    (batch->bytes > 0 && batch->bytes + outbound_bytes(it) > BATCH_BYTES_MAX))
			return;
		unconsumed += col__frame_charge(&it->frame);
		frame_encode(link, &it->frame, it->head);
		batch_add(batch, it->head, COL_FRAME_HEADER_BYTES);
		batch_add(batch, it->payload, it->frame.length);
	}
}

static void batch_fill(struct batch *batch, struct col_link_stream *stream)
{
	struct col_link *link = stream->link;
	batch->part_count = 0;
	batch->bytes = 0;
	batch_rest(batch, stream);
	if (stream->state != COL_STREAM_OPEN)
		return;
	int rest_count = batch->part_count;
	for (uint32_t i = 0; i < COL_QUEUE_COUNT && batch->part_count == rest_count; i++) {
		enum col_link_queue turn = link->turn;
		link->turn = turn == COL_QUEUE_FREE ? COL_QUEUE_CHARGED : COL_QUEUE_FREE;
		batch_queue(batch, link, &link->queues[turn]);
	}
	if (batch->bytes > 0 || !(link->wants_heartbeat || wants_credit(link)))
		return;
	struct col_frame frame = {.kind = wants_credit(link) ? COL_FRAME_CREDIT
	                                                     : COL_FRAME_HEARTBEAT};
	frame_encode(link, &frame, stream->control);
	stream->control_bytes = COL_FRAME_HEADER_BYTES;
	stream->written_bytes = 0;
	link->advertised = link->consumed;
	link->wants_heartbeat = false;
	batch_add(batch, stream->control, COL_FRAME_HEADER_BYTES);
}

/* ---- after a write ---- */

/* `put` bytes of the batch went. What has begun to go leaves the queue; what is whole is to be told
 * of. */
static void batch_account(struct col_link_stream *stream, struct col_queue *queue, size_t put)
{
	struct col_link *link = stream->link;
	size_t total = stream->sending != NULL ? outbound_bytes(stream->sending)
	                                       : stream->control_bytes;
	size_t step = total - stream->written_bytes;
	step = step < put ? step : put;
	stream->written_bytes += step;
	put -= step;
	if (stream->written_bytes < total)
		return;
	if (stream->sending != NULL)
		queue_add(&link->written, stream->sending);
	stream->sending = NULL;
	stream->control_bytes = 0;
	stream->written_bytes = 0;
	while (put > 0) {
		struct col_outbound *outbound = queue_pop(queue);
		link->charged += col__frame_charge(&outbound->frame);
		link->advertised = outbound->frame.credit;
		link->wants_heartbeat = false;
		if (put < outbound_bytes(outbound)) {
			stream->sending = outbound;
			stream->written_bytes = put;
			return;
		}
		put -= outbound_bytes(outbound);
		queue_add(&link->written, outbound);
	}
}

/* `sent` may queue more, purge, lose or close the link. */
static void written_tell(struct col_link *link)
{
	while (link->written.head != NULL) {
		struct col_outbound *outbound = queue_pop(&link->written);
		struct col_frame frame = outbound->frame;
		void *token = outbound->token;
		outbound_free(link, outbound);
		link->options.events->sent(link->options.user, link, &frame, token);
	}
}

static void stream_block(struct col_link_stream *stream)
{
	stream->is_blocked = true;
	stream->stream.ops->want_write(&stream->stream, true);
}

/* Writes until the stream is full, broken, or nothing is left. False: the link is not up. */
static bool stream_flush(struct col_link_stream *stream)
{
	struct col_link *link = stream->link;
	struct batch batch;
	while (stream->state == COL_STREAM_OPEN || stream->state == COL_STREAM_GREETING) {
		batch_fill(&batch, stream);
		if (batch.bytes == 0)
			return true;
		ssize_t put = stream->stream.ops->write(&stream->stream, batch.parts, batch.part_count);
		if (put == -EAGAIN) {
			stream_block(stream);
			return true;
		}
		if (put < 0) {
			char detail[COLLECT_DETAIL_BYTES_MAX];
			snprintf(detail, sizeof(detail), "write failed: %s", strerror((int)-put));
			col__link_stream_broken(stream, detail);
			return link->state == COL_LINK_UP;
		}
		link->sent_bytes += (uint64_t)put;
		link->spoke_ns = *link->options.now_ns;
		/* A short write means that there is no room: trying again would only be told so. */
		if ((size_t)put < batch.bytes)
			stream_block(stream);
		batch_account(stream, batch.queue, (size_t)put);
		written_tell(link);
		if (stream->is_blocked)
			return link->state == COL_LINK_UP;
	}
	return true;
}

void col__link_flush(struct col_link *link)
{
	/* `sent` may queue more: the loop below takes it. */
	if (link->is_flushing || link->cork_count > 0)
		return;
	link->is_flushing = true;
	for (uint32_t i = 0; i < link->options.stream_count; i++) {
		struct col_link_stream *stream = &link->streams[i];
		if (!stream->is_blocked && !stream_flush(stream))
			break;
	}
	link->is_flushing = false;
}

void col_link_cork(struct col_link *link)
{
	link->cork_count++;
}

void col_link_uncork(struct col_link *link)
{
	COL_ASSERT(link->cork_count > 0);
	if (--link->cork_count == 0)
		col__link_flush(link);
}

/* ---- purging ---- */

/* The rest of a half-written frame must still follow its header; it is copied, because the caller
 * takes its memory back. */
static void stream_detach(struct col_link_stream *stream)
{
	struct col_link *link = stream->link;
	struct col_outbound *outbound = stream->sending;
	if (outbound == NULL)
		return;
	outbound->token = NULL;
	if (outbound->buffer != NULL || outbound->frame.length == 0)
		return;
	struct col_buffer *copy = col_buffers_get(link->options.buffers, outbound->frame.length);
	if (copy == NULL) {
		col__link_lose(link, COLLECT_LOSS_RESET, "out of memory");
		return;
	}
	size_t offset = stream->written_bytes > COL_FRAME_HEADER_BYTES
	                        ? stream->written_bytes - COL_FRAME_HEADER_BYTES
	                        : 0;
	memcpy(copy->bytes + offset, outbound->payload + offset, outbound->frame.length - offset);
	outbound->buffer = copy;
	outbound->payload = copy->bytes;
}

static bool is_of_operation(const struct col_outbound *outbound)
{
	return outbound->frame.kind == COL_FRAME_DATA || outbound->frame.kind == COL_FRAME_REPAIR;
}

/* Whose frames are to go: a message's, or those of a group's operations. */
struct purge {
	const void *token; /* NULL: operations */
	uint32_t group;
};

/* What is neither data nor repair borrows nothing, and is as true afterwards. */
static bool is_meant(const struct col_outbound *outbound, const struct purge *purge)
{
	if (purge->token != NULL)
		return outbound->token == purge->token;
	return is_of_operation(outbound) && outbound->frame.group == purge->group;
}

static bool is_coming_in(const struct col_link_stream *stream, const struct purge *purge)
{
	if (purge->token != NULL)
		return stream->sink.token == purge->token;
	bool is_operation = stream->sink.place == COL_PLACE_EXEC ||
	                    stream->sink.place == COL_PLACE_REPAIR;
	return is_operation && stream->frame.group == purge->group;
}

static void queue_purge(struct col_link *link, struct col_queue *queue,
                        const struct purge *purge)
{
	struct col_queue old = *queue;
	*queue = (struct col_queue){0};
	while (old.head != NULL) {
		struct col_outbound *outbound = queue_pop(&old);
		if (is_meant(outbound, purge))
			outbound_free(link, outbound);
		else
			queue_add(queue, outbound);
	}
}

void col__link_drop_outbounds(struct col_link *link)
{
	struct col_queue *all[] = {&link->queues[COL_QUEUE_CHARGED], &link->queues[COL_QUEUE_FREE],
	                           &link->written};
	for (uint32_t i = 0; i < 3; i++)
		while (all[i]->head != NULL)
			outbound_free(link, queue_pop(all[i]));
}

static void purge_all(struct col_link *link, enum col_link_queue queue, const struct purge *purge)
{
	queue_purge(link, &link->queues[queue], purge);
	queue_purge(link, &link->written, purge);
	for (uint32_t i = 0; i < link->options.stream_count; i++) {
		struct col_link_stream *stream = &link->streams[i];
		if (stream->state == COL_STREAM_CLOSED)
			continue;
		if (stream->sending != NULL && is_meant(stream->sending, purge))
			stream_detach(stream);
		if (stream->has_frame && is_coming_in(stream, purge)) {
			col_buffer_put(stream->sink.buffer);
			stream->sink = (struct col_sink){.place = COL_PLACE_DISCARD};
		}
	}
}

void col_link_purge(struct col_link *link, uint32_t group)
{
	struct purge purge = {.group = group};
	purge_all(link, group != 0 ? COL_QUEUE_FREE : COL_QUEUE_CHARGED, &purge);
}

void col_link_forget(struct col_link *link, const void *token)
{
	struct purge purge = {.token = token};
	purge_all(link, COL_QUEUE_FREE, &purge);
}
