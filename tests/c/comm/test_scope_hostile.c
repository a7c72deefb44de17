/* A member that speaks the protocol by hand, and says about sub-groups what it likes. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/prng.h"
#include "comm/hub.h"
#include "comm/scopes.h"
#include "exec/exec.h"

#define SCOPE 9u
#define EAGER 16384u /* what a member may send of a sub-group before it hears of it */
#define WINDOW (8u << 20)

static uint8_t payload[CHUNK];

static void ready(struct hub *hub)
{
	hub_open(hub, 1, 0);
	hub_accept(hub);
	world_await(&hub->world, 0, COLLECT_EVENT_LINK_UP);
}

static collect_comm *split(struct hub *hub, uint32_t scope)
{
	uint64_t members[] = {LIAR, hub->world.peers[0].incarnation};
	collect_comm *comm;
	CHECK_EQ(collect_comm_split(hub->world.peers[0].comm, scope, members, 2, &comm), COLLECT_OK);
	return comm;
}

static bool say(struct hub *hub, const struct col_frame *frame)
{
	return frame_put(hub->fds[0], frame) &&
	       (frame->length == 0 || put(hub->fds[0], payload, frame->length));
}

/* The next frame of this kind. */
static struct col_frame hear(struct hub *hub, int kind)
{
	static uint8_t rest[CHUNK];
	for (;;) {
		uint8_t header[COL_FRAME_HEADER_BYTES];
		struct col_frame frame;
		get(hub->fds[0], header, sizeof(header));
		CHECK_EQ(col_frame_decode(header, &frame), COL_FRAME_VALID);
		get(hub->fds[0], rest, frame.length);
		if (frame.kind == kind)
			return frame;
	}
}

static struct col_frame data(uint32_t scope, uint64_t epoch, uint32_t length)
{
	return (struct col_frame){.kind = COL_FRAME_DATA, .group = scope, .op = 1, .attempt = epoch,
	                          .length = length};
}

static void check_lost(struct hub *hub, const char *reason)
{
	struct collect_event event = world_await(&hub->world, 0, COLLECT_EVENT_LINK_LOST);
	CHECK_EQ(event.loss, COLLECT_LOSS_GARBAGE);
	if (strstr(event.detail, reason) == NULL)
		FAIL("\"%s\" does not say \"%s\"", event.detail, reason);
}

/* Whatever is dropped here is dropped by the I/O thread. */
static void check_blocks(size_t most)
{
	for (int i = 0; i < 1000 && col_alloc_blocks() > most; i++)
		usleep(10000);
	CHECK(col_alloc_blocks() <= most);
}

TEST(frames_of_scopes_that_never_come_are_bounded_and_go_with_the_link)
{
	static const uint32_t lengths[] = {CHUNK, 1, 0};
	for (uint32_t round = 0; round < 6; round++) {
		struct hub hub;
		ready(&hub);
		size_t before = col_alloc_blocks();
		bool is_open = true;
		uint32_t sent = 0;
		for (; is_open && sent < 2000000; sent++) {
			struct col_frame frame = data(sent + 1, round % 2 == 0 ? 1 : UINT64_MAX,
			                              lengths[round / 2]);
			if (round / 2 == 2)
				frame = (struct col_frame){.kind = COL_FRAME_DONE, .group = sent + 1, .op = 1,
				                           .attempt = round % 2 == 0 ? 1 : 7};
			is_open = say(&hub, &frame);
		}
		check_lost(&hub, "more frames of sub-groups than may wait");
		CHECK(sent > 10000);
		check_blocks(before + 2000); /* pooled buffers */
		hub_close(&hub);
	}
}

TEST(what_came_too_early_is_dropped_with_its_epoch)
{
	struct hub hub;
	ready(&hub);
	size_t before = col_alloc_blocks();
	for (uint32_t round = 0; round < 20; round++) {
		/* Together more than may wait at once. */
		for (uint32_t i = 0; i < 2000; i++) {
			struct col_frame frame = data(i + 1, hub.world.epoch, CHUNK);
			CHECK(say(&hub, &frame));
		}
		hub_install(&hub, NULL);
	}
	check_blocks(before + 2500);
	struct collect_link_info info;
	CHECK_EQ(collect_comm_links(hub.world.peers[0].comm, &info, 1), 1);
	CHECK_EQ(info.is_up, 1);
	hub_close(&hub);
}

