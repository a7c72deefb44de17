/*
 * The segment's life, and its flags.
 *
 * The file is filled by posix_fallocate before it is mapped, so that a full file system is an
 * error here and no SIGBUS later. The header's magic is written last: who finds it finds the
 * rest.
 *
 * A poster must see a sleeper, or the sleeper the post. That would take a full fence between each
 * post and the look at the sleepers; instead the sleeper, who has time, has the system run a fence
 * on every processor that runs one of us (membarrier).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "shm/state.h"

#define PAGE_BYTES 4096u
#define POST_BYTES_MAX (1u << 20)
#define CHUNK_BYTES_MAX (4u << 20)
#define SLOTS_MAX 8u
#define DIRECTORY "/dev/shm/"
#define PATH_BYTES (sizeof(DIRECTORY) + COL_SHM_NAME_BYTES)

/* Measured, with benchmarks/shm: what a rank writes before it writes the same slots again is more
 * than fits the caches that no other processor shares (lend.c), … */
#define POSTS_BYTES (2u << 20)
#define ROUND_BYTES (2u << 20)
/* … if that is not too much in all. */
#define POSTS_BYTES_AIM (8u << 20)
#define SEGMENT_BYTES_AIM (16u << 20)
/* A small one is so many times smaller. */
#define SMALL_PART 16u

