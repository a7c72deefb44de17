/*
 * Ranks of one host for the tests: processes that share a segment, each running the same body.
 */
#ifndef TEST_SHM_TEAM_H
#define TEST_SHM_TEAM_H

#include <stdbool.h>

#include "shm/shm.h"

struct team {
	uint32_t rank_count;
	bool has_threads; /* ranks are threads of one process */
	struct col_shm_options options; /* of sizes, where not 0 */
	void *user;
};

struct team_rank {
	struct col_shm *shm;
	uint32_t rank;
	uint32_t rank_count;
	void *user;
	void *board; /* TEAM_BOARD_BYTES, zeroed, shared by all ranks and the parent */
};

#define TEAM_BOARD_BYTES ((size_t)1 << 16)

typedef void team_body(struct team_rank *rank);

/* A segment name that no other process uses. */
void team_name(char name_out[COL_SHM_NAME_BYTES]);

/* Runs the body on all ranks and checks that each ends well, or by SIGKILL. Returns how many were
 * killed. board_out (may be NULL) receives the board. */
uint32_t team_run(const struct team *team, team_body *body, void *board_out);

/* Starts the call and advances until it is done. Fails the case when it ends otherwise. */
void team_call(struct team_rank *rank, const struct col_shm_call *call);

#endif
