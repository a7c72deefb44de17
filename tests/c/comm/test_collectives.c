/* Every collective through the public functions, against its definition. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/prng.h"
#include "comm/world.h"
#include "reference.h"

#define SOON_NS (20 * COL_NS_PER_S)
#define CHUNK 4096u
#define GUARD 64u

/* One peer's part of a case. */
struct part {
	struct world *world;
	const struct reference *reference;
	uint32_t rank;
	int algorithm;
	bool has_counts;
	bool is_in_place;
	int rounds; /* 0: by collect_comm_start; else how often the op is run */
	struct collect_op_info info;
};

static size_t source_place(const struct reference *reference, uint32_t rank, size_t *target_out)
{
	size_t before = 0;
	struct reference each = *reference;
	/* Bytes of the blocks before this rank's: of a gather's target, or a scatter's source. */
	each.collective = COLLECT_GATHER;
	for (uint32_t b = 0; b < rank; b++)
		before += reference_source(&each, b, NULL);
	*target_out = 0;
	switch (reference->collective) {
	case COLLECT_ALL_GATHER:
		return before;
	case COLLECT_GATHER:
		return rank == reference->root ? before : 0;
	case COLLECT_REDUCE_SCATTER:
		*target_out = before;
		return 0;
	case COLLECT_SCATTER:
		*target_out = rank == reference->root ? before : 0;
		return 0;
	default:
		return 0;
	}
}

static int part_run_call(const struct part *part, const struct collect_call *call,
                         struct collect_op_info *info_out)
{
	collect_op *op = NULL;
	collect_comm *comm = part->world->peers[part->rank].comm;
	int status;
	if (part->rounds == 0) {
		CHECK_EQ(collect_comm_start(comm, call, &op), COLLECT_OK);
		status = collect_op_wait(op, SOON_NS);
	} else {
		CHECK_EQ(collect_op_prepare(comm, call, &op), COLLECT_OK);
		CHECK_EQ(collect_op_wait(op, 0), COLLECT_OK);
		for (int i = 1; i < part->rounds; i++) {
			CHECK(collect_op_run(op) >= COLLECT_OK);
			CHECK_EQ(collect_op_wait(op, SOON_NS), COLLECT_OK);
		}
		CHECK_EQ(collect_op_start(op, 0), COLLECT_OK);
		status = collect_op_wait(op, SOON_NS);
	}
	collect_op_info_get(op, info_out);
	collect_op_release(&op);
	return status;
}

static void *part_run(void *argument)
{
	struct part *part = argument;
	const struct reference *reference = part->reference;
	uint32_t rank = part->rank;
	uint32_t world = reference->world;
	size_t source_bytes = reference_source(reference, rank, NULL);
	size_t target_bytes = reference_target(reference, rank, NULL);
	size_t room = source_bytes > target_bytes ? source_bytes : target_bytes;
	size_t target_at = 0;
	size_t source_at = part->is_in_place ? source_place(reference, rank, &target_at) : 0;
	uint8_t *area = malloc(room + 2 * GUARD);
	uint8_t *apart = malloc(source_bytes + 1);
	uint8_t *given = malloc(source_bytes + 1);
	uint8_t *expected = malloc(target_bytes + 1);
	memset(area, 0xee, room + 2 * GUARD);
	reference_source(reference, rank, given);
	reference_target(reference, rank, expected);
	uint8_t *source = part->is_in_place ? area + GUARD + source_at : apart;
	uint8_t *target = area + GUARD + target_at;
	if (source_bytes > 0)
		memcpy(source, given, source_bytes);

	uint64_t sends[WORLD_MAX];
	uint64_t receives[WORLD_MAX];
	bool is_all_to_all = reference->collective == COLLECT_ALL_TO_ALL;
	for (uint32_t b = 0; b < world; b++) {
		sends[b] = reference->counts[is_all_to_all ? rank : 0][b];
		receives[b] = reference->counts[b][rank];
	}
	struct collect_call call = {
		.collective = reference->collective,
		.dtype = reference->dtype,
		.reduce_op = reference->reduce_op,
		.algorithm = part->algorithm,
		.root = reference_has_root(reference->collective)
		                ? part->world->peers[reference->root].incarnation
		                : 0,
		.world = reference_has_blocks(reference->collective) ? world : 0,
		.source = source_bytes > 0 ? source : NULL,
		.target = target_bytes > 0 ? target : NULL,
		.count = reference->counts[0][0],
		.counts = part->has_counts ? sends : NULL,
		.target_counts = part->has_counts && is_all_to_all ? receives : NULL,
		.factor = reference_factor(rank),
	};
	CHECK_EQ(part_run_call(part, &call, &part->info), COLLECT_OK);
	CHECK_EQ(part->info.participants, world);
	CHECK_BYTES_EQ(target, expected, target_bytes);
	if (!part->is_in_place)
		CHECK_BYTES_EQ(source, given, source_bytes);
	for (size_t i = 0; i < GUARD; i++) {
		CHECK_EQ(area[i], 0xee);
		CHECK_EQ(area[GUARD + room + i], 0xee);
	}
	free(area);
	free(apart);
	free(given);
	free(expected);
	return NULL;
}

