/* Two links joined by an in-memory stream: many frames in one write, and how far credit goes. */
#include "transport/link.h"

#include "base/alloc.h"
#include "sides.h"

static const struct col_stream_ops *counted_ops;
static uint32_t write_count;

static ssize_t counted_read(struct col_stream *stream, const struct iovec *parts, int part_count)
{
	return counted_ops->read(stream, parts, part_count);
}

static ssize_t counted_write(struct col_stream *stream, const struct iovec *parts, int part_count)
{
	write_count++;
	return counted_ops->write(stream, parts, part_count);
}

static void counted_want_write(struct col_stream *stream, bool wants)
{
	counted_ops->want_write(stream, wants);
}

static void counted_close(struct col_stream *stream)
{
	counted_ops->close(stream);
}

static const struct col_stream_ops counting_ops = {
	.read = counted_read,
	.write = counted_write,
	.want_write = counted_want_write,
	.close = counted_close,
};

static void count_writes(struct side *side)
{
	counted_ops = side->link.streams[0].stream.ops;
	side->link.streams[0].stream.ops = &counting_ops;
	write_count = 0;
}

static void send_small(struct side *side, const uint8_t *source, uint32_t count, uint32_t bytes)
{
	for (uint32_t i = 0; i < count; i++) {
		struct col_frame frame = {.kind = COL_FRAME_DATA, .op = 1, .attempt = 1,
		                          .offset = i * bytes, .length = bytes};
		CHECK_EQ(col_link_send(&side->link, &frame, source + i * bytes, NULL, side),
		         COLLECT_OK);
	}
}

TEST(frames_of_a_corked_link_leave_together_in_their_order)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	uint8_t *source = noise(6400);
	pair_open(&a, &b, 1, 1 << 20);
	count_writes(a);
	col_link_cork(&a->link);
	col_link_cork(&a->link);
	send_small(a, source, 64, 100);
	col_link_uncork(&a->link);
	CHECK_EQ(write_count, 0);
	col_link_uncork(&a->link);
	CHECK_EQ(write_count, 2); /* 32 frames each */
	CHECK_EQ(a->sent_count, 64);
	pump(a, b, 1, &prng);
	CHECK_EQ(b->arrived_count, 64);
	CHECK_EQ(b->backward_count, 0);
	CHECK_BYTES_EQ(b->target, source, 6400);
	side_close(a);
	side_close(b);
	free(source);
}

TEST(a_batch_that_is_cut_anywhere_goes_on_in_order)
{
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	uint8_t *source = noise(6400);
	for (size_t capacity = 1; capacity < 8000; capacity += capacity < 300 ? 1 : 777) {
		struct side *a;
		struct side *b;
		pair_open(&a, &b, 1, capacity);
		col_link_cork(&a->link);
		send_small(a, source, 64, 100);
		col_link_uncork(&a->link);
		pump(a, b, 1, &prng);
		CHECK_EQ(b->arrived_count, 64);
		CHECK_EQ(b->backward_count, 0);
		CHECK_EQ(a->sent_count, 64);
		CHECK_BYTES_EQ(b->target, source, 6400);
		side_close(a);
		side_close(b);
	}
	free(source);
}

TEST(a_purge_of_a_batch_keeps_what_has_begun_and_drops_the_rest)
{
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	for (size_t capacity = 1; capacity < 6000; capacity += 61) {
		struct side *a;
		struct side *b;
		uint8_t *source = noise(6400);
		pair_open(&a, &b, 1, capacity);
		col_link_cork(&a->link);
		send_small(a, source, 64, 100);
		col_link_uncork(&a->link);
		uint32_t begun = (uint32_t)((capacity + 163) / 164);
		col_link_purge(&a->link, 0);
		memset(source, 0, 6400);
		free(source);
		pump(a, b, 1, &prng);
		source = noise(6400);
		CHECK_EQ(b->arrived_count, begun);
		CHECK_BYTES_EQ(b->target, source, begun * 100);
		CHECK_EQ(a->link.charged, begun * 164);
		CHECK_EQ(a->lost_count + b->lost_count, 0);
		side_close(a);
		side_close(b);
		free(source);
	}
}

static void purge_when_sent(void *user, struct col_link *link, const struct col_frame *frame,
                            void *token)
{
	side_sent(user, link, frame, token);
	col_link_purge(link, 0);
}

