/* Messages that do not arrive: who is told, and that all else goes on. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "comm/mail.h"

TEST(a_message_that_is_too_long_fails_at_both_ends)
{
	static const size_t sizes[] = {2, 8193, 200000};
	struct world world;
	world_of(&world, 2, 1);
	for (uint32_t i = 0; i < 6; i++) {
		size_t bytes = sizes[i % 3];
		uint32_t from = i < 3 ? 0 : 1; /* the latter to itself */
		uint8_t *source = pattern(bytes, i);
		uint8_t *target = calloc(1, bytes);
		collect_op *send = send_begin(&world, from, 1, 3, source, bytes);
		struct collect_op_info info = finish(
			receive_begin(&world, 1, from, 3, target, bytes - 1), COLLECT_E_TRUNCATED);
		CHECK_EQ(info.bytes, bytes);
		finish(send, COLLECT_E_TRUNCATED);
		for (size_t k = 0; k < bytes; k++)
			CHECK_EQ(target[k], 0);
		free(source);
		free(target);
	}
	check_size(&world, 0, 1, 20000, true);
	world_close(&world);
}

TEST(a_deadline_ends_a_message_here_and_withdraws_it_there)
{
	static const size_t sizes[] = {10, 50000};
	struct world world;
	world_of(&world, 2, 2);
	for (uint32_t i = 0; i < 2; i++) {
		uint8_t *source = pattern(sizes[i], i);
		uint8_t *target = malloc(sizes[i]);
		collect_op *op = NULL;
		uint64_t soon_ns = col_clock_ns() + 30 * COL_NS_PER_MS;
		CHECK_EQ(collect_comm_send(world.peers[0].comm, name(&world, 1), 9, source, sizes[i],
		                           soon_ns, &op),
		         COLLECT_OK);
		finish(op, COLLECT_E_TIMEOUT);
		CHECK(col_clock_ns() >= soon_ns);
		CHECK_EQ(collect_comm_send(world.peers[1].comm, name(&world, 1), 9, source, sizes[i],
		                           soon_ns, &op),
		         COLLECT_OK);
		finish(op, COLLECT_E_TIMEOUT);
		CHECK_EQ(collect_comm_receive(world.peers[1].comm, 0, 9, target, sizes[i],
		                              col_clock_ns() + 30 * COL_NS_PER_MS, &op),
		         COLLECT_OK);
		/* What was withdrawn is not received. */
		finish(op, COLLECT_E_TIMEOUT);
		free(source);
		free(target);
		check_size(&world, 0, 1, sizes[i], true);
	}
	/* All slots are free again. */
	for (uint32_t round = 0; round < 3; round++) {
		collect_op *ops[1000];
		uint32_t value = 1;
		for (uint32_t i = 0; i < 1000; i++)
			ops[i] = send_begin(&world, 0, 1, 77, &value, 4);
		CHECK_EQ(collect_comm_cancel_messages(world.peers[0].comm), COLLECT_OK);
		for (uint32_t i = 0; i < 1000; i++)
			finish(ops[i], COLLECT_E_ABORTED);
	}
	check_size(&world, 0, 1, 30000, false);
	world_close(&world);
}

/* Either end gives up when the message is on its way; the other end is told, and both ends of the
 * link stay in step. */
TEST(whoever_gives_up_in_the_middle_ends_both)
{
	struct world world;
	size_t bytes = 64u << 20;
	uint8_t *source = pattern(bytes, 3);
	uint8_t *target = malloc(bytes);
	world_of(&world, 2, 2);
	for (uint32_t round = 0; round < 20; round++) {
		collect_op *send = send_begin(&world, 0, 1, 100 + round, source, bytes);
		collect_op *receive = receive_begin(&world, 1, 0, 100 + round, target, bytes);
		/* When this one is there, the other is matched. */
		check_size(&world, 0, 1, 1, true);
		usleep(round * 500);
		collect_op *first = round % 2 == 0 ? send : receive;
		collect_op *second = round % 2 == 0 ? receive : send;
		CHECK_EQ(collect_op_cancel(first), COLLECT_OK);
		int status = collect_op_wait(first, SOON_NS);
		CHECK(status == COLLECT_E_ABORTED || status == COLLECT_OK);
		if (status == COLLECT_OK) {
			CHECK_EQ(collect_op_wait(second, SOON_NS), COLLECT_OK);
		} else {
			memset(first == send ? source : target, 0, 4096); /* it is ours again */
			int other = collect_op_wait(second, SOON_NS);
			/* Who sends may have given up what has arrived; who receives knows better. */
			if (other == COLLECT_PENDING || (other == COLLECT_OK && second == send))
				FAIL("round %u: the other end's status is %d", round, other);
		}
		collect_op_release(&send);
		collect_op_release(&receive);
	}
	check_size(&world, 0, 1, 100000, false);
	world_close(&world);
	free(source);
	free(target);
}

