#include "shm/team.h"

#include <pthread.h>
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

#include "base/alloc.h"
#include "base/clock.h"
#include "harness.h"

#define ROUNDS 1000u
#define RANKS_MAX 16u

struct job {
	const struct team *team;
	team_body *body;
	char name[COL_SHM_NAME_BYTES];
	_Atomic uint32_t *is_created; /* shared */
	void *board;                  /* shared */
};

struct job_rank {
	struct job *job;
	uint32_t rank;
};

void team_name(char name_out[COL_SHM_NAME_BYTES])
{
	static _Atomic uint32_t number;
	snprintf(name_out, COL_SHM_NAME_BYTES, "collect-test-%d-%u-%llx", (int)getpid(),
	         atomic_fetch_add(&number, 1), (unsigned long long)col_clock_ns());
}

static void *rank_main(void *argument)
{
	const struct job_rank *self = argument;
	struct job *job = self->job;
	struct col_shm_options options = job->team->options;
	options.nonce = 77;
	options.rank = self->rank;
	options.rank_count = job->team->rank_count;
	struct team_rank rank = {.rank = self->rank, .rank_count = job->team->rank_count,
	                         .user = job->team->user, .board = job->board};
	if (self->rank == 0) {
		CHECK_EQ(col_shm_create(job->name, &options, &rank.shm), 0);
		atomic_store(job->is_created, 1);
	} else {
		while (atomic_load(job->is_created) == 0)
			sched_yield();
		CHECK_EQ(col_shm_attach(job->name, &options, &rank.shm), 0);
	}
	while (!col_shm_is_attached(rank.shm))
		sched_yield();
	job->body(&rank);
	col_shm_close(&rank.shm);
	return NULL;
}

static void threads_run(struct job *job)
{
	pthread_t threads[RANKS_MAX];
	struct job_rank ranks[RANKS_MAX];
	for (uint32_t rank = 0; rank < job->team->rank_count; rank++) {
		ranks[rank] = (struct job_rank){job, rank};
		CHECK_EQ(pthread_create(&threads[rank], NULL, rank_main, &ranks[rank]), 0);
	}
	for (uint32_t rank = 0; rank < job->team->rank_count; rank++)
		CHECK_EQ(pthread_join(threads[rank], NULL), 0);
}

static _Noreturn void process_main(struct job *job, uint32_t rank)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	size_t blocks = col_alloc_blocks();
	rank_main(&(struct job_rank){job, rank});
	col_shm_heap_trim();
	CHECK_EQ(col_alloc_blocks(), blocks);
	exit(EXIT_SUCCESS);
}

static uint32_t processes_run(struct job *job)
{
	pid_t children[RANKS_MAX];
	uint32_t killed = 0;
	fflush(stdout);
	for (uint32_t rank = 0; rank < job->team->rank_count; rank++) {
		children[rank] = fork();
		CHECK(children[rank] != -1);
		if (children[rank] == 0)
			process_main(job, rank);
	}
	for (uint32_t rank = 0; rank < job->team->rank_count; rank++) {
		int status;
		CHECK_EQ(waitpid(children[rank], &status, 0), children[rank]);
		bool is_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
		killed += is_killed;
		if (!is_killed && !(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS))
			FAIL("rank %u ended with status 0x%x", rank, (unsigned)status);
	}
	return killed;
}

uint32_t team_run(const struct team *team, team_body *body, void *board_out)
{
	CHECK(team->rank_count <= RANKS_MAX);
	int flags = MAP_SHARED | MAP_ANONYMOUS;
	size_t bytes = TEAM_BOARD_BYTES + 64;
	uint8_t *shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
	CHECK(shared != MAP_FAILED);
	struct job job = {.team = team, .body = body, .board = shared,
	                  .is_created = (void *)(shared + TEAM_BOARD_BYTES)};
	team_name(job.name);
	uint32_t killed = 0;
	if (team->has_threads)
		threads_run(&job);
	else
		killed = processes_run(&job);
	if (board_out != NULL)
		memcpy(board_out, shared, TEAM_BOARD_BYTES);
	munmap(shared, bytes);
	col_shm_heap_trim();
	char path[128];
	snprintf(path, sizeof(path), "/dev/shm/%s", job.name);
	CHECK_EQ(access(path, F_OK), -1);
	return killed;
}

void team_call(struct team_rank *rank, const struct col_shm_call *call)
{
	int progress = col_shm_start(rank->shm, call);
	if (progress != COLLECT_OK)
		FAIL("rank %u: start: %d", rank->rank, progress);
	do
		progress = col_shm_spin(rank->shm, ROUNDS);
	while (progress == COL_SHM_STUCK || progress == COL_SHM_MOVED);
	if (progress != COL_SHM_DONE)
		FAIL("rank %u: collective %d: %d", rank->rank, call->collective, progress);
}
