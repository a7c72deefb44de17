#include "transport/link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/status.h"

/* Reads and bytes per readiness: enough to drain some chunks, few enough that one peer does not
 * starve others. */
#define READS_MAX 8
#define READ_BYTES_MAX (1024u * 1024)
/* A payload, or the rest of one, for which a read of its own costs less than copying it. */
#define LONG_BYTES (COL_RECEIVE_BYTES / 4)

static bool is_alive(const struct col_link_stream *stream)
{
	return stream->state == COL_STREAM_OPEN || stream->state == COL_STREAM_GREETING;
}

static void lose_for_garbage(struct col_link_stream *stream, const char *reason)
{
	col__link_lose(stream->link, COLLECT_LOSS_GARBAGE, reason);
}

/* The dialer's first frame must be the acceptor's answer. */
static bool is_right_answer(const struct col_link_stream *stream)
{
	const struct col_link_options *options = &stream->link->options;
	struct col_hello hello;
	col_hello_decode(stream->hello, &hello);
	return hello.key == options->key && hello.source == options->peer &&
	       hello.target == options->self && hello.stream == stream->index;
}

static void credit_update(struct col_link *link, uint32_t credit)
{
	/* Streams overtake each other: only a later value counts. And nobody can have consumed what
	 * was not sent. */
	uint32_t gain = credit - link->granted;
	uint32_t unconsumed = link->charged - link->granted;
	if (gain <= INT32_MAX)
		link->granted += gain < unconsumed ? gain : unconsumed;
}

/* A header is complete. False: the stream is gone. */
static bool header_taken(struct col_link_stream *stream)
{
	struct col_link *link = stream->link;
	const struct col_frame *frame = &stream->frame;
	bool is_hello = frame->kind == COL_FRAME_HELLO;
	if (is_hello != (stream->state == COL_STREAM_GREETING)) {
		lose_for_garbage(stream, is_hello ? "a second greeting" : "no greeting");
		return false;
	}
	stream->payload_bytes = 0;
	stream->has_frame = true;
	/* Not the last frame's: its buffer has another owner by now. */
	stream->sink = (struct col_sink){.place = COL_PLACE_DISCARD};
	if (is_hello) {
		stream->sink = (struct col_sink){.place = COL_PLACE_EARLY, .target = stream->hello};
		return true;
	}
	credit_update(link, frame->credit);
	if (col__frame_is_own(frame)) {
		stream->has_frame = false;
		return true;
	}
	/* What we advertised may not have reached the peer, but never does it know of more. */
	link->taken += col__frame_charge(frame);
	if (link->taken - link->advertised > link->options.window_bytes) {
		stream->has_frame = false;
		lose_for_garbage(stream, "more payload than was granted");
		return false;
	}
	stream->expects_long = frame->length >= LONG_BYTES;
	stream->sink = link->options.events->place(link->options.user, link, frame);
	if (!is_alive(stream))
		return false;
	if (stream->sink.place == COL_PLACE_REFUSE) {
		stream->has_frame = false;
		lose_for_garbage(stream, stream->sink.reason);
		return false;
	}
	return true;
}

static void payload_taken(struct col_link_stream *stream)
{
	struct col_link *link = stream->link;
	stream->has_frame = false;
	if (stream->frame.kind == COL_FRAME_HELLO) {
		if (is_right_answer(stream))
			col__link_stream_opened(stream, stream->frame.credit);
		else
			lose_for_garbage(stream, "the greeting is another peer's or group's");
		return;
	}
	/* A copy: the callback may lead to another frame of this stream being begun. */
	struct col_frame frame = stream->frame;
	struct col_sink sink = stream->sink;
	link->options.events->arrived(link->options.user, link, &frame, &sink);
}

static void parse(struct col_link_stream *stream)
{
	while (is_alive(stream)) {
		size_t buffered = stream->end - stream->begin;
		if (!stream->has_frame) {
			if (buffered < COL_FRAME_HEADER_BYTES)
				return;
			enum col_frame_reason reason =
				col_frame_decode(stream->buffer + stream->begin, &stream->frame);
			if (reason != COL_FRAME_VALID) {
				lose_for_garbage(stream, col_frame_reason_text(reason));
				return;
			}
			stream->begin += COL_FRAME_HEADER_BYTES;
			if (!header_taken(stream))
				return;
			continue;
		}
		size_t missing = stream->frame.length - stream->payload_bytes;
		size_t take = missing < buffered ? missing : buffered;
		if (take > 0 && stream->sink.target != NULL)
			memcpy(stream->sink.target + stream->payload_bytes, stream->buffer + stream->begin,
			       take);
		stream->begin += take;
		stream->payload_bytes += take;
		if (take < missing)
			return;
		payload_taken(stream);
	}
}

/* One read: the rest of a payload goes straight to its place, what follows into the buffer. Among
 * long payloads only the next header is asked for, so that its payload goes straight too. */
static ssize_t stream_read(struct col_link_stream *stream, size_t *asked_out)
{
	struct iovec parts[2];
	int part_count = 0;
	size_t straight = 0;
	size_t room = COL_RECEIVE_BYTES;
	if (stream->begin > 0) {
		memmove(stream->buffer, stream->buffer + stream->begin, stream->end - stream->begin);
		stream->end -= stream->begin;
		stream->begin = 0;
	}
	if (stream->has_frame && stream->sink.target != NULL) {
		COL_ASSERT(stream->end == 0);
		straight = stream->frame.length - stream->payload_bytes;
		parts[part_count++] =
			(struct iovec){stream->sink.target + stream->payload_bytes, straight};
	}
	if (straight >= LONG_BYTES || (!stream->has_frame && stream->expects_long))
		room = COL_FRAME_HEADER_BYTES;
	parts[part_count++] = (struct iovec){stream->buffer + stream->end, room - stream->end};
	*asked_out = straight + room - stream->end;
	ssize_t got = stream->stream.ops->read(&stream->stream, parts, part_count);
	if (got <= 0)
		return got;
	size_t placed = (size_t)got < straight ? (size_t)got : straight;
	stream->payload_bytes += placed;
	stream->end += (size_t)got - placed;
	return got;
}

bool col__link_readable(struct col_link_stream *stream)
{
	struct col_link *link = stream->link;
	size_t total = 0;
	for (int i = 0; i < READS_MAX && total < READ_BYTES_MAX && is_alive(stream); i++) {
		size_t asked;
		ssize_t got = stream_read(stream, &asked);
		if (got == -EAGAIN)
			break;
		if (got == 0) {
			col__link_stream_broken(stream, "the connection was closed");
			return true;
		}
		if (got < 0) {
			char detail[COLLECT_DETAIL_BYTES_MAX];
			snprintf(detail, sizeof(detail), "read failed: %s", strerror(-(int)got));
			col__link_stream_broken(stream, detail);
			return true;
		}
		total += (size_t)got;
		link->received_bytes += (uint64_t)got;
		link->heard_ns = *link->options.now_ns;
		/* What these frames lead to is written together, with the credit that came. */
		link->cork_count++;
		parse(stream);
		link->cork_count--;
		if (link->state == COL_LINK_UP)
			col__link_flush(link);
		/* A short read means that there is no more: another would only be told so. */
		if ((size_t)got < asked)
			break;
	}
	return total > 0;
}
