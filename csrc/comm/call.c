/*
 * Calls: what struct collect_call allows, how large everything is, and what members must agree on.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/size.h"
#include "comm/comm.h"

static const char *const names[COLLECT_COLLECTIVE_COUNT] = {
	[COLLECT_ALL_REDUCE] = "all_reduce", [COLLECT_REDUCE_SCATTER] = "reduce_scatter",
	[COLLECT_ALL_GATHER] = "all_gather", [COLLECT_ALL_TO_ALL] = "all_to_all",
	[COLLECT_BROADCAST] = "broadcast",   [COLLECT_REDUCE] = "reduce",
	[COLLECT_GATHER] = "gather",         [COLLECT_SCATTER] = "scatter",
	[COLLECT_BARRIER] = "barrier",
};

/* ---- kinds of collectives ---- */

bool col__call_has_blocks(int collective)
{
	return collective == COLLECT_REDUCE_SCATTER || collective == COLLECT_ALL_GATHER ||
	       collective == COLLECT_ALL_TO_ALL || collective == COLLECT_GATHER ||
	       collective == COLLECT_SCATTER;
}

bool col__call_reduces(int collective)
{
	return collective == COLLECT_ALL_REDUCE || collective == COLLECT_REDUCE_SCATTER ||
	       collective == COLLECT_REDUCE;
}

static bool has_root(int collective)
{
	return collective == COLLECT_BROADCAST || collective == COLLECT_REDUCE ||
	       collective == COLLECT_GATHER || collective == COLLECT_SCATTER;
}

bool col__call_is_retained(const struct collect_op *op)
{
	int collective = op->call.collective;
	return collective == COLLECT_ALL_REDUCE || collective == COLLECT_ALL_GATHER ||
	       collective == COLLECT_BARRIER;
}

bool col__call_waits_for_all(const struct collect_op *op)
{
	int collective = op->call.collective;
	if (op->is_token)
		return true;
	if (has_root(collective) || op->call.count == 0)
		return false;
	if (op->blocks_at == NULL)
		return true;
	/* Who has an empty block makes nobody wait, or waits for nobody. What all-to-all's other ranks
	 * have is not known. */
	if (collective == COLLECT_ALL_TO_ALL)
		return false;
	for (uint32_t i = 0; i < op->call.world; i++)
		if (op->blocks_at[i] == op->blocks_at[i + 1])
			return false;
	return true;
}

/* ---- sizes ---- */

static uint64_t block_bytes(const struct collect_op *op, uint32_t rank)
{
	if (op->blocks_at == NULL)
		return op->call.count * op->element_bytes;
	return op->blocks_at[rank + 1] - op->blocks_at[rank];
}

static uint64_t block_begin(const struct collect_op *op, uint32_t rank)
{
	return op->blocks_at == NULL ? rank * op->call.count * op->element_bytes
	                             : op->blocks_at[rank];
}

struct col_shape col__call_shape(const struct collect_op *op, uint32_t world, uint32_t rank)
{
	bool is_root = op->call.root == op->comm->self;
	uint64_t bytes = op->call.count * op->element_bytes;
	uint64_t all = op->blocks_at != NULL ? op->blocks_at[world] : world * bytes;
	struct col_shape shape = {.payload_bytes = all, .layout_bytes = bytes};
	if (op->is_token)
		return (struct col_shape){.payload_bytes = sizeof(op->token),
		                          .result_bytes = sizeof(op->token),
		                          .layout_bytes = sizeof(op->token)};
	switch ((enum collect_collective)op->call.collective) {
	case COLLECT_ALL_REDUCE:
	case COLLECT_BROADCAST:
		shape.payload_bytes = bytes;
		shape.result_bytes = bytes;
		break;
	case COLLECT_REDUCE:
		shape.payload_bytes = bytes;
		shape.result_bytes = is_root ? bytes : 0;
		break;
	case COLLECT_REDUCE_SCATTER:
	case COLLECT_SCATTER:
		shape.result_bytes = block_bytes(op, rank);
		break;
	case COLLECT_ALL_GATHER:
		shape.result_bytes = all;
		break;
	case COLLECT_GATHER:
		shape.result_bytes = is_root ? all : 0;
		break;
	case COLLECT_ALL_TO_ALL:
		shape.result_bytes = op->target_at != NULL ? op->target_at[world] : all;
		shape.payload_bytes = op->target_at != NULL ? 0 : all;
		break;
	case COLLECT_BARRIER:
	case COLLECT_COLLECTIVE_COUNT:
		break;
	}
	shape.target_bytes = shape.result_bytes;
	return shape;
}

