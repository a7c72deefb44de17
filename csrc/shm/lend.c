/*
 * How a rank writes what other ranks will read: through its cache, or past it.
 *
 * Two processors that share a cache hand lines over cheaply, if the slots they use in turn are more
 * than fits the caches that they do not share: then a line that is written again has left the
 * reader's cache. Between processors that share none, each such write waits for the reader's cache
 * to give the line up, and it is far cheaper to write past the cache and to read from memory.
 * Measured on Zen 4, all-reduce of two ranks, through the cache and past it: 2.0 and 4.9 us for
 * 32 KiB, 60 and 135 us for 1 MiB where they share; 17.5 and 4.2, 500 and 100 us where they do
 * not.
 *
 * Which of the two it is nobody can say: readers move, and what a virtual machine says about its
 * caches is not true. So each rank finds out for each reader, by the time that the beginning of
 * some pieces takes through the cache.
 */
#include "base/clock.h"
#include "shm/state.h"

#define LINE_BYTES 64u
#define SHORT_BYTES ((size_t)8 << 10) /* always through the cache */
#define TRIAL_BYTES ((size_t)4 << 10)
/* Of a line through the cache: 26 ns where no cache is shared, 2 to 7 where one is. */
#define SLOW_NS 12u
#define PIECES_CACHED 8u    /* from one trial to the next, while the cache is good */
#define PIECES_STREAMED 32u /* while it is not; doubles with each trial that says so, … */
#define DOUBLINGS_MAX 5u    /* … so many times: a trial costs as much as it saves */
#define VOTES 2u            /* trials in a row that change it: one may have been interrupted */

/* Returns whether it was slow. */
static bool trial_copy(const struct col_shm *shm, uint8_t *slot, const uint8_t *data)
{
	uint64_t begin_ns = col_clock_ns();
	shm->kernels->copy(slot, data, TRIAL_BYTES, false);
	/* Else so few stores would still wait in the processor's buffer. Not a fence: the thread
	 * sanitizer knows none. */
	atomic_uint barrier = 0;
	atomic_exchange(&barrier, 1);
	return col_clock_ns() - begin_ns > TRIAL_BYTES / LINE_BYTES * SLOW_NS;
}

static void vote(struct col__lending *lending, bool is_slow)
{
	if (is_slow == lending->is_streaming) {
		lending->votes = 0;
		if (is_slow && lending->doublings < DOUBLINGS_MAX)
			lending->doublings++;
	} else if (++lending->votes == VOTES) {
		lending->votes = 0;
		lending->doublings = 0;
		lending->is_streaming = is_slow;
	}
	if (lending->votes > 0)
		lending->pieces = 0;
	else
		lending->pieces = lending->is_streaming ? PIECES_STREAMED << lending->doublings
		                                        : PIECES_CACHED;
}

void col__lend(struct col_shm *shm, uint32_t reader, uint8_t *slot, const uint8_t *data,
               size_t bytes)
{
	struct col__lending *lending = &shm->lendings[reader];
	size_t tried = 0;
	if (bytes < SHORT_BYTES) {
		shm->kernels->copy(slot, data, bytes, false);
		return;
	}
	if (lending->pieces > 0) {
		lending->pieces--;
	} else {
		tried = TRIAL_BYTES;
		vote(lending, trial_copy(shm, slot, data));
	}
	shm->kernels->copy(slot + tried, data + tried, bytes - tried, lending->is_streaming);
}
