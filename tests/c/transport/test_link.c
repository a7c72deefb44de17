/* Two links joined by an in-memory stream: queueing, credit, purging, garbage. */
#include "transport/link.h"

#include "base/alloc.h"
#include "sides.h"

TEST(frames_arrive_whole_over_any_streams_and_pipe_sizes)
{
	static const size_t capacities[] = {1, 7, 64, 1000, 65536};
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	uint8_t *source = noise(200000);
	for (uint32_t streams = 1; streams <= 4; streams++) {
		for (size_t c = streams > 2 ? 2 : 0; c < 5; c++) {
			struct side *a;
			struct side *b;
			pair_open(&a, &b, streams, capacities[c]);
			send_range(a, source, 200000);
			pump(a, b, streams, &prng);
			CHECK_EQ(b->arrived_bytes, 200000);
			CHECK_EQ(a->sent_count, (200000 + CHUNK - 1) / CHUNK);
			CHECK_BYTES_EQ(b->target, source, 200000);
			side_close(a);
			side_close(b);
		}
	}
	free(source);
}

TEST(a_sender_never_has_more_unconsumed_than_the_window)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	uint8_t *source = noise(500000);
	pair_open(&a, &b, 2, 1 << 20);
	b->consumes = false;
	send_range(a, source, 500000);
	pump(a, b, 2, &prng);
	CHECK(b->arrived_bytes <= WINDOW);
	CHECK(b->arrived_bytes + 2 * CHUNK > WINDOW);
	b->consumes = true;
	for (uint64_t i = b->arrived_bytes; i > 0; i -= CHUNK)
		col_link_consume(&b->link, CHUNK);
	pump(a, b, 2, &prng);
	CHECK_EQ(b->arrived_bytes, 500000);
	side_close(a);
	side_close(b);
	free(source);
}

TEST(a_purge_lets_go_of_the_callers_memory_and_keeps_the_stream_whole)
{
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	for (size_t capacity = 1; capacity < 9000; capacity = capacity * 2 + 1) {
		struct side *a;
		struct side *b;
		uint8_t *source = noise(20000);
		pair_open(&a, &b, 1, capacity);
		send_range(a, source, 20000);
		col_link_purge(&a->link, 0);
		free(source); /* a read of it would be seen by the sanitizer */
		pump(a, b, 1, &prng);
		uint64_t before = b->arrived_bytes;
		uint8_t *again = noise(CHUNK);
		send_range(a, again, CHUNK);
		pump(a, b, 1, &prng);
		CHECK_EQ(b->arrived_bytes, before + CHUNK);
		CHECK_BYTES_EQ(b->target, again, CHUNK);
		CHECK_EQ(a->lost_count + b->lost_count, 0);
		free(again);
		side_close(a);
		side_close(b);
	}
}

static void send_as(struct side *side, uint32_t group, const uint8_t *source, size_t bytes)
{
	for (size_t offset = 0; offset < bytes; offset += CHUNK) {
		struct col_frame frame = {.kind = COL_FRAME_DATA, .group = group, .op = 1, .attempt = 1,
		                          .offset = offset, .length = CHUNK};
		CHECK_EQ(col_link_send(&side->link, &frame, source + offset, NULL, side), COLLECT_OK);
	}
}

TEST(frames_of_sub_groups_need_no_credit_and_are_purged_by_themselves)
{
	enum { BYTES = 64 * CHUNK };
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	for (size_t capacity = 1; capacity < 9000; capacity = capacity * 2 + 1) {
		struct side *a;
		struct side *b;
		uint8_t *source = noise(BYTES);
		uint8_t *other = malloc(BYTES);
		memset(other, 0x55, BYTES);
		pair_open(&a, &b, 1, capacity);
		b->consumes = false;
		send_as(a, 5, source, BYTES);
		pump(a, b, 1, &prng);
		CHECK_EQ(b->arrived_bytes, BYTES);
		CHECK_EQ(a->link.charged, 0);
		/* What the stream has taken of 5 comes, and no more. */
		b->consumes = true;
		send_as(a, 5, other, BYTES);
		send_as(a, 0, source, 4 * CHUNK);
		col_link_purge(&a->link, 5);
		free(other);
		pump(a, b, 1, &prng);
		CHECK(b->arrived_bytes <= BYTES + 4 * CHUNK + capacity + CHUNK);
		CHECK_BYTES_EQ(b->target, source, BYTES);
		send_as(a, 5, source, BYTES);
		send_as(a, 0, source, 2 * CHUNK);
		col_link_purge(&a->link, 0);
		uint64_t before = b->arrived_bytes;
		pump(a, b, 1, &prng);
		CHECK(b->arrived_bytes >= before + BYTES);
		CHECK_EQ(a->lost_count + b->lost_count, 0);
		side_close(a);
		side_close(b);
		free(source);
	}
}

