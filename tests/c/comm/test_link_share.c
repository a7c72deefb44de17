/* Links with shared memory in worlds of real sockets: where it opens, what it carries, who may. */
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "comm/hub.h"
#include "comm/mail.h"

#define EVERYBODY 15u

static const uint32_t two_hosts[WORLD_MAX] = {0, 0, 1, 1};
static const uint32_t three_hosts[WORLD_MAX] = {0, 1, 0, 2};

static void open_on(struct world *world, const uint32_t *hosts, int transport, int algorithm)
{
	world_open(world, &(struct world_options){
		.count = 4, .chunk_bytes = CHUNK_BYTES, .commit_bytes = 65536});
	world->recipe.hosts = hosts;
	world->recipe.transport = transport;
	world->recipe.algorithm = algorithm;
	world_install(world, EVERYBODY, 1000);
}

static struct collect_link_info link_info(const struct world *world, uint32_t peer, uint32_t other)
{
	struct collect_link_info infos[WORLD_MAX];
	uint32_t count = collect_comm_links(world->peers[peer].comm, infos, WORLD_MAX);
	for (uint32_t i = 0; i < count; i++)
		if (infos[i].peer == world->peers[other].incarnation)
			return infos[i];
	FAIL("no link from %u to %u", peer, other);
}

/* Segments of links that are mapped here, all or only those that have a name still. */
static uint32_t segments_count(bool is_named)
{
	char line[512];
	uint32_t count = 0;
	FILE *maps = fopen("/proc/self/maps", "re");
	CHECK(maps != NULL);
	while (fgets(line, sizeof(line), maps) != NULL)
		count += strstr(line, "-link") != NULL && strstr(line, "/collect-") != NULL &&
		         !(is_named && strstr(line, "(deleted)") != NULL);
	fclose(maps);
	return count;
}

/* Exchanges messages both ways until shared memory carries them, or for some rounds. */
static void converse(struct world *world, uint32_t a, uint32_t b, uint32_t rounds)
{
	for (uint32_t i = 0; i < rounds; i++) {
		check_size(world, a, b, 100, i % 2 == 0);
		check_size(world, b, a, 3 * CHUNK_BYTES + 1, i % 2 == 0);
	}
}

TEST(links_within_a_host_carry_operations_through_shared_memory)
{
	static const int algorithms[] = {COLLECT_HIERARCHICAL, COLLECT_DIRECT, COLLECT_RING,
	                                 COLLECT_RECURSIVE_DOUBLING};
	for (uint32_t k = 0; k < sizeof(algorithms) / sizeof(algorithms[0]); k++) {
		struct world world;
		open_on(&world, two_hosts, COLLECT_TRANSPORT_AUTO, algorithms[k]);
		for (uint32_t round = 0; round < 20; round++) {
			world_all_reduce_check(&world, EVERYBODY, 1000);
			world_all_reduce_check(&world, EVERYBODY, 100000);
		}
		for (uint32_t i = 0; i < 4; i++) {
			for (uint32_t j = 0; j < 4; j++) {
				if (i == j)
					continue;
				struct collect_link_info info = link_info(&world, i, j);
				if (two_hosts[i] != two_hosts[j])
					CHECK_EQ(info.shared_bytes, 0);
				else if (algorithms[k] != COLLECT_RING)
					CHECK(info.shared_bytes > (info.sent_bytes + info.received_bytes) / 2);
			}
		}
		CHECK_EQ(segments_count(false), 4);
		CHECK_EQ(segments_count(true), 0);
		world_close(&world);
		CHECK_EQ(segments_count(false), 0);
	}
}

static struct collect_op_info reduce(struct world *world, uint32_t mask)
{
	static float values[4][1000];
	collect_op *ops[4];
	struct collect_op_info info = {0};
	for (uint32_t i = 0; i < 4; i++)
		if ((mask >> i & 1) != 0)
			CHECK_EQ(world_all_reduce_start(world, i, values[i], 1000, &ops[i]), COLLECT_OK);
	for (uint32_t i = 0; i < 4; i++)
		if ((mask >> i & 1) != 0)
			info = finish(ops[i], COLLECT_OK);
	return info;
}

