#include "base/clock.h"

#include <time.h>

#include "base/assert.h"

uint64_t col_clock_ns(void)
{
	struct timespec now;
	int result = clock_gettime(CLOCK_MONOTONIC, &now);
	COL_ASSERT(result == 0);
	return (uint64_t)now.tv_sec * COL_NS_PER_S + (uint64_t)now.tv_nsec;
}
