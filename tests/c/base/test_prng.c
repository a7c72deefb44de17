#include "harness.h"

#include <string.h>

#include "base/prng.h"

/* From the authors' reference programs, seeded by splitmix64 of 0. */
TEST(the_sequence_is_that_of_xoshiro256_starstar)
{
	static const uint64_t expected[] = {
		0x99ec5f36cb75f2b4u, 0xbf6e1f784956452au, 0x1a5f849d4933e6e0u, 0x6aa594f1262d2d2cu,
		0xbba5ad4a1f842e59u,
	};
	struct col_prng prng;
	col_prng_init(&prng, 0);
	for (size_t index = 0; index < sizeof(expected) / sizeof(expected[0]); index++)
		CHECK_EQ(col_prng_next(&prng), expected[index]);
}

TEST(the_same_seed_gives_the_same_sequence_and_another_seed_another)
{
	struct col_prng a, b, c;
	col_prng_init(&a, 42);
	col_prng_init(&b, 42);
	col_prng_init(&c, 43);
	int equal_count = 0;
	for (int round = 0; round < 1000; round++) {
		uint64_t drawn = col_prng_next(&a);
		CHECK_EQ(drawn, col_prng_next(&b));
		equal_count += drawn == col_prng_next(&c);
	}
	CHECK_EQ(equal_count, 0);
}

TEST(below_stays_below_and_reaches_every_value)
{
	struct col_prng prng;
	col_prng_init(&prng, 1);
	for (uint64_t limit = 1; limit <= 33; limit++) {
		uint64_t seen = 0;
		for (int round = 0; round < 2000; round++) {
			uint64_t drawn = col_prng_below(&prng, limit);
			CHECK(drawn < limit);
			seen |= (uint64_t)1 << drawn;
		}
		CHECK_EQ(seen, ((uint64_t)1 << limit) - 1);
	}
}

TEST(below_accepts_the_largest_limits)
{
	struct col_prng prng;
	col_prng_init(&prng, 2);
	bool is_upper_half_seen = false;
	for (int round = 0; round < 100; round++) {
		CHECK(col_prng_below(&prng, ((uint64_t)1 << 63) + 1) <= (uint64_t)1 << 63);
		is_upper_half_seen |= col_prng_below(&prng, UINT64_MAX) > UINT64_MAX / 2;
	}
	CHECK(is_upper_half_seen);
}

static void draw_below_nothing(void)
{
	struct col_prng prng;
	col_prng_init(&prng, 0);
	col_prng_below(&prng, 0);
}

TEST(below_zero_is_a_bug)
{
	CHECK(test_aborts(draw_below_nothing));
}