TEST(an_operation_tells_what_carried_it)
{
	struct world world;
	open_on(&world, two_hosts, COLLECT_TRANSPORT_AUTO, COLLECT_DIRECT);
	struct collect_op_info info;
	for (uint32_t i = 0; i < 20; i++)
		info = reduce(&world, EVERYBODY);
	CHECK(!info.is_shared);
	CHECK(info.is_mixed);
	/* Ranks 0 and 1 alone, who are on one host, with a named algorithm. */
	world_install(&world, 3, 2000);
	for (uint32_t i = 0; i < 20; i++)
		info = reduce(&world, 3);
	CHECK(info.is_shared);
	CHECK(!info.is_mixed);
	/* And where nothing is shared. */
	world_close(&world);
	open_on(&world, NULL, COLLECT_TRANSPORT_AUTO, COLLECT_DIRECT);
	info = reduce(&world, EVERYBODY);
	CHECK(!info.is_shared);
	CHECK(!info.is_mixed);
	world_close(&world);
}

TEST(tcp_means_never)
{
	struct world world;
	open_on(&world, two_hosts, COLLECT_TRANSPORT_TCP, COLLECT_HIERARCHICAL);
	for (uint32_t round = 0; round < 5; round++)
		world_all_reduce_check(&world, EVERYBODY, 20000);
	converse(&world, 0, 1, 5);
	for (uint32_t i = 0; i < 4; i++)
		for (uint32_t j = 0; j < 4; j++)
			if (i != j)
				CHECK_EQ(link_info(&world, i, j).shared_bytes, 0);
	world_close(&world);
}

TEST(messages_take_shared_memory_within_a_host)
{
	struct world world;
	open_on(&world, three_hosts, COLLECT_TRANSPORT_AUTO, COLLECT_AUTO);
	converse(&world, 0, 2, 20);
	converse(&world, 0, 1, 2);
	CHECK(link_info(&world, 0, 2).shared_bytes > 100000);
	CHECK(link_info(&world, 2, 0).shared_bytes > 100000);
	CHECK_EQ(link_info(&world, 0, 1).shared_bytes, 0);
	CHECK_EQ(link_info(&world, 1, 3).sent_bytes - link_info(&world, 3, 1).received_bytes, 0);
	CHECK_EQ(segments_count(false), 2);
	CHECK_EQ(segments_count(true), 0);
	world_close(&world);
}

TEST(links_keep_it_over_views_and_give_it_up_when_a_view_wants_tcp)
{
	struct world world;
	open_on(&world, two_hosts, COLLECT_TRANSPORT_AUTO, COLLECT_AUTO);
	converse(&world, 0, 1, 5);
	uint64_t before = link_info(&world, 0, 1).shared_bytes;
	world_install(&world, EVERYBODY, 2000);
	converse(&world, 0, 1, 5);
	uint64_t between = link_info(&world, 0, 1).shared_bytes;
	CHECK(between > before + 50000);
	world.recipe.transport = COLLECT_TRANSPORT_TCP;
	world_install(&world, EVERYBODY, 3000);
	converse(&world, 0, 1, 5);
	CHECK_EQ(link_info(&world, 0, 1).shared_bytes, between);
	world.recipe.transport = COLLECT_TRANSPORT_AUTO;
	world_install(&world, EVERYBODY, 4000);
	converse(&world, 0, 1, 5);
	CHECK(link_info(&world, 0, 1).shared_bytes > between + 50000);
	world_close(&world);
}

TEST(who_sleeps_is_woken_by_shared_memory)
{
	struct world world;
	uint8_t source = 7;
	uint8_t target = 0;
	open_on(&world, two_hosts, COLLECT_TRANSPORT_AUTO, COLLECT_AUTO);
	converse(&world, 0, 1, 5);
	uint64_t slowest_ns = 0;
	for (uint32_t i = 0; i < 50; i++) {
		/* Nobody waits at the receiver: its I/O thread has to see it. Sends complete then. */
		collect_op *receive = receive_begin(&world, 1, 0, 5, &target, 1);
		usleep(3000 * (i % 4));
		uint64_t begin_ns = col_clock_ns();
		finish(send_begin(&world, 0, 1, 5, &source, 1), COLLECT_OK);
		uint64_t took_ns = col_clock_ns() - begin_ns;
		slowest_ns = took_ns > slowest_ns ? took_ns : slowest_ns;
		finish(receive, COLLECT_OK);
	}
	/* A tick would take 50 ms, and silence here 20 s. */
	if (slowest_ns > 40 * COL_NS_PER_MS)
		printf("# slowest wake-up: %llu us\n", (unsigned long long)slowest_ns / 1000);
	CHECK(slowest_ns < COL_NS_PER_S);
	world_close(&world);
}

