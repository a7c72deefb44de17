/* Two links of one process over loopback: what only sockets have. */
#include "transport/link.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "harness.h"
#include "transport/listener.h"

#define CHUNK 65536u
#define BYTES (8u << 20)
#define DEADLINE_NS (20 * COL_NS_PER_S)

struct side {
	struct col_link link;
	struct col_loop loop;
	struct col_buffers buffers;
	struct col_pool outbounds;
	struct col_listener listener;
	uint64_t now_ns;
	uint64_t delivered;
	uint8_t *target; /* BYTES */
	uint64_t arrived_bytes;
	uint64_t sent_bytes;
	uint32_t lost_count;
};

static struct col_sink side_place(void *user, struct col_link *link, const struct col_frame *frame)
{
	struct side *side = user;
	(void)link;
	CHECK(frame->offset + frame->length <= BYTES);
	return (struct col_sink){.place = COL_PLACE_EXEC, .target = side->target + frame->offset};
}

static void side_arrived(void *user, struct col_link *link, const struct col_frame *frame,
                         const struct col_sink *sink)
{
	struct side *side = user;
	(void)sink;
	side->arrived_bytes += frame->length;
	col_link_consume(link, frame->length);
}

static void side_sent(void *user, struct col_link *link, const struct col_frame *frame, void *token)
{
	struct side *side = user;
	(void)link;
	(void)token;
	side->sent_bytes += frame->length;
}

static void side_up(void *user, struct col_link *link)
{
	(void)user;
	(void)link;
}

static void side_lost(void *user, struct col_link *link, int loss, const char *detail)
{
	struct side *side = user;
	(void)link;
	(void)loss;
	(void)detail;
	side->lost_count++;
}

static const struct col_link_events side_events = {
	.place = side_place,
	.arrived = side_arrived,
	.sent = side_sent,
	.up = side_up,
	.lost = side_lost,
};

static const char *side_greeted(void *user, int fd, const struct col_hello *hello, uint64_t epoch)
{
	struct side *side = user;
	if (hello->stream_count > side->link.options.stream_count)
		side->link.options.stream_count = hello->stream_count;
	return col_link_adopt(&side->link, fd, hello, epoch) < 0 ? "not open" : NULL;
}

static void side_refused(void *user, const char *from, const char *reason)
{
	(void)user;
	FAIL("%s was refused: %s", from, reason);
}

static const struct col_listener_events listener_events = {
	.greeted = side_greeted,
	.refused = side_refused,
};

static void side_open(struct side *side, uint64_t self, uint32_t streams, uint32_t window_bytes)
{
	memset(side, 0, sizeof(*side));
	side->now_ns = col_clock_ns();
	side->target = calloc(1, BYTES);
	CHECK_EQ(col_loop_init(&side->loop), COLLECT_OK);
	col_buffers_init(&side->buffers, CHUNK);
	col_pool_init(&side->outbounds, sizeof(struct col_outbound), 64);
	col_link_init(&side->link, &(struct col_link_options){
		.loop = &side->loop,
		.buffers = &side->buffers,
		.outbounds = &side->outbounds,
		.now_ns = &side->now_ns,
		.delivered = &side->delivered,
		.events = &side_events,
		.user = side,
		.key = 9,
		.self = self,
		.peer = 3 - self,
		.stream_count = streams,
		.window_bytes = window_bytes,
		.silence_ns = DEADLINE_NS,
		.connect_ns = DEADLINE_NS,
	});
	CHECK_EQ(col_listener_open(&side->listener, &side->loop, "127.0.0.1", 0, &side->now_ns),
	         COLLECT_OK);
	side->listener.events = &listener_events;
	side->listener.user = side;
}

static void side_close(struct side *side)
{
	col_listener_close(&side->listener);
	col_link_fini(&side->link);
	col_loop_fini(&side->loop);
	col_buffers_fini(&side->buffers);
	col_pool_fini(&side->outbounds);
	free(side->target);
	free(side);
}

static uint32_t open_count(const struct side *side)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < COLLECT_STREAMS_MAX; i++)
		count += side->link.streams[i].state == COL_STREAM_OPEN;
	return count;
}

static void side_poll(struct side *side)
{
	col_loop_poll(&side->loop, 0);
	side->now_ns = col_clock_ns();
}

/* Until both have so many streams open. */
static void await_streams(struct side *a, struct side *b, uint32_t count)
{
	uint64_t until_ns = col_clock_ns() + DEADLINE_NS;
	while (open_count(a) != count || open_count(b) != count) {
		side_poll(a);
		side_poll(b);
		CHECK(col_clock_ns() < until_ns);
	}
}

