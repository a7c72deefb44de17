/* Executors joined by queues in memory: random order of delivery, delayed writes, few credits. */
#include "exec/exec.h"

#include <stdlib.h>
#include <string.h>

#include "base/prng.h"
#include "harness.h"

#define WORLD_MAX 9u
#define BYTES_MAX 6000u
#define FRAMES_MAX 4096u

struct rank {
	struct net *net;
	uint32_t index;
	struct collect_plan *plan;
	struct col_exec exec;
	uint8_t in[BYTES_MAX];
	uint8_t before[BYTES_MAX]; /* what `in` must still be */
	uint8_t out[BYTES_MAX];
	uint32_t done_count;
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
	struct col_run run; /* but for the memory */
	size_t count;
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

static const struct col_exec_events events = {
	.send = rank_send,
	.consumed = rank_consumed,
	.done = rank_done,
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
	struct col_exec *sender = &net->ranks[letter->from].exec;
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
		col_exec_sent(sender, token);
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
		struct col_run run = net->run;
		memset(rank->out, 0xee, BYTES_MAX);
		rank->done_count = 0;
		run.in = rank->in;
		run.out = rank->out;
		col_exec_start(&rank->exec, &run);
	}
}

static bool has_kernel(int dtype, int reduce_op)
{
	return col_kernels()->reduce[dtype][reduce_op] != NULL;
}

/* Numbers of every type that neither overflow nor are all alike: small integers, and for real types
 * whatever rounds. */
