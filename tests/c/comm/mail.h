/* Calls that send and receive messages, for tests, in worlds of real sockets. */
#ifndef COL_TEST_MAIL_H
#define COL_TEST_MAIL_H

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "comm/world.h"

#define SOON_NS (20 * COL_NS_PER_S)
#define CHUNK_BYTES 4096u

static inline uint64_t name(const struct world *world, uint32_t peer)
{
	return world->peers[peer].incarnation;
}

static inline collect_op *send_begin(struct world *world, uint32_t from, uint32_t to, uint64_t tag,
                              const void *source, uint64_t bytes)
{
	collect_op *op = NULL;
	CHECK_EQ(collect_comm_send(world->peers[from].comm, name(world, to), tag, source, bytes, 0,
	                           &op),
	         COLLECT_OK);
	return op;
}

/* from: WORLD_MAX means any. */
static inline collect_op *receive_begin(struct world *world, uint32_t at, uint32_t from,
                                        uint64_t tag, void *target, uint64_t bytes)
{
	collect_op *op = NULL;
	uint64_t peer = from < WORLD_MAX ? name(world, from) : 0;
	CHECK_EQ(collect_comm_receive(world->peers[at].comm, peer, tag, target, bytes, 0, &op),
	         COLLECT_OK);
	return op;
}

static inline struct collect_op_info finish(collect_op *op, int status)
{
	struct collect_op_info info;
	CHECK_EQ(collect_op_wait(op, SOON_NS), status);
	collect_op_info_get(op, &info);
	CHECK_EQ(info.status, status);
	collect_op_release(&op);
	return info;
}

static inline int poll_status(collect_op *op)
{
	struct collect_op_info info;
	collect_op_info_get(op, &info);
	return info.status;
}

static inline uint8_t *pattern(size_t bytes, uint32_t seed)
{
	uint8_t *memory = malloc(bytes + 1);
	for (size_t i = 0; i < bytes; i++)
		memory[i] = (uint8_t)(seed + i * 7 + (i >> 8) * 13);
	return memory;
}

static inline void world_of(struct world *world, uint32_t count, uint16_t streams)
{
	world_open(world, &(struct world_options){
		.count = count, .streams = streams, .chunk_bytes = CHUNK_BYTES});
	world_install(world, (1u << count) - 1, 1ull << 32);
}

/* One message, with memory around it that must stay as it is. */
static inline void check_size(struct world *world, uint32_t from, uint32_t to, size_t bytes,
                       bool receives_first)
{
	uint8_t *source = pattern(bytes, (uint32_t)bytes);
	uint8_t *target = malloc(bytes + 64);
	memset(target, 0xa5, bytes + 64);
	collect_op *send = NULL;
	if (!receives_first) {
		send = send_begin(world, from, to, 5, source, bytes);
		usleep(2000); /* most likely it is there before its receive is posted */
	}
	collect_op *receive = receive_begin(world, to, from, 5, target, bytes + 10);
	if (receives_first)
		send = send_begin(world, from, to, 5, source, bytes);
	struct collect_op_info info = finish(receive, COLLECT_OK);
	CHECK_EQ(info.peer, name(world, from));
	CHECK_EQ(info.bytes, bytes);
	info = finish(send, COLLECT_OK);
	CHECK_EQ(info.peer, name(world, to));
	CHECK_EQ(info.bytes, bytes);
	CHECK_BYTES_EQ(target, source, bytes);
	for (size_t i = bytes; i < bytes + 64; i++)
		CHECK_EQ(target[i], 0xa5);
	free(source);
	free(target);
}

#endif
