/* A segment's life: what is refused, and that nothing is left. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "harness.h"
#include "shm/layout.h"
#include "shm/team.h"

static const struct col_shm_options two = {.nonce = 5, .rank_count = 2};
static char name[COL_SHM_NAME_BYTES];
static char path[COL_SHM_NAME_BYTES + 16];

static struct col_shm *created(void)
{
	struct col_shm *shm;
	team_name(name);
	snprintf(path, sizeof(path), "/dev/shm/%s", name);
	CHECK_EQ(col_shm_create(name, &two, &shm), 0);
	return shm;
}

static void refused(const struct col_shm_options *options, int status, int error)
{
	struct col_shm *shm = NULL;
	errno = 0;
	CHECK_EQ(col_shm_attach(name, options, &shm), status);
	CHECK_EQ(errno, error);
	CHECK_EQ(shm, NULL);
}

TEST(the_file_is_private_and_gone_when_all_have_attached)
{
	struct col_shm_options second = two;
	second.rank = 1;
	struct col_shm *first_shm = created();
	struct col_shm *second_shm;
	struct stat status;
	CHECK_EQ(stat(path, &status), 0);
	CHECK_EQ(status.st_mode & 0777, 0600);
	CHECK(!col_shm_is_attached(first_shm));
	CHECK_EQ(col_shm_attach(name, &second, &second_shm), 0);
	CHECK_EQ(stat(path, &status), -1);
	CHECK(col_shm_is_attached(first_shm));
	col_shm_close(&first_shm);
	col_shm_close(&second_shm);
}

TEST(a_small_segment_takes_a_small_part_of_the_memory)
{
	struct col_shm_options small = two;
	struct col_shm *shm = created();
	struct stat usual;
	struct stat status;
	CHECK_EQ(stat(path, &usual), 0);
	/* Who takes it for a usual one does not fit it. */
	small.is_small = true;
	small.rank = 1;
	refused(&small, COLLECT_E_SYSTEM, EPROTO);
	col_shm_close(&shm);
	small.rank = 0;
	team_name(name);
	snprintf(path, sizeof(path), "/dev/shm/%s", name);
	CHECK_EQ(col_shm_create(name, &small, &shm), 0);
	CHECK_EQ(stat(path, &status), 0);
	CHECK(8 * status.st_size < usual.st_size);
	col_shm_close(&shm);
}

TEST(a_creator_that_closes_takes_the_file_with_it)
{
	struct col_shm *shm = created();
	col_shm_close(&shm);
	CHECK_EQ(access(path, F_OK), -1);
}

TEST(a_rank_attaches_once)
{
	struct col_shm *shm = created();
	refused(&two, COLLECT_E_SYSTEM, EPROTO);
	col_shm_close(&shm);
}

TEST(another_epoch_or_layout_is_refused)
{
	struct col_shm *shm = created();
	struct col_shm_options other = two;
	other.rank = 1;
	other.nonce++;
	refused(&other, COLLECT_E_SYSTEM, EPROTO);
	other = two;
	other.rank = 1;
	other.chunk_bytes = 8192;
	refused(&other, COLLECT_E_SYSTEM, EPROTO);
	other = two;
	other.rank = 1;
	other.rank_count = 3;
	refused(&other, COLLECT_E_SYSTEM, EPROTO);
	col_shm_close(&shm);
	refused(&two, COLLECT_E_SYSTEM, ENOENT);
}

TEST(a_corrupted_header_is_refused)
{
	struct col_shm_options second = two;
	second.rank = 1;
	for (size_t at = 0; at < offsetof(struct segment_header, attached_count); at++) {
		struct col_shm *shm = created();
		int file = open(path, O_RDWR);
		uint8_t byte;
		CHECK_EQ(pread(file, &byte, 1, (off_t)at), 1);
		byte ^= 1;
		CHECK_EQ(pwrite(file, &byte, 1, (off_t)at), 1);
		close(file);
		refused(&second, COLLECT_E_SYSTEM, EPROTO);
		col_shm_close(&shm);
	}
}

