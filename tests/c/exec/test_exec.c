/* Executors joined by queues in memory: random order of delivery, delayed writes, few credits. */
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

static void rank_send(void *user, uint32_t to, struct col_frame *frame, const uint8_t *payload,
                      struct col_buffer *buffer, void *token)
{
	struct rank *rank = user;
	struct net *net = rank->net;
	CHECK(net->letter_count < FRAMES_MAX);
	CHECK(frame->length > 0 && frame->length <= net->chunk_bytes);
	net->letters[net->letter_count++] = (struct letter){
		.from = rank->index, .to = to, .frame = *frame, .borrowed = payload,
		.buffer = buffer, .token = token};
}

static void rank_consumed(void *user, uint32_t from, uint32_t bytes)
{
	struct rank *rank = user;
	CHECK(bytes > 0);
	CHECK(rank->net->unconsumed[from][rank->index] > 0);
	rank->net->unconsumed[from][rank->index]--;
}

static void rank_done(void *user)
{
	struct rank *rank = user;
	rank->done_count++;
}

static void rank_starved(void *user)
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

static void letter_drop(struct net *net, uint32_t index)
{
	free(net->letters[index].bytes);
	net->letter_count--;
	memmove(&net->letters[index], &net->letters[index + 1],
	        (net->letter_count - index) * sizeof(net->letters[0]));
}

/* Frames of a link leave in order, and only with credit. */
static bool may_leave(const struct net *net, uint32_t index)
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
static bool letter_move(struct net *net, uint32_t index)
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
static void net_run(struct net *net, uint32_t moves_max)
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

static size_t element_bytes(const struct net *net)
{
	return col_dtype_bytes(net->reference.dtype);
}

/* As a freeze does it: links are purged, then the executors stop. */
static void net_stop(struct net *net)
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

static void net_start(struct net *net)
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
static void rank_lay(struct net *net, struct rank *rank)
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

static void input_fill(struct net *net, struct rank *rank)
{
	for (size_t i = 0; i < BYTES_MAX; i++)
		rank->in[i] = (uint8_t)(col_prng_below(&net->prng, 256));
	/* The factor is the caller's matter. */
	struct reference reference = net->reference;
	reference_source(&reference, rank->index, rank->in);
	memcpy(rank->before, rank->in, BYTES_MAX);
}

/* None, any, or a circle of links in which each waits for the next. */
static void slow_choose(struct net *net)
{
	uint64_t kind = col_prng_below(&net->prng, 4);
	for (uint32_t from = 0; from < net->world; from++)
		for (uint32_t to = 0; to < net->world; to++)
			net->is_slow[from][to] = (kind == 1 && col_prng_below(&net->prng, 3) == 0) ||
			                         (kind == 2 && to == (from + 1) % net->world) ||
			                         (kind == 3 && from == (to + 1) % net->world);
}

static void payload_draw(struct net *net)
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

static struct net *net_open(uint64_t seed, int collective, int algorithm, uint32_t world)
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

static void net_close(struct net *net)
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

