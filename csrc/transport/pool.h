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

#define COL_BUFFER_SIZES 4u
/* What a buffer can hold, however small the chunks are. */
#define COL_BUFFER_BYTES_MIN 8192u

/* Few sizes of buffers: most frames are either tiny or a whole chunk. */
struct col_buffers {
	size_t bytes[COL_BUFFER_SIZES]; /* of a payload; the last is the largest */
	struct col_pool pools[COL_BUFFER_SIZES];
};

void col_buffers_init(struct col_buffers *buffers, size_t large_bytes);
void col_buffers_fini(struct col_buffers *buffers);
/* Room for `bytes` <= the large_bytes of col_buffers_init, or <= COL_BUFFER_BYTES_MIN; 64-byte
 * aligned; NULL: out of memory. */
struct col_buffer *col_buffers_get(struct col_buffers *buffers, size_t bytes);
/* Of memory that it takes, unused room included. */
size_t col_buffer_bytes(const struct col_buffer *buffer);
/* Accepts NULL. */
void col_buffer_put(struct col_buffer *buffer);

#endif
