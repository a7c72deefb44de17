/* A stream in shared memory: two ends of one segment, in one process. */
#include "transport/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/prng.h"
#include "harness.h"
#include "include/collect.h"

#define RING COL_RING_BYTES_MIN
#define MAKER 0xfeedu

static uint64_t nonce_draw(void)
{
	static uint64_t count;
	return ((uint64_t)getpid() << 20) + ++count;
}

static void path_of(uint64_t nonce, char path_out[80])
{
	snprintf(path_out, 80, "/dev/shm/collect-%016x-%016llx-link", MAKER,
	         (unsigned long long)nonce);
}

static bool is_there(uint64_t nonce)
{
	char path[80];
	path_of(nonce, path);
	return access(path, F_OK) == 0;
}

static void ends_open(struct col_stream *a, struct col_stream *b)
{
	struct col_rings_options options = {
		.maker = MAKER, .nonce = nonce_draw(), .ring_bytes = RING};
	memset(a, 0, sizeof(*a));
	memset(b, 0, sizeof(*b));
	CHECK_EQ(col_stream_shm_make(a, &options), COLLECT_OK);
	CHECK(is_there(options.nonce));
	CHECK_EQ(col_stream_shm_attach(b, &options), COLLECT_OK);
	CHECK(!is_there(options.nonce));
}

static ssize_t put(struct col_stream *stream, const void *bytes, size_t count)
{
	struct iovec part = {(void *)(uintptr_t)bytes, count};
	return stream->ops->write(stream, &part, 1);
}

static ssize_t get(struct col_stream *stream, void *bytes, size_t count)
{
	struct iovec part = {bytes, count};
	return stream->ops->read(stream, &part, 1);
}

static uint8_t byte_at(uint64_t index)
{
	return (uint8_t)(index * 31 + index / 977);
}

TEST(bytes_come_in_order_both_ways_whatever_the_parts)
{
	enum { MOST = 3 * RING, ROUNDS = 2000 };
	struct col_stream ends[2];
	struct col_prng prng;
	uint64_t written[2] = {0};
	uint64_t read[2] = {0};
	uint8_t *block = malloc(MOST);
	col_prng_init(&prng, test_seed());
	ends_open(&ends[0], &ends[1]);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		uint32_t from = (uint32_t)col_prng_below(&prng, 2);
		size_t limit = col_prng_below(&prng, 2) == 0 ? 200 : MOST;
		struct iovec parts[3];
		size_t total = 0;
		for (uint32_t i = 0; i < 3; i++) {
			parts[i] = (struct iovec){block + total, col_prng_below(&prng, limit / 3)};
			total += parts[i].iov_len;
		}
		for (size_t i = 0; i < total; i++)
			block[i] = byte_at(written[from] + i);
		ssize_t count = ends[from].ops->write(&ends[from], parts, 3);
		uint64_t room = RING - (written[from] - read[from]);
		CHECK_EQ(count, total == 0 || room == 0 ? -EAGAIN
		                                        : (ssize_t)(total < room ? total : room));
		written[from] += count > 0 ? (uint64_t)count : 0;
		limit = col_prng_below(&prng, MOST);
		count = get(&ends[1 - from], block, limit);
		uint64_t waiting = written[from] - read[from];
		CHECK_EQ(count, limit == 0 || waiting == 0
		                        ? -EAGAIN
		                        : (ssize_t)(limit < waiting ? limit : waiting));
		for (ssize_t i = 0; i < count; i++)
			CHECK_EQ(block[i], byte_at(read[from] + (uint64_t)i));
		read[from] += count > 0 ? (uint64_t)count : 0;
	}
	CHECK(read[0] > 10 * RING && read[1] > 10 * RING);
	ends[0].ops->close(&ends[0]);
	ends[0].ops->close(&ends[0]);
	ends[1].ops->close(&ends[1]);
	CHECK_EQ(get(&ends[1], block, 1), -EBADF);
	CHECK_EQ(put(&ends[1], block, 1), -EPIPE);
	free(block);
}

TEST(a_segment_that_nobody_attached_to_leaves_nothing)
{
	struct col_stream stream = {0};
	struct col_rings_options options = {
		.maker = MAKER, .nonce = nonce_draw(), .ring_bytes = RING};
	CHECK_EQ(col_stream_shm_make(&stream, &options), COLLECT_OK);
	stream.ops->close(&stream);
	CHECK(!is_there(options.nonce));
}

