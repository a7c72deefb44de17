/*
 * The only caller of the heap. Counted, so that tests and users see leaks; and any allocation can
 * be made to fail, so that failure paths are run. Thread-safe.
 */
#ifndef COL_BASE_ALLOC_H
#define COL_BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>

/* 64-byte aligned. NULL when memory is out (or told to be). `bytes` 0 gives a valid block. */
void *col_alloc(size_t bytes);

/* The same, zeroed; NULL too when count * bytes overflows. */
void *col_alloc_zeroed(size_t count, size_t bytes);

/* Accepts NULL. */
void col_free(void *block);

/* Blocks that are allocated and not freed. */
size_t col_alloc_blocks(void);

/* Makes the nth allocation from now on fail (1: the next), once. 0: none. For tests. */
void col_alloc_fail_at(uint64_t nth);

/* Whether a failure that was asked for has happened; resets the answer. */
int col_alloc_has_failed(void);

#endif