static void case_run(struct part *shape, const struct reference *reference)
{
	struct part parts[WORLD_MAX];
	pthread_t threads[WORLD_MAX];
	for (uint32_t rank = 0; rank < reference->world; rank++) {
		parts[rank] = *shape;
		parts[rank].reference = reference;
		parts[rank].rank = rank;
		CHECK_EQ(pthread_create(&threads[rank], NULL, part_run, &parts[rank]), 0);
	}
	for (uint32_t rank = 0; rank < reference->world; rank++)
		pthread_join(threads[rank], NULL);
	for (uint32_t rank = 1; rank < reference->world; rank++) {
		CHECK_EQ(parts[rank].info.algorithm, parts[0].info.algorithm);
		CHECK_EQ(parts[rank].info.attempt, parts[0].info.attempt);
	}
	shape->info = parts[0].info;
}

static bool can_be_in_place(const struct part *part, const struct reference *reference)
{
	bool is_all_to_all = reference->collective == COLLECT_ALL_TO_ALL;
	/* Of a reduction the blocks that are not this rank's would have to be restored. */
	return !(is_all_to_all && part->has_counts) && part->rounds == 0;
}

static void counts_equal(struct reference *reference, uint64_t count)
{
	for (uint32_t s = 0; s < reference->world; s++)
		for (uint32_t d = 0; d < reference->world; d++)
			reference->counts[s][d] = count;
}

static void counts_draw(struct reference *reference, struct col_prng *prng)
{
	static const uint64_t counts[] = {0, 0, 1, 3, 17, 64, 300, 1025};
	for (uint32_t s = 0; s < reference->world; s++)
		for (uint32_t d = 0; d < reference->world; d++)
			reference->counts[s][d] = counts[col_prng_below(prng, 8)];
}

static void dtype_draw(struct reference *reference, struct col_prng *prng)
{
	do {
		reference->dtype = (int)col_prng_below(prng, COLLECT_DTYPE_COUNT);
		reference->reduce_op = reference_reduces(reference->collective)
		                               ? (int)col_prng_below(prng, COLLECT_REDUCE_OP_COUNT)
		                               : COLLECT_SUM;
	} while (!reference_is_defined(reference->dtype, reference->reduce_op));
}

/* Elements in bytes of: nothing, one, odd ones, around a chunk, several chunks. */
static uint64_t count_draw(const struct reference *reference, struct col_prng *prng)
{
	static const uint64_t sizes[] = {0,         1,     63,        CHUNK - 1,
	                                 CHUNK,     CHUNK + 1, 3 * CHUNK + 100, 60000};
	struct reference one = {.collective = COLLECT_ALL_REDUCE, .dtype = reference->dtype,
	                        .world = 1, .counts = {{1}}};
	uint64_t bytes = sizes[col_prng_below(prng, 8)];
	uint64_t element = reference_source(&one, 0, NULL);
	return bytes == 1 ? 1 : (bytes + element - 1) / element;
}