TEST(a_member_that_dies_is_lost_and_the_others_go_on)
{
	struct world world;
	struct collect_report reports[WORLD_MAX];
	open_on(&world, two_hosts, COLLECT_TRANSPORT_AUTO, COLLECT_HIERARCHICAL);
	for (uint32_t i = 0; i < 10; i++)
		world_all_reduce_check(&world, EVERYBODY, 10000);
	float *values = malloc(100000 * sizeof(float));
	collect_op *op = NULL;
	for (size_t i = 0; i < 100000; i++)
		values[i] = 1;
	CHECK_EQ(world_all_reduce_start(&world, 0, values, 100000, &op), COLLECT_OK);
	world_kill(&world, 1);
	struct collect_event event = world_await(&world, 0, COLLECT_EVENT_LINK_LOST);
	CHECK_EQ(event.peer, 101);
	CHECK_EQ(event.loss, COLLECT_LOSS_RESET);
	world_freeze(&world, 13, reports);
	static const uint32_t left[WORLD_MAX] = {0, 1, 1};
	world.recipe.hosts = left;
	world_install_verdict(&world, 1, &(struct verdict){.verdict = COLLECT_VERDICT_RERUN});
	finish(op, COLLECT_OK);
	world_close(&world);
	free(values);
	CHECK_EQ(segments_count(false), 0);
}

/* ---- one that lies ---- */

/* The next frame that is no heartbeat. False: the connection ended. */
static bool frame_get(int fd, struct col_frame *frame_out)
{
	uint8_t head[COL_FRAME_HEADER_BYTES];
	do {
		if (recv(fd, head, sizeof(head), MSG_WAITALL) != (ssize_t)sizeof(head))
			return false;
		CHECK_EQ(col_frame_decode(head, frame_out), COL_FRAME_VALID);
	} while (frame_out->kind == COL_FRAME_HEARTBEAT || frame_out->kind == COL_FRAME_CREDIT);
	return true;
}

static bool is_quiet(int fd)
{
	struct pollfd polled = {.fd = fd, .events = POLLIN};
	return poll(&polled, 1, 200) == 0;
}

TEST(a_segment_that_is_not_there_is_answered_once_in_a_view)
{
	static const uint32_t hosts[WORLD_MAX] = {0, 1, 0};
	struct world world;
	struct collect_member members[WORLD_MAX];
	world_open(&world, &(struct world_options){.count = 1});
	world.recipe.hosts = hosts;
	world.epoch = 1;
	struct collect_install install = world_view(&world, 1, 0, members);
	members[1] = (struct collect_member){.incarnation = LIAR + 1};
	members[2] = (struct collect_member){.incarnation = LIAR};
	install.member_count = 3;
	CHECK_EQ(collect_comm_install(world.peers[0].comm, &install), COLLECT_OK);
	int fd = enter(&world, 0);
	struct col_frame frame = {
		.kind = COL_FRAME_RINGS,
		.attempt = 1,
		.offset = 0x1234,
		.digest = 65536,
		.step = 1,
	};
	struct col_frame answer;
	CHECK(frame_put(fd, &frame));
	CHECK(frame_get(fd, &answer));
	CHECK_EQ(answer.kind, COL_FRAME_RINGS);
	CHECK_EQ(answer.offset, 0x1234);
	CHECK_EQ(answer.step, 0);
	for (uint32_t i = 0; i < 100; i++) {
		frame.digest = i * 65536;
		CHECK(frame_put(fd, &frame));
	}
	/* A refusal of what was never made is nothing either. */
	frame.step = 0;
	CHECK(frame_put(fd, &frame));
	CHECK(is_quiet(fd));
	/* A word of a later view waits for it. */
	frame.attempt = 2;
	frame.step = 1;
	CHECK(frame_put(fd, &frame));
	CHECK(is_quiet(fd));
	install.epoch = 2;
	CHECK_EQ(collect_comm_install(world.peers[0].comm, &install), COLLECT_OK);
	CHECK(frame_get(fd, &answer));
	CHECK_EQ(answer.attempt, 2);
	CHECK_EQ(answer.step, 0);
	close(fd);
	world_close(&world);
}
