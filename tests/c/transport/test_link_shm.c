/* Two links joined by an in-memory stream, with shared memory beside it. */
#include "transport/link.h"

#include <errno.h>
#include <unistd.h>

#include "sides.h"

#define RING COL_RING_BYTES_MIN

static struct col_rings_options options_draw(void)
{
	static uint64_t count;
	return (struct col_rings_options){
		.maker = 1, .nonce = ((uint64_t)getpid() << 20) + ++count, .ring_bytes = RING};
}

/* Rings and sockets, until nothing moves. */
static void pump_all(struct side *a, struct side *b, struct col_prng *prng)
{
	bool has_moved = true;
	while (has_moved) {
		pump(a, b, 1, prng);
		has_moved = col_link_shm_poll(&a->link) > 0;
		has_moved |= col_link_shm_poll(&b->link) > 0;
	}
}

static void shm_wanted_open(struct side **a, struct side **b, size_t capacity)
{
	pair_open(a, b, 1, capacity);
	(*a)->link.wants_shm = true;
	(*b)->link.wants_shm = true;
}

static void shared_open(struct side **a, struct side **b, struct col_prng *prng)
{
	struct col_rings_options options = options_draw();
	col_prng_init(prng, test_seed());
	shm_wanted_open(a, b, 65536);
	CHECK_EQ(col_link_shm_make(&(*a)->link, &options), COLLECT_OK);
	CHECK(!col__link_has_shm(&(*a)->link));
	CHECK_EQ(col_link_shm_attach(&(*b)->link, &options), COLLECT_OK);
	CHECK(col__link_has_shm(&(*b)->link));
	CHECK_EQ(col_link_shm_poll(&(*a)->link), 1);
	CHECK(col__link_has_shm(&(*a)->link));
}

static void shared_close(struct side *a, struct side *b)
{
	side_close(a);
	side_close(b);
}

TEST(frames_take_shared_memory_when_it_is_open)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	uint8_t *source = noise(1 << 20);
	shared_open(&a, &b, &prng);
	uint64_t before = a->link.sent_bytes + a->link.received_bytes - a->link.shm_bytes;
	/* More than the ring and the window hold: both ends wait for each other. */
	for (uint32_t round = 0; round < 3; round++) {
		send_range(a, source, 1 << 20);
		send_range(b, source, 1 << 19);
		pump_all(a, b, &prng);
		CHECK_EQ(b->arrived_bytes, (round + 1) << 20);
		CHECK_EQ(a->arrived_bytes, (round + 1) << 19);
		CHECK_BYTES_EQ(b->target, source, 1 << 20);
		CHECK_BYTES_EQ(a->target, source, 1 << 19);
	}
	CHECK(a->link.shm_bytes > 4 << 20);
	CHECK_EQ(a->link.sent_bytes + a->link.received_bytes,
	         b->link.sent_bytes + b->link.received_bytes);
	CHECK_EQ(a->link.sent_bytes + a->link.received_bytes - a->link.shm_bytes, before);
	shared_close(a, b);
	free(source);
}

TEST(what_a_socket_had_begun_it_ends)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	struct col_rings_options options = options_draw();
	uint8_t *source = noise(1 << 17);
	col_prng_init(&prng, test_seed());
	shm_wanted_open(&a, &b, 1000);
	send_range(a, source, 1 << 17); /* the first frame is half in the pipe */
	CHECK_EQ(col_link_shm_make(&a->link, &options), COLLECT_OK);
	CHECK_EQ(col_link_shm_attach(&b->link, &options), COLLECT_OK);
	CHECK_EQ(col_link_shm_poll(&a->link), 1);
	pump_all(a, b, &prng);
	CHECK_EQ(b->arrived_bytes, 1 << 17);
	CHECK_BYTES_EQ(b->target, source, 1 << 17);
	CHECK_EQ(a->sent_count, (1 << 17) / CHUNK);
	CHECK(a->link.shm_bytes > 1 << 16);
	shared_close(a, b);
	free(source);
}

TEST(heartbeats_go_by_socket_and_wake_who_sleeps)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	uint8_t *source = noise(CHUNK);
	shared_open(&a, &b, &prng);
	uint64_t heard_bytes = b->link.received_bytes;
	send_range(a, source, CHUNK);
	CHECK(!col_stream_memory_pump(&b->link.streams[0].stream));
	CHECK_EQ(col_link_shm_poll(&b->link), 1);

	col_link_shm_arm(&b->link);
	CHECK_EQ(col_link_shm_poll(&b->link), 0);
	send_range(a, source, CHUNK);
	CHECK(col_stream_memory_pump(&b->link.streams[0].stream));
	CHECK_EQ(b->arrived_bytes, CHUNK); /* it was only woken */
	CHECK_EQ(col_link_shm_poll(&b->link), 1);
	CHECK_EQ(b->arrived_bytes, 2 * CHUNK);
	CHECK_EQ(b->link.received_bytes - heard_bytes, 2 * CHUNK + 3 * COL_FRAME_HEADER_BYTES);

	/* However much goes through shared memory, who may sleep hears of us in time. */
	a->now_ns += COL_NS_PER_S / 2;
	send_range(a, source, CHUNK);
	col_link_tick(&a->link, COL_NS_PER_S / 4);
	CHECK(col_stream_memory_pump(&b->link.streams[0].stream));
	shared_close(a, b);
	free(source);
}

