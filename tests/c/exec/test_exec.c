/* The executor, with any plan: bits, stops, production, frames that do not belong. */
#include "exec/exec.h"

#include <string.h>

#include "exec/net.h"

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
