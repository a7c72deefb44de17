/*
 * Where the slices of one operation lie in this rank's memory.
 *
 * No rank knows another's memory, nor, in an all-to-all with counts, another's blocks: frames name
 * an offset within a slice, and this finds the slice.
 */
#ifndef COL_EXEC_LAYOUT_H
#define COL_EXEC_LAYOUT_H

#include "plan/plan.h"

struct col_layout {
	const struct collect_plan *plan;
	const uint8_t *source;     /* where this rank's contribution begins; NULL: it has none */
	uint8_t *target;           /* where its result goes; NULL: it has none */
	uint64_t bytes;            /* of the payload, or of each block where blocks are equal */
	const uint64_t *blocks_at; /* bytes before each block, and of all: world + 1. In an
	                            * all-to-all of the source's. NULL: equal blocks */
	const uint64_t *target_at; /* the same of an all-to-all's target; NULL with blocks_at */
};

struct col_extent {
	const uint8_t *in; /* NULL: this rank contributes nothing to the slice */
	uint8_t *out;      /* NULL: it does not need the slice */
	uint64_t bytes;
};

/* With owner weights the cost grows with `slice`: keep what is asked for often. */
struct col_extent col_layout_find(const struct col_layout *layout, uint32_t slice);

#endif
