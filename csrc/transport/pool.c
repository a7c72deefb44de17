#include "transport/pool.h"

#include "base/alloc.h"
#include "base/assert.h"

/* Of one size kept for reuse: 64 MiB of 256 KiB chunks. */
#define IDLE_MAX 256u
/* A buffer's own fields, padded so that its payload keeps the block's alignment. */
#define BUFFER_HEAD_BYTES 64u

_Static_assert(sizeof(struct col_buffer) <= BUFFER_HEAD_BYTES, "a buffer's fields fit its head");

void col_pool_init(struct col_pool *pool, size_t block_bytes, uint32_t idle_max)
{
	COL_ASSERT(block_bytes >= sizeof(struct col_pool_block));
	*pool = (struct col_pool){.block_bytes = block_bytes, .idle_max = idle_max};
}

void col_pool_fini(struct col_pool *pool)
{
	while (pool->idle != NULL) {
		struct col_pool_block *block = pool->idle;
		pool->idle = block->next;
		col_free(block);
	}
	pool->idle_count = 0;
}

void *col_pool_get(struct col_pool *pool)
{
	struct col_pool_block *block = pool->idle;
	if (block == NULL)
		return col_alloc(pool->block_bytes);
	pool->idle = block->next;
	pool->idle_count--;
	return block;
}

void col_pool_put(struct col_pool *pool, void *block)
{
	if (pool->idle_count >= pool->idle_max) {
		col_free(block);
		return;
	}
	struct col_pool_block *idle = block;
	idle->next = pool->idle;
	pool->idle = idle;
	pool->idle_count++;
}

void col_buffers_init(struct col_buffers *buffers, size_t large_bytes)
{
	col_pool_init(&buffers->small, BUFFER_HEAD_BYTES + COL_BUFFER_SMALL_BYTES, IDLE_MAX);
	col_pool_init(&buffers->large, BUFFER_HEAD_BYTES + large_bytes, IDLE_MAX);
	buffers->large_bytes = large_bytes;
}

void col_buffers_fini(struct col_buffers *buffers)
{
	col_pool_fini(&buffers->small);
	col_pool_fini(&buffers->large);
}

struct col_buffer *col_buffers_get(struct col_buffers *buffers, size_t bytes)
{
	COL_ASSERT(bytes <= buffers->large_bytes || bytes <= COL_BUFFER_SMALL_BYTES);
	struct col_pool *pool = bytes <= COL_BUFFER_SMALL_BYTES ? &buffers->small : &buffers->large;
	uint8_t *block = col_pool_get(pool);
	if (block == NULL)
		return NULL;
	struct col_buffer *buffer = (struct col_buffer *)(void *)block;
	*buffer = (struct col_buffer){.pool = pool, .bytes = block + BUFFER_HEAD_BYTES};
	return buffer;
}

void col_buffer_put(struct col_buffer *buffer)
{
	if (buffer != NULL)
		col_pool_put(buffer->pool, buffer);
}