static void net_check(const struct net *net)
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
static void each(uint64_t rounds, uint32_t world_min, uint32_t world_max,
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

static void run_twice(struct net *net)
{
	for (int run = 0; run < 2; run++) {
		net_start(net);
		net_run(net, UINT32_MAX);
		net_check(net);
	}
}

TEST(every_order_of_delivery_gives_the_same_bits)
{
	each(10, 1, WORLD_MAX, run_twice);
}

static void stop_and_run(struct net *net)
{
	for (int stop = 0; stop < 3; stop++) {
		net_start(net);
		net_run(net, (uint32_t)col_prng_below(&net->prng, 40 * net->world));
		net_stop(net);
		for (uint32_t r = 0; r < net->world; r++)
			CHECK_BYTES_EQ(net->ranks[r].in, net->ranks[r].before, BYTES_MAX);
	}
	net_start(net);
	net_run(net, UINT32_MAX);
	net_check(net);
}

TEST(a_run_that_was_stopped_anywhere_starts_again_from_untouched_input)
{
	each(5, 2, WORLD_MAX, stop_and_run);
}

/* ---- sources that are produced, results that are told ---- */

/* How a rank goes about it: not at all, forward, backward, or in any order. */
static void pieces_choose(struct net *net, struct rank *rank)
{
	uint64_t way = col_prng_below(&net->prng, 4);
	uint32_t count = (uint32_t)(1 + col_prng_below(&net->prng, PIECES_MAX));
	uint64_t step = (net->world * net->reference.counts[0][0] * element_bytes(net) + 700) / count;
	step = step < BYTES_MAX / count ? step + 1 : BYTES_MAX / count;
	if (way == 0 || net->reference.collective == COLLECT_BARRIER)
		return;
	for (uint32_t p = 0; p < count; p++) {
		uint64_t end = p + 1 == count ? BYTES_MAX : (p + 1) * step;
		uint32_t other = way == 1 ? p : way == 2 ? 0 : (uint32_t)col_prng_below(&net->prng, p + 1);
		/* Backward: behind all others. */
		memmove(&rank->pieces[other + 1], &rank->pieces[other],
		        (p - other) * sizeof(rank->pieces[0]));
		rank->pieces[other] = (struct col_range){p * step, end};
	}
	rank->piece_count = count;
	memset(rank->in, 0x5a, BYTES_MAX);
}

/* What is told to be final is the result. */
static void told_check(struct net *net, struct rank *rank)
{
	uint8_t result[BYTES_MAX];
	struct col_range range = col_exec_final_next(&rank->exec, rank->out, &rank->known);
	if (range.begin == range.end || net->reference.collective == COLLECT_BARRIER)
		return;
	CHECK(range.end <= reference_target(&net->reference, rank->index, result));
	CHECK_BYTES_EQ(rank->out + range.begin, result + range.begin, range.end - range.begin);
	CHECK_EQ(col_ranges_add(&rank->known, range.begin, range.end), COLLECT_OK);
}

static bool piece_produce(struct rank *rank)
{
	if (rank->piece_next == rank->piece_count)
		return false;
	struct col_range piece = rank->pieces[rank->piece_next++];
	memcpy(rank->in + piece.begin, rank->before + piece.begin, piece.end - piece.begin);
	CHECK_EQ(col_ranges_add(&rank->produced, piece.begin, piece.end), COLLECT_OK);
	if (rank->exec.is_running)
		col_exec_produced(&rank->exec);
	return true;
}

/* Each rank goes on by itself, the network now and then, or as far as it can. */
static void produce_some(struct net *net, uint32_t pieces_max)
{
	bool is_slow_producer = col_prng_below(&net->prng, 2) == 0;
	for (uint32_t stuck = 0; stuck < 4 * net->world && pieces_max > 0; pieces_max--) {
		struct rank *rank = &net->ranks[col_prng_below(&net->prng, net->world)];
		stuck = piece_produce(rank) ? 0 : stuck + 1;
		net_run(net, is_slow_producer ? UINT32_MAX : (uint32_t)col_prng_below(&net->prng, 30));
		told_check(net, rank);
	}
}

static void produce_and_run(struct net *net)
{
	uint8_t result[BYTES_MAX];
	for (uint32_t r = 0; r < net->world; r++)
		pieces_choose(net, &net->ranks[r]);
	/* Stopped in between, the second run finds what was produced in the first. */
	for (int run = 0; run < 2; run++) {
		net_start(net);
		produce_some(net, run == 0 ? (uint32_t)col_prng_below(&net->prng, 60) : UINT32_MAX);
		for (uint32_t r = 0; r < net->world && run == 0; r++)
			col_ranges_clear(&net->ranks[r].known);
		if (run == 0)
			net_stop(net);
	}
	for (uint32_t r = 0; r < net->world; r++)
		while (piece_produce(&net->ranks[r]))
			continue;
	net_run(net, UINT32_MAX);
	net_check(net);
	for (struct rank *rank = net->ranks; rank < net->ranks + net->world; rank++) {
		size_t bytes = reference_target(&net->reference, rank->index, result);
		for (uint32_t i = 0; i < FRAMES_MAX; i++)
			told_check(net, rank);
		CHECK_EQ(rank->known.bytes, bytes);
	}
}

TEST(sources_are_produced_in_any_order_and_ranges_are_told_when_they_are_final)
{
	each(4, 1, WORLD_MAX, produce_and_run);
}

static void check_refused(struct rank *rank, uint32_t from, const struct col_frame *frame,
                          const char *reason)
{
	struct col_sink sink = col_exec_place(&rank->exec, from, frame);
	CHECK_EQ(sink.place, COL_PLACE_REFUSE);
	CHECK_STR_EQ(sink.reason, reason);
}

/* Every way in which a good frame can be made a bad one. */
static void check_all_refused(struct net *net, const struct letter *letter)
{
	struct rank *rank = &net->ranks[letter->to];
	struct col_frame bad = letter->frame;
	const char *no_step = "a frame for a lane or step that the plan does not have";
	bad.lane = 999;
	check_refused(rank, letter->from, &bad, no_step);
	bad = letter->frame;
	bad.step = 999;
	check_refused(rank, letter->from, &bad, no_step);
	check_refused(rank, letter->to, &letter->frame,
	              "a frame for a step that receives nothing from this peer");
	bad = letter->frame;
	bad.offset++;
	check_refused(rank, letter->from, &bad, "a frame that is not a chunk of its slice");
	static const uint64_t offsets[] = {UINT64_MAX, UINT64_MAX - 63, 1ull << 63, 1ull << 40};
	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		bad.offset = offsets[i];
		CHECK_EQ(col_exec_place(&rank->exec, letter->from, &bad).place, COL_PLACE_REFUSE);
	}
	for (uint32_t length = 0; length <= net->chunk_bytes + 1; length++) {
		bad = letter->frame;
		bad.length = length;
		if (length != letter->frame.length)
			check_refused(rank, letter->from, &bad, "a frame of another length than its chunk");
	}
}

