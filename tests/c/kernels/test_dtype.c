#include "harness.h"

#include <string.h>

#include "kernels/dtype.h"

TEST(every_dtype_has_its_name_and_its_bytes)
{
	for (int dtype = 0; dtype < COLLECT_DTYPE_COUNT; dtype++) {
		const char *name = col_dtype_name(dtype);
		size_t bytes = col_dtype_bytes(dtype);
		CHECK(col_dtype_is_valid(dtype));
		/* Names end in the bits that an element has. */
		const char *digits = strpbrk(name, "0123456789");
		CHECK(digits != NULL);
		size_t bits = 0;
		for (; *digits != '\0'; digits++)
			bits = bits * 10 + (size_t)(*digits - '0');
		CHECK_EQ(bits, bytes * 8);
		for (int other = 0; other < dtype; other++)
			CHECK(strcmp(name, col_dtype_name(other)) != 0);
	}
	CHECK_STR_EQ(col_dtype_name(COLLECT_FLOAT32), "float32");
	CHECK_STR_EQ(col_dtype_name(COLLECT_UINT64), "uint64");
	CHECK_STR_EQ(col_dtype_name(COLLECT_BFLOAT16), "bfloat16");
}

TEST(every_reduce_operation_has_its_name)
{
	CHECK_STR_EQ(col_reduce_op_name(COLLECT_SUM), "sum");
	CHECK_STR_EQ(col_reduce_op_name(COLLECT_AVG), "avg");
	CHECK_STR_EQ(col_reduce_op_name(COLLECT_MIN), "min");
	CHECK_STR_EQ(col_reduce_op_name(COLLECT_MAX), "max");
	for (int reduce_op = 0; reduce_op < COLLECT_REDUCE_OP_COUNT; reduce_op++)
		CHECK(col_reduce_op_is_valid(reduce_op));
}

TEST(what_is_out_of_range_is_invalid_and_has_no_name)
{
	CHECK(!col_dtype_is_valid(-1));
	CHECK(!col_dtype_is_valid(COLLECT_DTYPE_COUNT));
	CHECK(!col_reduce_op_is_valid(-1));
	CHECK(!col_reduce_op_is_valid(COLLECT_REDUCE_OP_COUNT));
	CHECK_STR_EQ(col_dtype_name(-1), "?");
	CHECK_STR_EQ(col_dtype_name(COLLECT_DTYPE_COUNT), "?");
	CHECK_STR_EQ(col_reduce_op_name(-1), "?");
	CHECK_STR_EQ(col_reduce_op_name(COLLECT_REDUCE_OP_COUNT), "?");
}

static void ask_bytes_of_an_invalid_dtype(void)
{
	(void)col_dtype_bytes(COLLECT_DTYPE_COUNT);
}

TEST(the_bytes_of_an_invalid_dtype_are_a_bug)
{
	CHECK(test_aborts(ask_bytes_of_an_invalid_dtype));
}