static void pair_open(struct side **a_out, struct side **b_out, uint32_t streams)
{
	char address[64];
	*a_out = malloc(sizeof(**a_out));
	*b_out = malloc(sizeof(**b_out));
	side_open(*a_out, 1, streams, 1 << 20);
	/* The other grants less: each must heed what the other one says. */
	side_open(*b_out, 2, streams, 4 * CHUNK + 4096);
	snprintf(address, sizeof(address), "127.0.0.1:%u", (*b_out)->listener.port);
	col_link_expect(&(*b_out)->link, 1);
	col_link_dial(&(*a_out)->link, address, 1);
	await_streams(*a_out, *b_out, streams);
}

static uint8_t *noise(size_t bytes)
{
	uint8_t *block = malloc(bytes);
	for (size_t i = 0; i < bytes; i++)
		block[i] = (uint8_t)(i * 31 + i / 977);
	return block;
}

static void send_all(struct side *side, const uint8_t *source)
{
	for (uint32_t offset = 0; offset < BYTES; offset += CHUNK) {
		struct col_frame frame = {.kind = COL_FRAME_DATA, .op = 1, .attempt = 1,
		                          .offset = offset, .length = CHUNK};
		CHECK_EQ(col_link_send(&side->link, &frame, source + offset, NULL, NULL), COLLECT_OK);
	}
}

/* Both ways at once; by_link: without the loop. */
static void exchange(struct side *a, struct side *b, const uint8_t *source, bool by_link)
{
	uint64_t until_ns = col_clock_ns() + DEADLINE_NS;
	struct side *sides[2] = {a, b};
	a->arrived_bytes = b->arrived_bytes = 0;
	a->sent_bytes = b->sent_bytes = 0;
	send_all(a, source);
	send_all(b, source);
	while (a->arrived_bytes < BYTES || b->arrived_bytes < BYTES || a->sent_bytes < BYTES ||
	       b->sent_bytes < BYTES) {
		for (int i = 0; i < 2; i++) {
			if (by_link)
				CHECK(col_link_poll(&sides[i]->link) >= 0);
			else
				side_poll(sides[i]);
		}
		CHECK(col_clock_ns() < until_ns);
	}
	CHECK_BYTES_EQ(a->target, source, BYTES);
	CHECK_BYTES_EQ(b->target, source, BYTES);
	CHECK_EQ(a->lost_count + b->lost_count, 0);
}

TEST(bytes_move_over_many_streams_by_the_loop_and_without_it)
{
	uint8_t *source = noise(BYTES);
	for (uint32_t streams = 1; streams <= COLLECT_STREAMS_MAX; streams *= 4) {
		struct side *a;
		struct side *b;
		pair_open(&a, &b, streams);
		exchange(a, b, source, false);
		memset(a->target, 0, BYTES);
		memset(b->target, 0, BYTES);
		exchange(a, b, source, true);
		side_close(a);
		side_close(b);
	}
	free(source);
}

TEST(a_poll_tells_whether_anything_moved_and_notices_a_loss)
{
	struct side *a;
	struct side *b;
	uint8_t byte = 7;
	struct col_frame frame = {.kind = COL_FRAME_DATA, .op = 1, .attempt = 1, .length = 1};
	pair_open(&a, &b, 2);
	CHECK_EQ(col_link_poll(&b->link), 0);
	CHECK_EQ(col_link_send(&a->link, &frame, &byte, NULL, NULL), COLLECT_OK);
	uint64_t until_ns = col_clock_ns() + DEADLINE_NS;
	while (b->arrived_bytes == 0) {
		int result = col_link_poll(&b->link);
		CHECK_EQ(result, b->arrived_bytes > 0);
		CHECK(col_clock_ns() < until_ns);
	}
	CHECK_EQ(b->target[0], 7);
	col_link_close(&a->link);
	while (b->lost_count == 0) {
		(void)col_link_poll(&b->link);
		CHECK(col_clock_ns() < until_ns);
	}
	CHECK_EQ(col_link_poll(&b->link), COLLECT_E_CLOSED);
	CHECK_EQ(b->lost_count, 1);
	side_close(a);
	side_close(b);
}

TEST(a_dialer_adds_streams_to_a_link_that_is_up)
{
	struct side *a;
	struct side *b;
	uint8_t *source = noise(BYTES);
	pair_open(&a, &b, 1);
	exchange(a, b, source, false);
	CHECK_EQ(col_link_streams_set(&b->link, 2), COLLECT_E_CLOSED);
	CHECK_EQ(col_link_streams_set(&a->link, 3), COLLECT_OK);
	await_streams(a, b, 3);
	CHECK_EQ(b->link.options.stream_count, 3);
	memset(b->target, 0, BYTES);
	exchange(a, b, source, false);
	CHECK_EQ(col_link_streams_set(&a->link, 2), COLLECT_OK);
	CHECK_EQ(open_count(a), 3);
	side_close(a);
	side_close(b);
	free(source);
}

