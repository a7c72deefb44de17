/*
 * Which algorithm an operation gets, and its plan. The choice follows from the recipe, the members
 * and the size alone, so that all of them choose alike.
 */
#include <string.h>

#include "base/alloc.h"
#include "comm/comm.h"

#define CLASSES_PER_OCTAVE 8u

/* A class of sizes, eight to an octave, and the largest size in it. */
static uint32_t size_class(uint64_t bytes, uint64_t *representative_out)
{
	if (bytes <= CLASSES_PER_OCTAVE) {
		*representative_out = bytes;
		return (uint32_t)bytes;
	}
	uint32_t octave = 63 - (uint32_t)__builtin_clzll(bytes - 1);
	uint32_t shift = octave - 3;
	uint64_t part = (bytes - 1) >> shift; /* 8…15 */
	*representative_out = (part + 1) << shift;
	return CLASSES_PER_OCTAVE * (octave - 2) + (uint32_t)(part - CLASSES_PER_OCTAVE) + 1;
}

/* With counts the ranks know only their own blocks, and none that they would pass on. */
static bool passes_on(int algorithm)
{
	return algorithm == COLLECT_BRUCK || algorithm == COLLECT_HIERARCHICAL;
}

static int algorithm_choose(struct collect_comm *comm, const struct collect_op *op)
{
	int collective = op->is_token ? COLLECT_BARRIER : op->call.collective;
	if (op->call.algorithm != COLLECT_AUTO &&
	    (collect_algorithm_has(op->call.algorithm, collective) ||
	     col__definition_has(comm, op->call.algorithm, collective)))
		return op->call.algorithm;
	/* The sum of all counts of an all-to-all is known to nobody: as large as can be. */
	bool is_unknown = collective == COLLECT_ALL_TO_ALL && op->blocks_at != NULL;
	uint64_t bytes = is_unknown ? COL_PLAN_BYTES_MAX : op->shape.payload_bytes;
	int8_t *choice = &comm->choices[collective][size_class(bytes, &bytes)];
	if (*choice == 0) {
		/* What the recipe asks for is done where it can be. */
		struct collect_recipe recipe = comm->recipe;
		if (!collect_algorithm_has(recipe.algorithm, collective))
			recipe.algorithm = COLLECT_AUTO;
		int algorithm = collect_choose(&recipe, collective, comm->member_count, bytes, NULL, 0);
		if (algorithm < 0)
			return algorithm;
		*choice = (int8_t)(algorithm + 1);
	}
	int algorithm = *choice - 1;
	return is_unknown && passes_on(algorithm) ? COLLECT_PAIRWISE : algorithm;
}

static void runner_free(struct col_runner *runner)
{
	col_exec_fini(&runner->exec);
	col_plan_destroy(&runner->plan);
	col_free(runner);
}

void col__runners_drop(struct collect_comm *comm)
{
	while (comm->runners != NULL) {
		struct col_runner *runner = comm->runners;
		comm->runners = runner->next;
		runner_free(runner);
	}
	comm->runner = NULL;
	comm->runner_count = 0;
	comm->runners_version++;
	memset(comm->choices, 0, sizeof(comm->choices));
}

/* The one that was not used for longest goes. */
static void runner_evict(struct collect_comm *comm)
{
	struct col_runner **at = &comm->runners;
	while ((*at)->next != NULL)
		at = &(*at)->next;
	runner_free(*at);
	*at = NULL;
	comm->runner_count--;
	comm->runners_version++;
}

/* The runner's plan, and what members must agree on of it besides the recipe. */
static int plan_make(struct collect_comm *comm, struct col_runner *runner)
{
	struct collect_recipe recipe = comm->recipe;
	if (runner->algorithm >= COLLECT_ALGORITHM_DEFINED)
		return col__definition_build(comm, runner->algorithm, runner->collective, runner->root,
		                             &runner->plan, &runner->digest);
	recipe.algorithm = runner->algorithm;
	runner->digest = (uint32_t)runner->algorithm;
	return col_plan_build(&recipe, runner->collective, comm->member_count, runner->root,
	                      comm->self_rank, &runner->plan);
}

static int runner_make(struct collect_comm *comm, int collective, int algorithm, uint32_t root,
                       struct col_runner **runner_out)
{
	struct col_runner *runner = col_alloc_zeroed(1, sizeof(*runner));
	if (runner == NULL)
		return COLLECT_E_MEMORY;
	runner->collective = collective;
	runner->algorithm = algorithm;
	runner->root = root;
	int status = plan_make(comm, runner);
	if (status == COLLECT_OK)
		status = col_exec_init(&runner->exec, runner->plan, comm->engine->options.chunk_bytes,
		                       &comm->engine->buffers, &col__op_exec_events, comm);
	if (status < 0) {
		col_plan_destroy(&runner->plan);
		col_free(runner);
		return status;
	}
	*runner_out = runner;
	return COLLECT_OK;
}

/* Takes it out of the list. NULL: there is none. */
static struct col_runner *runner_unlink(struct collect_comm *comm, int collective, int algorithm,
                                        uint32_t root)
{
	for (struct col_runner **at = &comm->runners; *at != NULL; at = &(*at)->next) {
		struct col_runner *runner = *at;
		if (runner->collective != collective || runner->algorithm != algorithm ||
		    runner->root != root)
			continue;
		*at = runner->next;
		return runner;
	}
	return NULL;
}

int col__runner_find(struct collect_comm *comm, struct collect_op *op, uint32_t root)
{
	if (op->runner_version == comm->runners_version)
		return COLLECT_OK;
	int collective = op->is_token ? COLLECT_BARRIER : op->call.collective;
	int algorithm = algorithm_choose(comm, op);
	if (algorithm < 0)
		return algorithm;
	struct col_runner *runner = runner_unlink(comm, collective, algorithm, root);
	if (runner == NULL) {
		int status = runner_make(comm, collective, algorithm, root, &runner);
		if (status < 0)
			return status;
		if (comm->runner_count == COL_RUNNERS_MAX)
			runner_evict(comm);
		comm->runner_count++;
	}
	runner->next = comm->runners;
	comm->runners = runner;
	op->runner = runner;
	op->runner_version = comm->runners_version;
	op->algorithm = algorithm;
	return COLLECT_OK;
}
