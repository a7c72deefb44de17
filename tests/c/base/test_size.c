#include "harness.h"

#include "base/size.h"

TEST(a_product_that_wraps_is_refused)
{
	size_t product = 0;
	CHECK(col_size_multiply(SIZE_MAX / 2, 2, &product));
	CHECK_EQ(product, SIZE_MAX - 1);
	CHECK(!col_size_multiply(SIZE_MAX / 2 + 1, 2, &product));
	CHECK(col_size_multiply(0, SIZE_MAX, &product));
	CHECK_EQ(product, 0);
}

TEST(a_quotient_is_rounded_up_without_wrapping)
{
	CHECK_EQ(col_div_ceil(0, 7), 0);
	CHECK_EQ(col_div_ceil(1, 7), 1);
	CHECK_EQ(col_div_ceil(7, 7), 1);
	CHECK_EQ(col_div_ceil(8, 7), 2);
	CHECK_EQ(col_div_ceil(UINT64_MAX, 2), (uint64_t)1 << 63);
	CHECK_EQ(col_div_ceil(UINT64_MAX, UINT64_MAX), 1);
}

TEST(the_lesser_of_two_is_found_in_either_order)
{
	CHECK_EQ(col_min_u64(1, UINT64_MAX), 1);
	CHECK_EQ(col_min_u64(UINT64_MAX, 1), 1);
	CHECK_EQ(col_min_u64(5, 5), 5);
}