static size_t page_ceil(size_t bytes)
{
	return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

/* ---- layout -------------------------------------------------------------------------------- */

static bool options_are_valid(const struct col_shm_options *options)
{
	return options->rank_count >= 1 && options->rank_count <= COL_SHM_RANKS_MAX
	       && options->rank < options->rank_count && options->post_bytes <= POST_BYTES_MAX
	       && options->post_bytes % PAGE_BYTES == 0 && options->chunk_bytes <= CHUNK_BYTES_MAX
	       && options->chunk_bytes % PAGE_BYTES == 0 && options->slot_count <= SLOTS_MAX
	       && options->slot_count != 1;
}

/* The same on all ranks. */
static void sizes_choose(struct col_shm *shm, const struct col_shm_options *options)
{
	uint32_t ranks = options->rank_count;
	uint32_t part = options->is_small ? SMALL_PART : 1;
	shm->post_bytes = options->post_bytes;
	if (shm->post_bytes == 0)
		shm->post_bytes = 16u << 10;
	uint32_t posts = POSTS_BYTES_AIM / ranks < POSTS_BYTES ? POSTS_BYTES_AIM / ranks : POSTS_BYTES;
	posts /= part;
	shm->posts_bytes = 3 * shm->post_bytes > posts ? 3 * shm->post_bytes : page_ceil(posts);
	shm->slot_count = options->slot_count;
	if (shm->slot_count == 0)
		shm->slot_count = ranks <= 4 ? 8 : ranks <= 8 ? 4 : 2;
	shm->chunk_bytes = options->chunk_bytes;
	if (shm->chunk_bytes == 0) {
		uint32_t chunk = ROUND_BYTES / part / (ranks <= 2 ? 1 : ranks) / shm->slot_count;
		uint32_t most = SEGMENT_BYTES_AIM / (ranks * (ranks + 1) * shm->slot_count);
		chunk = chunk < most ? chunk : most;
		shm->chunk_bytes = chunk < PAGE_BYTES ? PAGE_BYTES : chunk / PAGE_BYTES * PAGE_BYTES;
	}
}

static size_t posts_offset(uint32_t rank_count)
{
	return page_ceil(sizeof(struct segment_header))
	       + page_ceil(rank_count * sizeof(struct segment_rank));
}

static size_t layout_bytes(const struct col_shm *shm)
{
	size_t ranks = shm->rank_count;
	size_t slots = (size_t)shm->slot_count * shm->chunk_bytes;
	return posts_offset(shm->rank_count) + ranks * shm->posts_bytes + ranks * slots
	       + ranks * ranks * slots;
}

static void layout_apply(struct col_shm *shm, uint8_t *base)
{
	size_t ranks = shm->rank_count;
	shm->header = (struct segment_header *)(void *)base;
	shm->ranks = (struct segment_rank *)(void *)(base + page_ceil(sizeof(*shm->header)));
	shm->posts = base + posts_offset(shm->rank_count);
	shm->outboxes = shm->posts + ranks * shm->posts_bytes;
	shm->inboxes = shm->outboxes + ranks * shm->slot_count * shm->chunk_bytes;
}

/* ---- create, attach, close ----------------------------------------------------------------- */

static bool name_is_valid(const char *name)
{
	size_t length = strlen(name);
	return length > 0 && length < COL_SHM_NAME_BYTES && strchr(name, '/') == NULL
	       && name[0] != '.';
}

static void path_of(const struct col_shm *shm, char path_out[PATH_BYTES])
{
	snprintf(path_out, PATH_BYTES, DIRECTORY "%s", shm->name);
}

static void name_remove(struct col_shm *shm)
{
	char path[PATH_BYTES];
	path_of(shm, path);
	unlink(path);
	shm->is_linked = false;
}

static int state_create(const char *name, const struct col_shm_options *options,
                        struct col_shm **shm_out)
{
	if (!options_are_valid(options) || !name_is_valid(name))
		return COLLECT_E_INVALID;
	struct col_shm *shm = col_alloc_zeroed(1, sizeof(*shm));
	if (shm == NULL)
		return COLLECT_E_MEMORY;
	shm->rank = options->rank;
	shm->rank_count = options->rank_count;
	shm->wake = options->wake;
	shm->user = options->user;
	shm->kernels = col_kernels();
	snprintf(shm->name, sizeof(shm->name), "%s", name);
	sizes_choose(shm, options);
	shm->bytes = layout_bytes(shm);
	shm->mappings = col_alloc_zeroed(shm->rank_count, sizeof(*shm->mappings));
	if (shm->mappings == NULL) {
		col_free(shm);
		return COLLECT_E_MEMORY;
	}
	*shm_out = shm;
	return COLLECT_OK;
}

static int segment_map(struct col_shm *shm, int descriptor)
{
	int flags = MAP_SHARED | MAP_POPULATE;
	void *base = mmap(NULL, shm->bytes, PROT_READ | PROT_WRITE, flags, descriptor, 0);
	if (base == MAP_FAILED)
		return COLLECT_E_SYSTEM;
	layout_apply(shm, base);
	return COLLECT_OK;
}

/* Whether this process can be told of sleepers by membarrier. */
static bool membarrier_register(void)
{
	return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
}

static void join(struct col_shm *shm)
{
	struct segment_header *header = shm->header;
	shm->is_fenced = !membarrier_register();
	atomic_fetch_or(&header->attached, 1ull << shm->rank);
	if (atomic_fetch_add(&header->attached_count, 1) + 1 == shm->rank_count)
		name_remove(shm);
}

int col_shm_create(const char *name, const struct col_shm_options *options,
                   struct col_shm **shm_out)
{
	struct col_shm *shm;
	int status = state_create(name, options, &shm);
	if (status != COLLECT_OK)
		return status;
	char path[PATH_BYTES];
	path_of(shm, path);
	int descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	status = COLLECT_E_SYSTEM;
	if (descriptor < 0)
		goto fail;
	shm->is_linked = true;
	int error = posix_fallocate(descriptor, 0, (off_t)shm->bytes);
	if (error != 0) {
		errno = error;
		goto fail;
	}
	if ((status = segment_map(shm, descriptor)) != COLLECT_OK)
		goto fail;
	close(descriptor);
	struct segment_header *header = shm->header;
	header->version = COL__SEGMENT_VERSION;
	header->rank_count = shm->rank_count;
	header->nonce = options->nonce;
	header->bytes = shm->bytes;
	header->post_bytes = shm->post_bytes;
	header->chunk_bytes = shm->chunk_bytes;
	header->slot_count = shm->slot_count;
	atomic_store_explicit(&header->magic, COL__SEGMENT_MAGIC, memory_order_release);
	join(shm);
	*shm_out = shm;
	return COLLECT_OK;
fail:
	error = errno;
	if (descriptor >= 0)
		close(descriptor);
	col_shm_close(&shm);
	errno = error;
	return status;
}

static bool file_is_ours(int descriptor, size_t bytes)
{
	struct stat status;
	return fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode)
	       && status.st_uid == geteuid() && (size_t)status.st_size == bytes;
}

