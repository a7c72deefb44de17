/* Executors joined by queues in memory: random order of delivery, delayed writes, few credits. */
#ifndef COL_TEST_NET_H
#define COL_TEST_NET_H

#include "exec/exec.h"

#include <stdlib.h>
#include <string.h>

#include "base/prng.h"
#include "harness.h"
#include "reference.h"

#define WORLD_MAX REFERENCE_WORLD_MAX
#define BYTES_MAX 9000u
#define FRAMES_MAX 4096u
#define PIECES_MAX 60u

struct rank {
	struct net *net;
	uint32_t index;
	struct collect_plan *plan;
	struct col_exec exec;
	uint8_t in[BYTES_MAX];
	uint8_t before[BYTES_MAX]; /* what `in` must still be */
	uint8_t out[BYTES_MAX];
	uint64_t blocks_at[WORLD_MAX + 1];
	uint64_t target_at[WORLD_MAX + 1];
	uint8_t *scratch; /* owned */
	uint32_t done_count;
	struct col_ranges produced;
	struct col_ranges known; /* of its target */
	struct col_range pieces[PIECES_MAX]; /* that it produces, in that order; none: it has all */
	uint32_t piece_count;
	uint32_t piece_next;
};

enum stage { QUEUED, FLYING, PLACED };

struct letter {
	enum stage stage;
	uint32_t from;
	uint32_t to;
	struct col_frame frame;
	const uint8_t *borrowed; /* until it flies */
	struct col_buffer *buffer;
	void *token;
	uint8_t *bytes; /* owned */
	struct col_sink sink;
};

struct net {
	struct rank *ranks; /* world of them */
	uint32_t world;
	int algorithm;
	uint32_t chunk_bytes;
	uint32_t credit; /* frames per link that may be unconsumed */
	uint32_t unconsumed[WORLD_MAX][WORLD_MAX];
	bool is_slow[WORLD_MAX][WORLD_MAX]; /* moves only when no other link can */
	struct letter letters[FRAMES_MAX]; /* in the order in which they were queued */
	uint32_t letter_count;
	struct col_buffers buffers;
	struct col_prng prng;
	struct reference reference;
	bool has_counts;
};

/* ---- what the executors call ---- */

static inline void rank_send(void *user, uint32_t to, struct col_frame *frame,
                             const uint8_t *payload, struct col_buffer *buffer, void *token)
{
	struct rank *rank = user;
	struct net *net = rank->net;
	CHECK(net->letter_count < FRAMES_MAX);
	CHECK(frame->length > 0 && frame->length <= net->chunk_bytes);
	net->letters[net->letter_count++] = (struct letter){
		.from = rank->index, .to = to, .frame = *frame, .borrowed = payload,
		.buffer = buffer, .token = token};
}

static inline void rank_consumed(void *user, uint32_t from, uint32_t bytes)
{
	struct rank *rank = user;
	CHECK(bytes > 0);
	CHECK(rank->net->unconsumed[from][rank->index] > 0);
	rank->net->unconsumed[from][rank->index]--;
}

static inline void rank_done(void *user)
{
	struct rank *rank = user;
	rank->done_count++;
}

static inline void rank_starved(void *user)
{
	(void)user;
	FAIL("nothing is out of memory");
}

static const struct col_exec_events events = {
	.send = rank_send,
	.consumed = rank_consumed,
	.done = rank_done,
	.starved = rank_starved,
};

/* ---- the network ---- */

static inline void letter_drop(struct net *net, uint32_t index)
{
	free(net->letters[index].bytes);
	net->letter_count--;
	memmove(&net->letters[index], &net->letters[index + 1],
	        (net->letter_count - index) * sizeof(net->letters[0]));
}

/* Frames of a link leave in order, and only with credit. */
static inline bool may_leave(const struct net *net, uint32_t index)
{
	const struct letter *letter = &net->letters[index];
	if (net->unconsumed[letter->from][letter->to] >= net->credit)
		return false;
	for (uint32_t i = 0; i < index; i++)
		if (net->letters[i].stage == QUEUED && net->letters[i].from == letter->from &&
		    net->letters[i].to == letter->to)
			return false;
	return true;
}

/* Moves one frame one stage on. False: it cannot move. */
static inline bool letter_move(struct net *net, uint32_t index)
{
	struct letter *letter = &net->letters[index];
	struct rank *to = &net->ranks[letter->to];
	if (letter->stage == QUEUED) {
		if (!may_leave(net, index))
			return false;
		net->unconsumed[letter->from][letter->to]++;
		letter->bytes = malloc(letter->frame.length);
		memcpy(letter->bytes, letter->borrowed, letter->frame.length);
		letter->stage = FLYING;
		void *token = letter->token;
		col_buffer_put(letter->buffer);
		letter->buffer = NULL;
		col_exec_sent(token);
		return true;
	}
	if (letter->stage == FLYING) {
		letter->sink = col_exec_place(&to->exec, letter->from, &letter->frame);
		if (letter->sink.place != COL_PLACE_EXEC)
			FAIL("refused: %s", letter->sink.reason);
		letter->stage = PLACED;
		return true;
	}
	struct col_frame frame = letter->frame;
	struct col_sink sink = letter->sink;
	memcpy(sink.target, letter->bytes, frame.length);
	letter_drop(net, index);
	CHECK_EQ(col_exec_arrived(&to->exec, &frame, &sink), COLLECT_OK);
	return true;
}

