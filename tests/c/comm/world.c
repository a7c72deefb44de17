#include "comm/world.h"

#include <pthread.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define PATIENCE_NS (20 * COL_NS_PER_S)

void world_revive(struct world *world, uint32_t index, uint64_t incarnation)
{
	const struct world_options *given = &world->options;
	struct collect_engine_options options = {
		.bind_address = given->address != NULL ? given->address : "127.0.0.1",
		.streams = given->streams != 0 ? given->streams : 1,
		.chunk_bytes = given->chunk_bytes != 0 ? given->chunk_bytes : 4096,
		.window_bytes = given->window_bytes != 0 ? given->window_bytes : 8 << 20,
		.silence_ns = given->silence_ns != 0 ? given->silence_ns : PATIENCE_NS,
		.connect_ns = given->connect_ns != 0 ? given->connect_ns : PATIENCE_NS,
	};
	struct peer *peer = &world->peers[index];
	CHECK_EQ(collect_engine_create(&options, &peer->engine), COLLECT_OK);
	peer->incarnation = incarnation;
	peer->is_gone = false;
	CHECK_EQ(collect_comm_create(peer->engine, 77, peer->incarnation, &peer->comm), COLLECT_OK);
	struct collect_member *member = &world->members[index];
	member->incarnation = peer->incarnation;
	bool is_v6 = strchr(options.bind_address, ':') != NULL;
	snprintf(member->addresses, sizeof(member->addresses), is_v6 ? "[%s]:%u" : "%s:%u",
	         options.bind_address, collect_engine_port(peer->engine));
}

static const uint32_t one_host[WORLD_MAX];

void world_open(struct world *world, const struct world_options *options)
{
	memset(world, 0, sizeof(*world));
	world->options = *options;
	world->recipe = (struct collect_recipe){
		.algorithm = options->algorithm,
		.hosts = options->shares ? one_host : NULL,
		.commit_bytes = options->commit_bytes != 0 ? options->commit_bytes : UINT32_MAX,
	};
	for (uint32_t i = 0; i < options->count; i++)
		world_revive(world, i, 100 + i);
}

void world_kill(struct world *world, uint32_t index)
{
	struct peer *peer = &world->peers[index];
	collect_comm_destroy(&peer->comm);
	collect_engine_destroy(&peer->engine);
	peer->is_gone = true;
}

void world_close(struct world *world)
{
	for (uint32_t i = 0; i < WORLD_MAX; i++)
		world_kill(world, i);
}

struct collect_install world_view(struct world *world, uint32_t mask, uint32_t peer,
                                  struct collect_member *members_out)
{
	struct collect_install install = {
		.epoch = world->epoch,
		.members = members_out,
		.recipe = &world->recipe,
	};
	for (uint32_t i = 0; i < WORLD_MAX; i++) {
		if ((mask >> i & 1) == 0)
			continue;
		if (i == peer)
			install.self_rank = install.member_count;
		members_out[install.member_count++] = world->members[i];
	}
	return install;
}

void world_verdict_set(struct collect_install *install, const struct verdict *verdict)
{
	install->verdict = verdict->verdict;
	install->verdict_op = verdict->op;
	install->verdict_attempt = verdict->attempt;
	install->repairs = verdict->repairs;
	install->repair_count = verdict->repair_count;
}

static void install_all(struct world *world, uint32_t mask, uint64_t op_base,
                        const struct verdict *verdict)
{
	struct collect_member members[WORLD_MAX];
	world->epoch++;
	for (uint32_t i = 0; i < world->options.count; i++) {
		if ((mask >> i & 1) == 0)
			continue;
		struct collect_install install = world_view(world, mask, i, members);
		install.op_base = op_base;
		if (verdict != NULL)
			world_verdict_set(&install, verdict);
		CHECK_EQ(collect_comm_install(world->peers[i].comm, &install), COLLECT_OK);
	}
}

void world_install(struct world *world, uint32_t mask, uint64_t op_base)
{
	install_all(world, mask, op_base, NULL);
}

void world_install_verdict(struct world *world, uint32_t mask, const struct verdict *verdict)
{
	install_all(world, mask, 0, verdict);
}

void world_freeze(struct world *world, uint32_t mask, struct collect_report *reports)
{
	for (uint32_t i = 0; i < world->options.count; i++)
		if ((mask >> i & 1) != 0)
			CHECK_EQ(collect_comm_freeze(world->peers[i].comm, &reports[i]), COLLECT_OK);
}

struct collect_event world_await(struct world *world, uint32_t peer, int kind)
{
	collect_engine *engine = world->peers[peer].engine;
	uint64_t deadline_ns = col_clock_ns() + PATIENCE_NS;
	struct collect_event event;
	while (col_clock_ns() < deadline_ns) {
		if (collect_engine_next_event(engine, &event)) {
			if (event.kind == kind)
				return event;
			continue;
		}
		struct pollfd fd = {.fd = collect_engine_event_fd(engine), .events = POLLIN};
		poll(&fd, 1, 100);
	}
	FAIL("peer %u: no event of kind %d", peer, kind);
}

int world_all_reduce_start(struct world *world, uint32_t peer, float *values, size_t count,
                           collect_op **op_out)
{
	struct collect_call call = {
		.collective = COLLECT_ALL_REDUCE,
		.dtype = COLLECT_FLOAT32,
		.algorithm = COLLECT_AUTO,
		.source = values,
		.target = values,
		.count = count,
	};
	return collect_comm_start(world->peers[peer].comm, &call, op_out);
}

struct call {
	struct world *world;
	uint32_t peer;
	float *values;
	size_t count;
	int status;
};

static void *call_run(void *argument)
{
	struct call *call = argument;
	collect_op *op;
	call->status = world_all_reduce_start(call->world, call->peer, call->values, call->count, &op);
	if (call->status < 0)
		return NULL;
	call->status = collect_op_wait(op, PATIENCE_NS);
	collect_op_release(&op);
	return NULL;
}

void world_all_reduce_check(struct world *world, uint32_t mask, size_t count)
{
	struct call calls[WORLD_MAX];
	pthread_t threads[WORLD_MAX];
	for (uint32_t i = 0; i < world->options.count; i++) {
		if ((mask >> i & 1) == 0)
			continue;
		float *values = malloc((count + 1) * sizeof(float));
		for (size_t k = 0; k < count; k++)
			values[k] = (float)(i + 1 + k % 7);
		calls[i] = (struct call){
			.world = world, .peer = i, .values = values, .count = count};
		CHECK_EQ(pthread_create(&threads[i], NULL, call_run, &calls[i]), 0);
	}
	for (uint32_t i = 0; i < world->options.count; i++) {
		if ((mask >> i & 1) == 0)
			continue;
		pthread_join(threads[i], NULL);
		CHECK_EQ(calls[i].status, COLLECT_OK);
		for (size_t k = 0; k < count; k++) {
			float sum = 0;
			for (uint32_t r = 0; r < world->options.count; r++)
				if ((mask >> r & 1) != 0)
					sum += (float)(r + 1 + k % 7);
			if (calls[i].values[k] != sum)
				FAIL("peer %u element %zu: %f is not %f", i, k, (double)calls[i].values[k],
				     (double)sum);
		}
	}
	for (uint32_t i = 0; i < world->options.count; i++)
		if ((mask >> i & 1) != 0)
			free(calls[i].values);
}