TEST(what_is_no_such_segment_is_refused)
{
	struct col_stream a = {0};
	struct col_stream b = {0};
	struct col_rings_options options = {
		.maker = MAKER, .nonce = nonce_draw(), .ring_bytes = RING};
	char path[80];
	path_of(options.nonce, path);

	CHECK_EQ(col_stream_shm_attach(&b, &options), COLLECT_E_SYSTEM);
	CHECK_EQ(errno, ENOENT);

	/* Of another size. */
	CHECK_EQ(col_stream_shm_make(&a, &options), COLLECT_OK);
	struct col_rings_options other = options;
	other.ring_bytes = 2 * RING;
	CHECK_EQ(col_stream_shm_attach(&b, &other), COLLECT_E_SYSTEM);
	CHECK_EQ(errno, EPROTO);
	CHECK_EQ(col_stream_shm_make(&b, &options), COLLECT_E_SYSTEM);
	CHECK_EQ(errno, EEXIST);
	CHECK(is_there(options.nonce));

	/* A second time. */
	char link_path[96];
	snprintf(link_path, sizeof(link_path), "%s-kept", path);
	CHECK_EQ(link(path, link_path), 0);
	CHECK_EQ(col_stream_shm_attach(&b, &options), COLLECT_OK);
	CHECK_EQ(rename(link_path, path), 0);
	struct col_stream c = {0};
	CHECK_EQ(col_stream_shm_attach(&c, &options), COLLECT_E_SYSTEM);
	CHECK_EQ(errno, EPROTO);
	unlink(path);

	/* Zeros, and a link to somewhere else. */
	int fd = open(path, O_CREAT | O_RDWR, 0600);
	struct stat status;
	CHECK_EQ(fstat(fd, &status), 0);
	CHECK_EQ(ftruncate(fd, 4096 + 2 * RING), 0);
	CHECK_EQ(col_stream_shm_attach(&c, &options), COLLECT_E_SYSTEM);
	CHECK_EQ(errno, EPROTO);
	close(fd);
	unlink(path);
	CHECK_EQ(symlink("/dev/zero", path), 0);
	CHECK_EQ(col_stream_shm_attach(&c, &options), COLLECT_E_SYSTEM);
	unlink(path);
	a.ops->close(&a);
	b.ops->close(&b);
}

TEST(ring_sizes_that_are_impossible_are_refused)
{
	static const uint32_t sizes[] = {0, 1, COL_RING_BYTES_MIN / 2, COL_RING_BYTES_MIN + 64,
	                                 2 * COL_RING_BYTES_MAX, UINT32_MAX};
	for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct col_stream stream = {0};
		struct col_rings_options options = {
			.maker = MAKER, .nonce = nonce_draw(), .ring_bytes = sizes[i]};
		CHECK_EQ(col_stream_shm_make(&stream, &options), COLLECT_E_INVALID);
		CHECK_EQ(col_stream_shm_attach(&stream, &options), COLLECT_E_INVALID);
	}
}

/* Maps what a hostile end would: the same file, before it is attached to. */
static uint64_t *indices_map(const struct col_rings_options *options)
{
	char path[80];
	path_of(options->nonce, path);
	int fd = open(path, O_RDWR);
	CHECK(fd >= 0);
	void *base = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(base != MAP_FAILED);
	close(fd);
	return base;
}

TEST(impossible_indices_break_the_stream_and_nothing_else)
{
	/* In words: the lines of 128 bytes begin behind the first, tail and head of each ring. */
	enum { TAIL_TO_A = 16 + 32, HEAD_FROM_A = 16 + 16 };
	static const uint64_t values[] = {RING + 1, UINT64_MAX, UINT64_MAX - RING, 1ull << 63};
	uint8_t *block = malloc(2 * RING);
	memset(block, 1, 2 * RING);
	for (uint32_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		struct col_stream a = {0};
		struct col_rings_options options = {
			.maker = MAKER, .nonce = nonce_draw(), .ring_bytes = RING};
		CHECK_EQ(col_stream_shm_make(&a, &options), COLLECT_OK);
		uint64_t *words = indices_map(&options);
		words[TAIL_TO_A] = values[i];
		CHECK(col_stream_shm_can_read(&a));
		CHECK_EQ(get(&a, block, 2 * RING), -EPROTO);
		CHECK_EQ(get(&a, block, 1), -EPROTO);
		CHECK_EQ(put(&a, block, 2 * RING), (ssize_t)RING);
		CHECK_EQ(put(&a, block, 1), -EAGAIN);
		CHECK(!col_stream_shm_can_write(&a));
		words[HEAD_FROM_A] = values[i];
		CHECK(col_stream_shm_can_write(&a));
		CHECK_EQ(put(&a, block, 1), -EPROTO);
		munmap(words, 4096);
		a.ops->close(&a);
	}
	free(block);
}

