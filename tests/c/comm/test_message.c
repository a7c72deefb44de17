/* Messages between members: what arrives, and in which order. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/prng.h"
#include "comm/mail.h"

TEST(messages_of_all_sizes_arrive_whole)
{
	static const size_t sizes[] = {0, 1, 63, 256, 257, 4095, 4096, 4097, 8191, 8192, 8193,
	                               12287, 12288, 12289, 100000, 5u << 20};
	for (uint16_t streams = 1; streams <= 3; streams += 2) {
		struct world world;
		world_of(&world, 2, streams);
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			check_size(&world, 0, 1, sizes[i], true);
			check_size(&world, 1, 0, sizes[i], false);
			check_size(&world, 1, 1, sizes[i], i % 2 == 0);
		}
		world_close(&world);
	}
}

TEST(a_send_is_over_only_when_its_receive_is)
{
	struct world world;
	uint32_t value = 7;
	uint32_t got = 0;
	world_of(&world, 2, 1);
	collect_op *send = send_begin(&world, 0, 1, 1, &value, sizeof(value));
	CHECK_EQ(collect_op_wait(send, 50 * COL_NS_PER_MS), COLLECT_PENDING);
	collect_op *receive = receive_begin(&world, 1, 0, 1, &got, sizeof(got));
	finish(receive, COLLECT_OK);
	finish(send, COLLECT_OK);
	CHECK_EQ(got, 7);
	world_close(&world);
}

TEST(tags_and_sources_are_matched_and_order_is_kept)
{
	struct world world;
	uint32_t values[3][20];
	collect_op *sends[3][20];
	world_of(&world, 3, 2);
	for (uint32_t i = 0; i < 20; i++) {
		for (uint32_t from = 1; from < 3; from++) {
			values[from][i] = from * 1000 + i;
			sends[from][i] = send_begin(&world, from, 0, i % 2, &values[from][i], 4);
		}
	}
	/* From peer 2, the odd ones; then from any, the even ones; then the rest of peer 1. */
	for (uint32_t i = 1; i < 20; i += 2) {
		uint32_t got = 0;
		finish(receive_begin(&world, 0, 2, 1, &got, 4), COLLECT_OK);
		CHECK_EQ(got, 2000 + i);
	}
	uint32_t next[3] = {0};
	for (uint32_t i = 0; i < 20; i++) {
		uint32_t got = 0;
		struct collect_op_info info =
			finish(receive_begin(&world, 0, WORLD_MAX, 0, &got, 4), COLLECT_OK);
		uint32_t from = got / 1000;
		CHECK_EQ(info.peer, name(&world, from));
		CHECK_EQ(got % 1000, next[from]);
		next[from] += 2;
	}
	for (uint32_t i = 1; i < 20; i += 2) {
		uint32_t got = 0;
		finish(receive_begin(&world, 0, WORLD_MAX, 1, &got, 4), COLLECT_OK);
		CHECK_EQ(got, 1000 + i);
	}
	for (uint32_t from = 1; from < 3; from++)
		for (uint32_t i = 0; i < 20; i++)
			finish(sends[from][i], COLLECT_OK);
	world_close(&world);
}

static void shuffle(struct col_prng *prng, uint32_t *order, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		order[i] = i;
	for (uint32_t i = count; i > 1; i--) {
		uint32_t k = (uint32_t)col_prng_below(prng, i);
		uint32_t swapped = order[i - 1];
		order[i - 1] = order[k];
		order[k] = swapped;
	}
}

/* Each of its own tag, sent in one random order and received in another; more than there are slots,
 * so that some wait for one. Sizes on both sides of what is sent at once. */
