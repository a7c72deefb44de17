/* Sets of bytes, against an array of bits. */
#include "exec/ranges.h"

#include <string.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "harness.h"
#include "include/collect.h"

#define BYTES 300u

static bool bits_all(const bool *bits, uint64_t begin, uint64_t end, bool value)
{
	for (uint64_t i = begin; i < end; i++)
		if (bits[i] != value)
			return false;
	return true;
}

static void check_against(const struct col_ranges *ranges, const bool *bits, uint64_t begin,
                          uint64_t end)
{
	CHECK_EQ(col_ranges_has(ranges, begin, end), bits_all(bits, begin, end, true));
	CHECK_EQ(col_ranges_touch(ranges, begin, end), !bits_all(bits, begin, end, false));
	struct col_range gap = col_ranges_gap(ranges, begin, end);
	uint64_t first = begin;
	while (first < end && bits[first])
		first++;
	uint64_t last = first;
	while (last < end && !bits[last])
		last++;
	CHECK_EQ(gap.begin, first);
	CHECK_EQ(gap.end, last);
}

TEST(any_additions_give_the_set_that_bits_give)
{
	struct col_prng prng;
	col_prng_init(&prng, test_seed());
	for (int round = 0; round < 300; round++) {
		struct col_ranges ranges = {0};
		bool bits[BYTES] = {false};
		uint64_t longest = 1 + col_prng_below(&prng, 40);
		for (int step = 0; step < 200; step++) {
			uint64_t begin = col_prng_below(&prng, BYTES);
			uint64_t end = begin + col_prng_below(&prng, longest + 1);
			end = end < BYTES ? end : BYTES;
			bool is_new = bits_all(bits, begin, end, false);
			CHECK_EQ(col_ranges_add(&ranges, begin, end), is_new ? COLLECT_OK : COLLECT_E_INVALID);
			for (uint64_t i = begin; i < end && is_new; i++)
				bits[i] = true;
			uint64_t from = col_prng_below(&prng, BYTES);
			check_against(&ranges, bits, from, from + col_prng_below(&prng, BYTES - from + 1));
		}
		uint64_t count = 0;
		for (uint64_t i = 0; i < BYTES; i++)
			count += bits[i];
		CHECK_EQ(ranges.bytes, count);
		for (size_t i = 1; i < ranges.count; i++)
			CHECK(ranges.list[i - 1].end < ranges.list[i].begin);
		col_ranges_fini(&ranges);
	}
}

TEST(what_is_added_in_order_is_one_range)
{
	struct col_ranges ranges = {0};
	for (uint64_t i = 0; i < 100; i++)
		CHECK_EQ(col_ranges_add(&ranges, 3 * i, 3 * i + 3), COLLECT_OK);
	CHECK_EQ(ranges.count, 1);
	col_ranges_clear(&ranges);
	CHECK_EQ(ranges.bytes, 0);
	CHECK(!col_ranges_has(&ranges, 0, 1));
	CHECK(col_ranges_has(&ranges, 5, 5));
	col_ranges_fini(&ranges);
}

TEST(a_range_backwards_is_refused)
{
	struct col_ranges ranges = {0};
	CHECK_EQ(col_ranges_add(&ranges, 3, 2), COLLECT_E_INVALID);
	col_ranges_fini(&ranges);
}

TEST(a_failed_allocation_adds_nothing)
{
	struct col_ranges ranges = {0};
	col_alloc_fail_at(1);
	CHECK_EQ(col_ranges_add(&ranges, 0, 2), COLLECT_E_MEMORY);
	CHECK(col_alloc_has_failed());
	CHECK_EQ(ranges.bytes, 0);
	CHECK_EQ(col_ranges_add(&ranges, 0, 2), COLLECT_OK);
	CHECK_EQ(ranges.bytes, 2);
	col_ranges_fini(&ranges);
}