TEST(figures_are_plausible)
{
	struct side *a;
	struct side *b;
	struct col_link_figures figures;
	uint8_t *source = noise(BYTES);
	pair_open(&a, &b, 2);
	exchange(a, b, source, false);
	a->now_ns += COL_NS_PER_S;
	col_link_tick(&a->link, DEADLINE_NS);
	col_link_figures_get(&a->link, &figures);
	CHECK(figures.rtt_min_ns > 0 && figures.rtt_min_ns < COL_NS_PER_S);
	CHECK(figures.delivery_bytes_per_s > 1000000);
	CHECK(figures.busy_ns < DEADLINE_NS);
	CHECK(figures.retransmitted_bytes <= 2 * BYTES);
	/* They are this connection's. */
	col_link_close(&a->link);
	col_link_figures_get(&a->link, &figures);
	CHECK_EQ(figures.rtt_min_ns, 0);
	side_close(a);
	side_close(b);
	free(source);
}

TEST(loopback_has_no_pacing_and_no_delay)
{
	struct side *a;
	struct side *b;
	char name[16] = "";
	int is_prompt = 0;
	socklen_t bytes = sizeof(name) - 1;
	pair_open(&a, &b, 1);
	int fd = a->link.streams[0].stream.watch.fd;
	CHECK_EQ(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &bytes), 0);
	CHECK_STR_EQ(name, "reno");
	bytes = sizeof(is_prompt);
	CHECK_EQ(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &is_prompt, &bytes), 0);
	CHECK(is_prompt != 0);
	side_close(a);
	side_close(b);
}

/* A second with frames waiting, in which so many bytes went, and one was lost. */
static void look(struct side *side, uint64_t bytes)
{
	side->link.figures.retransmitted_bytes++;
	for (int i = 0; i < 20; i++) {
		side->now_ns += 50 * COL_NS_PER_MS;
		side->link.heard_ns = side->now_ns;
		side->link.sent_bytes += bytes / 20;
		col_link_tick(&side->link, DEADLINE_NS);
	}
}

TEST(a_busy_link_that_nothing_holds_back_tries_no_more_streams)
{
	struct side *a;
	struct side *b;
	uint8_t *source = noise(BYTES);
	pair_open(&a, &b, 1);
	a->link.options.stream_max = 4;
	send_all(a, source);
	a->link.figures.rtt_min_ns = 50 * COL_NS_PER_MS;
	a->link.measured_ns = UINT64_MAX / 2;
	for (int i = 0; i < 5; i++) {
		a->link.figures.retransmitted_bytes--;
		look(a, 100000);
	}
	CHECK_EQ(a->link.options.stream_count, 1);
	/* Half of the time without a window to send into. */
	for (int i = 0; i < 3; i++) {
		a->link.figures.receiver_limited_ns += COL_NS_PER_S / 2;
		a->link.figures.retransmitted_bytes--;
		look(a, 100000);
	}
	CHECK_EQ(a->link.options.stream_count, 2);
	side_close(a);
	side_close(b);
	free(source);
}

TEST(a_busy_link_on_a_long_path_tries_more_streams_while_they_bring_more)
{
	struct side *a;
	struct side *b;
	uint8_t *source = noise(BYTES);
	pair_open(&a, &b, 1);
	a->link.options.stream_max = 4;
	send_all(a, source); /* far more than the window: frames wait from here on */
	/* On a short path nothing is tried. */
	for (int i = 0; i < 3; i++)
		look(a, 100000);
	CHECK_EQ(a->link.options.stream_count, 1);
	a->link.figures.rtt_min_ns = 50 * COL_NS_PER_MS;
	a->link.measured_ns = UINT64_MAX / 2; /* the figures stay */
	/* A look is a tick longer than the seconds here: the first second decides nothing. */
	look(a, 100000);
	look(a, 100000);
	CHECK_EQ(a->link.options.stream_count, 2);
	look(a, 150000);
	look(a, 150000);
	look(a, 150000);
	CHECK_EQ(a->link.options.stream_count, 3);
	for (int i = 0; i < 50; i++)
		look(a, 150000);
	CHECK_EQ(a->link.options.stream_count, 3); /* the last one brought nothing */
	for (int i = 0; i < 30; i++)
		look(a, 150000);
	CHECK_EQ(a->link.options.stream_count, 4);
	for (int i = 0; i < 100; i++)
		look(a, 150000 + 50000 * (uint64_t)i);
	CHECK_EQ(a->link.options.stream_count, 4);
	CHECK_EQ(a->lost_count, 0);
	side_close(a);
	side_close(b);
	free(source);
}