static bool overlap(const void *a_begin, uint64_t a_bytes, const void *b_begin, uint64_t b_bytes)
{
	uintptr_t a = (uintptr_t)a_begin;
	uintptr_t b = (uintptr_t)b_begin;
	return a_bytes > 0 && b_bytes > 0 && a < b + b_bytes && b < a + a_bytes;
}

/* What this rank's source holds. */
static uint64_t source_bytes(const struct collect_op *op, uint32_t world, uint32_t rank)
{
	bool is_root = op->call.root == op->comm->self;
	switch ((enum collect_collective)op->call.collective) {
	case COLLECT_ALL_REDUCE:
	case COLLECT_REDUCE:
		return op->call.count * op->element_bytes;
	case COLLECT_BROADCAST:
		return is_root ? op->call.count * op->element_bytes : 0;
	case COLLECT_ALL_GATHER:
	case COLLECT_GATHER:
		return block_bytes(op, rank);
	case COLLECT_SCATTER:
		return is_root ? block_begin(op, world) : 0;
	case COLLECT_REDUCE_SCATTER:
	case COLLECT_ALL_TO_ALL:
		return block_begin(op, world);
	case COLLECT_BARRIER:
	case COLLECT_COLLECTIVE_COUNT:
		break;
	}
	return 0;
}

bool col__call_can_be_direct(const struct collect_op *op, uint32_t world, uint32_t rank)
{
	const struct collect_call *call = &op->call;
	uint64_t bytes = source_bytes(op, world, rank);
	uint64_t target_bytes = col__call_shape(op, world, rank).target_bytes;
	if (op->is_token)
		return false;
	if (!overlap(call->source, bytes, call->target, target_bytes))
		return true;
	/* What is copied to its own place does not change. */
	const uint8_t *source = call->source;
	const uint8_t *target = call->target;
	switch (call->collective) {
	case COLLECT_BROADCAST:
		return source == target;
	case COLLECT_ALL_GATHER:
	case COLLECT_GATHER:
		return source == target + block_begin(op, rank);
	case COLLECT_SCATTER:
		return target == source + block_begin(op, rank);
	default:
		return false;
	}
}

/* ---- checks ---- */

static bool fields_are_valid(const struct collect_comm *comm, const struct collect_call *call)
{
	if (call->collective < 0 || call->collective >= COLLECT_COLLECTIVE_COUNT ||
	    !col_dtype_is_valid(call->dtype) || !col_reduce_op_is_valid(call->reduce_op))
		return false;
	if (!col__call_reduces(call->collective) && call->reduce_op != COLLECT_SUM)
		return false;
	if (has_root(call->collective) != (call->root != 0) || call->world > COLLECT_RANKS_MAX)
		return false;
	return call->algorithm == COLLECT_AUTO ||
	       col__algorithm_can(comm, call->algorithm, call->collective);
}

static bool is_shaped(const struct collect_call *call)
{
	bool may_shrink = call->counts == NULL && (call->collective == COLLECT_ALL_GATHER ||
	                                           call->collective == COLLECT_GATHER);
	return col__call_has_blocks(call->collective) && !may_shrink;
}

static bool counts_are_valid(const struct collect_call *call)
{
	bool is_all_to_all = call->collective == COLLECT_ALL_TO_ALL;
	if (is_shaped(call) && call->world == 0)
		return false;
	if (call->counts == NULL)
		return call->target_counts == NULL;
	if (!col__call_has_blocks(call->collective) ||
	    is_all_to_all != (call->target_counts != NULL))
		return false;
	/* These pass blocks on whose sizes only others know. */
	return !is_all_to_all || (call->algorithm != COLLECT_BRUCK &&
	                          call->algorithm != COLLECT_HIERARCHICAL);
}

static bool is_available(const struct collect_call *call)
{
	const struct col_kernels *kernels = col_kernels();
	if (!col__call_reduces(call->collective))
		return true;
	return kernels->reduce[call->dtype][call->reduce_op] != NULL &&
	       (call->reduce_op != COLLECT_AVG || kernels->divide[call->dtype] != NULL) &&
	       (call->reduce_op != COLLECT_PREMUL_SUM || kernels->scale[call->dtype] != NULL);
}

