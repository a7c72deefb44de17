/*
 * Free lists of equal blocks, so that the path of an operation does not visit the heap. Owner:
 * whoever holds the engine's baton.
 */
#ifndef COL_TRANSPORT_POOL_H
#define COL_TRANSPORT_POOL_H

#include <stddef.h>
#include <stdint.h>

struct col_pool_block {
	struct col_pool_block *next;
};

struct col_pool {
	size_t block_bytes;
	uint32_t idle_max; /* more idle blocks than these go back to the heap */
	uint32_t idle_count;
	struct col_pool_block *idle;
};

void col_pool_init(struct col_pool *pool, size_t block_bytes, uint32_t idle_max);
void col_pool_fini(struct col_pool *pool);
/* NULL: out of memory. Not zeroed. */
void *col_pool_get(struct col_pool *pool);
void col_pool_put(struct col_pool *pool, void *block);

/* Payload bytes with an owner. */
struct col_buffer {
	struct col_pool *pool;
	uint8_t *bytes;
};

/* Two sizes of buffers: most frames are either tiny or a whole chunk. */
struct col_buffers {
	struct col_pool small;
	struct col_pool large;
	size_t large_bytes;
};

#define COL_BUFFER_SMALL_BYTES 4096u

void col_buffers_init(struct col_buffers *buffers, size_t large_bytes);
void col_buffers_fini(struct col_buffers *buffers);
/* Room for `bytes` <= large_bytes; 64-byte aligned; NULL: out of memory. */
struct col_buffer *col_buffers_get(struct col_buffers *buffers, size_t bytes);
/* Accepts NULL. */
void col_buffer_put(struct col_buffer *buffer);

#endif