TEST(a_window_is_granted_once_and_no_more_is_taken)
{
	struct hub hub;
	ready(&hub);
	collect_comm *comm = split(&hub, SCOPE);
	struct col_frame ask = {.kind = COL_FRAME_GRANT, .group = SCOPE, .attempt = 1, .step = 1};
	for (uint32_t i = 0; i < 10; i++)
		CHECK(say(&hub, &ask));
	struct col_frame grant = hear(&hub, COL_FRAME_GRANT);
	CHECK_EQ(grant.group, SCOPE);
	CHECK_EQ(grant.attempt, 1);
	CHECK_EQ(grant.offset, WINDOW + EAGER);
	for (uint64_t sent = 0; sent + CHUNK + 64 <= grant.offset; sent += CHUNK + 64) {
		struct col_frame frame = data(SCOPE, 1, CHUNK);
		CHECK(say(&hub, &frame));
	}
	/* So much waits; the group has its own window. */
	float value = 1;
	collect_op *op;
	CHECK_EQ(world_all_reduce_start(&hub.world, 0, &value, 1, &op), COLLECT_OK);
	struct col_frame given = hear(&hub, COL_FRAME_DATA);
	CHECK_EQ(given.group, 0);
	given.step = 1;
	CHECK(say(&hub, &given));
	op_end(op, COLLECT_OK);
	struct col_frame frame = data(SCOPE, 1, CHUNK);
	say(&hub, &frame);
	check_lost(&hub, "more payload of a sub-group than was granted");
	collect_comm_destroy(&comm);
	hub_close(&hub);
}

TEST(without_a_grant_little_is_taken)
{
	struct hub hub;
	ready(&hub);
	collect_comm *comm = split(&hub, SCOPE);
	for (uint32_t sent = 0; sent <= EAGER; sent += CHUNK + 64) {
		struct col_frame frame = data(SCOPE, 1, CHUNK);
		say(&hub, &frame);
	}
	check_lost(&hub, "more payload of a sub-group than was granted");
	collect_comm_destroy(&comm);
	hub_close(&hub);
}

TEST(a_sender_waits_for_its_window_and_the_group_does_not)
{
	enum { COUNT = 20000 };
	static int64_t values[COUNT];
	struct hub hub;
	float value = 1;
	collect_op *other;
	ready(&hub);
	collect_comm *comm = split(&hub, SCOPE);
	collect_op *op = sum_begin(comm, values, COUNT);
	/* What may be sent unasked, then the question. */
	uint32_t bytes = 0;
	struct col_frame frame;
	CHECK_EQ(world_all_reduce_start(&hub.world, 0, &value, 1, &other), COLLECT_OK);
	while ((frame = hear(&hub, COL_FRAME_DATA)).group == SCOPE)
		bytes += frame.length + 64;
	CHECK(bytes <= EAGER && bytes + CHUNK + 64 > EAGER);
	frame.step = 1;
	CHECK(say(&hub, &frame));
	op_end(other, COLLECT_OK);
	/* A grant of another epoch is none, nor is one that takes back. */
	struct col_frame grant = {.kind = COL_FRAME_GRANT, .group = SCOPE, .attempt = 9,
	                          .offset = UINT64_MAX};
	CHECK(say(&hub, &grant));
	grant.attempt = 1;
	grant.offset = 5;
	CHECK(say(&hub, &grant));
	CHECK_EQ(collect_op_wait(op, 50 * COL_NS_PER_MS), COLLECT_PENDING);
	grant.offset = UINT64_MAX;
	CHECK(say(&hub, &grant));
	/* The executor begins so many chunks before it hears of the first. */
	for (uint32_t i = EAGER / (CHUNK + 64); i < COL_EXEC_DEPTH; i++)
		CHECK_EQ(hear(&hub, COL_FRAME_DATA).group, SCOPE);
	collect_op_release(&op);
	collect_comm_destroy(&comm);
	hub_close(&hub);
}