/* counts into bytes before each. False: too many. */
static bool sums_fill(const uint64_t *counts, uint32_t world, uint64_t element_bytes,
                      uint64_t *sums_out)
{
	uint64_t sum = 0;
	for (uint32_t i = 0; i < world; i++) {
		uint64_t bytes;
		sums_out[i] = sum;
		if (__builtin_mul_overflow(counts[i], element_bytes, &bytes) ||
		    __builtin_add_overflow(sum, bytes, &sum) || sum > PTRDIFF_MAX)
			return false;
	}
	sums_out[world] = sum;
	return true;
}

static bool sizes_are_valid(const struct collect_call *call, uint64_t element_bytes)
{
	uint64_t world = 1;
	uint64_t bytes;
	if (col__call_has_blocks(call->collective))
		world = call->world != 0 ? call->world : COLLECT_RANKS_MAX;
	return !__builtin_mul_overflow(call->count, element_bytes, &bytes) &&
	       !__builtin_mul_overflow(bytes, world, &bytes) && bytes <= COL_PLAN_BYTES_MAX;
}

/* In which world and as which rank the memory is looked at: the view's, if the call fits it. */
static void viewpoint(const struct collect_op *op, uint32_t *world_out, uint32_t *rank_out)
{
	const struct collect_comm *comm = op->comm;
	uint32_t world = op->call.world != 0 ? op->call.world : comm->member_count;
	*world_out = world != 0 ? world : 1;
	*rank_out = comm->self_rank < *world_out ? comm->self_rank : 0;
}

/* NULL where something is needed, or memory that is both and may not be. */
static bool memory_is_valid(const struct collect_op *op)
{
	const struct collect_call *call = &op->call;
	uint32_t world;
	uint32_t rank;
	viewpoint(op, &world, &rank);
	uint64_t source = source_bytes(op, world, rank);
	uint64_t target = col__call_shape(op, world, rank).target_bytes;
	if (op->is_token)
		return true;
	if ((source > 0 && call->source == NULL) || (target > 0 && call->target == NULL))
		return false;
	if (!overlap(call->source, source, call->target, target))
		return true;
	const uint8_t *outer = call->target;
	const uint8_t *inner = call->source;
	switch (call->collective) {
	case COLLECT_ALL_TO_ALL:
		return inner == outer && op->blocks_at == NULL;
	case COLLECT_REDUCE_SCATTER:
	case COLLECT_SCATTER:
		inner = call->target;
		outer = call->source;
		break;
	case COLLECT_ALL_GATHER:
	case COLLECT_GATHER:
		break;
	default:
		return inner == outer;
	}
	/* At this rank's block; which rank that is may have changed since the caller looked. */
	for (uint32_t i = 0; i < world; i++)
		if (inner == outer + block_begin(op, i) && block_bytes(op, i) == block_bytes(op, rank))
			return true;
	return false;
}

/* ---- making an op ---- */

static uint32_t call_digest(const struct collect_op *op)
{
	const struct collect_call *call = &op->call;
	bool has_counts = op->blocks_at != NULL;
	bool agrees = has_counts && call->collective != COLLECT_ALL_TO_ALL;
	uint64_t parts[9] = {
		(uint64_t)call->collective, (uint64_t)call->dtype, (uint64_t)call->reduce_op,
		(uint64_t)call->algorithm,  call->root,            has_counts ? 0 : call->count,
		has_counts,                 op->is_shaped ? call->world : 0,
		agrees ? col_crc32c(op->blocks_at, (call->world + 1) * sizeof(*op->blocks_at)) : 0,
	};
	return col_crc32c(parts, sizeof(parts));
}