TEST(who_armed_is_woken_once_and_who_did_not_never)
{
	struct col_stream a;
	struct col_stream b;
	uint8_t *block = calloc(1, RING);
	ends_open(&a, &b);
	CHECK_EQ(put(&a, block, 1), 1);
	CHECK(!a.must_wake);
	CHECK_EQ(get(&b, block, 1), 1);
	col_stream_shm_arm(&b, false);
	CHECK(!col_stream_shm_can_read(&b));
	CHECK_EQ(put(&a, block, 1), 1);
	CHECK(a.must_wake);
	a.must_wake = false;
	CHECK_EQ(put(&a, block, 1), 1);
	CHECK(!a.must_wake);
	col_stream_shm_arm(&b, false);
	col_stream_shm_disarm(&b);
	CHECK_EQ(put(&a, block, 1), 1);
	CHECK(!a.must_wake);

	/* For room: when half of it is free, and not before. */
	while (put(&a, block, RING) > 0)
		;
	col_stream_shm_arm(&a, true);
	CHECK(!col_stream_shm_can_write(&a));
	CHECK_EQ(get(&b, block, RING / 2 - 1), RING / 2 - 1);
	CHECK(!b.must_wake);
	CHECK_EQ(get(&b, block, 1), 1);
	CHECK(b.must_wake);
	CHECK(col_stream_shm_can_write(&a));
	a.ops->close(&a);
	b.ops->close(&b);
	free(block);
}

/* ---- sleeping ends ---- */

struct sleeper {
	struct col_stream stream;
	struct sleeper *other;
	sem_t bell;
	uint64_t total;
	uint64_t slept;
};

static void wake_other(struct sleeper *sleeper)
{
	if (sleeper->stream.must_wake)
		sem_post(&sleeper->other->bell);
	sleeper->stream.must_wake = false;
}

static void doze(struct sleeper *sleeper, bool is_writer)
{
	struct timespec limit;
	col_stream_shm_arm(&sleeper->stream, is_writer);
	if (is_writer ? col_stream_shm_can_write(&sleeper->stream)
	              : col_stream_shm_can_read(&sleeper->stream))
		return;
	sleeper->slept++;
	timespec_get(&limit, TIME_UTC);
	limit.tv_sec += 20;
	/* A wake-up that is lost would be the last. */
	CHECK_EQ(sem_timedwait(&sleeper->bell, &limit), 0);
}

static void *write_all(void *argument)
{
	struct sleeper *sleeper = argument;
	struct col_prng prng;
	static uint8_t block[RING];
	col_prng_init(&prng, test_seed());
	for (uint64_t done = 0; done < sleeper->total;) {
		uint64_t rest = sleeper->total - done;
		size_t count = 1 + col_prng_below(&prng, col_prng_below(&prng, 8) == 0 ? RING : 64);
		count = count < rest ? count : rest;
		for (size_t i = 0; i < count; i++)
			block[i] = byte_at(done + i);
		ssize_t written = put(&sleeper->stream, block, count);
		wake_other(sleeper);
		if (written > 0)
			done += (uint64_t)written;
		else
			doze(sleeper, true);
	}
	return NULL;
}

static void *read_all(void *argument)
{
	struct sleeper *sleeper = argument;
	static uint8_t block[RING];
	for (uint64_t done = 0; done < sleeper->total;) {
		ssize_t count = get(&sleeper->stream, block, sizeof(block));
		wake_other(sleeper);
		for (ssize_t i = 0; i < count; i++)
			CHECK_EQ(block[i], byte_at(done + (uint64_t)i));
		if (count > 0)
			done += (uint64_t)count;
		else
			doze(sleeper, false);
	}
	return NULL;
}

TEST(no_wake_up_is_lost)
{
	static struct sleeper writer;
	static struct sleeper reader;
	pthread_t threads[2];
	ends_open(&writer.stream, &reader.stream);
	writer.other = &reader;
	reader.other = &writer;
	writer.total = reader.total = 200u * RING;
	sem_init(&writer.bell, 0, 0);
	sem_init(&reader.bell, 0, 0);
	CHECK_EQ(pthread_create(&threads[0], NULL, write_all, &writer), 0);
	CHECK_EQ(pthread_create(&threads[1], NULL, read_all, &reader), 0);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	CHECK(reader.slept + writer.slept > 0);
	writer.stream.ops->close(&writer.stream);
	reader.stream.ops->close(&reader.stream);
}
