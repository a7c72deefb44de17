#include "base/ring.h"

#include <stddef.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "include/collect.h"

/*
 * head and tail run freely and wrap at 2^32, which a capacity that is a power of two divides: their
 * difference is the count, and their low bits are the slot.
 */

int col_ring_init(struct col_ring *ring, uint32_t capacity)
{
	COL_ASSERT(capacity > 0 && (capacity & (capacity - 1)) == 0);
	memset(ring, 0, sizeof(*ring));
	ring->slots = col_alloc_zeroed(capacity, sizeof(*ring->slots));
	if (ring->slots == NULL)
		return COLLECT_E_MEMORY;
	ring->capacity = capacity;
	return 0;
}

void col_ring_fini(struct col_ring *ring)
{
	col_free(ring->slots);
	memset(ring, 0, sizeof(*ring));
}

bool col_ring_push(struct col_ring *ring, void *item)
{
	COL_ASSERT(item != NULL); /* NULL is how pop says empty */
	if (col_ring_count(ring) == ring->capacity)
		return false;
	ring->slots[ring->tail++ & (ring->capacity - 1)] = item;
	return true;
}

void *col_ring_pop(struct col_ring *ring)
{
	void *item = col_ring_peek(ring);
	if (item != NULL)
		ring->head++;
	return item;
}

void *col_ring_peek(const struct col_ring *ring)
{
	if (ring->head == ring->tail)
		return NULL;
	return ring->slots[ring->head & (ring->capacity - 1)];
}

uint32_t col_ring_count(const struct col_ring *ring)
{
	return ring->tail - ring->head;
}
