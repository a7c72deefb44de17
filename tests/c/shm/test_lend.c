/* What ranks lend each other lies whole in its slot, however it is written and wherever that is. */
#include <sched.h>
#include <string.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "harness.h"
#include "kernels/kernels.h"
#include "shm/state.h"
#include "shm/team.h"

#define PIECE_BYTES ((size_t)40 << 10)
#define COUNT_MAX 9000u

TEST(a_piece_is_whole_through_the_cache_and_past_it)
{
	static const size_t lengths[] = {0, 1, 4096, 8191, 8192, 8200, 12289, PIECE_BYTES};
	struct col_shm *shm = col_alloc_zeroed(1, sizeof(*shm));
	uint8_t *data = col_alloc(PIECE_BYTES);
	uint8_t *slot = col_alloc(PIECE_BYTES + 1);
	shm->kernels = col_kernels();
	for (size_t index = 0; index < PIECE_BYTES; index++)
		data[index] = (uint8_t)(index * 7 + index / 251);
	/* Long enough for trials in either state. */
	for (uint32_t turn = 0; turn < 400; turn++) {
		size_t bytes = lengths[turn % 8];
		if (turn % 50 == 0)
			shm->lendings[1].is_streaming = turn % 100 == 0;
		memset(slot, 0xa5, PIECE_BYTES + 1);
		col__lend(shm, 1, slot, data, bytes);
		CHECK(memcmp(slot, data, bytes) == 0);
		CHECK_EQ(slot[bytes], 0xa5);
	}
	col_free(slot);
	col_free(data);
	col_free(shm);
}

static int32_t given(uint32_t rank, uint32_t op, uint32_t index)
{
	return (int32_t)(rank * 100003 + op * 31 + index);
}

/* Lengths that all ranks draw alike, some for which a rank waits and lets the others run ahead. */
static void turns_body(struct team_rank *rank)
{
	int32_t *source = col_alloc(COUNT_MAX * sizeof(int32_t));
	int32_t *target = col_alloc(COUNT_MAX * sizeof(int32_t));
	struct col_prng prng;
	col_prng_init(&prng, *(const uint64_t *)rank->user);
	for (uint32_t op = 0; op < 1500; op++) {
		uint32_t most = op % 3 == 0 ? 40 : op % 3 == 1 ? 4096 : COUNT_MAX;
		uint32_t count = 1 + (uint32_t)col_prng_below(&prng, most);
		for (uint32_t index = 0; index < count; index++)
			source[index] = given(rank->rank, op, index);
		if (op % rank->rank_count == rank->rank)
			sched_yield();
		struct col_shm_call call = {.dtype = COLLECT_INT32, .source = source, .target = target,
		                            .count = count};
		team_call(rank, &call);
		for (uint32_t index = 0; index < count; index++) {
			int32_t sum = 0;
			for (uint32_t other = 0; other < rank->rank_count; other++)
				sum += given(other, op, index);
			CHECK_EQ(target[index], sum);
		}
	}
	col_free(target);
	col_free(source);
}

TEST(operations_of_all_lengths_follow_one_another)
{
	for (uint32_t ranks = 2; ranks <= 4; ranks++) {
		uint64_t seed = test_seed() + ranks;
		struct team team = {.rank_count = ranks, .user = &seed};
		CHECK_EQ(team_run(&team, turns_body, NULL), 0);
		/* The least that a ring of posts can be. */
		team.options = (struct col_shm_options){.post_bytes = 1u << 20, .chunk_bytes = 8192,
		                                        .slot_count = 3};
		CHECK_EQ(team_run(&team, turns_body, NULL), 0);
	}
}
