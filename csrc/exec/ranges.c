#include "exec/ranges.h"

#include <string.h>

#include "base/alloc.h"
#include "include/collect.h"

#define CAPACITY_FIRST 8u

void col_ranges_fini(struct col_ranges *ranges)
{
	col_free(ranges->list);
	*ranges = (struct col_ranges){0};
}

void col_ranges_clear(struct col_ranges *ranges)
{
	ranges->count = 0;
	ranges->bytes = 0;
}

/* The first range that ends behind `at`; count if there is none. */
static size_t find(const struct col_ranges *ranges, uint64_t at)
{
	size_t low = 0;
	size_t high = ranges->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (ranges->list[middle].end > at)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static int grow(struct col_ranges *ranges)
{
	size_t capacity = ranges->capacity > 0 ? 2 * ranges->capacity : CAPACITY_FIRST;
	struct col_range *list = col_alloc_zeroed(capacity, sizeof(*list));
	if (list == NULL)
		return COLLECT_E_MEMORY;
	if (ranges->count > 0)
		memcpy(list, ranges->list, ranges->count * sizeof(*list));
	col_free(ranges->list);
	ranges->list = list;
	ranges->capacity = capacity;
	return COLLECT_OK;
}

/* Opens or closes a place in the list. */
static void shift(struct col_ranges *ranges, size_t from, size_t to)
{
	memmove(&ranges->list[to], &ranges->list[from],
	        (ranges->count - from) * sizeof(*ranges->list));
	ranges->count += to - from;
}

int col_ranges_add(struct col_ranges *ranges, uint64_t begin, uint64_t end)
{
	if (end < begin || col_ranges_touch(ranges, begin, end))
		return COLLECT_E_INVALID;
	if (begin == end)
		return COLLECT_OK;
	size_t at = find(ranges, begin); /* of the range behind it */
	bool joins_last = at > 0 && ranges->list[at - 1].end == begin;
	bool joins_next = at < ranges->count && ranges->list[at].begin == end;
	bool is_apart = !joins_last && !joins_next;
	if (is_apart && ranges->count == ranges->capacity && grow(ranges) < 0)
		return COLLECT_E_MEMORY;
	ranges->bytes += end - begin;
	if (joins_last) {
		ranges->list[at - 1].end = joins_next ? ranges->list[at].end : end;
		if (joins_next)
			shift(ranges, at + 1, at);
	} else if (joins_next) {
		ranges->list[at].begin = begin;
	} else {
		shift(ranges, at, at + 1);
		ranges->list[at] = (struct col_range){begin, end};
	}
	return COLLECT_OK;
}

bool col_ranges_has(const struct col_ranges *ranges, uint64_t begin, uint64_t end)
{
	size_t at = find(ranges, begin);
	if (begin == end)
		return true;
	return at < ranges->count && ranges->list[at].begin <= begin && ranges->list[at].end >= end;
}

bool col_ranges_touch(const struct col_ranges *ranges, uint64_t begin, uint64_t end)
{
	size_t at = find(ranges, begin);
	return begin < end && at < ranges->count && ranges->list[at].begin < end;
}

struct col_range col_ranges_gap(const struct col_ranges *ranges, uint64_t begin, uint64_t end)
{
	size_t at = find(ranges, begin);
	/* Ranges that touch are one: behind a range there is always a gap. */
	if (at < ranges->count && ranges->list[at].begin <= begin)
		begin = ranges->list[at++].end;
	if (begin >= end)
		return (struct col_range){end, end};
	if (at < ranges->count && ranges->list[at].begin < end)
		end = ranges->list[at].begin;
	return (struct col_range){begin, end};
}