TEST(a_purge_in_the_middle_of_a_frame_discards_its_rest)
{
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	struct side *a;
	struct side *b;
	uint8_t *source = noise(CHUNK);
	pair_open(&a, &b, 1, 1000);
	send_range(a, source, CHUNK);
	CHECK(col_stream_memory_pump(&b->link.streams[0].stream));
	CHECK(b->link.streams[0].has_frame);
	col_link_purge(&b->link, 0);
	memset(b->target, 0, sizeof(b->target));
	pump(a, b, 1, &prng);
	static const uint8_t zero[CHUNK];
	CHECK_BYTES_EQ(b->target, zero, CHUNK);
	CHECK_EQ(b->arrived_count, 1);
	side_close(a);
	side_close(b);
	free(source);
}

TEST(what_was_purged_has_told_nothing_about_credit)
{
	enum { FRAMES = 4 };
	struct side *a;
	struct side *b;
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	uint8_t *source = noise(CHUNK * FRAMES);
	pair_open(&a, &b, 1, FRAMES * (CHUNK + COL_FRAME_HEADER_BYTES));
	b->consumes = false;
	send_range(a, source, CHUNK);
	while (col_stream_memory_pump(&b->link.streams[0].stream))
		;
	/* Fills the pipe to the last byte; of the next frame not a byte goes. */
	send_range(b, source, CHUNK * FRAMES);
	col_link_consume(&b->link, CHUNK);
	send_range(b, source, CHUNK);
	CHECK_EQ(b->link.advertised, 0);
	col_link_purge(&b->link, 0);
	pump(a, b, 1, &prng);
	CHECK_EQ(a->link.granted, 0);
	send_range(b, source, CHUNK);
	pump(a, b, 1, &prng);
	CHECK_EQ(b->link.advertised, b->link.consumed);
	CHECK_EQ(a->link.granted, a->link.charged);
	side_close(a);
	side_close(b);
	free(source);
}

TEST(what_came_over_an_earlier_connection_gives_no_credit_on_the_next)
{
	struct side *a;
	struct side *b;
	struct col_stream one;
	struct col_stream two;
	uint8_t *source = noise(CHUNK);
	pair_open(&a, &b, 1, 1 << 20);
	b->consumes = false;
	send_range(a, source, CHUNK);
	col_stream_memory_pump(&b->link.streams[0].stream);
	col_link_close(&a->link);
	col_link_close(&b->link);
	CHECK_EQ(col_stream_memory_pair(&one, &two, 1 << 20), COLLECT_OK);
	CHECK_EQ(col_link_attach(&a->link, 0, &one), COLLECT_OK);
	CHECK_EQ(col_link_attach(&b->link, 0, &two), COLLECT_OK);
	col_link_consume(&b->link, CHUNK);
	CHECK_EQ(b->link.consumed, 0);
	send_range(a, source, CHUNK);
	col_stream_memory_pump(&b->link.streams[0].stream);
	col_link_consume(&b->link, CHUNK);
	CHECK_EQ(b->link.consumed, a->link.charged);
	side_close(a);
	side_close(b);
	free(source);
}

TEST(a_link_without_memory_for_a_frame_is_lost_and_tells_so_once)
{
	struct side *a;
	struct side *b;
	uint8_t *source = noise(CHUNK * 2);
	struct col_frame frame = {.kind = COL_FRAME_DATA, .op = 1, .attempt = 1, .length = CHUNK};
	pair_open(&a, &b, 1, 1000);
	col_alloc_fail_at(1);
	CHECK_EQ(col_link_send(&a->link, &frame, source, NULL, NULL), COLLECT_E_MEMORY);
	CHECK_EQ(a->lost_count, 1);
	CHECK_STR_EQ(a->detail, "out of memory");
	CHECK_EQ(col_link_send(&a->link, &frame, source, NULL, NULL), COLLECT_E_CLOSED);
	side_close(a);
	side_close(b);
	free(source);
}

