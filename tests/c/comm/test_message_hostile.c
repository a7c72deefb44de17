/*
 * Messages with one that speaks the protocol by hand: every frame out of its place loses the link
 * as garbage, nothing is written outside a posted target, and what is held is bounded.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/prng.h"
#include "comm/hub.h"
#include "comm/message.h"

#define SOON_NS (20 * COL_NS_PER_S)

/* A hub with so many streams, all of them accepted. */
static void begin(struct hub *hub, uint16_t streams)
{
	hub_open(hub, streams, 0);
	for (uint16_t i = 0; i < streams; i++) {
		int fd = hub_accept(hub);
		int on = 1;
		CHECK_EQ(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
	}
	world_await(&hub->world, 0, COLLECT_EVENT_LINK_UP);
}

static void frame_say(struct hub *hub, uint32_t stream, struct col_frame frame,
                      const void *payload)
{
	CHECK(frame_put(hub->fds[stream], &frame));
	if (frame.length > 0)
		CHECK(put(hub->fds[stream], payload, frame.length));
}

/* The next frame of a message, with its payload (at most 1 MiB). */
static struct col_frame message_get(struct hub *hub, void *payload_out)
{
	static uint8_t payload[1 << 20];
	for (;;) {
		uint8_t header[COL_FRAME_HEADER_BYTES];
		struct col_frame frame;
		struct pollfd polled[2] = {{.fd = hub->fds[0], .events = POLLIN},
		                           {.fd = hub->fds[1], .events = POLLIN}};
		CHECK(poll(polled, 2, 20000) > 0);
		int fd = hub->fds[polled[0].revents != 0 ? 0 : 1];
		get(fd, header, sizeof(header));
		CHECK_EQ(col_frame_decode(header, &frame), COL_FRAME_VALID);
		if (frame.length > 0)
			get(fd, payload, frame.length);
		if (payload_out != NULL)
			memcpy(payload_out, payload, frame.length);
		if (frame.kind >= COL_FRAME_OFFER)
			return frame;
	}
}

static collect_op *receive_begin(struct hub *hub, uint64_t tag, void *target, uint64_t bytes)
{
	collect_op *op = NULL;
	CHECK_EQ(collect_comm_receive(hub->world.peers[0].comm, LIAR, tag, target, bytes, 0, &op),
	         COLLECT_OK);
	return op;
}

static collect_op *send_begin(struct hub *hub, uint64_t tag, const void *source, uint64_t bytes)
{
	collect_op *op = NULL;
	CHECK_EQ(collect_comm_send(hub->world.peers[0].comm, LIAR, tag, source, bytes, 0, &op),
	         COLLECT_OK);
	return op;
}

static void finish(collect_op *op, int status)
{
	CHECK_EQ(collect_op_wait(op, SOON_NS), status);
	collect_op_release(&op);
}

static void expect(struct hub *hub, int kind, uint64_t number)
{
	struct col_frame frame = message_get(hub, NULL);
	CHECK_EQ(frame.kind, kind);
	CHECK_EQ(frame.op, number);
}

static struct col_frame offer(uint64_t number, uint16_t slot, uint64_t tag, uint64_t bytes,
                              uint32_t length)
{
	return (struct col_frame){.kind = COL_FRAME_OFFER, .op = number, .lane = slot,
	                          .attempt = tag, .offset = bytes, .length = length,
	                          .digest = 1u << 20};
}

static struct col_frame answer(int kind, uint64_t number, uint16_t slot)
{
	return (struct col_frame){.kind = (uint8_t)kind, .op = number, .lane = slot};
}

static struct col_frame piece(uint64_t number, uint16_t slot, uint64_t offset, uint32_t length)
{
	return (struct col_frame){.kind = COL_FRAME_MESSAGE, .op = number, .lane = slot,
	                          .offset = offset, .length = length};
}

TEST(offers_that_overtake_each_other_are_matched_in_their_order)
{
	struct hub hub;
	uint32_t values[4] = {10, 20, 30, 40};
	uint32_t got[4] = {0};
	collect_op *ops[4];
	begin(&hub, 2);
	for (uint32_t i = 0; i < 4; i++)
		ops[i] = receive_begin(&hub, 1, &got[i], 4);
	frame_say(&hub, 1, offer(3, 2, 1, 4, 4), &values[2]);
	frame_say(&hub, 1, offer(4, 3, 1, 4, 4), &values[3]);
	frame_say(&hub, 1, offer(2, 1, 1, 4, 4), &values[1]);
	CHECK_EQ(collect_op_wait(ops[0], 50 * COL_NS_PER_MS), COLLECT_PENDING);
	frame_say(&hub, 0, offer(1, 0, 1, 4, 4), &values[0]);
	for (uint32_t i = 0; i < 4; i++) {
		finish(ops[i], COLLECT_OK);
		CHECK_EQ(got[i], values[i]);
		expect(&hub, COL_FRAME_TAKEN, i + 1);
	}
	hub_close(&hub);
}

TEST(a_withdrawal_that_overtakes_its_offer_is_kept_for_it)
{
	struct hub hub;
	uint32_t values[2] = {10, 20};
	uint32_t got = 0;
	begin(&hub, 2);
	collect_op *op = receive_begin(&hub, 1, &got, 4);
	frame_say(&hub, 1, answer(COL_FRAME_WITHDRAW, 1, 0), NULL);
	frame_say(&hub, 1, answer(COL_FRAME_WITHDRAW, 1, 0), NULL);
	frame_say(&hub, 1, offer(2, 1, 1, 4, 4), &values[1]);
	CHECK_EQ(collect_op_wait(op, 50 * COL_NS_PER_MS), COLLECT_PENDING);
	frame_say(&hub, 0, offer(1, 0, 1, 4, 4), &values[0]);
	finish(op, COLLECT_OK);
	CHECK_EQ(got, 20);
	expect(&hub, COL_FRAME_DECLINE, 1);
	expect(&hub, COL_FRAME_TAKEN, 2);
	/* Too late for one that is settled. */
	frame_say(&hub, 0, answer(COL_FRAME_WITHDRAW, 1, 0), NULL);
	op = receive_begin(&hub, 1, &got, 4);
	frame_say(&hub, 0, offer(3, 0, 1, 4, 4), &values[0]);
	finish(op, COLLECT_OK);
	CHECK_EQ(got, 10);
	hub_close(&hub);
}

TEST(pieces_may_come_in_any_order)
{
	struct hub hub;
	static uint8_t source[5 * CHUNK + 100];
	static uint8_t target[sizeof(source)];
	begin(&hub, 2);
	for (size_t i = 0; i < sizeof(source); i++)
		source[i] = (uint8_t)(i * 31 + i / 256);
	collect_op *op = receive_begin(&hub, 1, target, sizeof(target));
	frame_say(&hub, 0, offer(1, 7, 1, sizeof(source), 0), NULL);
	struct col_frame fetch = message_get(&hub, NULL);
	CHECK_EQ(fetch.kind, COL_FRAME_FETCH);
	CHECK_EQ(fetch.op, 1);
	CHECK_EQ(fetch.lane, 7);
	CHECK_EQ(fetch.offset, CHUNK);
	static const uint32_t order[] = {5, 2, 0, 4, 1, 3};
	for (uint32_t i = 0; i < 6; i++) {
		uint32_t at = order[i] * CHUNK;
		CHECK_EQ(collect_op_wait(op, 0), COLLECT_PENDING);
		frame_say(&hub, i % 2, piece(1, 7, at, order[i] == 5 ? 100 : CHUNK), source + at);
	}
	finish(op, COLLECT_OK);
	CHECK_BYTES_EQ(target, source, sizeof(source));
	expect(&hub, COL_FRAME_TAKEN, 1);
	hub_close(&hub);
}

TEST(pieces_are_as_the_receiver_wants_them)
{
	struct hub hub;
	static uint8_t source[100000];
	static uint8_t got[100000];
	begin(&hub, 1);
	for (size_t i = 0; i < sizeof(source); i++)
		source[i] = (uint8_t)(i * 31 + i / 256);
	collect_op *op = send_begin(&hub, 6, source, sizeof(source));
	struct col_frame frame = message_get(&hub, NULL);
	CHECK_EQ(frame.kind, COL_FRAME_OFFER);
	CHECK_EQ(frame.op, 1);
	CHECK_EQ(frame.attempt, 6);
	CHECK_EQ(frame.offset, sizeof(source));
	CHECK_EQ(frame.length, 0);
	CHECK_EQ(frame.digest, CHUNK);
	uint16_t slot = frame.lane;
	frame = answer(COL_FRAME_FETCH, 1, slot);
	frame.offset = 300;
	frame_say(&hub, 0, frame, NULL);
	for (size_t i = 0; i < sizeof(source); i += 300) {
		frame = message_get(&hub, got + i);
		CHECK_EQ(frame.kind, COL_FRAME_MESSAGE);
		CHECK_EQ(frame.offset, i);
		CHECK_EQ(frame.length, sizeof(source) - i < 300 ? sizeof(source) - i : 300);
	}
	CHECK_BYTES_EQ(got, source, sizeof(source));
	CHECK_EQ(collect_op_wait(op, 20 * COL_NS_PER_MS), COLLECT_PENDING);
	frame_say(&hub, 0, answer(COL_FRAME_TAKEN, 1, slot), NULL);
	finish(op, COLLECT_OK);
	hub_close(&hub);
}

/* A liar says that it has what it did not let us send: our memory is ours, nothing is read of it,
 * and the link goes on. */
TEST(a_message_that_is_said_to_be_taken_early_is_over)
{
	struct hub hub;
	size_t bytes = 32u << 20;
	uint8_t *source = calloc(1, bytes);
	begin(&hub, 1);
	for (uint32_t i = 1; i <= 4; i++) {
		collect_op *op = send_begin(&hub, 6, source, bytes);
		struct col_frame frame = message_get(&hub, NULL);
		while (frame.kind != COL_FRAME_OFFER)
			frame = message_get(&hub, NULL);
		struct col_frame fetch = answer(COL_FRAME_FETCH, i, frame.lane);
		fetch.offset = CHUNK;
		frame_say(&hub, 0, fetch, NULL);
		(void)message_get(&hub, NULL);
		uint8_t kind = i % 2 == 0 ? COL_FRAME_TAKEN : COL_FRAME_DECLINE;
		frame_say(&hub, 0, answer(kind, i, frame.lane), NULL);
		finish(op, i % 2 == 0 ? COLLECT_OK : COLLECT_E_PEER);
	}
	hub_close(&hub);
	free(source);
}

static void await_garbage(struct hub *hub, const char *reason)
{
	struct collect_event event = world_await(&hub->world, 0, COLLECT_EVENT_LINK_LOST);
	CHECK_EQ(event.loss, COLLECT_LOSS_GARBAGE);
	if (strstr(event.detail, reason) == NULL)
		FAIL("\"%s\" does not say \"%s\"", event.detail, reason);
}

/* What is said after a receive of 10000 bytes is matched with offer 1 in slot 0, and a send of ours
 * of 10000 bytes is offer 1 in slot 0 too. */
TEST(frames_out_of_their_place_are_garbage)
{
	static const uint8_t bytes[CHUNK + 64];
	struct lie {
		struct col_frame frames[2];
		const char *reason;
	} lies[] = {
		{{offer(0, 1, 1, 4, 4)}, "impossible number"},
		{{offer(2, 1024, 1, 4, 4)}, "impossible number"},
		{{offer(2, 1, 1, 5, 4)}, "a part of its payload"},
		{{offer(1, 1, 1, 4, 4)}, "not its turn"},
		{{offer(2, 0, 1, 4, 4)}, "another's slot"},
		{{offer(2 + COL_OFFERS_MAX, 1, 1, 4, 4)}, "not its turn"},
		{{offer(2, 1, 1, 4, 4), offer(2, 2, 1, 4, 4)}, "not its turn"},
		{{offer(3, 1, 1, 4, 4), offer(3, 1, 1, 4, 4)}, "not its turn"},
		{{{.kind = COL_FRAME_OFFER, .op = 2, .lane = 1, .digest = 63}}, "impossible size"},
		{{answer(COL_FRAME_WITHDRAW, 2, 0)}, "another's slot"},
		{{answer(COL_FRAME_WITHDRAW, 2 + COL_OFFERS_MAX, 1)}, "not its turn"},
		{{answer(COL_FRAME_TAKEN, 2, 0)}, "not offered"},
		{{answer(COL_FRAME_DECLINE, 2, 1)}, "not offered"},
		{{answer(COL_FRAME_FETCH, 1, 0)}, "impossible size"},
		{{{.kind = COL_FRAME_FETCH, .op = 1, .offset = CHUNK + 1}}, "impossible size"},
		{{{.kind = COL_FRAME_FETCH, .op = 1, .offset = 64},
		  {.kind = COL_FRAME_FETCH, .op = 1, .offset = 64}}, "fetched twice"},
		{{piece(2, 1, 0, CHUNK)}, "not asked for"},
		{{piece(1, 0, 1, CHUNK)}, "none of its message"},
		{{piece(1, 0, 0, CHUNK - 1)}, "none of its message"},
		{{piece(1, 0, 0, CHUNK + 64)}, "none of its message"},
		{{piece(1, 0, 2 * CHUNK, CHUNK)}, "none of its message"},
		{{piece(1, 0, 3 * CHUNK, 1)}, "none of its message"},
		{{piece(1, 0, UINT64_MAX - CHUNK + 1, CHUNK)}, "none of its message"},
		{{piece(1, 0, 0, CHUNK), piece(1, 0, 0, CHUNK)}, "came twice"},
		{{offer(2, 1, 9, CHUNK, 0), piece(2, 1, 0, CHUNK)}, "not asked for"},
	};
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct hub hub;
		uint8_t target[10000 + 64];
		memset(target, 0xa5, sizeof(target));
		begin(&hub, 1);
		collect_op *receive = receive_begin(&hub, 1, target, 10000);
		collect_op *send = send_begin(&hub, 1, target, 10000);
		CHECK_EQ(message_get(&hub, NULL).kind, COL_FRAME_OFFER);
		frame_say(&hub, 0, offer(1, 0, 1, 10000, 0), NULL);
		CHECK_EQ(message_get(&hub, NULL).kind, COL_FRAME_FETCH);
		for (size_t k = 0; k < 2 && lies[i].frames[k].kind != 0; k++) {
			struct col_frame frame = lies[i].frames[k];
			frame_put(hub.fds[0], &frame);
			if (frame.length > 0)
				put(hub.fds[0], bytes, frame.length);
		}
		await_garbage(&hub, lies[i].reason);
		finish(receive, COLLECT_E_PEER);
		finish(send, COLLECT_E_PEER);
		for (size_t k = 10000; k < sizeof(target); k++)
			CHECK_EQ(target[k], 0xa5);
		hub_close(&hub);
	}
}

