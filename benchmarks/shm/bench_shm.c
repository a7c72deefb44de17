/*
 * All-reduce of float32 sums among processes of one host: the library beside bare loops of the same
 * shape without any protocol, taken in turns in one run.
 *
 *	bench_shm [-p ranks] [-b bytes_min] [-B bytes_max] [-r rounds] [-m methods]
 *	          [-o post_bytes] [-c chunk_bytes] [-s slots]
 *
 * Microseconds per operation, the median and the least of the rounds. Methods:
 *
 *	private   out of place, arrays from the heap
 *	in place  the same with one array
 *	shared    out of place, arrays from collect_shared_alloc
 *	shared in place
 *	bare      post and reduce whole arrays (up to 64 KiB), else copy in, reduce, copy out in blocks
 *	bare shared  owners read all sources and write all targets
 */
#include <errno.h>
#include <immintrin.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "kernels/kernels.h"
#include "shm/shm.h"

#define RANKS_MAX 16u
#define ROUNDS_MAX 101u
#define ROUND_NS 1000000u
#define BARE_POST_BYTES (64u << 10)
#define BARE_BLOCK_BYTES (256u << 10)

enum method { PRIVATE, IN_PLACE, SHARED, SHARED_IN_PLACE, BARE, BARE_SHARED, METHODS };
static const char *const method_names[METHODS] = {
	"private", "in place", "shared", "shared in place", "bare", "bare shared"};

struct line {
	_Alignas(128) _Atomic uint64_t value;
};

/* Of the bare loops and of the measurement itself; inherited by all ranks. */
struct arena {
	struct line barrier[RANKS_MAX];
	struct line post[RANKS_MAX];
	struct line copied[RANKS_MAX];
	struct line reduced[RANKS_MAX];
	uint64_t batch;
	uint8_t slots[RANKS_MAX][2][BARE_POST_BYTES];
	uint8_t inbox[RANKS_MAX][RANKS_MAX][2][BARE_BLOCK_BYTES];
	uint8_t outbox[RANKS_MAX][2][BARE_BLOCK_BYTES];
};

static struct arena *arena;
static uint32_t ranks = 2;
static uint32_t rank;
static bool is_crowded;
static uint64_t barrier_number;
static uint64_t post_number;
static uint64_t block_number;
static struct col_shm *shm;
static struct col_shm_options sizes; /* 0: the segment's choice */
static float *arrays[METHODS][2];      /* this rank's source and target */
static float *bare_shared[RANKS_MAX][2]; /* everybody's */

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void wait_for(_Atomic uint64_t *flag, uint64_t value)
{
	for (uint32_t round = 0; atomic_load_explicit(flag, memory_order_acquire) < value; round++) {
		if (is_crowded || round > 60)
			sched_yield();
		else
			_mm_pause();
	}
}

static void wait_for_all(struct line *lines, uint64_t value)
{
	for (uint32_t other = 0; other < ranks; other++)
		wait_for(&lines[other].value, value);
}

static void barrier(void)
{
	atomic_store_explicit(&arena->barrier[rank].value, ++barrier_number, memory_order_release);
	wait_for_all(arena->barrier, barrier_number);
}

/* ---- bare loops ---------------------------------------------------------------------------- */

static void reduce(void *target, const void *const *sources, size_t bytes, bool is_streaming)
{
	col_kernels()->reduce_many[COLLECT_FLOAT32][COLLECT_SUM](target, sources, ranks,
	                                                         bytes / sizeof(float), 1, is_streaming);
}

static void bare_post(uint8_t *target, const uint8_t *source, size_t bytes)
{
	const void *sources[RANKS_MAX];
	uint64_t number = ++post_number;
	memcpy(arena->slots[rank][number % 2], source, bytes);
	atomic_store_explicit(&arena->post[rank].value, number, memory_order_release);
	for (uint32_t other = 0; other < ranks; other++) {
		wait_for(&arena->post[other].value, number);
		sources[other] = arena->slots[other][number % 2];
	}
	reduce(target, sources, bytes, false);
}

static void bare_block(uint8_t *target, const uint8_t *source, size_t bytes, bool is_streaming)
{
	const struct col_kernels *kernels = col_kernels();
	const void *sources[RANKS_MAX];
	uint64_t number = ++block_number;
	size_t slice = bytes / ranks;
	for (uint32_t owner = 0; owner < ranks; owner++) {
		if (owner != rank)
			kernels->copy(arena->inbox[owner][rank][number % 2], source + owner * slice, slice,
			              false);
	}
	atomic_store_explicit(&arena->copied[rank].value, number, memory_order_release);
	for (uint32_t other = 0; other < ranks; other++) {
		wait_for(&arena->copied[other].value, number);
		sources[other] = arena->inbox[rank][other][number % 2];
	}
	sources[rank] = source + rank * slice;
	reduce(arena->outbox[rank][number % 2], sources, slice, false);
	atomic_store_explicit(&arena->reduced[rank].value, number, memory_order_release);
	for (uint32_t owner = 0; owner < ranks; owner++) {
		wait_for(&arena->reduced[owner].value, number);
		kernels->copy(target + owner * slice, arena->outbox[owner][number % 2], slice,
		              is_streaming);
	}
}

