/*
 * Memory that other processes of the host can map: collect_shared_alloc.
 *
 * Each allocation is a file without a name (memfd), which others open through
 * /proc/<process>/fd/<descriptor>: nothing is left behind when a process is killed, and the size
 * of /dev/shm is no limit. Where that door is closed (another user or process namespace),
 * nothing breaks: the arrays count as private.
 *
 * Touching new pages costs more than most collectives that use them, so freed allocations are kept
 * for the next ones, up to a limit.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "shm/state.h"

#define PAGE_BYTES ((size_t)4096)
#define HUGE_BYTES ((size_t)2 << 20)
#define BYTES_MAX ((size_t)1 << 46)
#define KEPT_BYTES_MAX ((size_t)512 << 20)
#define KEPT_COUNT_MAX 32u

struct allocation {
	struct allocation *next;
	uint8_t *base;
	size_t bytes;
	uint64_t inode;
	uint64_t device;
	int descriptor;
	bool is_kept; /* freed, and waiting to be used again */
};

/* Of the process, like the heap. The lock is held for list operations only. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct allocation *allocations;
static _Atomic uint64_t release_count; /* allocations that are gone */

static void lock_take(void)
{
	int result = pthread_mutex_lock(&lock);
	COL_ASSERT(result == 0);
}

static void lock_give(void)
{
	int result = pthread_mutex_unlock(&lock);
	COL_ASSERT(result == 0);
}

/* ---- files --------------------------------------------------------------------------------- */

static size_t bytes_ceil(size_t bytes)
{
	size_t unit = bytes >= HUGE_BYTES ? HUGE_BYTES : PAGE_BYTES;
	return bytes == 0 ? PAGE_BYTES : (bytes + unit - 1) / unit * unit;
}

static bool file_create(struct allocation *allocation)
{
	allocation->descriptor = memfd_create("collect", MFD_CLOEXEC);
	if (allocation->descriptor < 0)
		return false;
	struct stat status;
	if (ftruncate(allocation->descriptor, (off_t)allocation->bytes) == 0
	    && fstat(allocation->descriptor, &status) == 0) {
		allocation->inode = status.st_ino;
		allocation->device = status.st_dev;
		return true;
	}
	return false;
}

/* Huge pages need an address that is a multiple of theirs. */
static uint8_t *file_map(int descriptor, size_t bytes, void *at)
{
	size_t slack = bytes >= HUGE_BYTES && at == NULL ? HUGE_BYTES : 0;
	uint8_t *base = at;
	if (at == NULL) {
		int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
		uint8_t *reserved = mmap(NULL, bytes + slack, PROT_NONE, flags, -1, 0);
		if (reserved == MAP_FAILED)
			return NULL;
		size_t past = (uintptr_t)reserved % HUGE_BYTES;
		size_t skip = slack > 0 && past > 0 ? HUGE_BYTES - past : 0;
		base = reserved + skip;
		if (skip > 0)
			munmap(reserved, skip);
		if (slack > skip)
			munmap(base + bytes, slack - skip);
	}
	int flags = MAP_SHARED | MAP_FIXED;
	if (mmap(base, bytes, PROT_READ | PROT_WRITE, flags, descriptor, 0) == MAP_FAILED) {
		if (at == NULL)
			munmap(base, bytes);
		return NULL;
	}
	madvise(base, bytes, MADV_HUGEPAGE);
	return base;
}

static void pages_touch(uint8_t *base, size_t bytes)
{
#ifdef MADV_POPULATE_WRITE
	if (madvise(base, bytes, MADV_POPULATE_WRITE) == 0)
		return;
#endif
	/* The file has its pages: reading makes them ours. */
	for (size_t at = 0; at < bytes; at += PAGE_BYTES)
		(void)*(volatile uint8_t *)(base + at);
}

static void allocation_destroy(struct allocation *allocation)
{
	if (allocation->base != NULL)
		munmap(allocation->base, allocation->bytes);
	if (allocation->descriptor >= 0)
		close(allocation->descriptor);
	col_free(allocation);
}

