#include "harness.h"

#include <string.h>

#include "base/alloc.h"
#include "base/ring.h"
#include "include/collect.h"

static int items[16];

TEST(items_leave_in_the_order_they_came)
{
	struct col_ring ring;
	CHECK_EQ(col_ring_init(&ring, 4), 0);
	for (int index = 0; index < 3; index++)
		CHECK(col_ring_push(&ring, &items[index]));
	CHECK_EQ(col_ring_count(&ring), 3);
	for (int index = 0; index < 3; index++) {
		CHECK_EQ(col_ring_peek(&ring), &items[index]);
		CHECK_EQ(col_ring_pop(&ring), &items[index]);
	}
	CHECK_EQ(col_ring_count(&ring), 0);
	col_ring_fini(&ring);
}

TEST(a_full_ring_refuses_another_item)
{
	struct col_ring ring;
	CHECK_EQ(col_ring_init(&ring, 2), 0);
	CHECK(col_ring_push(&ring, &items[0]));
	CHECK(col_ring_push(&ring, &items[1]));
	CHECK(!col_ring_push(&ring, &items[2]));
	CHECK_EQ(col_ring_count(&ring), 2);
	CHECK_EQ(col_ring_pop(&ring), &items[0]);
	CHECK(col_ring_push(&ring, &items[2]));
	CHECK_EQ(col_ring_pop(&ring), &items[1]);
	CHECK_EQ(col_ring_pop(&ring), &items[2]);
	col_ring_fini(&ring);
}

TEST(an_empty_ring_gives_null)
{
	struct col_ring ring;
	CHECK_EQ(col_ring_init(&ring, 1), 0);
	CHECK_EQ(col_ring_pop(&ring), NULL);
	CHECK_EQ(col_ring_peek(&ring), NULL);
	CHECK(col_ring_push(&ring, &items[0]));
	CHECK_EQ(col_ring_pop(&ring), &items[0]);
	CHECK_EQ(col_ring_pop(&ring), NULL);
	col_ring_fini(&ring);
}

TEST(indices_wrap_at_two_to_the_32)
{
	struct col_ring ring;
	CHECK_EQ(col_ring_init(&ring, 8), 0);
	ring.head = ring.tail = UINT32_MAX - 3;
	for (int round = 0; round < 20; round++) {
		for (int index = 0; index < 8; index++)
			CHECK(col_ring_push(&ring, &items[index]));
		CHECK(!col_ring_push(&ring, &items[8]));
		for (int index = 0; index < 8; index++)
			CHECK_EQ(col_ring_pop(&ring), &items[index]);
		CHECK_EQ(col_ring_pop(&ring), NULL);
		CHECK_EQ(col_ring_count(&ring), 0);
	}
	col_ring_fini(&ring);
}

TEST(a_zeroed_ring_is_finished_without_harm_and_holds_nothing)
{
	struct col_ring ring;
	memset(&ring, 0, sizeof(ring));
	CHECK(!col_ring_push(&ring, &items[0]));
	CHECK_EQ(col_ring_pop(&ring), NULL);
	col_ring_fini(&ring);
	col_ring_fini(&ring);
}

TEST(a_failed_allocation_is_reported_and_leaves_nothing)
{
	struct col_ring ring;
	col_alloc_fail_at(1);
	CHECK_EQ(col_ring_init(&ring, 4), COLLECT_E_MEMORY);
	CHECK(col_alloc_has_failed());
	CHECK_EQ(col_alloc_blocks(), 0);
	col_ring_fini(&ring);
}

static void init_with_three_slots(void)
{
	struct col_ring ring;
	col_ring_init(&ring, 3);
}

static void push_null(void)
{
	struct col_ring ring;
	col_ring_init(&ring, 4);
	col_ring_push(&ring, NULL);
}

TEST(misuse_aborts)
{
	CHECK(test_aborts(init_with_three_slots));
	CHECK(test_aborts(push_null));
}