/* The rank's bit is set here and now: a rank attaches once. */
static bool header_is_ours(struct col_shm *shm, const struct col_shm_options *options)
{
	struct segment_header *header = shm->header;
	return atomic_load_explicit(&header->magic, memory_order_acquire) == COL__SEGMENT_MAGIC
	       && header->version == COL__SEGMENT_VERSION && header->rank_count == shm->rank_count
	       && header->nonce == options->nonce && header->bytes == shm->bytes
	       && header->post_bytes == shm->post_bytes && header->chunk_bytes == shm->chunk_bytes
	       && header->slot_count == shm->slot_count
	       && (atomic_load(&header->attached) & 1ull << shm->rank) == 0;
}

int col_shm_attach(const char *name, const struct col_shm_options *options,
                   struct col_shm **shm_out)
{
	struct col_shm *shm;
	int status = state_create(name, options, &shm);
	if (status != COLLECT_OK)
		return status;
	char path[PATH_BYTES];
	path_of(shm, path);
	int descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	status = COLLECT_E_SYSTEM;
	if (descriptor < 0)
		goto fail;
	if (!file_is_ours(descriptor, shm->bytes)) {
		errno = EPROTO;
		goto fail;
	}
	if ((status = segment_map(shm, descriptor)) != COLLECT_OK)
		goto fail;
	close(descriptor);
	descriptor = -1;
	if (!header_is_ours(shm, options)) {
		errno = EPROTO;
		status = COLLECT_E_SYSTEM;
		goto fail;
	}
	join(shm);
	*shm_out = shm;
	return COLLECT_OK;
fail:;
	int error = errno;
	if (descriptor >= 0)
		close(descriptor);
	col_shm_close(&shm);
	errno = error;
	return status;
}

void col_shm_close(struct col_shm **shm_in)
{
	struct col_shm *shm = *shm_in;
	if (shm == NULL)
		return;
	*shm_in = NULL;
	if (shm->flow.path != COL__PATH_NONE && !shm->is_aborted)
		col_shm_abort(shm);
	if (shm->is_linked)
		name_remove(shm);
	for (uint32_t rank = 0; rank < shm->rank_count; rank++) {
		for (uint32_t entry = 0; entry < COL__ENTRIES_MAX; entry++) {
			struct col__mapping *mapping = &shm->mappings[rank][entry];
			if (mapping->base != NULL)
				munmap(mapping->base, mapping->bytes);
		}
	}
	if (shm->header != NULL)
		munmap(shm->header, shm->bytes);
	col_free(shm->flow.area);
	col_free(shm->mappings);
	col_free(shm);
}

bool col_shm_is_attached(const struct col_shm *shm)
{
	return atomic_load(&shm->header->attached_count) == shm->rank_count;
}

/* ---- flags --------------------------------------------------------------------------------- */

static void wake_sleepers(struct col_shm *shm, uint64_t sleeping)
{
	while (sleeping != 0) {
		uint32_t rank = (uint32_t)__builtin_ctzll(sleeping);
		sleeping &= sleeping - 1;
		/* Of several that see it one wakes it. */
		if ((atomic_fetch_and(&shm->header->sleeping, ~(1ull << rank)) & 1ull << rank) != 0
		    && shm->wake != NULL)
			shm->wake(shm->user, rank);
	}
}

void col__post(struct col_shm *shm, _Atomic uint64_t *flag, uint64_t value)
{
	atomic_store_explicit(flag, value, memory_order_release);
	if (shm->is_fenced)
		__sync_synchronize();
	atomic_signal_fence(memory_order_seq_cst);
	uint64_t sleeping = atomic_load_explicit(&shm->header->sleeping, memory_order_acquire);
	sleeping &= ~(1ull << shm->rank);
	if (__builtin_expect(sleeping != 0, 0))
		wake_sleepers(shm, sleeping);
}

bool col_shm_arm(struct col_shm *shm)
{
	atomic_fetch_or(&shm->header->sleeping, 1ull << shm->rank);
	/* A rank without membarrier fences by itself; a sleeper without it cannot make others. */
	return syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0;
}

void col_shm_disarm(struct col_shm *shm)
{
	atomic_fetch_and(&shm->header->sleeping, ~(1ull << shm->rank));
}

void col__abort_post(struct col_shm *shm)
{
	/* Sequentially consistent, and so before every look at a flag from here on: a rank that sees
	 * those flags and no abort has seen no more than this one will. */
	atomic_store(&shm->header->is_aborted, 1);
	__sync_synchronize();
	wake_sleepers(shm, atomic_load(&shm->header->sleeping) & ~(1ull << shm->rank));
}

uint32_t col_shm_culprit(const struct col_shm *shm)
{
	return shm->culprit;
}