int col__call_make(struct collect_comm *comm, const struct collect_call *call,
                   struct collect_op **op_out)
{
	if (!fields_are_valid(comm, call) || !counts_are_valid(call))
		return COLLECT_E_INVALID;
	if (!is_available(call))
		return COLLECT_E_UNAVAILABLE;
	uint64_t element_bytes = col_dtype_bytes(call->dtype);
	bool has_counts = call->counts != NULL;
	size_t sums = has_counts ? 2 * ((size_t)call->world + 1) : 0;
	struct collect_op *op =
		col_alloc_zeroed(1, sizeof(*op) + sums * sizeof(op->sums[0]));
	if (op == NULL)
		return COLLECT_E_MEMORY;
	op->comm = comm;
	op->fitting_epoch = comm->epoch;
	atomic_init(&op->status, COLLECT_OK);
	atomic_init(&op->holds, 1);
	op->call = *call;
	op->call.counts = NULL;
	op->call.target_counts = NULL;
	op->call.count = has_counts ? 1 : call->count; /* with counts it means nothing */
	op->element_bytes = element_bytes;
	op->is_shaped = is_shaped(call);
	op->is_token = call->collective == COLLECT_BARRIER ||
	               (call->collective == COLLECT_ALL_REDUCE && call->count == 0);
	op->token = 1;
	if (op->is_token)
		op->call.count = 0;
	bool is_valid = true;
	if (has_counts) {
		op->blocks_at = op->sums;
		is_valid = sums_fill(call->counts, call->world, element_bytes, op->sums);
	}
	if (has_counts && call->target_counts != NULL) {
		op->target_at = op->sums + call->world + 1;
		is_valid = is_valid && sums_fill(call->target_counts, call->world, element_bytes,
		                                 op->sums + call->world + 1);
	}
	is_valid = is_valid && sizes_are_valid(&op->call, element_bytes) && memory_is_valid(op);
	if (!is_valid) {
		col_free(op);
		return COLLECT_E_INVALID;
	}
	if (call->is_produced) {
		uint32_t world;
		uint32_t rank;
		viewpoint(op, &world, &rank);
		if (col__ranges_produce_later(op, source_bytes(op, world, rank)) < 0) {
			col_free(op);
			return COLLECT_E_MEMORY;
		}
	}
	op->digest = call_digest(op);
	col__comm_hold(comm);
	*op_out = op;
	return COLLECT_OK;
}

int col__call_aim(struct collect_op *op, const void *source, void *target, uint64_t count)
{
	struct collect_call *call = &op->call;
	uint64_t bytes;
	if (!op->is_prepared || op->is_token || call->collective != COLLECT_ALL_REDUCE)
		return COLLECT_E_INVALID;
	if (op->is_queued)
		return COLLECT_E_BUSY;
	if (count == 0 || source == NULL || target == NULL ||
	    __builtin_mul_overflow(count, op->element_bytes, &bytes) || bytes > COL_PLAN_BYTES_MAX ||
	    (source != target && overlap(source, bytes, target, bytes)))
		return COLLECT_E_INVALID;
	call->source = source;
	call->target = target;
	if (call->count != count) {
		call->count = count;
		op->digest = call_digest(op);
		op->runner_version = 0; /* another size may have another algorithm */
	}
	return COLLECT_OK;
}

/* ---- text ---- */

void col__call_print(const struct collect_op *op, char *text_out, size_t capacity)
{
	const struct collect_call *call = &op->call;
	const char *dtype = col_dtype_name(call->dtype);
	char elements[40];
	char tail[32] = "";
	char by[COLLECT_NAME_BYTES_MAX + 16] = "";
	if (call->collective == COLLECT_BARRIER) {
		snprintf(text_out, capacity, "barrier");
		return;
	}
	if (op->target_at != NULL)
		snprintf(elements, sizeof(elements), "%u blocks", call->world);
	else if (op->blocks_at != NULL)
		snprintf(elements, sizeof(elements), "%u blocks, %llu", call->world,
		         (unsigned long long)(op->blocks_at[call->world] / op->element_bytes));
	else if (op->is_shaped)
		snprintf(elements, sizeof(elements), "%ux%llu", call->world,
		         (unsigned long long)call->count);
	else
		snprintf(elements, sizeof(elements), "%llu", (unsigned long long)call->count);
	if (col__call_reduces(call->collective))
		snprintf(tail, sizeof(tail), " %s", col_reduce_op_name(call->reduce_op));
	size_t used = strlen(tail);
	if (has_root(call->collective))
		snprintf(tail + used, sizeof(tail) - used, " root %llx", (unsigned long long)call->root);
	/* The number too: it tells apart what has one name and is defined in two ways. */
	const char *name = col__definition_name(op->comm, call->algorithm, call->collective);
	if (name != NULL)
		snprintf(by, sizeof(by), " by %s/%x", name, (unsigned)call->algorithm);
	snprintf(text_out, capacity, "%s %s[%s]%s%s", names[call->collective], dtype, elements, tail,
	         by);
}
