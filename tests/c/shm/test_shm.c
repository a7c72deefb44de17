/* Every collective, type, size and place of the arrays, against what collect.h says. */
#include "shm/shm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "harness.h"
#include "kernels/kernels.h"
#include "shm/team.h"

#define RANKS_MAX 5u
#define ARENA_BYTES ((size_t)3 << 20)
#define GUARD_BYTES 64u
#define GUARD 0xa5

enum place { PRIVATE, IN_PLACE, SHARED, SHARED_IN_PLACE, SHARED_SOURCE, PLACES };

/* What one call gives and gets, in elements. */
struct shape {
	int collective;
	int dtype;
	int reduce_op;
	uint32_t root;
	uint64_t count;
	bool has_counts;
	uint64_t counts[RANKS_MAX];
	uint64_t pairs[RANKS_MAX][RANKS_MAX]; /* all-to-all: from, to */
};

struct arena {
	uint8_t *source[2]; /* private, shared */
	uint8_t *target[2];
	uint8_t *inputs[RANKS_MAX]; /* what every rank gives */
	uint8_t *expected;
};

static uint32_t rank_count_of(const struct team_rank *rank)
{
	return rank->rank_count;
}

static uint64_t block_count(const struct shape *shape, uint32_t rank)
{
	return shape->has_counts ? shape->counts[rank] : shape->count;
}

static uint64_t blocks_before(const struct shape *shape, uint32_t rank)
{
	uint64_t count = 0;
	for (uint32_t index = 0; index < rank; index++)
		count += block_count(shape, index);
	return count;
}

static uint64_t pair(const struct shape *shape, uint32_t from, uint32_t to)
{
	return shape->has_counts ? shape->pairs[from][to] : shape->count;
}

static uint64_t source_count(const struct shape *shape, uint32_t rank, uint32_t ranks)
{
	uint64_t count = 0;
	switch (shape->collective) {
	case COLLECT_ALL_REDUCE:
	case COLLECT_REDUCE: return shape->count;
	case COLLECT_BROADCAST: return rank == shape->root ? shape->count : 0;
	case COLLECT_REDUCE_SCATTER: return blocks_before(shape, ranks);
	case COLLECT_SCATTER: return rank == shape->root ? blocks_before(shape, ranks) : 0;
	case COLLECT_ALL_GATHER:
	case COLLECT_GATHER: return block_count(shape, rank);
	case COLLECT_ALL_TO_ALL:
		for (uint32_t to = 0; to < ranks; to++)
			count += pair(shape, rank, to);
		return count;
	default: return 0;
	}
}

static uint64_t target_count(const struct shape *shape, uint32_t rank, uint32_t ranks)
{
	uint64_t count = 0;
	switch (shape->collective) {
	case COLLECT_ALL_REDUCE:
	case COLLECT_BROADCAST: return shape->count;
	case COLLECT_REDUCE: return rank == shape->root ? shape->count : 0;
	case COLLECT_REDUCE_SCATTER:
	case COLLECT_SCATTER: return block_count(shape, rank);
	case COLLECT_ALL_GATHER: return blocks_before(shape, ranks);
	case COLLECT_GATHER: return rank == shape->root ? blocks_before(shape, ranks) : 0;
	case COLLECT_ALL_TO_ALL:
		for (uint32_t from = 0; from < ranks; from++)
			count += pair(shape, from, rank);
		return count;
	default: return 0;
	}
}

static double factor_of(uint32_t rank)
{
	return 0.5 + rank;
}

static void expect_reduced(const struct shape *shape, const struct arena *arena, uint32_t ranks,
                           uint64_t from, uint64_t count)
{
	uint8_t *scaled[RANKS_MAX];
	const struct col_kernels *kernels = col_kernels();
	const void *sources[RANKS_MAX];
	size_t bytes = col_dtype_bytes(shape->dtype);
	for (uint32_t rank = 0; rank < ranks; rank++) {
		sources[rank] = arena->inputs[rank] + from * bytes;
		if (shape->reduce_op != COLLECT_PREMUL_SUM)
			continue;
		scaled[rank] = col_alloc(ARENA_BYTES);
		kernels->scale[shape->dtype](scaled[rank], sources[rank], count, factor_of(rank));
		sources[rank] = scaled[rank];
	}
	kernels->reduce_many[shape->dtype][shape->reduce_op](
		arena->expected, sources, ranks, count, shape->reduce_op == COLLECT_AVG ? ranks : 1, false);
	for (uint32_t rank = 0; rank < ranks && shape->reduce_op == COLLECT_PREMUL_SUM; rank++)
		col_free(scaled[rank]);
}

