/* Element types and reduce operations: sizes and names. The enumerations are in collect.h. */
#ifndef COL_KERNELS_DTYPE_H
#define COL_KERNELS_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

#include "include/collect.h"

bool col_dtype_is_valid(int dtype);
bool col_reduce_op_is_valid(int reduce_op);
/* Whether the type can be reduced so: not bools averaged, complexes compared, floats and-ed, nor
 * what is neither float nor complex multiplied by a factor. False of what is invalid. */
bool col_reduce_is_defined(int dtype, int reduce_op);
/* Of a valid dtype. */
size_t col_dtype_bytes(int dtype);
/* "float32"; "sum"; "?" when invalid. */
const char *col_dtype_name(int dtype);
const char *col_reduce_op_name(int reduce_op);

#endif