TEST(a_loss_in_the_middle_of_a_frame_needs_no_memory_and_is_told_once)
{
	struct side *a;
	struct side *b;
	uint8_t *source = noise(CHUNK);
	pair_open(&a, &b, 1, 1000);
	send_range(a, source, CHUNK);
	col_link_close(&b->link);
	col_alloc_fail_at(1);
	col_stream_memory_pump(&a->link.streams[0].stream);
	col_alloc_fail_at(0);
	CHECK_EQ(a->lost_count, 1);
	CHECK_EQ(a->link.state, COL_LINK_LOST);
	CHECK_STR_EQ(a->detail, "write failed: Broken pipe");
	side_close(a);
	side_close(b);
	free(source);
}

TEST(garbage_loses_the_link_with_the_reason)
{
	struct side *a;
	struct side *b;
	pair_open(&a, &b, 1, 4096);
	uint8_t bytes[128];
	memset(bytes, 0x5a, sizeof(bytes));
	struct iovec part = {bytes, sizeof(bytes)};
	struct col_stream *stream = &a->link.streams[0].stream;
	CHECK_EQ(stream->ops->write(stream, &part, 1), 128);
	col_stream_memory_pump(&b->link.streams[0].stream);
	CHECK_EQ(b->lost_count, 1);
	CHECK_EQ(b->loss, COLLECT_LOSS_GARBAGE);
	CHECK_STR_EQ(b->detail, col_frame_reason_text(COL_FRAME_BAD_MAGIC));
	side_close(a);
	side_close(b);
}

TEST(a_frame_that_is_refused_loses_the_link)
{
	struct side *a;
	struct side *b;
	pair_open(&a, &b, 1, 4096);
	uint8_t byte = 1;
	struct col_frame frame = {
		.kind = COL_FRAME_DATA, .op = 1, .attempt = 1, .offset = 1 << 30, .length = 1};
	CHECK_EQ(col_link_send(&a->link, &frame, &byte, NULL, NULL), COLLECT_OK);
	col_stream_memory_pump(&b->link.streams[0].stream);
	CHECK_EQ(b->loss, COLLECT_LOSS_GARBAGE);
	CHECK_STR_EQ(b->detail, "beyond the end");
	CHECK_EQ(col_link_send(&b->link, &frame, &byte, NULL, NULL), COLLECT_E_CLOSED);
	side_close(a);
	side_close(b);
}

TEST(silence_is_noticed_and_heartbeats_prevent_it)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	pair_open(&a, &b, 1, 4096);
	for (int i = 0; i < 100; i++) {
		a->now_ns += 100 * COL_NS_PER_MS;
		b->now_ns = a->now_ns;
		col_link_tick(&a->link, 200 * COL_NS_PER_MS);
		col_link_tick(&b->link, 200 * COL_NS_PER_MS);
		pump(a, b, 1, &prng);
	}
	CHECK_EQ(a->lost_count + b->lost_count, 0);
	for (int i = 0; i < 12; i++) {
		b->now_ns += 100 * COL_NS_PER_MS;
		col_link_tick(&b->link, 200 * COL_NS_PER_MS);
	}
	CHECK_EQ(b->loss, COLLECT_LOSS_SILENT);
	side_close(a);
	side_close(b);
}

TEST(an_own_stop_is_not_taken_for_the_others_silence)
{
	struct side *a;
	struct side *b;
	pair_open(&a, &b, 1, 4096);
	b->now_ns += 5 * COL_NS_PER_S;
	col_link_forgive(&b->link, 5 * COL_NS_PER_S);
	col_link_tick(&b->link, 200 * COL_NS_PER_MS);
	CHECK_EQ(b->lost_count, 0);
	side_close(a);
	side_close(b);
}

TEST(the_end_of_a_stream_loses_the_link_once)
{
	struct side *a;
	struct side *b;
	pair_open(&a, &b, 2, 4096);
	col_link_close(&a->link);
	col_stream_memory_pump(&b->link.streams[0].stream);
	col_stream_memory_pump(&b->link.streams[1].stream);
	CHECK_EQ(b->lost_count, 1);
	CHECK_EQ(b->loss, COLLECT_LOSS_RESET);
	side_close(a);
	side_close(b);
}