/* Fills arena->expected with this rank's target. */
static void expect(const struct shape *shape, const struct arena *arena, uint32_t rank,
                   uint32_t ranks)
{
	size_t bytes = col_dtype_bytes(shape->dtype);
	uint8_t *at = arena->expected;
	uint64_t before = blocks_before(shape, rank);
	switch (shape->collective) {
	case COLLECT_ALL_REDUCE:
	case COLLECT_REDUCE: expect_reduced(shape, arena, ranks, 0, shape->count); break;
	case COLLECT_REDUCE_SCATTER:
		expect_reduced(shape, arena, ranks, before, block_count(shape, rank));
		break;
	case COLLECT_BROADCAST: memcpy(at, arena->inputs[shape->root], shape->count * bytes); break;
	case COLLECT_SCATTER:
		memcpy(at, arena->inputs[shape->root] + before * bytes, block_count(shape, rank) * bytes);
		break;
	case COLLECT_ALL_GATHER:
	case COLLECT_GATHER:
		for (uint32_t from = 0; from < ranks; from++) {
			memcpy(at, arena->inputs[from], block_count(shape, from) * bytes);
			at += block_count(shape, from) * bytes;
		}
		break;
	case COLLECT_ALL_TO_ALL:
		for (uint32_t from = 0; from < ranks; from++) {
			uint64_t skip = 0;
			for (uint32_t to = 0; to < rank; to++)
				skip += pair(shape, from, to);
			memcpy(at, arena->inputs[from] + skip * bytes, pair(shape, from, rank) * bytes);
			at += pair(shape, from, rank) * bytes;
		}
		break;
	default: break;
	}
}

/* Where source and target lie; false when this collective has no such place. */
static bool places_find(const struct shape *shape, const struct arena *arena, enum place place,
                        uint32_t rank, uint8_t **source_out, uint8_t **target_out)
{
	size_t bytes = col_dtype_bytes(shape->dtype);
	size_t own = blocks_before(shape, rank) * bytes;
	bool is_shared = place >= SHARED;
	uint8_t *source = arena->source[is_shared] + GUARD_BYTES + 3 * bytes;
	uint8_t *target = arena->target[place == SHARED] + GUARD_BYTES + 5 * bytes;
	*source_out = source;
	*target_out = target;
	if (place != IN_PLACE && place != SHARED_IN_PLACE)
		return true;
	switch (shape->collective) {
	case COLLECT_ALL_REDUCE:
	case COLLECT_REDUCE:
	case COLLECT_BROADCAST: *target_out = source; return true;
	case COLLECT_ALL_TO_ALL: *target_out = source; return !shape->has_counts;
	case COLLECT_REDUCE_SCATTER: *target_out = source + own; return true;
	case COLLECT_SCATTER:
		if (rank == shape->root)
			*target_out = source + own;
		return true;
	case COLLECT_ALL_GATHER: *target_out = source; *source_out = source + own; return true;
	case COLLECT_GATHER:
		if (rank == shape->root) {
			*target_out = source;
			*source_out = source + own;
		}
		return true;
	default: return false;
	}
}

/* Once: what is given need not differ from call to call, because targets are overwritten first. */
static void fill(struct arena *arena)
{
	for (uint32_t rank = 0; rank < RANKS_MAX; rank++) {
		struct col_prng prng;
		col_prng_init(&prng, test_seed() * 1000 + rank);
		for (size_t at = 0; at < ARENA_BYTES; at += 8) {
			uint64_t word = col_prng_next(&prng);
			memcpy(arena->inputs[rank] + at, &word, 8);
		}
	}
}

static void shape_check(struct team_rank *rank, struct arena *arena, const struct shape *shape,
                        enum place place)
{
	uint32_t ranks = rank_count_of(rank);
	size_t bytes = col_dtype_bytes(shape->dtype);
	uint64_t gives = source_count(shape, rank->rank, ranks);
	uint64_t gets = target_count(shape, rank->rank, ranks);
	uint64_t from[RANKS_MAX];
	uint8_t *source;
	uint8_t *target;
	if (!places_find(shape, arena, place, rank->rank, &source, &target))
		return;
	CHECK((gives + gets + 8) * bytes + 2 * GUARD_BYTES < ARENA_BYTES);
	memset(target - GUARD_BYTES, GUARD, gets * bytes + 2 * GUARD_BYTES);
	memcpy(source, arena->inputs[rank->rank], gives * bytes);
	for (uint32_t index = 0; index < ranks; index++)
		from[index] = shape->pairs[index][rank->rank];
	bool is_pairs = shape->collective == COLLECT_ALL_TO_ALL;
	struct col_shm_call call = {
		.collective = shape->collective,
		.dtype = shape->dtype,
		.reduce_op = shape->reduce_op,
		.root = shape->root,
		.digest = (uint32_t)shape->count,
		.source = gives > 0 ? source : NULL,
		.target = gets > 0 ? target : NULL,
		.count = shape->count,
		.factor = factor_of(rank->rank),
	};
	if (shape->has_counts)
		call.counts = is_pairs ? shape->pairs[rank->rank] : shape->counts;
	if (shape->has_counts && is_pairs)
		call.target_counts = from;
	team_call(rank, &call);
	expect(shape, arena, rank->rank, ranks);
	bool is_right = memcmp(target, arena->expected, gets * bytes) == 0;
	for (size_t at = 0; at < gets * bytes && !is_right; at++) {
		if (target[at] != arena->expected[at])
			FAIL("rank %u of %u: collective %d dtype %d op %d root %u count %llu counts %d "
			     "place %d: byte %zu of %zu is 0x%02x against 0x%02x",
			     rank->rank, ranks, shape->collective, shape->dtype, shape->reduce_op,
			     shape->root, (unsigned long long)shape->count, shape->has_counts, place, at,
			     (size_t)gets * bytes, target[at], arena->expected[at]);
	}
	if (place == IN_PLACE || place == SHARED_IN_PLACE)
		return;
	CHECK_BYTES_EQ(source, arena->inputs[rank->rank], gives * bytes);
	for (size_t at = 0; at < GUARD_BYTES; at++) {
		CHECK_EQ(target[gets * bytes + at], GUARD);
		CHECK_EQ(*(target - 1 - at), GUARD);
	}
}

