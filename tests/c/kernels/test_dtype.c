#include "harness.h"

#include <string.h>

#include "kernels/dtype.h"

TEST(every_dtype_has_its_name_and_its_bytes)
{
	for (int dtype = 0; dtype < COLLECT_DTYPE_COUNT; dtype++) {
		const char *name = col_dtype_name(dtype);
		size_t bytes = col_dtype_bytes(dtype);
		CHECK(col_dtype_is_valid(dtype));
		/* Names end in the bits that an element has; but a bool has all of a byte. */
		size_t bits = dtype == COLLECT_BOOL ? 8 : 0;
		for (const char *digit = name + strcspn(name, "0123456789"); *digit != '\0'; digit++)
			bits = bits * 10 + (size_t)(*digit - '0');
		CHECK_EQ(bits, bytes * 8);
		for (int other = 0; other < dtype; other++)
			CHECK(strcmp(name, col_dtype_name(other)) != 0);
	}
	CHECK_STR_EQ(col_dtype_name(COLLECT_FLOAT32), "float32");
	CHECK_STR_EQ(col_dtype_name(COLLECT_UINT64), "uint64");
	CHECK_STR_EQ(col_dtype_name(COLLECT_BFLOAT16), "bfloat16");
	CHECK_STR_EQ(col_dtype_name(COLLECT_BOOL), "bool");
	CHECK_STR_EQ(col_dtype_name(COLLECT_COMPLEX64), "complex64");
}

TEST(every_reduce_operation_has_its_name)
{
	CHECK_STR_EQ(col_reduce_op_name(COLLECT_SUM), "sum");
	CHECK_STR_EQ(col_reduce_op_name(COLLECT_AVG), "avg");
	CHECK_STR_EQ(col_reduce_op_name(COLLECT_MIN), "min");
	CHECK_STR_EQ(col_reduce_op_name(COLLECT_MAX), "max");
	CHECK_STR_EQ(col_reduce_op_name(COLLECT_PROD), "prod");
	CHECK_STR_EQ(col_reduce_op_name(COLLECT_AND), "and");
	CHECK_STR_EQ(col_reduce_op_name(COLLECT_OR), "or");
	CHECK_STR_EQ(col_reduce_op_name(COLLECT_XOR), "xor");
	CHECK_STR_EQ(col_reduce_op_name(COLLECT_PREMUL_SUM), "premul_sum");
	for (int reduce_op = 0; reduce_op < COLLECT_REDUCE_OP_COUNT; reduce_op++)
		CHECK(col_reduce_op_is_valid(reduce_op));
}

/* By dtype, in the order of the enumeration; a column for each reduce operation. */
TEST(a_reduction_is_defined_where_it_has_a_meaning)
{
	static const char *const defined[COLLECT_DTYPE_COUNT] = {
		/* sum avg min max prod and or xor premul_sum */
		"11111111.", "11111111.", "11111111.", "11111111.", /* int8 ... int64 */
		"11111111.", "11111111.", "11111111.", "11111111.", /* uint8 ... uint64 */
		"11111...1", "11111...1", "11111...1", "11111...1", /* floats */
		"1.111111.",                                        /* bool */
		"11..1...1", "11..1...1",                           /* complexes */
	};
	for (int dtype = 0; dtype < COLLECT_DTYPE_COUNT; dtype++) {
		for (int reduce_op = 0; reduce_op < COLLECT_REDUCE_OP_COUNT; reduce_op++)
			CHECK_EQ(col_reduce_is_defined(dtype, reduce_op), defined[dtype][reduce_op] == '1');
	}
	CHECK(!col_reduce_is_defined(-1, COLLECT_SUM));
	CHECK(!col_reduce_is_defined(COLLECT_DTYPE_COUNT, COLLECT_SUM));
	CHECK(!col_reduce_is_defined(COLLECT_INT32, -1));
	CHECK(!col_reduce_is_defined(COLLECT_INT32, COLLECT_REDUCE_OP_COUNT));
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