static void input_fill(struct net *net, struct rank *rank)
{
	int dtype = net->run.dtype;
	for (size_t i = 0; i < BYTES_MAX; i++)
		rank->in[i] = (uint8_t)(col_prng_below(&net->prng, 256));
	for (size_t i = 0; i < net->count; i++) {
		double value = (double)col_prng_below(&net->prng, 1000000) / 977.0 - 300.0;
		float narrow = (float)value;
		if (dtype == COLLECT_FLOAT32)
			memcpy(rank->in + i * sizeof(narrow), &narrow, sizeof(narrow));
		else if (dtype == COLLECT_FLOAT64)
			memcpy(rank->in + i * sizeof(value), &value, sizeof(value));
	}
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

static struct net *net_open(uint64_t seed, int algorithm, uint32_t world)
{
	struct net *net = calloc(1, sizeof(*net));
	col_prng_init(&net->prng, seed);
	net->world = world;
	net->algorithm = algorithm;
	slow_choose(net);
	net->ranks = calloc(world, sizeof(*net->ranks));
	net->chunk_bytes = 64 * (uint32_t)(1 + col_prng_below(&net->prng, 6));
	bool is_tight = col_prng_below(&net->prng, 2) == 0;
	net->credit = (uint32_t)(1 + col_prng_below(&net->prng, is_tight ? 2 : 12));
	col_buffers_init(&net->buffers, net->chunk_bytes);
	do {
		net->run.dtype = (int)col_prng_below(&net->prng, COLLECT_DTYPE_COUNT);
		net->run.reduce_op = (int)col_prng_below(&net->prng, COLLECT_REDUCE_OP_COUNT);
	} while (!has_kernel(net->run.dtype, net->run.reduce_op));
	size_t element_bytes = col_dtype_bytes(net->run.dtype);
	size_t bytes_max = col_prng_below(&net->prng, 2) == 0 ? 200 : BYTES_MAX;
	net->count = 1 + (size_t)col_prng_below(&net->prng, bytes_max / element_bytes);
	net->run.bytes = net->count * element_bytes;
	for (uint32_t r = 0; r < world; r++) {
		struct rank *rank = &net->ranks[r];
		rank->net = net;
		rank->index = r;
		input_fill(net, rank);
		CHECK_EQ(col_plan_build(algorithm, world, r, &rank->plan), COLLECT_OK);
		CHECK_EQ(col_exec_init(&rank->exec, rank->plan, net->chunk_bytes, &net->buffers, &events,
		                       rank), COLLECT_OK);
	}
	return net;
}

static void net_close(struct net *net)
{
	for (uint32_t r = 0; r < net->world; r++) {
		col_exec_fini(&net->ranks[r].exec);
		col_plan_destroy(&net->ranks[r].plan);
	}
	col_buffers_fini(&net->buffers);
	free(net->ranks);
	free(net);
}

static void rank_order_result(const struct net *net, uint8_t *result_out)
{
	const struct col_run *run = &net->run;
	memcpy(result_out, net->ranks[0].before, run->bytes);
	for (uint32_t r = 1; r < net->world; r++)
		col_kernels()->reduce[run->dtype][run->reduce_op](result_out, result_out,
		                                                  net->ranks[r].before, net->count);
	if (run->reduce_op == COLLECT_AVG)
		col_kernels()->divide[run->dtype](result_out, net->count, net->world);
}

static void net_check(const struct net *net)
{
	uint8_t result[BYTES_MAX];
	rank_order_result(net, result);
	for (uint32_t r = 0; r < net->world; r++) {
		const struct rank *rank = &net->ranks[r];
		if (rank->done_count != 1)
			FAIL("seed %lu: algorithm %d, world %u, credit %u: rank %u was done %u times",
			     (unsigned long)test_seed(), net->algorithm, net->world, net->credit, r,
			     rank->done_count);
		CHECK_BYTES_EQ(rank->in, rank->before, BYTES_MAX);
		CHECK_BYTES_EQ(rank->out, net->ranks[0].out, net->run.bytes);
		if (net->algorithm != COLLECT_RING)
			CHECK_BYTES_EQ(rank->out, result, net->run.bytes);
		for (size_t i = net->run.bytes; i < BYTES_MAX; i++)
			CHECK_EQ(rank->out[i], 0xee);
		for (uint32_t from = 0; from < net->world; from++)
			CHECK_EQ(net->unconsumed[from][r], 0);
	}
}

static const int algorithms[] = {COLLECT_DIRECT, COLLECT_RING, COLLECT_STAR};

TEST(every_order_of_delivery_gives_the_same_bits)
{
	for (uint64_t round = 0; round < 20; round++)
		for (uint32_t world = 1; world <= WORLD_MAX; world++)
			for (size_t a = 0; a < 3; a++) {
				struct net *net = net_open(test_seed() * 1000003 + round, algorithms[a], world);
				for (int run = 0; run < 2; run++) {
					net_start(net);
					net_run(net, UINT32_MAX);
					net_check(net);
				}
				net_close(net);
			}
}

TEST(a_run_that_was_stopped_anywhere_starts_again_from_untouched_input)
{
	for (uint64_t round = 0; round < 10; round++)
		for (uint32_t world = 2; world <= WORLD_MAX; world++)
			for (size_t a = 0; a < 3; a++) {
				struct net *net = net_open(test_seed() * 1000033 + round, algorithms[a], world);
				for (int stop = 0; stop < 3; stop++) {
					net_start(net);
					net_run(net, (uint32_t)col_prng_below(&net->prng, 40 * world));
					net_stop(net);
					for (uint32_t r = 0; r < world; r++)
						CHECK_BYTES_EQ(net->ranks[r].in, net->ranks[r].before, BYTES_MAX);
				}
				net_start(net);
				net_run(net, UINT32_MAX);
				net_check(net);
				net_close(net);
			}
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

TEST(frames_that_do_not_belong_are_refused_and_change_nothing)
{
	for (uint64_t round = 0; round < 6; round++)
		for (uint32_t world = 2; world <= 5; world++)
			for (size_t a = 0; a < 3; a++) {
				struct net *net = net_open(test_seed() * 1000037 + round, algorithms[a], world);
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
				net_close(net);
			}
}

TEST(two_copies_under_way_at_once_count_once)
{
	struct net *net = net_open(test_seed(), COLLECT_STAR, 3);
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