static void arena_open(struct arena *arena)
{
	for (int side = 0; side < 2; side++) {
		uint8_t **array = side == 0 ? arena->source : arena->target;
		array[0] = col_alloc(ARENA_BYTES);
		array[1] = collect_shared_alloc(ARENA_BYTES);
		CHECK(array[0] != NULL && array[1] != NULL);
	}
	for (uint32_t rank = 0; rank < RANKS_MAX; rank++)
		arena->inputs[rank] = col_alloc(ARENA_BYTES);
	arena->expected = col_alloc(ARENA_BYTES);
	fill(arena);
}

static void arena_close(struct arena *arena)
{
	for (uint32_t rank = 0; rank < RANKS_MAX; rank++)
		col_free(arena->inputs[rank]);
	col_free(arena->expected);
	col_free(arena->source[0]);
	col_free(arena->target[0]);
	collect_shared_free(arena->source[1]);
	collect_shared_free(arena->target[1]);
}

/* Bytes of the shortest and longest cases: around a post, a chunk, and several chunks. */
static const uint64_t sizes[] = {0, 1, 3, 60, 4080, 4096, 4112, 9000, 16384, 16400, 40000, 100016};
#define SIZE_COUNT (sizeof(sizes) / sizeof(sizes[0]))

static void places_check(struct team_rank *rank, struct arena *arena, const struct shape *shape)
{
	for (int place = 0; place < PLACES; place++) {
		shape_check(rank, arena, shape, (enum place)place);
		if (place >= SHARED) /* the first time it is not mapped yet */
			shape_check(rank, arena, shape, (enum place)place);
	}
}

static void counts_fill(struct shape *shape, uint32_t ranks)
{
	shape->has_counts = true;
	for (uint32_t index = 0; index < ranks; index++) {
		shape->counts[index] = (index + 1) % ranks == 0 ? 0 : shape->count / (index + 1) + index;
		for (uint32_t to = 0; to < ranks; to++)
			shape->pairs[index][to] = (index * 3 + to) % 4 == 0 ? 0 : shape->count / (to + 1) + to;
	}
}

static void copies_body(struct team_rank *rank)
{
	static const int dtypes[] = {COLLECT_UINT8, COLLECT_FLOAT32, COLLECT_COMPLEX128};
	static const int collectives[] = {COLLECT_ALL_GATHER, COLLECT_ALL_TO_ALL, COLLECT_BROADCAST,
	                                  COLLECT_GATHER, COLLECT_SCATTER, COLLECT_BARRIER};
	struct arena arena;
	arena_open(&arena);
	for (size_t size = 0; size < SIZE_COUNT; size++) {
		for (size_t kind = 0; kind < 6; kind++) {
			int dtype = dtypes[size % 3];
			struct shape shape = {.collective = collectives[kind], .dtype = dtype,
			                      .root = (uint32_t)size % rank->rank_count,
			                      .count = sizes[size] / col_dtype_bytes(dtype)};
			places_check(rank, &arena, &shape);
			if (kind == 2 || kind == 5)
				continue;
			counts_fill(&shape, rank->rank_count);
			places_check(rank, &arena, &shape);
		}
	}
	arena_close(&arena);
}