static void many_run(uint16_t streams, uint32_t count, bool posts_first)
{
	struct world world;
	struct col_prng prng;
	uint32_t *order = malloc(count * sizeof(*order));
	uint8_t **sources = malloc(count * sizeof(*sources));
	uint8_t **targets = malloc(count * sizeof(*targets));
	collect_op **sends = malloc(count * sizeof(collect_op *));
	collect_op **receives = malloc(count * sizeof(collect_op *));
	size_t *sizes = malloc(count * sizeof(*sizes));
	col_prng_init(&prng, test_seed());
	world_of(&world, 2, streams);
	for (uint32_t i = 0; i < count; i++) {
		sizes[i] = (size_t)col_prng_below(&prng, col_prng_below(&prng, 4) == 0 ? 30000 : 600);
		sources[i] = pattern(sizes[i], i);
		targets[i] = calloc(1, sizes[i] + 1);
	}
	for (int pass = 0; pass < 2; pass++) {
		shuffle(&prng, order, count);
		for (uint32_t i = 0; i < count; i++) {
			uint32_t k = order[i];
			if ((pass == 0) == posts_first)
				receives[k] = receive_begin(&world, 1, i % 2 == 0 ? 0 : WORLD_MAX, k, targets[k],
				                            sizes[k]);
			else
				sends[k] = send_begin(&world, 0, 1, k, sources[k], sizes[k]);
		}
	}
	for (uint32_t i = 0; i < count; i++) {
		finish(receives[i], COLLECT_OK);
		finish(sends[i], COLLECT_OK);
		CHECK_BYTES_EQ(targets[i], sources[i], sizes[i]);
		free(sources[i]);
		free(targets[i]);
	}
	free(order);
	free(sources);
	free(targets);
	free(sends);
	free(receives);
	free(sizes);
	world_close(&world);
}

TEST(a_thousand_messages_match_in_any_order)
{
	many_run(1, 1000, false);
	many_run(4, 1000, true);
}

TEST(more_messages_than_slots_wait_for_one)
{
	many_run(1, 3000, true);
	many_run(3, 1500, true);
}

TEST(too_many_messages_are_refused)
{
	struct world world;
	uint32_t value = 0;
	collect_op *ops[4096];
	collect_op *op = NULL;
	world_of(&world, 2, 1);
	for (uint32_t i = 0; i < 4096; i++)
		ops[i] = receive_begin(&world, 0, 1, i, &value, 4);
	collect_comm *comm = world.peers[0].comm;
	CHECK_EQ(collect_comm_receive(comm, 0, 0, &value, 4, 0, &op), COLLECT_E_FULL);
	CHECK_EQ(collect_comm_send(comm, name(&world, 1), 0, &value, 4, 0, &op), COLLECT_E_FULL);
	CHECK_EQ(collect_comm_send(comm, name(&world, 0), 0, &value, 4, 0, &op), COLLECT_E_FULL);
	CHECK_EQ(collect_op_cancel(ops[0]), COLLECT_OK);
	CHECK_EQ(collect_op_cancel(ops[0]), COLLECT_OK);
	CHECK_EQ(poll_status(ops[0]), COLLECT_E_ABORTED);
	collect_op *again = receive_begin(&world, 0, 1, 0, &value, 4);
	CHECK_EQ(collect_comm_cancel_messages(comm), COLLECT_OK);
	finish(again, COLLECT_E_ABORTED);
	for (uint32_t i = 0; i < 4096; i++)
		finish(ops[i], COLLECT_E_ABORTED);
	world_close(&world);
}

TEST(arguments_are_checked)
{
	struct world world;
	uint32_t value = 0;
	collect_op *op = NULL;
	world_of(&world, 2, 1);
	collect_comm *comm = world.peers[0].comm;
	CHECK_EQ(collect_comm_send(comm, 0, 0, &value, 4, 0, &op), COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_send(comm, name(&world, 1), 0, NULL, 4, 0, &op), COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_send(comm, name(&world, 1), 0, &value, 1ull << 63, 0, &op),
	         COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_receive(comm, 0, 0, NULL, 4, 0, &op), COLLECT_E_INVALID);
	CHECK_EQ(collect_comm_send(comm, 999, 0, &value, 4, 0, &op), COLLECT_E_PEER);
	CHECK_EQ(collect_comm_receive(comm, 999, 0, &value, 4, 0, &op), COLLECT_E_PEER);
	CHECK(op == NULL);
	op = receive_begin(&world, 0, 1, 0, &value, 4);
	CHECK_EQ(collect_op_start(op, 0), COLLECT_E_INVALID);
	world_kill(&world, 0);
	finish(op, COLLECT_E_CLOSED);
	world_close(&world);
}

