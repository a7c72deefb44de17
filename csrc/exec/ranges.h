/*
 * A set of bytes, kept as disjoint ranges in order: what of a source is produced, what of a target
 * was told to be final.
 *
 * Ranges that touch are joined, so a set that is filled in order is one range. Looking up costs the
 * logarithm of the number of ranges, adding up to their number.
 */
#ifndef COL_EXEC_RANGES_H
#define COL_EXEC_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct col_range {
	uint64_t begin;
	uint64_t end;
};

/* Zeroed memory is an empty set. */
struct col_ranges {
	struct col_range *list; /* owned */
	size_t count;
	size_t capacity;
	uint64_t bytes; /* in all ranges */
};

void col_ranges_fini(struct col_ranges *ranges);
/* Empties it, and keeps its memory. */
void col_ranges_clear(struct col_ranges *ranges);

/* Adds [begin, end), which may be empty. COLLECT_E_INVALID: some of it is in the set already, or
 * end is before begin; COLLECT_E_MEMORY. On failure nothing is added. */
int col_ranges_add(struct col_ranges *ranges, uint64_t begin, uint64_t end);

/* Whether all of [begin, end) is in the set; of an empty range it is. */
bool col_ranges_has(const struct col_ranges *ranges, uint64_t begin, uint64_t end);
/* Whether some of it is. */
bool col_ranges_touch(const struct col_ranges *ranges, uint64_t begin, uint64_t end);
/* The first longest part of [begin, end) that is not in the set; empty at `end` if there is none.
 */
struct col_range col_ranges_gap(const struct col_ranges *ranges, uint64_t begin, uint64_t end);

#endif