static void reductions_body(struct team_rank *rank)
{
	static const int collectives[] = {COLLECT_ALL_REDUCE, COLLECT_REDUCE, COLLECT_REDUCE_SCATTER};
	struct arena arena;
	arena_open(&arena);
	for (int dtype = 0; dtype < COLLECT_DTYPE_COUNT; dtype++) {
		/* Half of them, and the other half with the next type. */
		for (size_t size = (size_t)dtype % 2; size < SIZE_COUNT; size += 2) {
			int reduce_op = (int)((unsigned)dtype * 5 + size) % COLLECT_REDUCE_OP_COUNT;
			if (col_kernels()->reduce_many[dtype][reduce_op] == NULL)
				reduce_op = size % 2 == 0 ? COLLECT_SUM : COLLECT_PROD;
			for (size_t kind = 0; kind < 3; kind++) {
				struct shape shape = {.collective = collectives[kind], .dtype = dtype,
				                      .reduce_op = reduce_op,
				                      .root = (uint32_t)size % rank->rank_count,
				                      .count = sizes[size] / col_dtype_bytes(dtype)};
				places_check(rank, &arena, &shape);
				counts_fill(&shape, rank->rank_count);
				if (collectives[kind] == COLLECT_REDUCE_SCATTER)
					places_check(rank, &arena, &shape);
			}
		}
	}
	arena_close(&arena);
}

static void teams_run(team_body *body, uint32_t chunk_bytes)
{
	for (uint32_t ranks = 1; ranks <= RANKS_MAX; ranks++) {
		struct team team = {.rank_count = ranks};
		team.options.chunk_bytes = chunk_bytes;
		team.options.post_bytes = chunk_bytes;
		team.options.slot_count = chunk_bytes == 0 ? 0 : 2;
		CHECK_EQ(team_run(&team, body, NULL), 0);
	}
}

TEST(copies_give_every_rank_its_blocks)
{
	teams_run(copies_body, 4096);
}

TEST(reductions_are_those_in_rank_order)
{
	teams_run(reductions_body, 4096);
}

TEST(the_default_sizes_work_too)
{
	teams_run(copies_body, 0);
	teams_run(reductions_body, 0);
}

TEST(ranks_may_be_threads)
{
	struct team team = {.rank_count = 3, .has_threads = true};
	team.options = (struct col_shm_options){.chunk_bytes = 4096, .post_bytes = 4096};
	team_run(&team, copies_body, NULL);
	team_run(&team, reductions_body, NULL);
}

/* ---- misuse -------------------------------------------------------------------------------- */

static void mismatch_body(struct team_rank *rank)
{
	static _Alignas(64) uint8_t memory[2][1 << 16];
	struct col_shm_call call = {.collective = COLLECT_ALL_GATHER, .dtype = COLLECT_UINT8,
	                            .digest = rank->rank == 1, .source = memory[0],
	                            .target = memory[1], .count = *(const uint32_t *)rank->user};
	CHECK_EQ(col_shm_start(rank->shm, &call), 0);
	CHECK_EQ(col_shm_start(rank->shm, &call), COLLECT_E_BUSY);
	int progress;
	do
		progress = col_shm_advance(rank->shm);
	while (progress >= 0);
	/* Who sees it aborts, and who comes later sees the abort. */
	CHECK(progress == COLLECT_E_INVALID || progress == COLLECT_E_ABORTED);
	if (progress == COLLECT_E_INVALID)
		CHECK(rank->rank == 1 || col_shm_culprit(rank->shm) == 1);
	col_shm_abort(rank->shm);
}

TEST(calls_that_differ_are_an_error)
{
	for (uint32_t count = 8; count <= 20000; count += 19992) {
		struct team team = {.rank_count = 3, .user = &count};
		CHECK_EQ(team_run(&team, mismatch_body, NULL), 0);
	}
}

TEST(a_call_is_checked)
{
	struct col_shm_options options = {.rank_count = 1};
	struct col_shm *shm;
	char name[COL_SHM_NAME_BYTES];
	float value = 3;
	team_name(name);
	CHECK_EQ(col_shm_create(name, &options, &shm), 0);
	struct col_shm_call good = {.dtype = COLLECT_FLOAT32, .source = &value, .target = &value,
	                            .count = 1};
	struct col_shm_call call = good;
	call.collective = COLLECT_COLLECTIVE_COUNT;
	CHECK_EQ(col_shm_start(shm, &call), COLLECT_E_INVALID);
	call = good;
	call.root = 1;
	CHECK_EQ(col_shm_start(shm, &call), COLLECT_E_INVALID);
	call = good;
	call.reduce_op = COLLECT_XOR;
	CHECK_EQ(col_shm_start(shm, &call), COLLECT_E_UNAVAILABLE);
	call = good;
	call.count = UINT64_MAX;
	CHECK_EQ(col_shm_start(shm, &call), COLLECT_E_INVALID);
	CHECK_EQ(col_shm_run(shm, &good, 1), COL_SHM_DONE);
	CHECK_EQ(value, 3.0f);
	col_shm_close(&shm);
	CHECK_EQ(shm, NULL);
	col_shm_close(&shm);
}