static struct allocation *allocation_create(size_t bytes)
{
	struct allocation *allocation = col_alloc_zeroed(1, sizeof(*allocation));
	if (allocation == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	allocation->bytes = bytes;
	if (file_create(allocation)) {
		allocation->base = file_map(allocation->descriptor, bytes, NULL);
		if (allocation->base != NULL) {
			pages_touch(allocation->base, bytes);
			return allocation;
		}
	}
	int error = errno;
	allocation_destroy(allocation);
	errno = error;
	return NULL;
}

/* ---- the list ------------------------------------------------------------------------------ */

static struct allocation *kept_take(size_t bytes)
{
	for (struct allocation *kept = allocations; kept != NULL; kept = kept->next) {
		if (kept->is_kept && kept->bytes == bytes) {
			kept->is_kept = false;
			return kept;
		}
	}
	return NULL;
}

static struct allocation *around(const void *memory)
{
	const uint8_t *at = memory;
	for (struct allocation *found = allocations; found != NULL; found = found->next) {
		if (at >= found->base && at < found->base + found->bytes)
			return found;
	}
	return NULL;
}

/* Unlinks the oldest kept allocations beyond the limits; returns them as a list. */
static struct allocation *kept_trim(size_t bytes_max, uint32_t count_max)
{
	struct allocation *gone = NULL;
	size_t bytes = 0;
	uint32_t count = 0;
	for (struct allocation **link = &allocations; *link != NULL;) {
		struct allocation *kept = *link;
		if (kept->is_kept && (bytes + kept->bytes > bytes_max || count == count_max)) {
			*link = kept->next;
			kept->next = gone;
			gone = kept;
			continue;
		}
		if (kept->is_kept) {
			bytes += kept->bytes;
			count++;
		}
		link = &kept->next;
	}
	return gone;
}

static void list_destroy(struct allocation *gone)
{
	while (gone != NULL) {
		struct allocation *next = gone->next;
		allocation_destroy(gone);
		atomic_fetch_add_explicit(&release_count, 1, memory_order_release);
		gone = next;
	}
}

/* ---- allocating ---------------------------------------------------------------------------- */

void *collect_shared_alloc(size_t bytes)
{
	if (bytes > BYTES_MAX) {
		errno = ENOMEM;
		return NULL;
	}
	size_t rounded = bytes_ceil(bytes);
	lock_take();
	struct allocation *allocation = kept_take(rounded);
	lock_give();
	if (allocation != NULL) {
		memset(allocation->base, 0, rounded);
		return allocation->base;
	}
	allocation = allocation_create(rounded);
	if (allocation == NULL)
		return NULL;
	lock_take();
	allocation->next = allocations;
	allocations = allocation;
	lock_give();
	return allocation->base;
}

void collect_shared_free(void *memory)
{
	if (memory == NULL)
		return;
	lock_take();
	struct allocation *allocation = around(memory);
	bool is_ours = allocation != NULL && allocation->base == memory && !allocation->is_kept;
	if (is_ours)
		allocation->is_kept = true;
	struct allocation *gone = kept_trim(KEPT_BYTES_MAX, KEPT_COUNT_MAX);
	lock_give();
	COL_ASSERT(is_ours);
	list_destroy(gone);
}

void col_shm_heap_trim(void)
{
	lock_take();
	struct allocation *gone = kept_trim(0, 0);
	lock_give();
	list_destroy(gone);
}

/* ---- for the segments ---------------------------------------------------------------------- */

uint64_t col__heap_releases(void)
{
	return atomic_load_explicit(&release_count, memory_order_acquire);
}

bool col__heap_has(uint64_t inode, uint64_t device)
{
	lock_take();
	struct allocation *found = allocations;
	while (found != NULL && (found->inode != inode || found->device != device))
		found = found->next;
	lock_give();
	return found != NULL;
}

bool col__heap_find(const void *memory, size_t bytes, struct col__place *place_out)
{
	lock_take();
	const struct allocation *found = memory != NULL ? around(memory) : NULL;
	size_t offset = found != NULL ? (size_t)((const uint8_t *)memory - found->base) : 0;
	bool is_inside = found != NULL && !found->is_kept && bytes <= found->bytes - offset;
	if (is_inside)
		*place_out = (struct col__place){found->inode, found->device, found->bytes, offset,
		                                 found->descriptor};
	lock_give();
	return is_inside;
}

uint8_t *col__heap_map(uint32_t process, uint32_t descriptor, uint64_t inode, uint64_t device,
                       uint64_t bytes)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%u/fd/%u", process, descriptor);
	int opened = open(path, O_RDWR | O_CLOEXEC);
	if (opened < 0)
		return NULL;
	uint8_t *base = NULL;
	struct stat status;
	if (fstat(opened, &status) == 0 && status.st_ino == inode && status.st_dev == device
	    && (uint64_t)status.st_size == bytes && bytes <= BYTES_MAX)
		base = file_map(opened, bytes, NULL);
	close(opened);
	if (base != NULL)
		pages_touch(base, bytes);
	return base;
}

void col__heap_unmap(uint8_t *base, uint64_t bytes)
{
	munmap(base, bytes);
}

/* The new file gets what the old one has, and takes its place; a late writer of the old one writes
 * to nobody. */
static int allocation_renew(struct allocation *allocation)
{
	struct allocation fresh = {.bytes = allocation->bytes, .descriptor = -1};
	uint8_t *copy = NULL;
	if (file_create(&fresh))
		copy = file_map(fresh.descriptor, fresh.bytes, NULL);
	if (copy == NULL)
		goto fail;
	memcpy(copy, allocation->base, fresh.bytes);
	munmap(copy, fresh.bytes);
	if (file_map(fresh.descriptor, fresh.bytes, allocation->base) == NULL)
		goto fail;
	pages_touch(allocation->base, fresh.bytes);
	close(allocation->descriptor);
	allocation->descriptor = fresh.descriptor;
	allocation->inode = fresh.inode;
	allocation->device = fresh.device;
	atomic_fetch_add_explicit(&release_count, 1, memory_order_release);
	return COLLECT_OK;
fail:;
	int error = errno;
	if (fresh.descriptor >= 0)
		close(fresh.descriptor);
	errno = error;
	return COLLECT_E_SYSTEM;
}

int col__heap_disown(const void *memory)
{
	lock_take();
	struct allocation *allocation = around(memory);
	int status = allocation != NULL ? allocation_renew(allocation) : COLLECT_OK;
	lock_give();
	return status;
}