TEST(frames_of_a_scope_that_is_gone_leave_nothing)
{
	struct hub hub;
	ready(&hub);
	collect_comm *comm = split(&hub, SCOPE);
	collect_comm_destroy(&comm);
	size_t before = col_alloc_blocks();
	for (uint32_t i = 0; i < 20000; i++) {
		struct col_frame frame = data(SCOPE, 1 + i % 2, CHUNK);
		CHECK(say(&hub, &frame));
	}
	struct collect_link_info info = {0};
	for (int i = 0; i < 2000 && info.received_bytes < 20000ull * (CHUNK + 64); i++) {
		usleep(10000);
		collect_comm_links(hub.world.peers[0].comm, &info, 1);
	}
	CHECK_EQ(info.is_up, 1);
	check_blocks(before + 10);
	hub_close(&hub);
}

static struct col_frame random_frame(struct col_prng *prng, uint64_t epoch)
{
	static const uint8_t kinds[] = {COL_FRAME_DATA, COL_FRAME_DATA, COL_FRAME_REPAIR,
	                                COL_FRAME_DONE, COL_FRAME_SHARE, COL_FRAME_GRANT};
	static const uint64_t offsets[] = {0, 64, CHUNK, 2 * CHUNK, 1ull << 40, UINT64_MAX};
	static const uint32_t lengths[] = {0, 1, 64, 800, CHUNK};
	struct col_frame frame = {
		.kind = kinds[col_prng_below(prng, 6)],
		.group = SCOPE + (uint32_t)col_prng_below(prng, 4),
		.attempt = epoch - 1 + col_prng_below(prng, 3),
	};
	bool is_data = frame.kind == COL_FRAME_DATA;
	if (is_data || frame.kind == COL_FRAME_REPAIR || frame.kind == COL_FRAME_GRANT)
		frame.offset = offsets[col_prng_below(prng, 6)];
	if (is_data || frame.kind == COL_FRAME_REPAIR)
		frame.length = lengths[col_prng_below(prng, 5)];
	if (frame.kind != COL_FRAME_GRANT && frame.kind != COL_FRAME_SHARE)
		frame.op = col_prng_below(prng, 4);
	if (is_data || frame.kind == COL_FRAME_DONE)
		frame.digest = (uint32_t)col_prng_below(prng, 2);
	if (is_data || frame.kind == COL_FRAME_SHARE || frame.kind == COL_FRAME_GRANT)
		frame.step = (uint16_t)col_prng_below(prng, 3);
	if (is_data)
		frame.lane = (uint16_t)col_prng_below(prng, 3);
	return frame;
}

TEST(random_frames_of_sub_groups_do_no_harm)
{
	static int64_t values[2000];
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	for (uint32_t round = 0; round < 40; round++) {
		struct hub hub;
		struct collect_report report;
		collect_comm *comms[3] = {NULL};
		collect_op *ops[3] = {NULL};
		ready(&hub);
		bool is_open = true;
		for (uint32_t i = 0; i < 600 && is_open; i++) {
			struct col_frame frame = random_frame(&prng, hub.world.epoch);
			is_open = say(&hub, &frame);
			uint32_t s = (uint32_t)col_prng_below(&prng, 3);
			switch (col_prng_below(&prng, 40)) {
			case 0:
				if (comms[s] == NULL && ops[s] == NULL)
					comms[s] = split(&hub, SCOPE + s);
				break;
			case 1:
				if (comms[s] != NULL && ops[s] == NULL)
					ops[s] = sum_begin(comms[s], values, 1 + col_prng_below(&prng, 2000));
				break;
			case 2:
				CHECK_EQ(collect_comm_freeze(hub.world.peers[0].comm, &report), COLLECT_OK);
				hub_install(&hub, NULL);
				break;
			case 3:
				if (ops[s] != NULL)
					collect_comm_destroy(&comms[s]);
				break;
			}
		}
		for (uint32_t s = 0; s < 3; s++) {
			collect_op_release(&ops[s]);
			if (round % 2 == 0)
				collect_comm_destroy(&comms[s]);
		}
		hub_close(&hub);
		for (uint32_t s = 0; s < 3; s++)
			collect_comm_destroy(&comms[s]);
	}
}
