/*
 * Follows what plans compute, slice by slice: one chunk, any order.
 *
 * A value is a set of contributions, and a hash of the expression that made it, in which the order
 * of operands counts. Sets are exact; the hash only compares expressions with each other.
 */
#include "plan/plan_world.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "plan/plan_build.h"

#define NONE 0xffffffffu

struct value {
	uint64_t hash;
	bool is_scaled;
	uint64_t set[]; /* word_count */
};

/* A lane of the slice that is looked at. */
struct actor {
	uint32_t step;
	uint32_t out; /* value; NONE: nothing was written */
	bool is_final;
	bool is_sent; /* a frame points into OUT */
};

struct proof {
	const struct col_world *world;
	uint32_t word_count;
	bool reduces;
	uint64_t fold;       /* of all ranks in rank order */
	uint32_t *by_slice;  /* lanes' numbers, those of a slice together; owned, as the rest */
	uint32_t *begins;    /* by slice, where its lanes begin; slice_count + 1 */
	struct actor *actors; /* by lane's number */
	uint32_t *mail;      /* by step's number: the value that has come */
	uint32_t *ready;     /* lanes' numbers */
	uint32_t ready_count;
	uint8_t *values;     /* value_capacity of them */
	uint32_t value_count;
	uint32_t value_capacity;
	uint32_t completer;  /* lane's number, of the slice; NONE */
	uint64_t completed;  /* the hash of what it made */
};

/* ---- values -------------------------------------------------------------------------------- */

static size_t value_bytes(const struct proof *proof)
{
	return sizeof(struct value) + proof->word_count * sizeof(uint64_t);
}

static struct value *value_at(const struct proof *proof, uint32_t value)
{
	return (struct value *)(void *)(proof->values + value * value_bytes(proof));
}

static int value_make(struct proof *proof, uint32_t *value_out)
{
	if (proof->value_count == proof->value_capacity) {
		uint32_t capacity = proof->value_capacity == 0 ? 64 : 2 * proof->value_capacity;
		uint8_t *values = col_alloc_zeroed(capacity, value_bytes(proof));
		if (values == NULL)
			return COLLECT_E_MEMORY;
		if (proof->value_count > 0)
			memcpy(values, proof->values, proof->value_count * value_bytes(proof));
		col_free(proof->values);
		proof->values = values;
		proof->value_capacity = capacity;
	}
	*value_out = proof->value_count++;
	return 0;
}

/* The finalizer of splitmix64. */
static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static uint64_t hash_input(uint32_t rank)
{
	return mix(rank + 0x9e3779b97f4a7c15u);
}

static uint64_t hash_add(uint64_t left, uint64_t right)
{
	return mix(left * 3 + mix(right + 1));
}

static int value_input(struct proof *proof, uint32_t rank, uint32_t *value_out)
{
	int status = value_make(proof, value_out);
	if (status < 0)
		return status;
	struct value *value = value_at(proof, *value_out);
	memset(value, 0, value_bytes(proof));
	value->hash = hash_input(rank);
	value->set[rank / 64] = (uint64_t)1 << (rank % 64);
	return 0;
}

/* *sum_out becomes left op right. */
static int value_add(struct proof *proof, struct col_place at, uint32_t left, uint32_t right,
                     uint32_t *sum_out)
{
	if (left == NONE || right == NONE)
		return col__world_reject(proof->world, at, "it reads OUT before anything is written");
	int status = value_make(proof, sum_out);
	if (status < 0)
		return status;
	const struct value *a = value_at(proof, left);
	const struct value *b = value_at(proof, right);
	struct value *sum = value_at(proof, *sum_out);
	sum->hash = hash_add(a->hash, b->hash);
	sum->is_scaled = a->is_scaled || b->is_scaled;
	for (uint32_t word = 0; word < proof->word_count; word++) {
		uint64_t twice = a->set[word] & b->set[word];
		if (twice != 0)
			return col__world_reject(proof->world, at, "it adds the part of rank %" PRIu32
			                         " a second time",
			                         word * 64 + (uint32_t)__builtin_ctzll(twice));
		sum->set[word] = a->set[word] | b->set[word];
	}
	return 0;
}

/* The lowest rank that is not in a sum; COL_RANK_NONE. What is no sum came from the slice's only
 * contributor: nobody else may read IN. */
static uint32_t value_missing(const struct proof *proof, const struct value *value)
{
	for (uint32_t rank = 0; rank < proof->world->rank_count && proof->reduces; rank++)
		if (~value->set[rank / 64] == 0)
			rank |= 63;
		else if ((value->set[rank / 64] >> (rank % 64) & 1) == 0)
			return rank;
	return COL_RANK_NONE;
}

/* ---- steps --------------------------------------------------------------------------------- */