static void bare(uint8_t *target, const uint8_t *source, size_t bytes)
{
	if (bytes <= BARE_POST_BYTES) {
		bare_post(target, source, bytes);
		return;
	}
	for (size_t at = 0; at < bytes; at += BARE_BLOCK_BYTES) {
		size_t left = bytes - at;
		bare_block(target + at, source + at, left < BARE_BLOCK_BYTES ? left : BARE_BLOCK_BYTES,
		           bytes >= 1u << 20);
	}
}

static void bare_shared_run(size_t bytes)
{
	const void *sources[RANKS_MAX];
	_Alignas(64) uint8_t scratch[16 << 10];
	size_t slice = bytes / ranks;
	barrier();
	for (size_t at = 0; at < slice; at += sizeof(scratch)) {
		size_t part = slice - at < sizeof(scratch) ? slice - at : sizeof(scratch);
		for (uint32_t other = 0; other < ranks; other++)
			sources[other] = (uint8_t *)bare_shared[other][0] + rank * slice + at;
		reduce(scratch, sources, part, false);
		for (uint32_t other = 0; other < ranks; other++)
			col_kernels()->copy((uint8_t *)bare_shared[other][1] + rank * slice + at, scratch, part,
			                    bytes >= 1u << 20);
	}
	barrier();
}

/* ---- measuring ----------------------------------------------------------------------------- */

static void library_run(enum method method, size_t bytes)
{
	struct col_shm_call call = {
		.collective = COLLECT_ALL_REDUCE,
		.dtype = COLLECT_FLOAT32,
		.reduce_op = COLLECT_SUM,
		.source = arrays[method][0],
		.target = arrays[method][1],
		.count = bytes / sizeof(float),
	};
	int progress = col_shm_run(shm, &call, 1u << 30);
	if (progress != COL_SHM_DONE) {
		fprintf(stderr, "rank %u: %s: %d\n", rank, method_names[method], progress);
		exit(1);
	}
}

static void run(enum method method, size_t bytes)
{
	if (method == BARE)
		bare((uint8_t *)arrays[PRIVATE][1], (const uint8_t *)arrays[PRIVATE][0], bytes);
	else if (method == BARE_SHARED)
		bare_shared_run(bytes);
	else
		library_run(method, bytes);
}

static double round_us(enum method method, size_t bytes, uint64_t batch)
{
	barrier();
	uint64_t begin = col_clock_ns();
	for (uint64_t index = 0; index < batch; index++)
		run(method, bytes);
	barrier();
	return (double)(col_clock_ns() - begin) / 1000.0 / (double)batch;
}

static int compare(const void *left, const void *right)
{
	double a = *(const double *)left;
	double b = *(const double *)right;
	return (a > b) - (a < b);
}

/* All ranks use the same number, which rank 0 finds. */
static uint64_t batch_find(enum method method, size_t bytes)
{
	for (int warm = 0; warm < 3; warm++)
		run(method, bytes);
	double us = round_us(method, bytes, 3);
	if (rank == 0) {
		uint64_t batch = (uint64_t)(ROUND_NS / 1000.0 / us);
		arena->batch = batch < 2 ? 2 : batch;
	}
	barrier();
	return arena->batch;
}

static void size_measure(size_t bytes, uint32_t rounds, uint32_t methods)
{
	static double us[METHODS][ROUNDS_MAX];
	uint64_t batch[METHODS];
	for (int method = 0; method < METHODS; method++) {
		if ((methods & 1u << method) != 0)
			batch[method] = batch_find((enum method)method, bytes);
	}
	for (uint32_t index = 0; index < rounds; index++) {
		for (int method = 0; method < METHODS; method++) {
			if ((methods & 1u << method) != 0)
				us[method][index] = round_us((enum method)method, bytes, batch[method]);
		}
	}
	if (rank != 0)
		return;
	printf("%10zu", bytes);
	for (int method = 0; method < METHODS; method++) {
		if ((methods & 1u << method) == 0)
			continue;
		qsort(us[method], rounds, sizeof(double), compare);
		printf("  %10.2f %10.2f", us[method][rounds / 2], us[method][0]);
	}
	printf("\n");
	fflush(stdout);
}

static float *touched(size_t bytes)
{
	float *array = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (array == MAP_FAILED)
		die("mmap");
	for (size_t index = 0; index < bytes / sizeof(float); index++)
		array[index] = (float)(index % 1000) * 0.5f + (float)rank;
	return array;
}