TEST(a_file_of_another_size_or_kind_is_refused)
{
	struct col_shm_options second = two;
	second.rank = 1;
	struct col_shm *shm = created();
	CHECK_EQ(truncate(path, 4096), 0);
	refused(&second, COLLECT_E_SYSTEM, EPROTO);
	unlink(path);
	CHECK_EQ(symlink("/dev/zero", path), 0);
	refused(&second, COLLECT_E_SYSTEM, ELOOP);
	col_shm_close(&shm);
}

TEST(bad_options_are_refused)
{
	struct col_shm *shm;
	struct col_shm_options bad = two;
	team_name(name);
	bad.rank = 2;
	CHECK_EQ(col_shm_create(name, &bad, &shm), COLLECT_E_INVALID);
	bad = two;
	bad.rank_count = COL_SHM_RANKS_MAX + 1;
	CHECK_EQ(col_shm_create(name, &bad, &shm), COLLECT_E_INVALID);
	bad = two;
	bad.chunk_bytes = 100;
	CHECK_EQ(col_shm_create(name, &bad, &shm), COLLECT_E_INVALID);
	CHECK_EQ(col_shm_create("../etc", &two, &shm), COLLECT_E_INVALID);
	CHECK_EQ(col_shm_create("", &two, &shm), COLLECT_E_INVALID);
}

TEST(no_memory_is_an_error)
{
	for (uint64_t nth = 1; nth <= 2; nth++) {
		struct col_shm *shm;
		team_name(name);
		col_alloc_fail_at(nth);
		CHECK_EQ(col_shm_create(name, &two, &shm), COLLECT_E_MEMORY);
		CHECK(col_alloc_has_failed());
	}
}

TEST(a_full_file_system_is_an_error)
{
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0
	    || mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=64k") != 0)
		SKIP("may not mount");
	struct col_shm *shm = NULL;
	team_name(name);
	CHECK_EQ(col_shm_create(name, &two, &shm), COLLECT_E_SYSTEM);
	CHECK_EQ(errno, ENOSPC);
	CHECK_EQ(shm, NULL);
	snprintf(path, sizeof(path), "/dev/shm/%s", name);
	CHECK_EQ(access(path, F_OK), -1);
}

/* ---- memory that others can map ------------------------------------------------------------ */

TEST(shared_memory_is_aligned_and_zeroed_and_used_again)
{
	static const size_t sizes[] = {0, 1, 4096, 100000, 5u << 20};
	for (size_t index = 0; index < 5; index++) {
		uint8_t *memory = collect_shared_alloc(sizes[index]);
		CHECK(memory != NULL);
		CHECK_EQ((uintptr_t)memory % 4096, 0);
		for (size_t at = 0; at < sizes[index]; at++)
			CHECK_EQ(memory[at], 0);
		memset(memory, 7, sizes[index]);
		collect_shared_free(memory);
		uint8_t *again = collect_shared_alloc(sizes[index]);
		CHECK_EQ(again, memory);
		for (size_t at = 0; at < sizes[index]; at++)
			CHECK_EQ(again[at], 0);
		collect_shared_free(again);
	}
	collect_shared_free(NULL);
	col_shm_heap_trim();
}

TEST(freed_shared_memory_is_kept_within_limits)
{
	void *blocks[64];
	for (int index = 0; index < 64; index++)
		CHECK((blocks[index] = collect_shared_alloc(4096)) != NULL);
	for (int index = 0; index < 64; index++)
		collect_shared_free(blocks[index]);
	CHECK(col_alloc_blocks() <= 40);
	col_shm_heap_trim();
	CHECK_EQ(col_alloc_blocks(), 0);
}

TEST(too_much_shared_memory_is_refused)
{
	CHECK_EQ(collect_shared_alloc(SIZE_MAX), NULL);
	CHECK_EQ(errno, ENOMEM);
	col_alloc_fail_at(1);
	CHECK_EQ(collect_shared_alloc(1), NULL);
	CHECK_EQ(errno, ENOMEM);
}

static void free_of_a_stranger(void)
{
	static int stranger;
	collect_shared_free(&stranger);
}

TEST(freeing_what_was_not_allocated_aborts)
{
	CHECK(test_aborts(free_of_a_stranger));
}