static void world_check(uint32_t count, uint32_t commit_bytes, struct col_prng *prng)
{
	struct world world;
	world_open(&world, &(struct world_options){
		.count = count, .algorithm = COLLECT_AUTO, .commit_bytes = commit_bytes,
		.chunk_bytes = CHUNK, .streams = (uint16_t)(1 + col_prng_below(prng, 2))});
	world_install(&world, (1u << count) - 1, 1ull << 32);
	for (int collective = 0; collective < COLLECT_COLLECTIVE_COUNT; collective++)
		for (int algorithm = COLLECT_AUTO; algorithm < COLLECT_ALGORITHM_COUNT; algorithm++) {
			if (algorithm != COLLECT_AUTO && !collect_algorithm_has(algorithm, collective))
				continue;
			for (int draw = 0; draw < 6; draw++) {
				struct reference reference = {.collective = collective, .world = count,
				                              .seed = col_prng_next(prng)};
				reference.root = (uint32_t)col_prng_below(prng, count);
				dtype_draw(&reference, prng);
				struct part part = {.world = &world, .algorithm = algorithm};
				bool passes_on =
					algorithm == COLLECT_BRUCK || algorithm == COLLECT_HIERARCHICAL;
				part.has_counts = draw % 3 == 2 && reference_has_blocks(collective) &&
				                  !(passes_on && collective == COLLECT_ALL_TO_ALL);
				if (part.has_counts)
					counts_draw(&reference, prng);
				else
					counts_equal(&reference, count_draw(&reference, prng));
				if (draw == 5 && !part.has_counts)
					part.rounds = 3;
				part.is_in_place = can_be_in_place(&part, &reference) && draw % 2 == 1;
				case_run(&part, &reference);
				if (algorithm != COLLECT_AUTO && count > 1 && reference.counts[0][0] > 0)
					CHECK_EQ(part.info.algorithm, algorithm);
			}
		}
	world_close(&world);
}

static void worlds_check(uint32_t commit_bytes)
{
	struct col_prng prng;
	col_prng_init(&prng, test_seed() + commit_bytes);
	for (uint32_t count = 1; count <= 5; count++)
		world_check(count, commit_bytes, &prng);
}

TEST(every_collective_is_what_its_definition_says_when_delivered_at_once)
{
	worlds_check(UINT32_MAX);
}

TEST(every_collective_is_what_its_definition_says_when_committed)
{
	worlds_check(1);
}

TEST(every_collective_is_what_its_definition_says_when_both_are_mixed)
{
	worlds_check(10000);
}

TEST(every_type_and_operation_goes_through)
{
	struct world world;
	world_open(&world, &(struct world_options){.count = 3, .algorithm = COLLECT_AUTO});
	world_install(&world, 7, 1ull << 32);
	static const int algorithms[] = {COLLECT_DIRECT, COLLECT_RING, COLLECT_EXCHANGE};
	for (int dtype = 0; dtype < COLLECT_DTYPE_COUNT; dtype++)
		for (int reduce_op = 0; reduce_op < COLLECT_REDUCE_OP_COUNT; reduce_op++) {
			if (!reference_is_defined(dtype, reduce_op))
				continue;
			for (size_t a = 0; a < 3; a++) {
				struct reference reference = {.dtype = dtype, .reduce_op = reduce_op, .world = 3,
				                              .seed = test_seed(), .counts = {{1500}}};
				struct part part = {.world = &world, .algorithm = algorithms[a],
				                    .is_in_place = a == 1};
				case_run(&part, &reference);
			}
		}
	world_close(&world);
}

TEST(a_prepared_operation_runs_a_thousand_times)
{
	struct world world;
	world_open(&world, &(struct world_options){
		.count = 2, .algorithm = COLLECT_AUTO, .commit_bytes = 4000});
	world_install(&world, 3, 1ull << 32);
	for (int collective = 0; collective < COLLECT_COLLECTIVE_COUNT; collective++) {
		struct reference reference = {.collective = collective, .dtype = COLLECT_FLOAT32,
		                              .world = 2, .seed = test_seed()};
		for (uint64_t count = 10; count <= 1010; count += 1000) {
			counts_equal(&reference, count);
			struct part part = {.world = &world, .algorithm = COLLECT_AUTO, .rounds = 1000};
			case_run(&part, &reference);
		}
	}
	world_close(&world);
}