TEST(a_purge_from_sent_ends_the_telling_and_loses_no_byte)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	uint8_t *source = noise(6400);
	pair_open(&a, &b, 1, 164 * 10 + 7);
	struct col_link_events events = side_events;
	events.sent = purge_when_sent;
	a->link.options.events = &events;
	col_link_cork(&a->link);
	send_small(a, source, 64, 100);
	col_link_uncork(&a->link);
	CHECK_EQ(a->sent_count, 1);
	free(source);
	pump(a, b, 1, &prng);
	CHECK_EQ(b->arrived_count, 11);
	CHECK_EQ(a->sent_count, 1);
	CHECK_EQ(a->lost_count + b->lost_count, 0);
	side_close(a);
	side_close(b);
}

TEST(frames_without_payload_need_no_memory)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	struct col_frame frame = {.kind = COL_FRAME_DATA, .op = 1, .attempt = 1};
	col_prng_init(&prng, test_seed());
	pair_open(&a, &b, 1, 10);
	for (int round = 0; round < 3; round++) {
		col_alloc_fail_at(1);
		for (uint32_t i = 0; i < COL_LINK_SPARES; i++)
			CHECK_EQ(col_link_send(&a->link, &frame, NULL, NULL, a), COLLECT_OK);
		col_alloc_fail_at(0);
		CHECK_EQ(col_link_send(&a->link, &frame, NULL, NULL, a), COLLECT_OK);
		pump(a, b, 1, &prng);
		CHECK_EQ(a->link.spares_used, 0);
	}
	CHECK_EQ(b->arrived_count, 3 * (COL_LINK_SPARES + 1));
	side_close(a);
	side_close(b);
}

/* ---- credit ---- */

TEST(a_peer_that_sends_more_than_it_was_granted_is_lost)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	uint8_t *source = noise(2 * WINDOW);
	pair_open(&a, &b, 1, 1 << 20);
	b->consumes = false;
	a->link.peer_window_bytes = INT32_MAX; /* it does not care */
	send_range(a, source, 2 * WINDOW);
	pump(a, b, 1, &prng);
	CHECK_EQ(b->lost_count, 1);
	CHECK_EQ(b->loss, COLLECT_LOSS_GARBAGE);
	CHECK_STR_EQ(b->detail, "more payload than was granted");
	CHECK_EQ(b->arrived_bytes, WINDOW / (CHUNK + COL_FRAME_HEADER_BYTES) * CHUNK);
	side_close(a);
	side_close(b);
	free(source);
}

/* Consumes late and at random, purges, reconnects: an honest peer never breaks its window. */
TEST(an_honest_peer_is_never_taken_for_one_that_ignores_credit)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	uint8_t *source = noise(100000);
	pair_open(&a, &b, 2, 3000);
	a->consumes = false;
	b->consumes = false;
	for (int round = 0; round < 3000; round++) {
		struct side *side = col_prng_below(&prng, 2) == 0 ? a : b;
		uint64_t dice = col_prng_below(&prng, 100);
		if (dice < 30)
			send_range(side, source, 1 + col_prng_below(&prng, 20000));
		else if (dice < 35)
			col_link_purge(&side->link, 0);
		else if (dice < 37) {
			col_link_close(&a->link);
			col_link_close(&b->link);
			for (uint32_t i = 0; i < 2; i++) {
				struct col_stream one;
				struct col_stream two;
				CHECK_EQ(col_stream_memory_pair(&one, &two, 3000), COLLECT_OK);
				CHECK_EQ(col_link_attach(&a->link, i, &one), COLLECT_OK);
				CHECK_EQ(col_link_attach(&b->link, i, &two), COLLECT_OK);
			}
		} else if (dice < 60)
			/* Perhaps of an earlier connection, or more often than anything came. */
			col_link_consume(&side->link, (uint32_t)col_prng_below(&prng, CHUNK));
		else
			col_stream_memory_pump(
				&side->link.streams[col_prng_below(&prng, 2)].stream);
		CHECK_EQ(a->lost_count + b->lost_count, 0);
		CHECK(a->link.taken - a->link.advertised <= WINDOW);
		CHECK(b->link.taken - b->link.advertised <= WINDOW);
	}
	side_close(a);
	side_close(b);
	free(source);
}