TEST(messages_of_a_member_to_come_wait_for_it)
{
	struct world world;
	struct collect_member members[WORLD_MAX];
	uint32_t value = 42;
	uint32_t got = 0;
	world_open(&world, &(struct world_options){.count = 3});
	world_install(&world, 3, 1ull << 32);
	collect_op *receive = receive_begin(&world, 0, WORLD_MAX, 1, &got, 4);
	/* Peer 2 is in the view that the others have yet to install. */
	world.epoch++;
	struct collect_install install = world_view(&world, 7, 2, members);
	install.op_base = 2ull << 32;
	CHECK_EQ(collect_comm_install(world.peers[2].comm, &install), COLLECT_OK);
	collect_op *send = send_begin(&world, 2, 0, 1, &value, 4);
	CHECK_EQ(collect_op_wait(send, 100 * COL_NS_PER_MS), COLLECT_PENDING);
	CHECK_EQ(poll_status(receive), COLLECT_PENDING);
	for (uint32_t i = 0; i < 2; i++) {
		install = world_view(&world, 7, i, members);
		install.op_base = 2ull << 32;
		CHECK_EQ(collect_comm_install(world.peers[i].comm, &install), COLLECT_OK);
	}
	CHECK_EQ(finish(receive, COLLECT_OK).peer, 102);
	finish(send, COLLECT_OK);
	CHECK_EQ(got, 42);
	world_close(&world);
}

/* The receiver has not begun an operation that fills the link's window: messages pass it. */
TEST(messages_pass_an_operation_that_waits)
{
	struct world world;
	size_t count = 1u << 20;
	float *values[2];
	collect_op *ops[2];
	world_open(&world, &(struct world_options){
		.count = 2, .window_bytes = 64u << 10, .algorithm = COLLECT_DIRECT});
	world_install(&world, 3, 1ull << 32);
	for (uint32_t i = 0; i < 2; i++) {
		values[i] = malloc(count * sizeof(float));
		for (size_t k = 0; k < count; k++)
			values[i][k] = (float)(k % 100);
	}
	CHECK_EQ(world_all_reduce_start(&world, 0, values[0], count, &ops[0]), COLLECT_OK);
	CHECK_EQ(collect_op_wait(ops[0], 50 * COL_NS_PER_MS), COLLECT_PENDING);
	check_size(&world, 0, 1, 3u << 20, true);
	check_size(&world, 0, 1, 100, false);
	check_size(&world, 1, 0, 3u << 20, false);
	CHECK_EQ(world_all_reduce_start(&world, 1, values[1], count, &ops[1]), COLLECT_OK);
	/* And they share the link while it runs. */
	check_size(&world, 0, 1, 3u << 20, true);
	for (uint32_t i = 0; i < 2; i++) {
		finish(ops[i], COLLECT_OK);
		for (size_t k = 0; k < count; k++)
			CHECK(values[i][k] == (float)(2 * (k % 100)));
		free(values[i]);
	}
	world_close(&world);
}

TEST(messages_and_operations_share_links)
{
	struct world world;
	enum { ROUNDS = 10, MESSAGES = 20 };
	world_of(&world, 3, 2);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		uint8_t *sources[3][MESSAGES];
		uint8_t *targets[3][MESSAGES];
		collect_op *ops[3][2 * MESSAGES];
		for (uint32_t i = 0; i < MESSAGES; i++) {
			size_t bytes = 1000u * i * (round + 1);
			for (uint32_t peer = 0; peer < 3; peer++) {
				sources[peer][i] = pattern(bytes, peer + i);
				targets[peer][i] = malloc(bytes + 1);
				ops[peer][i] = send_begin(&world, peer, (peer + 1) % 3, i % 3,
				                          sources[peer][i], bytes);
				ops[peer][MESSAGES + i] = receive_begin(&world, peer, (peer + 2) % 3, i % 3,
				                                        targets[peer][i], bytes);
			}
		}
		world_all_reduce_check(&world, 7, 100000);
		for (uint32_t peer = 0; peer < 3; peer++) {
			for (uint32_t i = 0; i < MESSAGES; i++) {
				finish(ops[peer][i], COLLECT_OK);
				finish(ops[peer][MESSAGES + i], COLLECT_OK);
				CHECK_BYTES_EQ(targets[peer][i], sources[(peer + 2) % 3][i],
				               1000u * i * (round + 1));
			}
		}
		for (uint32_t peer = 0; peer < 3; peer++) {
			for (uint32_t i = 0; i < MESSAGES; i++) {
				free(sources[peer][i]);
				free(targets[peer][i]);
			}
		}
	}
	world_close(&world);
}
