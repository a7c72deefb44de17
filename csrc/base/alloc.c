#include "base/alloc.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/size.h"

/* A cache line, and a vector of the widest instruction set. */
#define ALIGNMENT_BYTES ((size_t)64)

static atomic_size_t block_count;
static atomic_uint_fast64_t fail_countdown; /* 0: no failure is asked for */
static atomic_bool has_failed;

/* Counts this allocation; whether it is the one that must fail. */
static bool is_chosen_to_fail(void)
{
	uint_fast64_t left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
	while (left > 0) {
		if (atomic_compare_exchange_weak(&fail_countdown, &left, left - 1)) {
			if (left == 1)
				atomic_store(&has_failed, true);
			return left == 1;
		}
	}
	return false;
}

void *col_alloc(size_t bytes)
{
	if (is_chosen_to_fail())
		return NULL;

	/* aligned_alloc asks for whole multiples of the alignment, and may answer 0 with NULL. */
	if (bytes > SIZE_MAX - ALIGNMENT_BYTES)
		return NULL;
	size_t rounded = (bytes + ALIGNMENT_BYTES - 1) / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
	void *block = aligned_alloc(ALIGNMENT_BYTES, rounded > 0 ? rounded : ALIGNMENT_BYTES);
	if (block != NULL)
		atomic_fetch_add_explicit(&block_count, 1, memory_order_relaxed);
	return block;
}

void *col_alloc_zeroed(size_t count, size_t bytes)
{
	size_t total;
	if (!col_size_multiply(count, bytes, &total))
		return NULL;
	void *block = col_alloc(total);
	if (block != NULL)
		memset(block, 0, total);
	return block;
}

void col_free(void *block)
{
	if (block == NULL)
		return;
	size_t before = atomic_fetch_sub_explicit(&block_count, 1, memory_order_relaxed);
	COL_ASSERT(before > 0);
	free(block);
}

size_t col_alloc_blocks(void)
{
	return atomic_load(&block_count);
}

void col_alloc_fail_at(uint64_t nth)
{
	atomic_store(&fail_countdown, nth);
}

int col_alloc_has_failed(void)
{
	return atomic_exchange(&has_failed, false);
}
