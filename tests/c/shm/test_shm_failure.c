/*
 * Ranks that die at any moment: nobody hangs, and what is done anywhere is whole everywhere.
 *
 * The victim is killed by a thread of its own in the middle of whatever it does. The others see a
 * flag instead of a broken connection, abort, and write down what they have; the parent judges.
 */
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "harness.h"
#include "kernels/kernels.h"
#include "shm/shm.h"
#include "shm/team.h"

#define RANKS_MAX 5u
#define COUNT_MAX 60000u
#define OPS_MAX 2000000u

struct report {
	_Atomic uint64_t done;    /* operations that this rank was told are done */
	_Atomic uint32_t is_whole; /* the one after them */
	_Atomic uint32_t has_stopped;
};

struct board {
	_Atomic uint32_t is_dead;
	struct report reports[RANKS_MAX];
};

struct trial {
	uint64_t seed;
	uint32_t victim;
};

struct self {
	struct team_rank *rank;
	const struct trial *trial;
	struct board *board;
	int32_t *source[2]; /* private, shared */
	int32_t *target[2];
	uint64_t op;
};

/* ---- operations that all ranks draw alike -------------------------------------------------- */

struct drawn {
	int collective;
	uint64_t count;
	bool is_shared;
	bool is_in_place;
};

static struct drawn draw(const struct trial *trial, uint64_t op)
{
	static const uint64_t counts[] = {1, 100, 1000, 5000, 20000, COUNT_MAX};
	struct col_prng prng;
	col_prng_init(&prng, trial->seed * 1000003 + op);
	struct drawn drawn = {.collective = COLLECT_ALL_REDUCE};
	if (col_prng_below(&prng, 3) == 0)
		drawn.collective = COLLECT_BROADCAST;
	drawn.count = counts[col_prng_below(&prng, 6)];
	drawn.is_shared = col_prng_below(&prng, 2) == 0;
	drawn.is_in_place = col_prng_below(&prng, 2) == 0;
	return drawn;
}

static int32_t given(uint32_t rank, uint64_t op, uint64_t index)
{
	return (int32_t)(rank * 1000 + op * 7 + index % 1013);
}

static int32_t expected(const struct drawn *drawn, uint32_t ranks, uint64_t op, uint64_t index)
{
	int32_t sum = 0;
	if (drawn->collective == COLLECT_BROADCAST)
		return given(0, op, index);
	for (uint32_t rank = 0; rank < ranks; rank++)
		sum += given(rank, op, index);
	return sum;
}

static void source_fill(const struct self *self, const struct drawn *drawn)
{
	int32_t *source = self->source[drawn->is_shared];
	for (uint64_t index = 0; index < drawn->count; index++)
		source[index] = given(self->rank->rank, self->op, index);
}

static void source_check(const struct self *self, const struct drawn *drawn)
{
	const int32_t *source = self->source[drawn->is_shared];
	if (drawn->collective == COLLECT_BROADCAST && self->rank->rank != 0)
		return; /* it gives nothing */
	for (uint64_t index = 0; index < drawn->count; index++)
		CHECK_EQ(source[index], given(self->rank->rank, self->op, index));
}

static int32_t *target_of(const struct self *self, const struct drawn *drawn)
{
	return drawn->is_in_place ? self->source[drawn->is_shared] : self->target[drawn->is_shared];
}

static void target_check(const struct self *self, const struct drawn *drawn)
{
	const int32_t *target = target_of(self, drawn);
	for (uint64_t index = 0; index < drawn->count; index++)
		CHECK_EQ(target[index], expected(drawn, self->rank->rank_count, self->op, index));
}

static struct col_shm_call call_of(const struct self *self, const struct drawn *drawn)
{
	return (struct col_shm_call){.collective = drawn->collective, .dtype = COLLECT_INT32,
	                             .source = self->source[drawn->is_shared],
	                             .target = target_of(self, drawn), .count = drawn->count};
}

/* ---- dying --------------------------------------------------------------------------------- */

static void *killer_main(void *argument)
{
	const struct self *self = argument;
	struct col_prng prng;
	col_prng_init(&prng, self->trial->seed);
	struct timespec delay = {.tv_nsec = (long)(2000000 + col_prng_below(&prng, 8000000))};
	nanosleep(&delay, NULL);
	atomic_store(&self->board->is_dead, 1);
	kill(getpid(), SIGKILL);
	return NULL;
}

/* False when the operation was aborted. */
static bool operation_run(struct self *self, const struct drawn *drawn)
{
	struct col_shm *shm = self->rank->shm;
	struct col_shm_call call = call_of(self, drawn);
	int progress = col_shm_start(shm, &call);
	if (progress == COLLECT_E_ABORTED)
		return false;
	CHECK_EQ(progress, 0);
	for (;;) {
		progress = col_shm_spin(shm, 20);
		if (progress == COL_SHM_DONE)
			return true;
		if (progress == COLLECT_E_ABORTED || atomic_load(&self->board->is_dead) != 0)
			break;
		CHECK(progress == COL_SHM_STUCK || progress == COL_SHM_MOVED);
	}
	col_shm_abort(shm);
	progress = col_shm_advance(shm);
	CHECK(progress == COL_SHM_DONE || progress == COLLECT_E_ABORTED);
	return progress == COL_SHM_DONE;
}

static void aborted_check(struct self *self, const struct drawn *drawn)
{
	struct col_shm *shm = self->rank->shm;
	struct report *report = &self->board->reports[self->rank->rank];
	bool is_whole = col_shm_is_whole(shm);
	source_check(self, drawn);
	if (is_whole) {
		col_shm_complete(shm);
		target_check(self, drawn);
	}
	int32_t before = *target_of(self, drawn);
	CHECK_EQ(col_shm_disown(shm), 0);
	CHECK_EQ(*target_of(self, drawn), before);
	report->is_whole = is_whole;
}

