/*
 * A world against one that speaks its protocol by hand: garbage, wrong greetings, frames whose
 * checksum is right and whose fields are not, half-sent frames, connections that say nothing. All
 * of it is refused with a reason; the process lives and the other links carry on.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/prng.h"
#include "comm/hub.h"

#define SOON_NS (20 * COL_NS_PER_S)

static collect_op *begin(struct world *world, uint32_t peer, float *values, size_t count)
{
	collect_op *op = NULL;
	CHECK_EQ(world_all_reduce_start(world, peer, values, count, &op),
	         COLLECT_OK);
	return op;
}

static void end(collect_op *op, int status)
{
	CHECK_EQ(collect_op_wait(op, SOON_NS), status);
	collect_op_release(&op);
}

/* Waits until the other side closes. */
static void await_end(int fd)
{
	char bytes[4096];
	struct pollfd polled = {.fd = fd, .events = POLLIN};
	for (;;) {
		CHECK_EQ(poll(&polled, 1, 20000), 1);
		if (recv(fd, bytes, sizeof(bytes), 0) <= 0)
			break;
	}
	close(fd);
}

/* The two engines and the liar, last in rank: it is the one that dials. */
static void install_with_liar(struct world *world)
{
	struct collect_member members[WORLD_MAX + 1];
	world->epoch++;
	for (uint32_t i = 0; i < world->options.count; i++) {
		struct collect_install install =
			world_view(world, (1u << world->options.count) - 1, i, members);
		members[install.member_count++] = (struct collect_member){.incarnation = LIAR};
		install.op_base = world->epoch << 32;
		CHECK_EQ(collect_comm_install(world->peers[i].comm, &install), COLLECT_OK);
	}
}

static uint32_t link_count(const struct world *world, uint32_t peer)
{
	return collect_comm_links(world->peers[peer].comm, NULL, 0);
}

/* ---- strangers ---- */

TEST(random_bytes_are_refused_and_the_world_goes_on)
{
	struct world world;
	struct col_prng prng;
	uint8_t bytes[512];
	col_prng_init(&prng, test_seed());
	world_open(&world, &(struct world_options){.count = 2});
	world_install(&world, 3, 1ull << 32);
	for (uint32_t round = 0; round < 50; round++) {
		size_t count = 1 + (size_t)col_prng_below(&prng, sizeof(bytes));
		for (size_t i = 0; i < count; i++)
			bytes[i] = (uint8_t)col_prng_below(&prng, 256);
		int fd = dial(&world, round % 2);
		put(fd, bytes, count);
		shutdown(fd, SHUT_WR);
		await_end(fd);
		struct collect_event event =
			world_await(&world, round % 2, COLLECT_EVENT_REFUSED);
		CHECK(strstr(event.detail, count < COL_FRAME_HEADER_BYTES ? "middle of its greeting"
		                                                          : "magic") != NULL);
		world_all_reduce_check(&world, 3, 1000);
	}
	world_close(&world);
}

static void check_refused(struct world *world, const struct col_hello *hello, const char *reason)
{
	int fd = dial(world, 0);
	hello_put(fd, hello, world->epoch);
	await_end(fd);
	struct collect_event event = world_await(world, 0, COLLECT_EVENT_REFUSED);
	if (strstr(event.detail, reason) == NULL)
		FAIL("\"%s\" does not say \"%s\"", event.detail, reason);
}

TEST(a_greeting_that_is_wrong_is_refused_and_leaves_nothing_behind)
{
	struct world world;
	world_open(&world, &(struct world_options){.count = 3});
	world_install(&world, 3, 1ull << 32);
	struct col_hello right = hello_to(&world, 0, 0);
	struct col_hello hello = right;
	hello.key = 78;
	check_refused(&world, &hello, "a group that this process is not in");
	hello = right;
	hello.target = 101;
	check_refused(&world, &hello, "meant for another peer");
	hello = right;
	hello.source = 100;
	check_refused(&world, &hello, "an impossible source");
	hello.source = 0;
	check_refused(&world, &hello, "an impossible source");
	hello = right;
	hello.stream = hello.stream_count;
	check_refused(&world, &hello, "an impossible stream");
	hello.stream_count = 17;
	check_refused(&world, &hello, "an impossible stream");
	/* More of them than there may be strangers. */
	for (uint32_t i = 0; i < 300; i++) {
		hello = hello_to(&world, 0, 1);
		hello.source = 1000 + i;
		check_refused(&world, &hello, "the link is not open for it");
	}
	for (int i = 0; i < 100 && link_count(&world, 0) > 1; i++)
		usleep(10000);
	CHECK_EQ(link_count(&world, 0), 1);
	world_install(&world, 7, 2ull << 32);
	world_all_reduce_check(&world, 7, 1000);
	world_close(&world);
}

