#include "comm/hub.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

int dial(const struct world *world, uint32_t peer)
{
	struct sockaddr_in name = {.sin_family = AF_INET,
	                           .sin_port = htons(collect_engine_port(world->peers[peer].engine)),
	                           .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0);
	CHECK_EQ(connect(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	return fd;
}

bool put(int fd, const void *bytes, size_t count)
{
	return send(fd, bytes, count, MSG_NOSIGNAL) == (ssize_t)count;
}

void get(int fd, void *bytes, size_t count)
{
	/* Asked for nothing, recv would wait for something all the same. */
	if (count > 0)
		CHECK_EQ(recv(fd, bytes, count, MSG_WAITALL), (ssize_t)count);
}

bool frame_put(int fd, const struct col_frame *frame)
{
	uint8_t header[COL_FRAME_HEADER_BYTES];
	col_frame_encode(frame, header);
	return put(fd, header, sizeof(header));
}

void hello_put(int fd, const struct col_hello *hello, uint64_t epoch)
{
	uint8_t payload[COL_FRAME_HELLO_BYTES];
	struct col_frame frame = {.kind = COL_FRAME_HELLO, .attempt = epoch,
	                          .length = sizeof(payload)};
	col_hello_encode(hello, payload);
	CHECK(frame_put(fd, &frame));
	CHECK(put(fd, payload, sizeof(payload)));
}

struct col_hello hello_to(const struct world *world, uint32_t peer, uint32_t stream)
{
	return (struct col_hello){.key = KEY, .source = LIAR,
	                          .target = world->peers[peer].incarnation,
	                          .stream = stream, .stream_count = stream + 1};
}

int enter(const struct world *world, uint32_t peer)
{
	uint8_t answer[HELLO_BYTES];
	struct col_hello hello = hello_to(world, peer, 0);
	int fd = dial(world, peer);
	hello_put(fd, &hello, world->epoch);
	get(fd, answer, sizeof(answer));
	return fd;
}

/* ---- a hub ---- */

int hub_accept(struct hub *hub)
{
	uint8_t hello[HELLO_BYTES];
	struct col_hello theirs;
	int fd = accept(hub->listener, NULL, NULL);
	CHECK(fd >= 0);
	get(fd, hello, sizeof(hello));
	col_hello_decode(hello + COL_FRAME_HEADER_BYTES, &theirs);
	CHECK_EQ(theirs.target, LIAR);
	struct col_hello ours = {.key = KEY, .source = LIAR, .target = theirs.source,
	                         .stream = theirs.stream, .stream_count = theirs.stream_count};
	hello_put(fd, &ours, 1);
	CHECK(theirs.stream < 2);
	hub->fds[theirs.stream] = fd;
	return fd;
}

static void install(struct hub *hub, const struct verdict *verdict)
{
	struct collect_install install = {
		.epoch = ++hub->world.epoch,
		.members = hub->members,
		.member_count = 2,
		.self_rank = 1,
		.recipe = &hub->world.recipe,
		.op_base = hub->world.epoch == 1 ? 1ull << 32 : 0,
	};
	if (verdict != NULL) {
		install.verdict = verdict->verdict;
		install.verdict_op = verdict->op;
		install.verdict_attempt = verdict->attempt;
	}
	CHECK_EQ(collect_comm_install(hub->world.peers[0].comm, &install), COLLECT_OK);
}

void hub_install(struct hub *hub, const struct verdict *verdict)
{
	install(hub, verdict);
}

void hub_open(struct hub *hub, uint16_t streams, uint32_t commit_bytes)
{
	struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t bytes = sizeof(name);
	world_open(&hub->world, &(struct world_options){
		.count = 1, .streams = streams, .chunk_bytes = CHUNK, .algorithm = COLLECT_STAR,
		.commit_bytes = commit_bytes});
	hub->fds[0] = -1;
	hub->fds[1] = -1;
	hub->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_EQ(bind(hub->listener, (struct sockaddr *)&name, sizeof(name)), 0);
	CHECK_EQ(listen(hub->listener, 8), 0);
	CHECK_EQ(getsockname(hub->listener, (struct sockaddr *)&name, &bytes), 0);
	hub->members[0] = (struct collect_member){.incarnation = LIAR};
	hub->members[1] = hub->world.members[0];
	snprintf(hub->members[0].addresses, sizeof(hub->members[0].addresses), "127.0.0.1:%u",
	         ntohs(name.sin_port));
	install(hub, NULL);
}

void hub_close(struct hub *hub)
{
	world_close(&hub->world);
	for (uint32_t i = 0; i < 2; i++)
		if (hub->fds[i] >= 0)
			close(hub->fds[i]);
	close(hub->listener);
}

struct col_frame hub_get(struct hub *hub)
{
	static uint8_t payload[CHUNK];
	for (;;) {
		uint8_t header[COL_FRAME_HEADER_BYTES];
		struct col_frame frame;
		struct pollfd polled[2] = {{.fd = hub->fds[0], .events = POLLIN},
		                           {.fd = hub->fds[1], .events = POLLIN}};
		CHECK(poll(polled, 2, 20000) > 0);
		int fd = hub->fds[polled[0].revents != 0 ? 0 : 1];
		get(fd, header, sizeof(header));
		CHECK_EQ(col_frame_decode(header, &frame), COL_FRAME_VALID);
		get(fd, payload, frame.length);
		if (frame.kind == COL_FRAME_DATA || frame.kind == COL_FRAME_DONE)
			return frame;
	}
}

struct col_frame answer_to(struct col_frame frame)
{
	frame.step = 1;
	return frame;
}

struct col_frame hub_serve(struct hub *hub, size_t bytes)
{
	static const uint8_t result[CHUNK];
	struct col_frame given = {.kind = COL_FRAME_HEARTBEAT};
	while (bytes > 0) {
		given = hub_get(hub);
		CHECK_EQ(given.kind, COL_FRAME_DATA);
		struct col_frame frame = answer_to(given);
		CHECK(frame_put(hub->fds[0], &frame));
		CHECK(put(hub->fds[0], result, frame.length));
		bytes -= frame.length;
	}
	return given;
}