/* A message of so many bytes; an end that cannot start leaves the other to be cancelled. */
static void try_size(struct world *world, uint32_t from, uint32_t to, size_t bytes)
{
	uint64_t tag = bytes; /* of each its own: a send that was cancelled may still be received */
	uint8_t *source = pattern(bytes, 9);
	uint8_t *target = calloc(1, bytes + 1);
	collect_op *ops[2] = {NULL};
	int started[2];
	started[0] = collect_comm_send(world->peers[from].comm, name(world, to), tag, source, bytes, 0,
	                               &ops[0]);
	started[1] = collect_comm_receive(world->peers[to].comm, name(world, from), tag, target,
	                                  bytes, 0, &ops[1]);
	for (uint32_t i = 0; i < 2; i++) {
		CHECK(started[i] == COLLECT_OK || started[i] == COLLECT_E_MEMORY ||
		      started[i] == COLLECT_E_PEER);
		if (started[i] == COLLECT_OK && started[1 - i] != COLLECT_OK)
			CHECK_EQ(collect_op_cancel(ops[i]), COLLECT_OK);
	}
	bool is_whole = false;
	for (uint32_t i = 0; i < 2; i++) {
		if (started[i] != COLLECT_OK)
			continue;
		int status = collect_op_wait(ops[i], SOON_NS);
		CHECK(status == COLLECT_OK || status == COLLECT_E_MEMORY || status == COLLECT_E_PEER ||
		      status == COLLECT_E_ABORTED);
		is_whole = status == COLLECT_OK;
		collect_op_release(&ops[i]);
	}
	if (is_whole && started[1] == COLLECT_OK)
		CHECK_BYTES_EQ(target, source, bytes);
	free(source);
	free(target);
}

TEST(any_allocation_may_fail_once)
{
	bool has_failed = true;
	for (uint64_t nth = 1; has_failed; nth++) {
		struct world world;
		CHECK(nth < 200);
		world_of(&world, 2, 1);
		/* Let the greetings pass. */
		world_await(&world, 0, COLLECT_EVENT_LINK_UP);
		world_await(&world, 1, COLLECT_EVENT_LINK_UP);
		col_alloc_fail_at(nth);
		try_size(&world, 0, 1, 100);
		try_size(&world, 0, 1, 50000);
		try_size(&world, 1, 0, 8000);
		try_size(&world, 1, 1, 10);
		col_alloc_fail_at(0);
		has_failed = col_alloc_has_failed();
		world_close(&world);
	}
}

TEST(a_lost_link_ends_its_messages_and_no_others)
{
	struct world world;
	size_t bytes = 64u << 20;
	uint8_t *source = pattern(bytes, 3);
	uint8_t *target = malloc(bytes);
	uint32_t values[4] = {1, 2, 3, 4};
	collect_op *op = NULL;
	world_of(&world, 3, 2);
	check_size(&world, 0, 2, 100, true);
	collect_op *sending = send_begin(&world, 0, 2, 1, source, bytes);
	collect_op *fetched = receive_begin(&world, 2, 0, 1, target, bytes);
	collect_op *unmatched = send_begin(&world, 0, 2, 2, values, 4);
	collect_op *from_lost = receive_begin(&world, 0, 2, 3, &values[1], 4);
	collect_op *from_any = receive_begin(&world, 0, WORLD_MAX, 4, &values[2], 4);
	collect_op *from_other = receive_begin(&world, 0, 1, 5, &values[3], 4);
	usleep(3000);
	world_kill(&world, 2);
	collect_op_release(&fetched);
	struct collect_op_info info;
	CHECK_EQ(collect_op_wait(sending, SOON_NS), COLLECT_E_PEER);
	collect_op_info_get(sending, &info);
	CHECK_EQ(info.peer, 102);
	collect_op_release(&sending);
	finish(unmatched, COLLECT_E_PEER);
	finish(from_lost, COLLECT_E_PEER);
	CHECK_EQ(poll_status(from_any), COLLECT_PENDING);
	CHECK_EQ(poll_status(from_other), COLLECT_PENDING);
	CHECK_EQ(collect_comm_send(world.peers[0].comm, 102, 1, source, 4, 0, &op), COLLECT_E_PEER);
	CHECK_EQ(collect_comm_receive(world.peers[0].comm, 102, 1, target, 4, 0, &op),
	         COLLECT_E_PEER);
	/* The view changes; the others' messages do not notice. */
	struct collect_report reports[WORLD_MAX];
	world_freeze(&world, 3, reports);
	uint32_t five = 5;
	collect_op *frozen = send_begin(&world, 1, 0, 5, &five, 4);
	finish(from_other, COLLECT_OK);
	finish(frozen, COLLECT_OK);
	CHECK_EQ(values[3], 5);
	world_install(&world, 3, 0);
	collect_op *last = send_begin(&world, 1, 0, 4, &five, 4);
	info = finish(from_any, COLLECT_OK);
	CHECK_EQ(info.peer, 101);
	finish(last, COLLECT_OK);
	world_all_reduce_check(&world, 3, 5000);
	world_close(&world);
	free(source);
	free(target);
}

TEST(a_link_that_is_opened_anew_has_lost_its_messages)
{
	struct world world;
	uint32_t value = 1;
	uint32_t got = 0;
	world_of(&world, 2, 1);
	collect_op *send = send_begin(&world, 0, 1, 1, &value, 4);
	collect_op *receive = receive_begin(&world, 0, 1, 2, &got, 4);
	CHECK_EQ(collect_op_wait(send, 20 * COL_NS_PER_MS), COLLECT_PENDING);
	struct collect_report reports[WORLD_MAX];
	world_freeze(&world, 3, reports);
	struct collect_member members[WORLD_MAX];
	world.epoch++;
	for (uint32_t i = 0; i < 2; i++) {
		struct collect_install install = world_view(&world, 3, i, members);
		uint64_t other = name(&world, 1 - i);
		install.redial = &other;
		install.redial_count = 1;
		CHECK_EQ(collect_comm_install(world.peers[i].comm, &install), COLLECT_OK);
	}
	finish(send, COLLECT_E_PEER);
	finish(receive, COLLECT_E_PEER);
	check_size(&world, 0, 1, 50000, true);
	check_size(&world, 1, 0, 500, false);
	world_all_reduce_check(&world, 3, 5000);
	world_close(&world);
}