TEST(a_further_stream_of_an_earlier_connection_is_refused)
{
	struct world world;
	world_open(&world, &(struct world_options){.count = 1});
	world.epoch = 5;
	int first = enter(&world, 0);
	world_await(&world, 0, COLLECT_EVENT_LINK_UP);
	struct col_hello hello = hello_to(&world, 0, 1);
	world.epoch = 4;
	check_refused(&world, &hello, "the link is not open for it");
	struct collect_link_info info;
	CHECK_EQ(collect_comm_links(world.peers[0].comm, &info, 1), 1);
	CHECK_EQ(info.is_up, 1);
	close(first);
	world_close(&world);
}

TEST(connections_that_say_nothing_do_not_turn_away_those_who_greet)
{
	enum { SILENT = 64 };
	struct world world;
	int silent[SILENT];
	world_open(&world, &(struct world_options){.count = 1});
	for (int i = 0; i < SILENT; i++)
		silent[i] = dial(&world, 0);
	usleep(100000);
	int fd = dial(&world, 0);
	struct col_hello hello = hello_to(&world, 0, 0);
	hello_put(fd, &hello, 1);
	struct pollfd polled = {.fd = fd, .events = POLLIN};
	CHECK_EQ(poll(&polled, 1, 200), 0);
	close(silent[0]);
	uint8_t answer[HELLO_BYTES];
	get(fd, answer, sizeof(answer));
	world_await(&world, 0, COLLECT_EVENT_LINK_UP);
	for (int i = 1; i < SILENT; i++)
		close(silent[i]);
	close(fd);
	world_close(&world);
}

static uint64_t processor_ns(void)
{
	struct rusage usage;
	CHECK_EQ(getrusage(RUSAGE_SELF, &usage), 0);
	return ((uint64_t)usage.ru_utime.tv_sec + (uint64_t)usage.ru_stime.tv_sec) * COL_NS_PER_S +
	       ((uint64_t)usage.ru_utime.tv_usec + (uint64_t)usage.ru_stime.tv_usec) * COL_NS_PER_US;
}

