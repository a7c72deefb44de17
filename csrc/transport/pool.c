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
	const size_t sizes[COL_BUFFER_SIZES] = {
		256, 4096, COL_BUFFER_BYTES_MIN,
		large_bytes > COL_BUFFER_BYTES_MIN ? large_bytes : COL_BUFFER_BYTES_MIN};
	for (uint32_t i = 0; i < COL_BUFFER_SIZES; i++) {
		buffers->bytes[i] = sizes[i];
		col_pool_init(&buffers->pools[i], BUFFER_HEAD_BYTES + sizes[i], IDLE_MAX);
	}
}

void col_buffers_fini(struct col_buffers *buffers)
{
	for (uint32_t i = 0; i < COL_BUFFER_SIZES; i++)
		col_pool_fini(&buffers->pools[i]);
}

struct col_buffer *col_buffers_get(struct col_buffers *buffers, size_t bytes)
{
	uint32_t size = 0;
	while (size < COL_BUFFER_SIZES && buffers->bytes[size] < bytes)
		size++;
	COL_ASSERT(size < COL_BUFFER_SIZES);
	struct col_pool *pool = &buffers->pools[size];
	uint8_t *block = col_pool_get(pool);
	if (block == NULL)
		return NULL;
	struct col_buffer *buffer = (struct col_buffer *)(void *)block;
	*buffer = (struct col_buffer){.pool = pool, .bytes = block + BUFFER_HEAD_BYTES};
	return buffer;
}

size_t col_buffer_bytes(const struct col_buffer *buffer)
{
	return buffer->pool->block_bytes;
}

void col_buffer_put(struct col_buffer *buffer)
{
	if (buffer != NULL)
		col_pool_put(buffer->pool, buffer);
}
