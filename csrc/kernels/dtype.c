#include "kernels/dtype.h"

#include "base/assert.h"

enum kind { KIND_BOOL, KIND_INTEGER, KIND_REAL, KIND_COMPLEX };

static const struct {
	const char *name;
	size_t bytes;
	enum kind kind;
} dtypes[COLLECT_DTYPE_COUNT] = {
	[COLLECT_INT8] = {"int8", 1, KIND_INTEGER},
	[COLLECT_INT16] = {"int16", 2, KIND_INTEGER},
	[COLLECT_INT32] = {"int32", 4, KIND_INTEGER},
	[COLLECT_INT64] = {"int64", 8, KIND_INTEGER},
	[COLLECT_UINT8] = {"uint8", 1, KIND_INTEGER},
	[COLLECT_UINT16] = {"uint16", 2, KIND_INTEGER},
	[COLLECT_UINT32] = {"uint32", 4, KIND_INTEGER},
	[COLLECT_UINT64] = {"uint64", 8, KIND_INTEGER},
	[COLLECT_FLOAT16] = {"float16", 2, KIND_REAL},
	[COLLECT_BFLOAT16] = {"bfloat16", 2, KIND_REAL},
	[COLLECT_FLOAT32] = {"float32", 4, KIND_REAL},
	[COLLECT_FLOAT64] = {"float64", 8, KIND_REAL},
	[COLLECT_BOOL] = {"bool", 1, KIND_BOOL},
	[COLLECT_COMPLEX64] = {"complex64", 8, KIND_COMPLEX},
	[COLLECT_COMPLEX128] = {"complex128", 16, KIND_COMPLEX},
};

static const char *const reduce_op_names[COLLECT_REDUCE_OP_COUNT] = {
	[COLLECT_SUM] = "sum",
	[COLLECT_AVG] = "avg",
	[COLLECT_MIN] = "min",
	[COLLECT_MAX] = "max",
	[COLLECT_PROD] = "prod",
	[COLLECT_AND] = "and",
	[COLLECT_OR] = "or",
	[COLLECT_XOR] = "xor",
	[COLLECT_PREMUL_SUM] = "premul_sum",
};

bool col_dtype_is_valid(int dtype)
{
	return dtype >= 0 && dtype < COLLECT_DTYPE_COUNT;
}

bool col_reduce_op_is_valid(int reduce_op)
{
	return reduce_op >= 0 && reduce_op < COLLECT_REDUCE_OP_COUNT;
}

bool col_reduce_is_defined(int dtype, int reduce_op)
{
	if (!col_dtype_is_valid(dtype) || !col_reduce_op_is_valid(reduce_op))
		return false;
	enum kind kind = dtypes[dtype].kind;
	switch ((enum collect_reduce_op)reduce_op) {
	case COLLECT_AVG:
		return kind != KIND_BOOL;
	case COLLECT_MIN:
	case COLLECT_MAX:
		return kind != KIND_COMPLEX;
	case COLLECT_AND:
	case COLLECT_OR:
	case COLLECT_XOR:
		return kind == KIND_BOOL || kind == KIND_INTEGER;
	case COLLECT_PREMUL_SUM:
		return kind == KIND_REAL || kind == KIND_COMPLEX;
	case COLLECT_SUM:
	case COLLECT_PROD:
	case COLLECT_REDUCE_OP_COUNT:
		break;
	}
	return true;
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
