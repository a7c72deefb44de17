#include "harness.h"

#include "base/clock.h"

TEST(the_clock_never_goes_back)
{
	uint64_t last = col_clock_ns();
	for (int round = 0; round < 100000; round++) {
		uint64_t now = col_clock_ns();
		CHECK(now >= last);
		last = now;
	}
	CHECK(last > 0);
}
