/*
 * Collectives among the ranks of one host, over one shared segment.
 *
 * A segment belongs to one epoch: its ranks, and no others, attach to it once, and it is never used
 * again. Every word in it has one writer, and is published by a release and read by an acquire;
 * there is no lock, so a rank that dies leaves nothing locked. Nothing here blocks, polls sockets
 * or knows who is alive: the caller does, and ends an operation that a dead rank will never
 * finish with col_shm_abort.
 *
 * One operation is in flight at a time. All ranks start the same ones in the same order.
 *
 * Paths, from the shortest message to the longest:
 *
 *	post      every rank posts what it gives, once; who sees all posts takes what it needs from
 *	          them, in rank order. One synchronisation; the next post lies elsewhere.
 *	exchange  the same in chunks, for all-reduce of two ranks.
 *	pipeline  chunk by chunk: each rank copies what others own into their inboxes, owners reduce
 *	          while the chunk is in the cache, and everybody copies from the owners' outboxes.
 *	direct    sources that lie in memory of collect_shared_alloc are read where they are, and
 *	          when the targets do too, written where they are: no copies.
 *
 * What ranks read of each other is written to slots that are used in turn, through the cache or
 * past it: each rank finds out which costs less (lend.c). What it finds may differ from rank to
 * rank and changes nothing but time.
 *
 * The bits of a result are those of a reduction in rank order, whatever the path.
 *
 * Failure. An operation is done on a rank when the last thing that any rank had to give is in the
 * segment (or written), and no rank had aborted by then. So if it is done anywhere, every rank that
 * has aborted can tell (col_shm_is_whole), and complete its own result by itself
 * (col_shm_complete). Until an operation is done its source is untouched, also when the target
 * is the source. After col_shm_abort this rank writes no memory of another. What a rank that was
 * given up for dead may still write are the targets of its last operation, when they were
 * shared: col_shm_disown keeps it out of them.
 *
 * Threads: one at a time for one segment; different segments are independent.
 */
#ifndef COL_SHM_SHM_H
#define COL_SHM_SHM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "include/collect.h"

#define COL_SHM_RANKS_MAX 64u  /* of one host; the inboxes grow with its square */
#define COL_SHM_NAME_BYTES 64u /* of a name, with its terminating zero */

struct col_shm;

/* `rank` has armed and sleeps, and something it may wait for has happened. Called from
 * col_shm_start, _advance and _abort; must not call back into the segment. */
typedef void col_shm_wake_fn(void *user, uint32_t rank);

struct col_shm_options {
	uint64_t nonce;      /* of the epoch; a segment with another one is refused */
	uint32_t rank;
	uint32_t rank_count; /* 1…COL_SHM_RANKS_MAX */
	uint32_t post_bytes; /* most that a rank posts; multiple of 4096. 0: by rank_count */
	uint32_t chunk_bytes; /* multiple of 4096. 0: by rank_count */
	uint32_t slot_count; /* chunks in flight from one rank to another, 2…8. 0: by rank_count */
	bool is_small;       /* there may be many: slots are fewer and go round in private caches */
	col_shm_wake_fn *wake;
	void *user;
};

/*
 * The name is a file name that nobody can guess; the file is mode 0600, and gone when the last rank
 * has attached or its creator closes. All ranks give the same options but for rank, wake and user.
 * The creator is attached by creating.
 *
 * COLLECT_E_INVALID; COLLECT_E_MEMORY; COLLECT_E_SYSTEM: errno tells (ENOSPC: shared memory is
 * full; EPROTO: the file is not such a segment).
 */
int col_shm_create(const char *name, const struct col_shm_options *options,
                   struct col_shm **shm_out);
int col_shm_attach(const char *name, const struct col_shm_options *options,
                   struct col_shm **shm_out);
/* An operation in flight is aborted. Sets *shm to NULL; accepts NULL. */
void col_shm_close(struct col_shm **shm);
/* Whether all ranks have attached. Operations may start earlier. */
bool col_shm_is_attached(const struct col_shm *shm);

/*
 * As struct collect_call. Pointers are borrowed until the operation is done or aborted; counts and
 * target_counts have rank_count entries and are borrowed during the call.
 */
struct col_shm_call {
	int collective;      /* enum collect_collective */
	int dtype;
	int reduce_op;
	uint32_t root;       /* a rank */
	uint32_t digest;     /* of the call: all ranks must give the same */
	const void *source;
	void *target;
	uint64_t count;
	const uint64_t *counts;
	const uint64_t *target_counts;
	double factor;
};

/* What col_shm_advance answers, or a negative COLLECT_E_*. */
enum col_shm_progress {
	COL_SHM_STUCK = 0, /* nothing to do before another rank does something */
	COL_SHM_MOVED = 1, /* something was done: call again */
	COL_SHM_DONE = 2
};

/* Begins an operation; never waits. COLLECT_E_BUSY: one is in flight. COLLECT_E_INVALID,
 * COLLECT_E_UNAVAILABLE (no such reduction), COLLECT_E_MEMORY, COLLECT_E_ABORTED. */
int col_shm_start(struct col_shm *shm, const struct col_shm_call *call);

/* Does what can be done now, at most about a MiB of it. COLLECT_E_ABORTED: some rank has aborted.
 * COLLECT_E_INVALID: a rank called something else (col_shm_culprit). COLLECT_E_SYSTEM: a rank's
 * arrays are not where it says. All are final: abort. */
int col_shm_advance(struct col_shm *shm);

/* Advances, and while it is stuck yields for at most so many rounds: at once when a rank that is
 * waited for was last seen on this processor, else after some microseconds of pauses. As
 * col_shm_advance. */
int col_shm_spin(struct col_shm *shm, uint32_t rounds);

/* Starts and spins: the shortest way for short messages. */
int col_shm_run(struct col_shm *shm, const struct col_shm_call *call, uint32_t rounds);

/* The rank that called something else. */
uint32_t col_shm_culprit(const struct col_shm *shm);

/* Before a sleep: asks the others to wake this rank. Then advance once more, and only if that is
 * STUCK sleep: false if a wake-up might be missed all the same, so that the sleep must be
 * short (the system lacks membarrier). A wake-up disarms. */
bool col_shm_arm(struct col_shm *shm);
void col_shm_disarm(struct col_shm *shm);

/* Final: no operation is done on any rank from here on that was not by then whole on all. Nothing
 * is written to another's memory afterwards. col_shm_advance says once more whether the operation
 * in flight is done (it was when the abort came) or aborted. */
void col_shm_abort(struct col_shm *shm);

/* After an abort (of this rank), of an operation that is not done: whether it is complete, but for
 * what col_shm_complete does. The answer can only change to true. */
bool col_shm_is_whole(struct col_shm *shm);

/* Of a whole operation: its result is in the target when this returns. */
void col_shm_complete(struct col_shm *shm);

/* After an abort, and after col_shm_complete if that is called: gives the target of the operation
 * in flight new pages (the same address and contents), if a rank that is not known to have stopped
 * could write to it. COLLECT_E_SYSTEM, COLLECT_E_MEMORY: it still could. */
int col_shm_disown(struct col_shm *shm);

/* The memory of collect_shared_alloc that was freed and is kept for the next allocation is given
 * back to the system. */
void col_shm_heap_trim(void);

#endif
