/* A world in one process: an engine and a comm per peer, over TCP on loopback. */
#ifndef COL_TEST_WORLD_H
#define COL_TEST_WORLD_H

#include "harness.h"
#include "include/collect.h"

#define WORLD_MAX 8u

struct peer {
	collect_engine *engine;
	collect_comm *comm;
	uint64_t incarnation;
	bool is_gone;
};

struct world_options {
	uint32_t count;
	uint32_t chunk_bytes; /* 0: 4096 */
	uint32_t window_bytes; /* 0: 8 MiB */
	uint16_t streams;     /* 0: 1 */
	int algorithm;
	bool shares;          /* all claim one host */
	uint32_t commit_bytes; /* 0: none but those that must commit */
	uint64_t silence_ns;  /* 0: 20 s */
	uint64_t connect_ns;  /* 0: 20 s */
	const char *address;  /* NULL: 127.0.0.1 */
};

struct world {
	struct peer peers[WORLD_MAX];
	struct world_options options;
	struct collect_member members[WORLD_MAX];
	struct collect_recipe recipe;
	uint64_t epoch;
};

/* Opens the engines; no view yet. */
void world_open(struct world *world, const struct world_options *options);
void world_close(struct world *world);
/* Closes one peer's comm and engine: its links end. */
void world_kill(struct world *world, uint32_t peer);
/* Opens an engine and a comm at a place that is free, as another peer. */
void world_revive(struct world *world, uint32_t peer, uint64_t incarnation);
/* The install of a view of these peers (bit i: peer i), with a new epoch, as seen by `peer`. */
struct collect_install world_view(struct world *world, uint32_t mask, uint32_t peer,
                                  struct collect_member *members_out);
/* Installs a first view or a planned one on all of mask, with op_base. */
void world_install(struct world *world, uint32_t mask, uint64_t op_base);
/* Freezes all of mask into reports[peer]. */
void world_freeze(struct world *world, uint32_t mask, struct collect_report *reports);
/* Puts a verdict into an install, or installs a new epoch with it on all of mask. */
struct verdict {
	int verdict;
	uint64_t op;
	uint64_t attempt;
	const struct collect_repair *repairs;
	uint32_t repair_count;
};
void world_verdict_set(struct collect_install *install, const struct verdict *verdict);
void world_install_verdict(struct world *world, uint32_t mask, const struct verdict *verdict);

/* Waits at most 20 s for an event of that kind on a peer; fails the test otherwise. */
struct collect_event world_await(struct world *world, uint32_t peer, int kind);

/* Starts an all-reduce of float32 in place, the sum. */
int world_all_reduce_start(struct world *world, uint32_t peer, float *values, size_t count,
                           collect_op **op_out);

/* One all-reduce per peer of mask, run from one thread per peer, checked against rank-order
 * arithmetic: element i of peer r is r + 1 + i % 7 (float32, sum). */
void world_all_reduce_check(struct world *world, uint32_t mask, size_t count);

#endif