static void refuse_and_run(struct net *net)
{
	net->credit = FRAMES_MAX;
	net_start(net);
	while (net->letter_count > 0) {
		struct letter letter = net->letters[0];
		check_all_refused(net, &letter);
		for (int stage = QUEUED; stage <= PLACED; stage++)
			CHECK(letter_move(net, 0));
		check_refused(&net->ranks[letter.to], letter.from, &letter.frame,
		              "a frame that came before");
	}
	net_check(net);
}

TEST(frames_that_do_not_belong_are_refused_and_change_nothing)
{
	each(3, 2, 5, refuse_and_run);
}

TEST(two_copies_under_way_at_once_count_once)
{
	struct net *net = net_open(test_seed(), COLLECT_ALL_REDUCE, COLLECT_STAR, 3);
	net->credit = FRAMES_MAX;
	net_start(net);
	uint32_t index = 0;
	while (net->letters[index].to != 0)
		index++;
	CHECK(letter_move(net, index));
	struct letter copy = net->letters[index];
	CHECK(letter_move(net, index));
	struct col_sink sink = col_exec_place(&net->ranks[0].exec, copy.from, &copy.frame);
	CHECK_EQ(sink.place, COL_PLACE_EXEC);
	memcpy(sink.target, copy.bytes, copy.frame.length);
	CHECK(letter_move(net, index));
	net->unconsumed[copy.from][0]++;
	CHECK_EQ(col_exec_arrived(&net->ranks[0].exec, &copy.frame, &sink), COLLECT_OK);
	net_run(net, UINT32_MAX);
	net_check(net);
	net_close(net);
}

TEST(a_rank_awaits_those_whose_frames_its_lanes_are_at)
{
	struct net *net = net_open(test_seed(), COLLECT_ALL_REDUCE, COLLECT_STAR, 3);
	net->credit = FRAMES_MAX;
	net_start(net);
	/* The hub adds in rank order; the others wait for its sum. */
	CHECK(col_exec_awaits(&net->ranks[0].exec, 1));
	CHECK(!col_exec_awaits(&net->ranks[0].exec, 2));
	for (uint32_t rank = 1; rank < 3; rank++) {
		CHECK(col_exec_awaits(&net->ranks[rank].exec, 0));
		CHECK(!col_exec_awaits(&net->ranks[rank].exec, 3 - rank));
	}
	net_run(net, UINT32_MAX);
	for (uint32_t rank = 0; rank < 3; rank++)
		for (uint32_t other = 0; other < 3; other++)
			CHECK(!col_exec_awaits(&net->ranks[rank].exec, other));
	net_check(net);
	net_close(net);
}

/* ---- 16-bit floats ---- */

/* Rank 0 has `large`, the two others `small`; elements are given by their bits. */
static void rounds_once(int dtype, uint16_t large, uint16_t small, uint16_t sum, int algorithm)
{
	struct net *net = net_open(test_seed(), COLLECT_ALL_REDUCE, algorithm, 3);
	net->reference.dtype = dtype;
	net->reference.reduce_op = COLLECT_SUM;
	net->reference.counts[0][0] = 100;
	net->has_counts = false;
	for (uint32_t r = 0; r < 3; r++)
		for (size_t i = 0; i < 100; i++)
			memcpy(net->ranks[r].in + 2 * i, r == 0 ? &large : &small, 2);
	net_start(net);
	net_run(net, UINT32_MAX);
	for (uint32_t r = 0; r < 3; r++)
		for (size_t i = 0; i < 100; i++)
			CHECK_BYTES_EQ(net->ranks[r].out + 2 * i, &sum, 2);
	net_close(net);
}

TEST(a_sum_of_halves_is_rounded_once_by_the_rank_that_adds_them_up)
{
	static const int algorithms[] = {COLLECT_DIRECT, COLLECT_STAR, COLLECT_EXCHANGE};
	for (size_t a = 0; a < 3; a++) {
		/* 2048 + 1 + 1 is 2050; with each sum rounded to even it would stay 2048. */
		rounds_once(COLLECT_FLOAT16, 0x6800, 0x3c00, 0x6801, algorithms[a]);
		/* 256 + 1 + 1 is 258. */
		rounds_once(COLLECT_BFLOAT16, 0x4380, 0x3f80, 0x4381, algorithms[a]);
	}
}
