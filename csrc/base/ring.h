/*
 * A bounded queue of pointers in a circular array. Not thread-safe: its owner locks.
 */
#ifndef COL_BASE_RING_H
#define COL_BASE_RING_H

#include <stdbool.h>
#include <stdint.h>

struct col_ring {
	void **slots;      /* capacity of them; owned */
	uint32_t capacity; /* a power of two */
	uint32_t head;     /* next to pop; free-running */
	uint32_t tail;     /* next to fill; free-running */
};

/* capacity: a power of two. COLLECT_E_MEMORY. */
int col_ring_init(struct col_ring *ring, uint32_t capacity);
/* Zeroed memory is fine. What is queued stays the caller's. */
void col_ring_fini(struct col_ring *ring);
/* False: full. `item` is not NULL. */
bool col_ring_push(struct col_ring *ring, void *item);
/* NULL: empty. */
void *col_ring_pop(struct col_ring *ring);
void *col_ring_peek(const struct col_ring *ring);
uint32_t col_ring_count(const struct col_ring *ring);

#endif