static void arrays_make(size_t bytes, uint32_t methods)
{
	arrays[PRIVATE][0] = touched(bytes);
	arrays[PRIVATE][1] = touched(bytes);
	arrays[IN_PLACE][0] = arrays[IN_PLACE][1] = touched(bytes);
	memset(arrays[IN_PLACE][0], 0, bytes);
	if ((methods & (1u << SHARED | 1u << SHARED_IN_PLACE)) == 0)
		return;
	arrays[SHARED][0] = collect_shared_alloc(bytes);
	arrays[SHARED][1] = collect_shared_alloc(bytes);
	arrays[SHARED_IN_PLACE][0] = arrays[SHARED_IN_PLACE][1] = collect_shared_alloc(bytes);
	if (arrays[SHARED][0] == NULL || arrays[SHARED][1] == NULL || arrays[SHARED_IN_PLACE][0] == NULL)
		die("collect_shared_alloc");
	memcpy(arrays[SHARED][0], arrays[PRIVATE][0], bytes);
}

static void rank_main(const char *name, size_t bytes_min, size_t bytes_max, uint32_t rounds,
                      uint32_t methods)
{
	struct col_shm_options options = sizes;
	options.nonce = 1;
	options.rank = rank;
	options.rank_count = ranks;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(rank % (uint32_t)sysconf(_SC_NPROCESSORS_ONLN), &set);
	sched_setaffinity(0, sizeof(set), &set);
	if (rank == 0 && col_shm_create(name, &options, &shm) != 0)
		die("create");
	barrier();
	if (rank != 0 && col_shm_attach(name, &options, &shm) != 0)
		die("attach");
	arrays_make(bytes_max, methods);
	barrier();
	for (size_t bytes = bytes_min; bytes <= bytes_max; bytes *= 2)
		size_measure(bytes, rounds, methods);
	col_shm_close(&shm);
}

static void *shared_by_all(size_t bytes)
{
	int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE;
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (memory == MAP_FAILED)
		die("mmap");
	/* Not zeros: some processors move those faster. */
	for (size_t index = 0; index < bytes / sizeof(float); index++)
		((float *)memory)[index] = (float)(index % 1000) * 0.5f;
	return memory;
}

int main(int argc, char **argv)
{
	size_t bytes_min = 8;
	size_t bytes_max = 16 << 20;
	uint32_t rounds = 15;
	uint32_t methods = (1u << METHODS) - 1;
	int option;
	while ((option = getopt(argc, argv, "p:b:B:r:m:o:c:s:")) != -1) {
		switch (option) {
		case 'p': ranks = (uint32_t)atoi(optarg); break;
		case 'b': bytes_min = (size_t)atoll(optarg); break;
		case 'B': bytes_max = (size_t)atoll(optarg); break;
		case 'r': rounds = (uint32_t)atoi(optarg); break;
		case 'm': methods = (uint32_t)strtoul(optarg, NULL, 0); break;
		case 'o': sizes.post_bytes = (uint32_t)atoi(optarg); break;
		case 'c': sizes.chunk_bytes = (uint32_t)atoi(optarg); break;
		case 's': sizes.slot_count = (uint32_t)atoi(optarg); break;
		default: return 2;
		}
	}
	if (bytes_max < bytes_min)
		bytes_max = bytes_min;
	if (ranks < 1 || ranks > RANKS_MAX || rounds < 1 || rounds > ROUNDS_MAX)
		return 2;
	is_crowded = ranks > (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	setpgid(0, 0);
	arena = shared_by_all(sizeof(*arena));
	memset(arena, 0, sizeof(*arena));
	for (uint32_t index = 0; index < ranks && (methods & 1u << BARE_SHARED) != 0; index++) {
		bare_shared[index][0] = shared_by_all(bytes_max);
		bare_shared[index][1] = shared_by_all(bytes_max);
	}
	printf("%u ranks; us: median least\n     bytes", ranks);
	for (int method = 0; method < METHODS; method++) {
		if ((methods & 1u << method) != 0)
			printf("  %21s", method_names[method]);
	}
	printf("\n");
	fflush(stdout);
	char name[COL_SHM_NAME_BYTES];
	snprintf(name, sizeof(name), "bench-shm-%d-%llx", (int)getpid(),
	         (unsigned long long)col_clock_ns());
	for (rank = 0; rank < ranks; rank++) {
		if (fork() == 0) {
			rank_main(name, bytes_min, bytes_max, rounds, methods);
			exit(0);
		}
	}
	int result = 0;
	int status;
	while (wait(&status) > 0) {
		result |= status;
		if (status != 0)
			kill(0, SIGTERM); /* the others would wait for it */
	}
	return result != 0;
}