TEST(who_waits_for_room_is_woken)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	uint8_t *source = noise(2 * RING);
	shared_open(&a, &b, &prng);
	a->link.peer_window_bytes = UINT32_MAX;
	b->link.options.window_bytes = UINT32_MAX;
	send_range(a, source, 2 * RING);
	CHECK(a->link.streams[COL_LINK_SHM].is_blocked);
	col_link_shm_arm(&a->link);
	CHECK_EQ(col_link_shm_poll(&a->link), 0);
	CHECK_EQ(col_link_shm_poll(&b->link), 1);
	CHECK(col_stream_memory_pump(&a->link.streams[0].stream));
	CHECK_EQ(col_link_shm_poll(&a->link), 1);
	pump_all(a, b, &prng);
	CHECK_EQ(b->arrived_bytes, 2 * RING);
	CHECK_BYTES_EQ(b->target, source, 2 * RING);
	shared_close(a, b);
	free(source);
}

TEST(a_purge_lets_go_of_memory_that_is_half_in_the_ring)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	uint8_t *source = noise(2 * RING);
	shared_open(&a, &b, &prng);
	a->link.peer_window_bytes = UINT32_MAX;
	b->link.options.window_bytes = UINT32_MAX;
	send_range(a, source, 2 * RING);
	CHECK(a->link.streams[COL_LINK_SHM].sending != NULL);
	col_link_purge(&a->link, 0);
	free(source); /* a read of it would be seen by the sanitizer */
	pump_all(a, b, &prng);
	uint64_t before = b->arrived_bytes;
	CHECK(before < 2 * RING);
	uint8_t *again = noise(CHUNK);
	send_range(a, again, CHUNK);
	pump_all(a, b, &prng);
	CHECK_EQ(b->arrived_bytes, before + CHUNK);
	CHECK_EQ(a->lost_count + b->lost_count, 0);
	shared_close(a, b);
	free(again);
}

TEST(what_was_written_before_the_end_is_read)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	uint8_t *source = noise(4 * CHUNK);
	shared_open(&a, &b, &prng);
	send_range(a, source, 4 * CHUNK);
	side_close(a);
	CHECK(col_stream_memory_pump(&b->link.streams[0].stream));
	CHECK_EQ(b->arrived_bytes, 4 * CHUNK);
	CHECK_EQ(b->lost_count, 1);
	CHECK_EQ(b->loss, COLLECT_LOSS_RESET);
	CHECK_EQ(col_link_shm_poll(&b->link), 0);
	side_close(b);
	free(source);
}

TEST(a_refusal_leaves_the_sockets)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	struct col_rings_options options = options_draw();
	uint8_t *source = noise(CHUNK);
	col_prng_init(&prng, test_seed());
	shm_wanted_open(&a, &b, 65536);
	CHECK_EQ(col_link_shm_attach(&b->link, &options), COLLECT_E_SYSTEM);
	CHECK_EQ(errno, ENOENT);
	CHECK_EQ(col_link_shm_make(&a->link, &options), COLLECT_OK);
	struct col_rings_options second = options_draw();
	CHECK_EQ(col_link_shm_make(&a->link, &second), COLLECT_E_CLOSED);
	col_link_shm_refused(&a->link);
	send_range(a, source, CHUNK);
	pump_all(a, b, &prng);
	CHECK_EQ(b->arrived_bytes, CHUNK);
	CHECK_EQ(a->link.shm_bytes + b->link.shm_bytes, 0);
	/* Nor does a late one close what is open. */
	CHECK_EQ(col_link_shm_make(&a->link, &second), COLLECT_OK);
	CHECK_EQ(col_link_shm_attach(&b->link, &second), COLLECT_OK);
	CHECK_EQ(col_link_shm_poll(&a->link), 1);
	col_link_shm_refused(&a->link);
	CHECK(col__link_has_shm(&a->link));
	CHECK_EQ(a->lost_count + b->lost_count, 0);
	shared_close(a, b);
	free(source);
}

TEST(who_does_not_want_it_writes_to_sockets_and_still_reads)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	uint8_t *source = noise(CHUNK);
	shared_open(&a, &b, &prng);
	a->link.wants_shm = false;
	uint64_t before = a->link.shm_bytes;
	send_range(a, source, CHUNK);
	send_range(b, source, CHUNK);
	pump_all(a, b, &prng);
	CHECK_EQ(b->arrived_bytes, CHUNK);
	CHECK_EQ(a->arrived_bytes, CHUNK);
	CHECK_EQ(a->link.shm_bytes - before, CHUNK + COL_FRAME_HEADER_BYTES);
	shared_close(a, b);
	free(source);
}

TEST(garbage_in_the_ring_loses_the_link)
{
	struct side *a;
	struct side *b;
	struct col_prng prng;
	for (uint32_t greets = 0; greets < 2; greets++) {
		struct col_stream hostile = {0};
		uint8_t bytes[COL_FRAME_HEADER_BYTES];
		memset(bytes, 'x', sizeof(bytes));
		col_prng_init(&prng, test_seed());
		if (greets == 0) {
			/* Instead of a greeting. */
			struct col_rings_options options = options_draw();
			shm_wanted_open(&a, &b, 65536);
			CHECK_EQ(col_link_shm_make(&a->link, &options), COLLECT_OK);
			CHECK_EQ(col_stream_shm_attach(&hostile, &options), COLLECT_OK);
		} else {
			shared_open(&a, &b, &prng);
			hostile = b->link.streams[COL_LINK_SHM].stream;
		}
		struct iovec part = {bytes, sizeof(bytes)};
		CHECK_EQ(hostile.ops->write(&hostile, &part, 1), (ssize_t)sizeof(bytes));
		CHECK_EQ(col_link_shm_poll(&a->link), COLLECT_E_CLOSED);
		CHECK_EQ(a->loss, COLLECT_LOSS_GARBAGE);
		if (greets == 0)
			hostile.ops->close(&hostile);
		shared_close(a, b);
	}
}
