#include "harness.h"

#include <pthread.h>
#include <string.h>

#include "base/alloc.h"

TEST(blocks_are_counted_from_alloc_to_free)
{
	size_t before = col_alloc_blocks();
	void *a = col_alloc(100);
	void *b = col_alloc_zeroed(3, 5);
	CHECK(a != NULL);
	CHECK(b != NULL);
	CHECK_EQ(col_alloc_blocks(), before + 2);
	col_free(a);
	CHECK_EQ(col_alloc_blocks(), before + 1);
	col_free(b);
	CHECK_EQ(col_alloc_blocks(), before);
}

TEST(blocks_of_every_size_are_aligned_to_64_bytes_and_writable)
{
	for (size_t bytes = 0; bytes < 300; bytes++) {
		uint8_t *block = col_alloc(bytes);
		CHECK(block != NULL);
		CHECK_EQ((uintptr_t)block % 64, 0);
		memset(block, 0xa5, bytes);
		col_free(block);
	}
}

TEST(zeroed_blocks_are_zero_even_after_reuse)
{
	for (int round = 0; round < 8; round++) {
		uint8_t *block = col_alloc_zeroed(17, 11);
		CHECK(block != NULL);
		for (size_t index = 0; index < 17 * 11; index++)
			CHECK_EQ(block[index], 0);
		memset(block, 0xff, 17 * 11);
		col_free(block);
	}
}

TEST(sizes_that_wrap_are_refused)
{
	CHECK_EQ(col_alloc(SIZE_MAX), NULL);
	CHECK_EQ(col_alloc(SIZE_MAX - 62), NULL);
	CHECK_EQ(col_alloc_zeroed(SIZE_MAX / 2, 3), NULL);
	CHECK_EQ(col_alloc_blocks(), 0);
}

TEST(free_accepts_null)
{
	col_free(NULL);
	CHECK_EQ(col_alloc_blocks(), 0);
}

TEST(the_nth_allocation_fails_once)
{
	for (uint64_t nth = 1; nth <= 4; nth++) {
		col_alloc_fail_at(nth);
		for (uint64_t index = 1; index <= 6; index++) {
			void *block = index % 2 == 0 ? col_alloc(8) : col_alloc_zeroed(1, 8);
			CHECK_EQ(block == NULL, index == nth);
			col_free(block);
		}
		CHECK(col_alloc_has_failed());
		CHECK(!col_alloc_has_failed());
	}
}

TEST(a_failure_that_was_asked_for_can_be_called_off)
{
	col_alloc_fail_at(1);
	col_alloc_fail_at(0);
	void *block = col_alloc(1);
	CHECK(block != NULL);
	CHECK(!col_alloc_has_failed());
	col_free(block);
}

enum { ROUNDS = 10000 };

static void *allocate_and_count_failures(void *count_out)
{
	int *failures = count_out;
	for (int round = 0; round < ROUNDS; round++) {
		void *block = col_alloc(32);
		*failures += block == NULL;
		col_free(block);
	}
	return NULL;
}

TEST(of_two_threads_exactly_one_sees_the_failure)
{
	int failures[2] = {0, 0};
	pthread_t threads[2];
	col_alloc_fail_at(ROUNDS / 2);
	for (int index = 0; index < 2; index++)
		CHECK_EQ(pthread_create(&threads[index], NULL, allocate_and_count_failures,
		                        &failures[index]), 0);
	for (int index = 0; index < 2; index++)
		CHECK_EQ(pthread_join(threads[index], NULL), 0);
	CHECK_EQ(failures[0] + failures[1], 1);
	CHECK_EQ(col_alloc_blocks(), 0);
}
