/* The only caller of clock_gettime. */
#ifndef COL_BASE_CLOCK_H
#define COL_BASE_CLOCK_H

#include <stdint.h>

#define COL_NS_PER_US 1000ull
#define COL_NS_PER_MS 1000000ull
#define COL_NS_PER_S 1000000000ull

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t col_clock_ns(void);

#endif