/* OUT holds what the step wrote; what do its flags say about that? */
static int flags_check(struct proof *proof, struct col_place at, struct actor *actor)
{
	const struct col_world *world = proof->world;
	const struct col_step *step = col__world_step(world, at);
	if (step->flags == 0)
		return 0;
	struct value *value = value_at(proof, actor->out);
	uint32_t missing = value_missing(proof, value);
	if (missing != COL_RANK_NONE)
		return col__world_reject(world, at, "it is complete without the part of rank %" PRIu32,
		                         missing);
	if ((step->flags & COL_STEP_SCALE) != 0) {
		if (value->is_scaled)
			return col__world_reject(world, at, "it scales what is scaled");
		if (proof->completer == NONE && world->plans[0]->is_rank_ordered &&
		    value->hash != proof->fold)
			return col__world_reject(world, at, "it did not add in rank order");
		if (proof->completer != NONE && value->hash != proof->completed)
			return col__world_reject(world, at, "it did not add in the order in which rank %" PRIu32
			                         " did", world->lane_rank[proof->completer]);
		proof->completer = world->lane_base[at.rank] + at.lane;
		proof->completed = value->hash;
		value->is_scaled = true;
	}
	if ((step->flags & COL_STEP_FINAL) != 0) {
		if (proof->reduces && !value->is_scaled)
			return col__world_reject(world, at, "it is final and was never scaled");
		actor->is_final = true;
	}
	return 0;
}

/* What a step makes of OUT, IN and its frame: the value that it stores or sends. */
static int step_value(struct proof *proof, struct col_place at, uint32_t out, uint32_t frame,
                      uint32_t *made)
{
	int opcode = col__world_step(proof->world, at)->opcode;
	uint32_t in = NONE;
	int status = 0;
	if (col_opcode_reads_in(opcode))
		status = value_input(proof, at.rank, &in);
	if (status < 0)
		return status;
	switch ((enum col_opcode)opcode) {
	case COL_SEND_IN:
	case COL_COPY_IN:
		*made = in;
		return 0;
	case COL_SEND_OUT:
	case COL_SEND_COPY:
		*made = out;
		if (out == NONE)
			return col__world_reject(proof->world, at, "it reads OUT before anything is written");
		return 0;
	case COL_RECV:
	case COL_RECV_SEND:
		*made = frame;
		return 0;
	case COL_RECV_REDUCE:
	case COL_OUT_REDUCE_SEND:
		return value_add(proof, at, out, frame, made);
	case COL_RECV_REDUCE_OUT:
		return value_add(proof, at, frame, out, made);
	case COL_RECV_REDUCE_IN:
	case COL_RECV_REDUCE_SEND:
		return value_add(proof, at, frame, in, made);
	case COL_IN_REDUCE_RECV:
	case COL_IN_REDUCE_SEND:
		return value_add(proof, at, in, frame, made);
	case COL_REDUCE_IN:
		return value_add(proof, at, out, in, made);
	case COL_OPCODE_COUNT:
	default:
		COL_ASSERT(false);
	}
}

/* Values that travel or are scaled in place are not shared: a copy of its own for the receiver. */
static int value_copy(struct proof *proof, uint32_t value, uint32_t *copy_out)
{
	int status = value_make(proof, copy_out);
	if (status == 0)
		memcpy(value_at(proof, *copy_out), value_at(proof, value), value_bytes(proof));
	return status;
}

static int frame_send(struct proof *proof, const struct col_step *step, uint32_t value)
{
	struct col_place to = col__step_target(step);
	uint32_t lane = proof->world->lane_base[to.rank] + to.lane;
	uint32_t *mail = &proof->mail[col__world_step_number(proof->world, to)];
	if (proof->actors[lane].step == to.step)
		proof->ready[proof->ready_count++] = lane;
	return value_copy(proof, value, mail);
}

static int step_apply(struct proof *proof, struct col_place at, struct actor *actor, uint32_t frame)
{
	const struct col_world *world = proof->world;
	const struct col_step *step = col__world_step(world, at);
	bool writes = col_opcode_writes_out(step->opcode) != 0;
	if (writes && actor->is_final)
		return col__world_reject(world, at, "it changes OUT, which is final");
	if (writes && actor->is_sent)
		return col__world_reject(world, at, "it changes OUT, which a frame points into");

	uint32_t made = NONE;
	int status = step_value(proof, at, actor->out, frame, &made);
	if (status == 0 && writes) {
		actor->out = made;
		status = flags_check(proof, at, actor);
	}
	if (status == 0 && col_opcode_sends(step->opcode)) {
		actor->is_sent |= step->opcode == COL_SEND_OUT || step->opcode == COL_RECV_SEND;
		status = frame_send(proof, step, made);
	}
	return status;
}

static int lane_run(struct proof *proof, uint32_t lane)
{
	const struct col_world *world = proof->world;
	struct actor *actor = &proof->actors[lane];
	struct col_place at = col__world_place(world, lane);
	uint32_t step_count = col__world_lane(world, at)->step_count;
	for (; actor->step < step_count; actor->step++) {
		at.step = actor->step;
		uint32_t frame = NONE;
		if (col_opcode_receives(col__world_step(world, at)->opcode)) {
			frame = proof->mail[col__world_step_number(world, at)];
			if (frame == NONE)
				return 0;
		}
		int status = step_apply(proof, at, actor, frame);
		if (status < 0)
			return status;
	}
	return 0;
}

