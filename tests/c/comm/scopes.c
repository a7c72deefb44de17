#include "comm/scopes.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define PATIENCE_NS (20 * COL_NS_PER_S)

void scope_make(struct world *world, struct scope *scope, uint32_t makers, bool is_reversed)
{
	uint64_t members[WORLD_MAX];
	uint32_t count = 0;
	for (uint32_t i = 0; i < WORLD_MAX; i++) {
		uint32_t peer = is_reversed ? WORLD_MAX - 1 - i : i;
		if ((scope->mask >> peer & 1) != 0)
			members[count++] = world->peers[peer].incarnation;
	}
	for (uint32_t peer = 0; peer < WORLD_MAX; peer++)
		if ((scope->mask & makers) >> peer & 1)
			CHECK_EQ(collect_comm_split(world->peers[peer].comm, scope->name, members, count,
			                            &scope->comms[peer]), COLLECT_OK);
}

void scope_open(struct world *world, struct scope *scope, uint32_t name, uint32_t mask)
{
	*scope = (struct scope){.name = name, .mask = mask};
	scope_make(world, scope, mask, false);
}

void scope_close(struct scope *scope)
{
	for (uint32_t peer = 0; peer < WORLD_MAX; peer++)
		collect_comm_destroy(&scope->comms[peer]);
}

collect_op *sum_begin(collect_comm *comm, int64_t *values, size_t count)
{
	struct collect_call call = {
		.collective = COLLECT_ALL_REDUCE,
		.dtype = COLLECT_INT64,
		.algorithm = COLLECT_AUTO,
		.source = values,
		.target = values,
		.count = count,
	};
	collect_op *op = NULL;
	CHECK_EQ(collect_comm_start(comm, &call, &op), COLLECT_OK);
	return op;
}

struct collect_op_info op_end(collect_op *op, int status)
{
	struct collect_op_info info;
	CHECK_EQ(collect_op_wait(op, PATIENCE_NS), status);
	collect_op_info_get(op, &info);
	collect_op_release(&op);
	return info;
}

static int64_t value_of(const struct scope *scope, uint32_t peer, size_t i)
{
	return (int64_t)((peer + 1) * (i % 5 + 1) + scope->name);
}

void scopes_check(struct scope *scopes, uint32_t scope_count, size_t count)
{
	collect_op **ops = calloc((size_t)scope_count * WORLD_MAX, sizeof(collect_op *));
	int64_t *values = malloc((count + 1) * scope_count * WORLD_MAX * sizeof(int64_t));
	for (uint32_t peer = 0; peer < WORLD_MAX; peer++) {
		for (uint32_t k = 0; k < scope_count; k++) {
			/* Every other member begins them in the opposite order. */
			uint32_t s = peer % 2 == 0 ? k : scope_count - 1 - k;
			uint32_t at = s * WORLD_MAX + peer;
			if ((scopes[s].mask >> peer & 1) == 0)
				continue;
			for (size_t i = 0; i < count; i++)
				values[at * count + i] = value_of(&scopes[s], peer, i);
			ops[at] = sum_begin(scopes[s].comms[peer], values + at * count, count);
		}
	}
	for (uint32_t at = 0; at < scope_count * WORLD_MAX; at++) {
		const struct scope *scope = &scopes[at / WORLD_MAX];
		if (ops[at] == NULL)
			continue;
		struct collect_op_info info = op_end(ops[at], COLLECT_OK);
		CHECK_EQ(info.participants, __builtin_popcount(scope->mask));
		for (size_t i = 0; i < count; i++) {
			int64_t sum = 0;
			for (uint32_t peer = 0; peer < WORLD_MAX; peer++)
				if ((scope->mask >> peer & 1) != 0)
					sum += value_of(scope, peer, i);
			if (values[at * count + i] != sum)
				FAIL("scope %u peer %u element %zu: %ld is not %ld", scope->name,
				     at % WORLD_MAX, i, (long)values[at * count + i], (long)sum);
		}
	}
	free(values);
	free(ops);
}
