#include "kernels/dtype.h"

#include "base/assert.h"

static const struct {
	const char *name;
	size_t bytes;
} dtypes[COLLECT_DTYPE_COUNT] = {
	[COLLECT_INT8] = {"int8", 1},
	[COLLECT_INT16] = {"int16", 2},
	[COLLECT_INT32] = {"int32", 4},
	[COLLECT_INT64] = {"int64", 8},
	[COLLECT_UINT8] = {"uint8", 1},
	[COLLECT_UINT16] = {"uint16", 2},
	[COLLECT_UINT32] = {"uint32", 4},
	[COLLECT_UINT64] = {"uint64", 8},
	[COLLECT_FLOAT16] = {"float16", 2},
	[COLLECT_BFLOAT16] = {"bfloat16", 2},
	[COLLECT_FLOAT32] = {"float32", 4},
	[COLLECT_FLOAT64] = {"float64", 8},
};

static const char *const reduce_op_names[COLLECT_REDUCE_OP_COUNT] = {
	[COLLECT_SUM] = "sum",
	[COLLECT_AVG] = "avg",
	[COLLECT_MIN] = "min",
	[COLLECT_MAX] = "max",
};

bool col_dtype_is_valid(int dtype)
{
	return dtype >= 0 && dtype < COLLECT_DTYPE_COUNT;
}

bool col_reduce_op_is_valid(int reduce_op)
{
	return reduce_op >= 0 && reduce_op < COLLECT_REDUCE_OP_COUNT;
}

size_t col_dtype_bytes(int dtype)
{
	COL_ASSERT(col_dtype_is_valid(dtype));
	return dtypes[dtype].bytes;
}

const char *col_dtype_name(int dtype)
{
	return col_dtype_is_valid(dtype) ? dtypes[dtype].name : "?";
}

const char *col_reduce_op_name(int reduce_op)
{
	return col_reduce_op_is_valid(reduce_op) ? reduce_op_names[reduce_op] : "?";
}