/* Random moves: until none is possible, or `moves_max` were made. */
static inline void net_run(struct net *net, uint32_t moves_max)
{
	bool moves = true;
	for (uint32_t move = 0; moves && net->letter_count > 0 && move < moves_max; move++) {
		uint32_t count = net->letter_count;
		uint32_t first = (uint32_t)col_prng_below(&net->prng, count);
		moves = false;
		for (uint32_t i = 0; i < 2 * count && !moves; i++) {
			uint32_t index = (first + i) % count;
			const struct letter *letter = &net->letters[index];
			if (i >= count || !net->is_slow[letter->from][letter->to])
				moves = letter_move(net, index);
		}
	}
}

static inline size_t element_bytes(const struct net *net)
{
	return col_dtype_bytes(net->reference.dtype);
}

/* As a freeze does it: links are purged, then the executors stop. */
static inline void net_stop(struct net *net)
{
	while (net->letter_count > 0) {
		struct letter *letter = &net->letters[net->letter_count - 1];
		col_buffer_put(letter->buffer);
		if (letter->stage == PLACED)
			col_buffer_put(letter->sink.buffer);
		if (letter->stage != QUEUED)
			net->unconsumed[letter->from][letter->to]--;
		letter_drop(net, net->letter_count - 1);
	}
	for (uint32_t r = 0; r < net->world; r++)
		col_exec_stop(&net->ranks[r].exec);
}

static inline void net_start(struct net *net)
{
	for (uint32_t r = 0; r < net->world; r++) {
		struct rank *rank = &net->ranks[r];
		bool is_barrier = net->reference.collective == COLLECT_BARRIER;
		bool has_counts = reference_has_blocks(net->reference.collective) && net->has_counts;
		memset(rank->out, 0xee, BYTES_MAX);
		rank->done_count = 0;
		struct col_run run = {
			.layout = {
				.plan = rank->plan,
				.source = rank->in,
				.target = rank->out,
				.bytes = is_barrier ? 8 : net->reference.counts[0][0] * element_bytes(net),
				.blocks_at = has_counts ? rank->blocks_at : NULL,
				.target_at = has_counts ? rank->target_at : NULL,
			},
			.dtype = is_barrier ? COLLECT_INT64 : net->reference.dtype,
			.reduce_op = is_barrier ? COLLECT_SUM : net->reference.reduce_op,
			.produced = rank->piece_count > 0 ? &rank->produced : NULL,
		};
		uint64_t scratch_bytes = col_exec_lay_out(&rank->exec, &run);
		free(rank->scratch);
		rank->scratch = aligned_alloc(64, scratch_bytes + 64);
		col_exec_start(&rank->exec, rank->scratch);
	}
}

/* With counts: where the blocks lie. */
static inline void rank_lay(struct net *net, struct rank *rank)
{
	struct reference *reference = &net->reference;
	bool is_all_to_all = reference->collective == COLLECT_ALL_TO_ALL;
	for (uint32_t b = 0; b < net->world; b++) {
		uint64_t to = reference->counts[is_all_to_all ? rank->index : 0][b];
		uint64_t from = reference->counts[b][rank->index];
		rank->blocks_at[b + 1] = rank->blocks_at[b] + to * element_bytes(net);
		rank->target_at[b + 1] = rank->target_at[b] + from * element_bytes(net);
	}
}

static inline void input_fill(struct net *net, struct rank *rank)
{
	for (size_t i = 0; i < BYTES_MAX; i++)
		rank->in[i] = (uint8_t)(col_prng_below(&net->prng, 256));
	/* The factor is the caller's matter. */
	struct reference reference = net->reference;
	reference_source(&reference, rank->index, rank->in);
	memcpy(rank->before, rank->in, BYTES_MAX);
}

/* None, any, or a circle of links in which each waits for the next. */
static inline void slow_choose(struct net *net)
{
	uint64_t kind = col_prng_below(&net->prng, 4);
	for (uint32_t from = 0; from < net->world; from++)
		for (uint32_t to = 0; to < net->world; to++)
			net->is_slow[from][to] = (kind == 1 && col_prng_below(&net->prng, 3) == 0) ||
			                         (kind == 2 && to == (from + 1) % net->world) ||
			                         (kind == 3 && from == (to + 1) % net->world);
}