/* All slots, with payload: some 256 KiB of it are kept, the rest is fetched when it is wanted. */
TEST(what_nobody_receives_is_bounded)
{
	enum { LAST = COL_OFFERS_MAX - 1 };
	struct hub hub;
	static uint8_t payload[COL_FRAME_OFFER_BYTES_MAX];
	static uint8_t target[COL_FRAME_OFFER_BYTES_MAX];
	uint32_t fetches = 0;
	begin(&hub, 1);
	for (uint16_t i = 0; i < COL_OFFERS_MAX; i++) {
		memset(payload, i, sizeof(payload));
		frame_say(&hub, 0, offer(i + 1u, i, i < LAST ? 1 : 2, sizeof(payload), sizeof(payload)),
		          payload);
	}
	/* When the last is there, all are. */
	collect_op *last = receive_begin(&hub, 2, target, 1);
	finish(last, COLLECT_E_TRUNCATED);
	expect(&hub, COL_FRAME_DECLINE, COL_OFFERS_MAX);
	for (uint16_t i = 0; i < LAST; i++) {
		memset(payload, i, sizeof(payload));
		collect_op *op = receive_begin(&hub, 1, target, sizeof(target));
		struct col_frame frame = message_get(&hub, NULL);
		if (frame.kind == COL_FRAME_FETCH) {
			fetches++;
			frame_say(&hub, 0, piece(i + 1u, i, 0, CHUNK), payload);
			frame_say(&hub, 0, piece(i + 1u, i, CHUNK, CHUNK), payload);
			frame = message_get(&hub, NULL);
		}
		CHECK_EQ(frame.kind, COL_FRAME_TAKEN);
		CHECK_EQ(frame.op, i + 1u);
		finish(op, COLLECT_OK);
		CHECK_BYTES_EQ(target, payload, sizeof(payload));
	}
	CHECK_EQ(fetches, LAST - 32);
	hub_close(&hub);
}

