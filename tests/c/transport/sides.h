/* Two links joined by an in-memory stream, for the tests of links. No sockets, no threads, no clock
 * but ours. */
#ifndef COL_TEST_SIDES_H
#define COL_TEST_SIDES_H

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/prng.h"
#include "harness.h"
#include "transport/link.h"

#define WINDOW (64u * 1024)
#define CHUNK 4096u

struct side {
	struct col_link link;
	struct col_buffers buffers;
	struct col_pool outbounds;
	uint64_t now_ns;
	uint64_t delivered;
	uint8_t target[1 << 20]; /* frames are placed at their offset */
	uint64_t arrived_bytes;
	uint32_t arrived_count;
	uint64_t arrived_offset;
	uint32_t backward_count; /* frames that came after one of a higher offset */
	uint32_t sent_count;
	uint32_t lost_count;
	int loss;
	char detail[COLLECT_DETAIL_BYTES_MAX];
	bool consumes; /* at once */
};

static inline struct col_sink side_place(void *user, struct col_link *link,
                                         const struct col_frame *frame)
{
	struct side *side = user;
	(void)link;
	if (frame->offset + frame->length > sizeof(side->target))
		return (struct col_sink){.place = COL_PLACE_REFUSE, .reason = "beyond the end"};
	return (struct col_sink){.place = COL_PLACE_EXEC, .target = side->target + frame->offset};
}

static inline void side_arrived(void *user, struct col_link *link, const struct col_frame *frame,
                         const struct col_sink *sink)
{
	struct side *side = user;
	(void)sink;
	side->arrived_bytes += frame->length;
	side->arrived_count++;
	side->backward_count += frame->offset < side->arrived_offset;
	side->arrived_offset = frame->offset;
	if (side->consumes)
		col_link_consume(link, frame->length);
}

static inline void side_sent(void *user, struct col_link *link, const struct col_frame *frame,
                             void *token)
{
	struct side *side = user;
	(void)link;
	(void)frame;
	if (token != NULL)
		side->sent_count++;
}

static inline void side_up(void *user, struct col_link *link)
{
	(void)user;
	(void)link;
}

static inline void side_lost(void *user, struct col_link *link, int loss, const char *detail)
{
	struct side *side = user;
	(void)link;
	side->lost_count++;
	side->loss = loss;
	strncpy(side->detail, detail, sizeof(side->detail) - 1);
}

static const struct col_link_events side_events = {
	.place = side_place,
	.arrived = side_arrived,
	.sent = side_sent,
	.up = side_up,
	.lost = side_lost,
};

static inline void side_open(struct side *side, uint64_t self, uint64_t peer, uint32_t streams)
{
	memset(side, 0, sizeof(*side));
	side->consumes = true;
	side->now_ns = COL_NS_PER_S;
	col_buffers_init(&side->buffers, CHUNK);
	col_pool_init(&side->outbounds, sizeof(struct col_outbound), 64);
	col_link_init(&side->link, &(struct col_link_options){
		.buffers = &side->buffers,
		.outbounds = &side->outbounds,
		.now_ns = &side->now_ns,
		.delivered = &side->delivered,
		.events = &side_events,
		.user = side,
		.key = 9,
		.self = self,
		.peer = peer,
		.stream_count = streams,
		.window_bytes = WINDOW,
		.silence_ns = COL_NS_PER_S,
		.connect_ns = COL_NS_PER_S,
	});
}

static inline void side_close(struct side *side)
{
	col_link_fini(&side->link);
	col_buffers_fini(&side->buffers);
	col_pool_fini(&side->outbounds);
	free(side);
}

static inline void pair_open(struct side **a, struct side **b, uint32_t streams, size_t capacity)
{
	*a = malloc(sizeof(**a));
	*b = malloc(sizeof(**b));
	side_open(*a, 1, 2, streams);
	side_open(*b, 2, 1, streams);
	for (uint32_t i = 0; i < streams; i++) {
		struct col_stream one;
		struct col_stream two;
		CHECK_EQ(col_stream_memory_pair(&one, &two, capacity), COLLECT_OK);
		CHECK_EQ(col_link_attach(&(*a)->link, i, &one), COLLECT_OK);
		CHECK_EQ(col_link_attach(&(*b)->link, i, &two), COLLECT_OK);
	}
}

/* Lets bytes flow until nothing moves, visiting streams in the order that prng says. */
static inline void pump(struct side *a, struct side *b, uint32_t streams, struct col_prng *prng)
{
	uint32_t quiet = 0;
	while (quiet < 64) {
		struct side *side = col_prng_below(prng, 2) == 0 ? a : b;
		uint32_t index = (uint32_t)col_prng_below(prng, streams);
		bool moved = col_stream_memory_pump(&side->link.streams[index].stream);
		quiet = moved ? 0 : quiet + 1;
	}
}

static inline void send_range(struct side *side, const uint8_t *source, size_t bytes)
{
	for (size_t offset = 0; offset < bytes; offset += CHUNK) {
		size_t rest = bytes - offset;
		struct col_frame frame = {
			.kind = COL_FRAME_DATA,
			.op = 1,
			.attempt = 1,
			.offset = offset,
			.length = (uint32_t)(rest < CHUNK ? rest : CHUNK),
		};
		CHECK_EQ(col_link_send(&side->link, &frame, source + offset, NULL, side), COLLECT_OK);
	}
}

static inline uint8_t *noise(size_t bytes)
{
	uint8_t *block = malloc(bytes);
	for (size_t i = 0; i < bytes; i++)
		block[i] = (uint8_t)(i * 31 + i / 977);
	return block;
}

#endif