TEST(without_descriptors_the_port_waits_and_burns_nothing)
{
	struct world world;
	struct rlimit limit;
	world_open(&world, &(struct world_options){.count = 1});
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	struct rlimit none = {.rlim_cur = 3, .rlim_max = limit.rlim_max};
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	struct sockaddr_in name = {.sin_family = AF_INET,
	                           .sin_port = htons(collect_engine_port(world.peers[0].engine)),
	                           .sin_addr = {htonl(INADDR_LOOPBACK)}};
	CHECK_EQ(connect(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	uint64_t before_ns = processor_ns();
	usleep(400000);
	CHECK(processor_ns() - before_ns < 200 * COL_NS_PER_MS);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	struct col_hello hello = hello_to(&world, 0, 0);
	hello_put(fd, &hello, 1);
	world_await(&world, 0, COLLECT_EVENT_LINK_UP);
	close(fd);
	world_close(&world);
}

/* ---- a member ---- */

static struct col_frame random_frame(struct col_prng *prng, uint64_t epoch)
{
	static const uint64_t offsets[] = {0, 64, 4096, 8192, 1ull << 40, UINT64_MAX, UINT64_MAX - 63};
	struct col_frame frame = {
		.kind = (uint8_t)(COL_FRAME_DATA + col_prng_below(prng, 4)),
		.credit = (uint32_t)col_prng_next(prng),
		.delivered = col_prng_next(prng),
	};
	if (frame.kind != COL_FRAME_DATA && frame.kind != COL_FRAME_REPAIR)
		return frame;
	frame.group = col_prng_below(prng, 20) == 0;
	frame.attempt = epoch - 1 + col_prng_below(prng, 3);
	frame.op = (epoch << 32) + col_prng_below(prng, 4);
	frame.offset = offsets[col_prng_below(prng, 7)];
	static const uint32_t lengths[] = {0, 1, 64, 4000, 4096, 4097, COL_FRAME_PAYLOAD_BYTES_MAX};
	frame.length = lengths[col_prng_below(prng, col_prng_below(prng, 4) == 0 ? 7 : 5)];
	if (frame.kind == COL_FRAME_DATA) {
		frame.lane = (uint16_t)col_prng_below(prng, 5);
		frame.step = (uint16_t)col_prng_below(prng, 6);
		frame.digest = (uint32_t)col_prng_below(prng, 2);
	}
	return frame;
}

TEST(a_member_that_sends_nonsense_is_lost_and_the_others_go_on_without_it)
{
	static uint8_t payload[COL_FRAME_PAYLOAD_BYTES_MAX];
	static float values[2][5000];
	struct col_prng prng;
	struct world world;
	struct collect_report reports[WORLD_MAX];
	col_prng_init(&prng, test_seed());
	world_open(&world, &(struct world_options){.count = 2});
	for (int round = 0; round < 60; round++) {
		install_with_liar(&world);
		collect_op *ops[2] = {NULL, NULL};
		if (round % 3 != 0)
			for (uint32_t i = 0; i < 2; i++)
				ops[i] = begin(&world, i, values[i], 5000);
		uint32_t victim = (uint32_t)round % 2;
		int fd = enter(&world, victim);
		bool is_open = true;
		for (int i = 0; i < 1000 && is_open; i++) {
			struct col_frame frame = random_frame(&prng, world.epoch);
			is_open = frame_put(fd, &frame) && put(fd, payload, frame.length);
		}
		if (is_open)
			shutdown(fd, SHUT_WR);
		struct collect_event event = world_await(&world, victim, COLLECT_EVENT_LINK_LOST);
		CHECK_EQ(event.peer, LIAR);
		CHECK(event.loss == COLLECT_LOSS_GARBAGE || event.loss == COLLECT_LOSS_RESET);
		CHECK(event.detail[0] != 0);
		close(fd);
		world_freeze(&world, 3, reports);
		world_install_verdict(&world, 3, &(struct verdict){.verdict = COLLECT_VERDICT_RERUN});
		for (uint32_t i = 0; i < 2 && ops[i] != NULL; i++)
			end(ops[i], COLLECT_OK);
		world_all_reduce_check(&world, 3, 3000);
	}
	world_close(&world);
}

/* ---- a hub ---- */

TEST(the_rest_of_a_copy_that_outlives_its_operation_goes_nowhere)
{
	static float values[10000];
	static uint8_t result[CHUNK];
	struct hub hub;
	hub_open(&hub, 2, 0);
	hub_accept(&hub);
	hub_accept(&hub);
	collect_op *op = begin(&hub.world, 0, values, 1000);
	struct col_frame frame = answer_to(hub_get(&hub));
	CHECK_EQ(frame.length, 4000);
	CHECK(frame_put(hub.fds[1], &frame));
	memset(result, 0x77, sizeof(result));
	CHECK(put(hub.fds[1], result, 2000));
	usleep(100000); /* it is under way, into the result */
	memset(result, 0, sizeof(result));
	CHECK(frame_put(hub.fds[0], &frame));
	CHECK(put(hub.fds[0], result, 4000));
	end(op, COLLECT_OK);
	/* The area goes from result to retained, back, and away for a larger one. */
	for (size_t count = 2000; count <= 6000; count += 2000) {
		op = begin(&hub.world, 0, values, count);
		hub_serve(&hub, count * sizeof(float));
		end(op, COLLECT_OK);
	}
	memset(result, 0x77, sizeof(result));
	CHECK(put(hub.fds[1], result, 2000));
	usleep(100000);
	op = begin(&hub.world, 0, values, 6000);
	hub_serve(&hub, 6000 * sizeof(float));
	end(op, COLLECT_OK);
	for (size_t i = 0; i < 6000; i++)
		CHECK_EQ(values[i], 0.0f);
	hub_close(&hub);
}

TEST(who_is_closed_before_the_greeting_dials_again)
{
	struct hub hub;
	hub_open(&hub, 1, 0);
	for (int i = 0; i < 3; i++)
		close(accept(hub.listener, NULL, NULL));
	hub_accept(&hub);
	hub.fds[1] = -1;
	struct collect_event event;
	while (!collect_engine_next_event(hub.world.peers[0].engine, &event))
		usleep(1000);
	CHECK_EQ(event.kind, COLLECT_EVENT_LINK_UP);
	float value = 1;
	collect_op *op = begin(&hub.world, 0, &value, 1);
	hub_serve(&hub, sizeof(value));
	end(op, COLLECT_OK);
	hub_close(&hub);
}