TEST(more_offers_than_slots_are_garbage)
{
	struct hub hub;
	uint8_t byte = 1;
	begin(&hub, 1);
	for (uint32_t i = 0; i <= COL_OFFERS_MAX; i++) {
		struct col_frame frame = offer(i + 1, (uint16_t)(i % COL_OFFERS_MAX), 1, 1, 1);
		frame_put(hub.fds[0], &frame);
		put(hub.fds[0], &byte, 1);
	}
	await_garbage(&hub, "another's slot");
	hub_close(&hub);
}

/* The receive ends when a piece is half here: the rest of it goes nowhere, and the link goes on. */
TEST(a_receive_that_ends_takes_its_memory_back)
{
	struct hub hub;
	static uint8_t payload[CHUNK];
	uint8_t *target = calloc(1, 3 * CHUNK);
	uint32_t got = 0;
	begin(&hub, 1);
	collect_op *op = receive_begin(&hub, 1, target, 3 * CHUNK);
	frame_say(&hub, 0, offer(1, 0, 1, 3 * CHUNK, 0), NULL);
	expect(&hub, COL_FRAME_FETCH, 1);
	struct col_frame frame = piece(1, 0, CHUNK, CHUNK);
	memset(payload, 1, sizeof(payload));
	CHECK(frame_put(hub.fds[0], &frame));
	CHECK(put(hub.fds[0], payload, 1000));
	struct collect_link_info info = {0};
	uint64_t before = 2 * COL_FRAME_HEADER_BYTES + HELLO_BYTES + 1000;
	while (info.received_bytes < before) {
		usleep(1000);
		CHECK_EQ(collect_comm_links(hub.world.peers[0].comm, &info, 1), 1);
	}
	CHECK_EQ(collect_op_cancel(op), COLLECT_OK);
	finish(op, COLLECT_E_ABORTED);
	free(target);
	expect(&hub, COL_FRAME_DECLINE, 1);
	CHECK(put(hub.fds[0], payload, CHUNK - 1000));
	frame_say(&hub, 0, piece(1, 0, 0, CHUNK), payload);
	op = receive_begin(&hub, 1, &got, 4);
	frame_say(&hub, 0, offer(2, 0, 1, 4, 4), payload);
	finish(op, COLLECT_OK);
	CHECK_EQ(got, 0x01010101);
	hub_close(&hub);
}