static void survivor_body(struct team_rank *rank)
{
	struct self self = {.rank = rank, .trial = rank->user, .board = rank->board, .op = 1};
	struct report *report = &self.board->reports[rank->rank];
	pthread_t killer;
	for (int side = 0; side < 2; side++) {
		int32_t **array = side == 0 ? self.source : self.target;
		array[0] = col_alloc(COUNT_MAX * sizeof(int32_t));
		array[1] = collect_shared_alloc(COUNT_MAX * sizeof(int32_t));
	}
	if (rank->rank == self.trial->victim)
		CHECK_EQ(pthread_create(&killer, NULL, killer_main, &self), 0);
	for (; self.op < OPS_MAX; self.op++) {
		struct drawn drawn = draw(self.trial, self.op);
		source_fill(&self, &drawn);
		if (!operation_run(&self, &drawn)) {
			aborted_check(&self, &drawn);
			break;
		}
		atomic_store(&report->done, self.op);
		target_check(&self, &drawn);
	}
	report->has_stopped = 1;
	if (rank->rank == self.trial->victim)
		pthread_join(killer, NULL);
	for (int side = 0; side < 2; side++) {
		col_free(side == 0 ? self.source[0] : self.target[0]);
		collect_shared_free(side == 0 ? self.source[1] : self.target[1]);
	}
}

static void trial_judge(const struct trial *trial, uint32_t ranks, struct board *board)
{
	uint64_t done = 0;
	for (uint32_t rank = 0; rank < ranks; rank++)
		done = board->reports[rank].done > done ? board->reports[rank].done : done;
	for (uint32_t rank = 0; rank < ranks; rank++) {
		const struct report *report = &board->reports[rank];
		if (rank == trial->victim)
			continue;
		CHECK_EQ(report->has_stopped, 1);
		if (report->done == done)
			continue;
		if (report->done + 1 != done || report->is_whole == 0)
			FAIL("seed %llu: rank %u has done %llu (the next is whole: %u), another %llu",
			     (unsigned long long)trial->seed, rank, (unsigned long long)report->done,
			     report->is_whole, (unsigned long long)done);
	}
}

TEST(what_is_done_anywhere_is_whole_everywhere)
{
	static _Alignas(64) uint8_t board[TEAM_BOARD_BYTES];
	for (uint32_t index = 0; index < 60; index++) {
		uint32_t ranks = 2 + index % 4;
		struct trial trial = {.seed = test_seed() * 1000 + index, .victim = index % ranks};
		struct team team = {.rank_count = ranks, .user = &trial};
		if (index % 2 == 0) {
			team.options.chunk_bytes = 4096;
			team.options.slot_count = 2;
		}
		CHECK_EQ(team_run(&team, survivor_body, board), 1);
		trial_judge(&trial, ranks, (struct board *)(void *)board);
	}
}

/* ---- sleeping ------------------------------------------------------------------------------ */

struct beds {
	sem_t beds[RANKS_MAX];
};

static struct beds *beds; /* of this process: the board */

static void wake(void *user, uint32_t rank)
{
	(void)user;
	CHECK_EQ(sem_post(&beds->beds[rank]), 0);
}

/* Sleeps whenever it is stuck: a wake-up that is missed is a hang. */
static void sleeper_body(struct team_rank *rank)
{
	float source[300];
	float target[300];
	beds = (struct beds *)((uint8_t *)rank->board);
	for (uint32_t op = 0; op < 3000; op++) {
		struct col_shm_call call = {.dtype = COLLECT_FLOAT32, .source = source, .target = target,
		                            .count = op % 3 == 0 ? 300 : 1};
		source[0] = (float)(op + rank->rank);
		CHECK_EQ(col_shm_start(rank->shm, &call), 0);
		int progress;
		while ((progress = col_shm_advance(rank->shm)) != COL_SHM_DONE) {
			CHECK(progress >= 0);
			if (progress == COL_SHM_MOVED)
				continue;
			if (!col_shm_arm(rank->shm))
				SKIP("this system has no membarrier");
			progress = col_shm_advance(rank->shm);
			if (progress == COL_SHM_STUCK)
				CHECK_EQ(sem_wait(&beds->beds[rank->rank]), 0);
			col_shm_disarm(rank->shm);
			if (progress == COL_SHM_DONE)
				break;
		}
		float ranks = (float)rank->rank_count;
		CHECK_EQ(target[0], (float)op * ranks + ranks * (ranks - 1) / 2);
	}
}

static void sleepers_prepare(struct team_rank *rank)
{
	struct beds *shared = rank->board;
	_Atomic uint32_t *is_ready = (void *)((uint8_t *)rank->board + TEAM_BOARD_BYTES / 2);
	if (rank->rank == 0) {
		for (uint32_t index = 0; index < RANKS_MAX; index++)
			CHECK_EQ(sem_init(&shared->beds[index], 1, 0), 0);
		atomic_store(is_ready, 1);
	}
	while (atomic_load(is_ready) == 0)
		usleep(100);
	sleeper_body(rank);
}

TEST(a_sleeper_is_woken)
{
	for (uint32_t ranks = 2; ranks <= 4; ranks++) {
		struct team team = {.rank_count = ranks, .options = {.wake = wake}};
		CHECK_EQ(team_run(&team, sleepers_prepare, NULL), 0);
	}
}
