/*
 * Definitions of a comm: algorithms of the user's own, proven before they are kept.
 *
 * They are told apart by number, collective and world. What a definition says goes into the digest
 * of every operation that runs it: members whose definitions differ find that out by their first
 * frames, as they do of any other difference.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "comm/comm.h"
#include "plan/plan_definition.h"

/* One block of memory: behind it the slices, and behind them their edges. */
struct col_definition {
	struct col_definition *next;
	uint32_t digest; /* of everything but its name */
	struct collect_definition it;
	struct collect_slice slices[];
};

static uint32_t digest_of(const struct collect_definition *it)
{
	uint32_t crc = col_crc32c((uint32_t[4]){(uint32_t)it->algorithm, (uint32_t)it->collective,
	                                        it->world, it->slice_count}, 4 * sizeof(uint32_t));
	for (uint32_t i = 0; i < it->slice_count; i++) {
		const struct collect_slice *slice = &it->slices[i];
		uint32_t parts[7] = {
			crc, slice->block, slice->weight, slice->reduce_count, slice->spread_count,
			col_crc32c(slice->reduce, slice->reduce_count * sizeof(*slice->reduce)),
			col_crc32c(slice->spread, slice->spread_count * sizeof(*slice->spread)),
		};
		crc = col_crc32c(parts, sizeof(parts));
	}
	return crc;
}

static struct collect_edge *edges_copy(struct collect_edge *at, const struct collect_edge **edges,
                                       uint32_t count)
{
	if (count > 0)
		memcpy(at, *edges, count * sizeof(*at));
	*edges = at;
	return at + count;
}

/* NULL: out of memory. Its shape has been checked, so the sums cannot overflow. */
static struct col_definition *copy_make(const struct collect_definition *it)
{
	size_t edge_count = 0;
	for (uint32_t i = 0; i < it->slice_count; i++)
		edge_count += (size_t)it->slices[i].reduce_count + it->slices[i].spread_count;
	size_t name_bytes = strlen(it->name) + 1;
	struct col_definition *made = col_alloc(
		sizeof(*made) + it->slice_count * sizeof(made->slices[0]) +
		edge_count * sizeof(struct collect_edge) + name_bytes);
	if (made == NULL)
		return NULL;
	made->next = NULL;
	made->it = *it;
	made->it.slices = made->slices;
	struct collect_edge *edges = (struct collect_edge *)(void *)&made->slices[it->slice_count];
	for (uint32_t i = 0; i < it->slice_count; i++) {
		made->slices[i] = it->slices[i];
		edges = edges_copy(edges, &made->slices[i].reduce, it->slices[i].reduce_count);
		edges = edges_copy(edges, &made->slices[i].spread, it->slices[i].spread_count);
	}
	char *name = (char *)edges;
	memcpy(name, it->name, name_bytes);
	made->it.name = name;
	made->digest = digest_of(&made->it);
	return made;
}

/* Whether it may stand beside the others; COLLECT_PENDING: it is among them. */
static int place_find(const struct collect_comm *comm, const struct col_definition *made,
                      char *reason_out, size_t capacity)
{
	uint32_t count = 0;
	const char *reason = NULL;
	for (const struct col_definition *at = comm->definitions; at != NULL; at = at->next) {
		count++;
		if (at->it.algorithm != made->it.algorithm)
			continue;
		if (at->it.collective != made->it.collective)
			reason = "the number is that of a definition of another collective";
		else if (at->it.world == made->it.world && at->digest != made->digest)
			reason = "the number has another definition for this world";
		else if (at->it.world == made->it.world)
			return COLLECT_PENDING;
	}
	if (reason != NULL && reason_out != NULL)
		(void)snprintf(reason_out, capacity, "%s", reason);
	if (reason != NULL)
		return COLLECT_E_INVALID;
	return count < COL_DEFINITIONS_MAX ? COLLECT_OK : COLLECT_E_FULL;
}

int collect_comm_define(collect_comm *comm, const struct collect_definition *definition,
                        char *reason_out, size_t capacity)
{
	/* The proof takes long, and needs nothing of the comm. */
	int status = collect_definition_check(definition, reason_out, capacity);
	if (status < 0)
		return status;
	struct col_definition *made = copy_make(definition);
	if (made == NULL)
		return COLLECT_E_MEMORY;
	col_engine_enter(comm->engine);
	status = place_find(comm, made, reason_out, capacity);
	if (status == COLLECT_OK) {
		made->next = comm->definitions;
		comm->definitions = made;
		comm->runners_version++; /* prepared ops look their plans up again */
	}
	col_engine_leave(comm->engine);
	if (status != COLLECT_OK)
		col_free(made);
	return status < 0 ? status : COLLECT_OK;
}

static const struct col_definition *find(const struct collect_comm *comm, int algorithm,
                                         int collective, uint32_t world)
{
	for (const struct col_definition *at = comm->definitions; at != NULL; at = at->next)
		if (at->it.algorithm == algorithm && at->it.collective == collective &&
		    (at->it.world == world || world == 0))
			return at;
	return NULL;
}

bool col__algorithm_can(const struct collect_comm *comm, int algorithm, int collective)
{
	return collect_algorithm_has(algorithm, collective) ||
	       find(comm, algorithm, collective, 0) != NULL;
}

bool col__definition_has(const struct collect_comm *comm, int algorithm, int collective)
{
	return find(comm, algorithm, collective, comm->member_count) != NULL;
}

int col__definition_build(const struct collect_comm *comm, int algorithm, int collective,
                          uint32_t root, struct collect_plan **plan_out, uint32_t *digest_out)
{
	const struct col_definition *found = find(comm, algorithm, collective, comm->member_count);
	struct col_trees *trees;
	int status = col_trees_create(&found->it, NULL, 0, &trees);
	if (status < 0)
		return status;
	status = col_trees_build(trees, root, comm->self_rank, plan_out);
	col_trees_destroy(&trees);
	*digest_out = found->digest;
	return status;
}

const char *col__definition_name(const struct collect_comm *comm, int algorithm, int collective)
{
	const struct col_definition *found = find(comm, algorithm, collective, 0);
	return found != NULL ? found->it.name : NULL;
}

void col__definitions_drop(struct collect_comm *comm)
{
	while (comm->definitions != NULL) {
		struct col_definition *definition = comm->definitions;
		comm->definitions = definition->next;
		col_free(definition);
	}
}