/* Random frames of messages, most of them nearly right. */
TEST(random_frames_do_no_harm)
{
	struct col_prng prng;
	static uint8_t payload[CHUNK];
	col_prng_init(&prng, test_seed());
	for (uint32_t round = 0; round < 100; round++) {
		struct hub hub;
		static uint8_t memory[3 * CHUNK];
		collect_op *ops[8];
		begin(&hub, 1);
		for (uint32_t i = 0; i < 8; i++)
			ops[i] = i % 2 == 0 ? receive_begin(&hub, i / 4, memory, sizeof(memory))
			                    : send_begin(&hub, 1, memory, i * 1500);
		uint64_t next = 1;
		for (uint32_t i = 0; i < 40; i++) {
			struct col_frame frame = {
				.kind = (uint8_t)(COL_FRAME_OFFER + col_prng_below(&prng, 6)),
				.op = 1 + col_prng_below(&prng, 5),
				.lane = (uint16_t)col_prng_below(&prng, 5),
			};
			if (frame.kind == COL_FRAME_OFFER) {
				frame.op = next++;
				frame.lane = (uint16_t)(frame.op - 1);
				frame.attempt = col_prng_below(&prng, 2);
				frame.offset = col_prng_below(&prng, 2) * 5000;
				frame.digest = CHUNK;
			} else if (frame.kind == COL_FRAME_MESSAGE) {
				frame.lane = (uint16_t)(frame.op - 1);
				frame.offset = col_prng_below(&prng, 2) * CHUNK;
				frame.length = frame.offset == 0 ? CHUNK : 5000 - CHUNK;
			} else if (frame.kind == COL_FRAME_FETCH) {
				frame.offset = 64 + col_prng_below(&prng, 1000);
			}
			if (!frame_put(hub.fds[0], &frame) ||
			    (frame.length > 0 && !put(hub.fds[0], payload, frame.length)))
				break;
		}
		shutdown(hub.fds[0], SHUT_WR);
		world_await(&hub.world, 0, COLLECT_EVENT_LINK_LOST);
		for (uint32_t i = 0; i < 8; i++) {
			CHECK(collect_op_wait(ops[i], SOON_NS) != COLLECT_PENDING);
			collect_op_release(&ops[i]);
		}
		hub_close(&hub);
	}
}