static inline void payload_draw(struct net *net)
{
	struct reference *reference = &net->reference;
	do {
		reference->dtype = (int)col_prng_below(&net->prng, COLLECT_DTYPE_COUNT);
		reference->reduce_op = reference_reduces(reference->collective)
		                               ? (int)col_prng_below(&net->prng, COLLECT_REDUCE_OP_COUNT)
		                               : COLLECT_SUM;
	} while (!reference_is_defined(reference->dtype, reference->reduce_op) ||
	         reference->reduce_op == COLLECT_PREMUL_SUM);
	bool has_blocks = reference_has_blocks(reference->collective);
	size_t bytes_max = col_prng_below(&net->prng, 2) == 0 ? 200 : 6000;
	size_t most = bytes_max / element_bytes(net) / (has_blocks ? net->world : 1);
	net->has_counts = has_blocks && net->algorithm != COLLECT_BRUCK &&
	                  net->algorithm != COLLECT_HIERARCHICAL &&
	                  col_prng_below(&net->prng, 2) == 0;
	uint64_t count = 1 + col_prng_below(&net->prng, most + 1);
	for (uint32_t s = 0; s < net->world; s++)
		for (uint32_t d = 0; d < net->world; d++)
			reference->counts[s][d] =
				net->has_counts ? col_prng_below(&net->prng, most + 2) : count;
}

static inline struct net *net_open(uint64_t seed, int collective, int algorithm, uint32_t world)
{
	struct net *net = calloc(1, sizeof(*net));
	col_prng_init(&net->prng, seed);
	net->world = world;
	net->algorithm = algorithm;
	net->reference = (struct reference){
		.collective = collective, .world = world, .seed = seed,
		.root = (uint32_t)col_prng_below(&net->prng, world)};
	slow_choose(net);
	net->ranks = calloc(world, sizeof(*net->ranks));
	net->chunk_bytes = 64 * (uint32_t)(1 + col_prng_below(&net->prng, 6));
	bool is_tight = col_prng_below(&net->prng, 2) == 0;
	net->credit = (uint32_t)(1 + col_prng_below(&net->prng, is_tight ? 2 : 12));
	col_buffers_init(&net->buffers, net->chunk_bytes);
	payload_draw(net);
	struct collect_recipe recipe = {.algorithm = algorithm};
	uint32_t root = reference_has_root(collective) ? net->reference.root : COL_RANK_NONE;
	for (uint32_t r = 0; r < world; r++) {
		struct rank *rank = &net->ranks[r];
		rank->net = net;
		rank->index = r;
		rank_lay(net, rank);
		input_fill(net, rank);
		CHECK_EQ(col_plan_build(&recipe, collective, world, root, r, &rank->plan), COLLECT_OK);
		CHECK_EQ(col_exec_init(&rank->exec, rank->plan, net->chunk_bytes, &net->buffers, &events,
		                       rank), COLLECT_OK);
	}
	return net;
}

static inline void net_close(struct net *net)
{
	for (uint32_t r = 0; r < net->world; r++) {
		col_exec_fini(&net->ranks[r].exec);
		col_ranges_fini(&net->ranks[r].produced);
		col_ranges_fini(&net->ranks[r].known);
		col_plan_destroy(&net->ranks[r].plan);
		free(net->ranks[r].scratch);
	}
	col_buffers_fini(&net->buffers);
	free(net->ranks);
	free(net);
}

static inline void net_check(const struct net *net)
{
	uint8_t result[BYTES_MAX];
	for (uint32_t r = 0; r < net->world; r++) {
		const struct rank *rank = &net->ranks[r];
		if (rank->done_count != 1)
			FAIL("seed %lu: collective %d, algorithm %d, world %u, credit %u: rank %u was done %u "
			     "times", (unsigned long)test_seed(), net->reference.collective, net->algorithm,
			     net->world, net->credit, r, rank->done_count);
		size_t bytes = reference_target(&net->reference, r, result);
		CHECK_BYTES_EQ(rank->in, rank->before, BYTES_MAX);
		CHECK_BYTES_EQ(rank->out, result, bytes);
		bool is_barrier = net->reference.collective == COLLECT_BARRIER;
		for (size_t i = is_barrier ? 8 : bytes; i < BYTES_MAX; i++)
			CHECK_EQ(rank->out[i], 0xee);
		for (uint32_t from = 0; from < net->world; from++)
			CHECK_EQ(net->unconsumed[from][r], 0);
	}
}

/* Every collective with every algorithm that does it. */
static inline void each(uint64_t rounds, uint32_t world_min, uint32_t world_max,
                 void (*run)(struct net *net))
{
	for (uint64_t round = 0; round < rounds; round++)
		for (uint32_t world = world_min; world <= world_max; world++)
			for (int collective = 0; collective < COLLECT_COLLECTIVE_COUNT; collective++)
				for (int algorithm = 0; algorithm < COLLECT_ALGORITHM_COUNT; algorithm++) {
					if (!collect_algorithm_has(algorithm, collective))
						continue;
					uint64_t seed = test_seed() * 1000003 + round;
					struct net *net = net_open(seed, collective, algorithm, world);
					run(net);
					net_close(net);
				}
}

#endif