/* ---- slices -------------------------------------------------------------------------------- */

static int result_missing(const struct proof *proof, uint32_t slice)
{
	const struct col_world *world = proof->world;
	for (uint32_t rank = 0; rank < world->rank_count; rank++) {
		bool has = !col_plan_needs(world->plans[rank], slice, rank);
		for (uint32_t i = proof->begins[slice]; i < proof->begins[slice + 1] && !has; i++)
			has = world->lane_rank[proof->by_slice[i]] == rank &&
			      proof->actors[proof->by_slice[i]].is_final;
		if (has)
			continue;
		(void)snprintf(world->reason_out, world->reason_capacity, "rank %" PRIu32
		               ": no step makes slice %" PRIu32 " final", rank, slice);
		return COLLECT_E_INVALID;
	}
	return 0;
}

/* Everybody who needs the slice has it, and nobody waits. */
static int slice_end(const struct proof *proof, uint32_t slice)
{
	const struct col_world *world = proof->world;
	uint32_t needed = 0;
	for (uint32_t i = proof->begins[slice]; i < proof->begins[slice + 1]; i++) {
		uint32_t lane = proof->by_slice[i];
		struct col_place at = col__world_place(world, lane);
		at.step = proof->actors[lane].step;
		if (at.step < col__world_lane(world, at)->step_count)
			return col__world_reject(world, at, "deadlock: it waits for a frame from rank %" PRIu32,
			                         col__world_step(world, at)->peer);
		if (proof->actors[lane].is_final)
			needed += col_plan_needs(world->plans[at.rank], slice, at.rank);
	}
	int collective = world->plans[0]->collective;
	bool is_for_all = collective == COLLECT_ALL_REDUCE || collective == COLLECT_ALL_GATHER ||
	                  collective == COLLECT_BROADCAST || collective == COLLECT_BARRIER;
	return needed == (is_for_all ? world->rank_count : 1) ? 0 : result_missing(proof, slice);
}

static int slice_prove(struct proof *proof, uint32_t slice)
{
	proof->value_count = 0;
	proof->completer = NONE;
	proof->ready_count = 0;
	int status = 0;
	for (uint32_t i = proof->begins[slice]; i < proof->begins[slice + 1] && status == 0; i++) {
		status = lane_run(proof, proof->by_slice[i]);
		while (proof->ready_count > 0 && status == 0)
			status = lane_run(proof, proof->ready[--proof->ready_count]);
	}
	return status == 0 ? slice_end(proof, slice) : status;
}

static void lanes_sort(struct proof *proof)
{
	const struct col_world *world = proof->world;
	for (uint32_t lane = 0; lane < world->lane_count; lane++)
		proof->begins[col__world_lane(world, col__world_place(world, lane))->slice]++;
	for (uint32_t slice = 0; slice < world->slice_count; slice++)
		proof->begins[slice + 1] += proof->begins[slice];
	for (uint32_t lane = world->lane_count; lane-- > 0;) {
		uint32_t slice = col__world_lane(world, col__world_place(world, lane))->slice;
		proof->by_slice[--proof->begins[slice]] = lane;
	}
	for (uint32_t lane = 0; lane < world->lane_count; lane++)
		proof->actors[lane].out = NONE;
	for (uint32_t step = 0; step < world->step_count; step++)
		proof->mail[step] = NONE;
}

int col__world_prove(const struct col_world *world)
{
	struct proof proof = {
		.world = world,
		.word_count = (world->rank_count + 63) / 64,
		.reduces = col__collective_reduces(world->plans[0]->collective),
		.fold = hash_input(0),
		.by_slice = col_alloc_zeroed(world->lane_count, sizeof(uint32_t)),
		.begins = col_alloc_zeroed((size_t)world->slice_count + 1, sizeof(uint32_t)),
		.actors = col_alloc_zeroed(world->lane_count, sizeof(struct actor)),
		.mail = col_alloc_zeroed(world->step_count, sizeof(uint32_t)),
		.ready = col_alloc_zeroed(world->step_count, sizeof(uint32_t)),
	};
	for (uint32_t rank = 1; rank < world->rank_count; rank++)
		proof.fold = hash_add(proof.fold, hash_input(rank));

	int status = COLLECT_E_MEMORY;
	if (proof.by_slice != NULL && proof.begins != NULL && proof.actors != NULL &&
	    proof.mail != NULL && proof.ready != NULL) {
		lanes_sort(&proof);
		status = 0;
	}
	for (uint32_t slice = 0; slice < world->slice_count && status == 0; slice++)
		status = slice_prove(&proof, slice);
	col_free(proof.by_slice);
	col_free(proof.begins);
	col_free(proof.actors);
	col_free(proof.mail);
	col_free(proof.ready);
	col_free(proof.values);
	return status;
}
