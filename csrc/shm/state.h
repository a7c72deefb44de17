/* What the files of this module share. */
#ifndef COL_SHM_STATE_H
#define COL_SHM_STATE_H

#include "kernels/kernels.h"
#include "shm/layout.h"

/* An allocation of another rank, mapped here. */
struct col__mapping {
	uint64_t inode; /* 0: none */
	uint64_t device;
	uint64_t bytes;
	uint8_t *base;
};

enum col__path {
	COL__PATH_NONE, /* no operation in flight */
	COL__PATH_POST,
	COL__PATH_ANNOUNCED, /* waits for the others' announcements */
	COL__PATH_EXCHANGE,
	COL__PATH_PIPELINE,
	COL__PATH_DIRECT
};

/* What the middle of the pipeline does with what it has of a block. */
enum col__middle {
	COL__MIDDLE_REDUCE, /* own source and inboxes, into the outbox or the target */
	COL__MIDDLE_OFFER,  /* own source into the outbox */
	COL__MIDDLE_TAKE    /* inboxes into the target */
};

/* The operation in flight. Pieces: [at[j], at[j + 1]) is rank j's part, in bytes. */
struct col__flow {
	enum col__path path;
	struct col_shm_call call;
	size_t element_bytes;
	size_t source_at[COL_SHM_RANKS_MAX + 1];
	size_t target_at[COL_SHM_RANKS_MAX + 1];
	uint8_t *target;        /* the call's, or the area */
	uint8_t *area;          /* holds the result of a call in place until it is done */
	size_t area_bytes;
	size_t area_capacity;
	enum col__middle middle;
	uint32_t divisor;
	size_t shift;           /* of what is in the slots, when that is short */
	uint64_t block_count;   /* 0: not known before all have announced */
	uint64_t copied;        /* blocks of this operation that are through a stage */
	uint64_t reduced;
	uint64_t fetched;
	bool has_copies;        /* the stages that this collective has, on any rank */
	bool has_fetches;
	bool is_ragged;         /* pieces of a length that only their two ends know */
	bool is_scaled;         /* sources are multiplied on their way into the segment */
	bool is_streaming;      /* targets bypass the cache */
	bool is_deferred;       /* the target is written only when the operation is done */
	bool needs_announcements;
	bool reads_sources;     /* of the others, where they are */
	bool writes_targets;
	bool is_committed;
	bool is_done;           /* by an abort that came when it was committed */
	bool is_finished;       /* the own part of the direct path */
	bool is_broken;         /* an announcement was wrong */
	uint32_t direct_piece;
	size_t direct_at;       /* bytes of the own piece that are through, on the direct path */
	const uint8_t *sources[COL_SHM_RANKS_MAX]; /* where reads_sources */
	uint8_t *targets[COL_SHM_RANKS_MAX];       /* where writes_targets */
};

/* How one reader's slots are written; see lend.c. */
struct col__lending {
	uint32_t pieces;    /* before the next trial */
	uint8_t votes;      /* of trials, against what is done */
	uint8_t doublings;  /* of the pieces between trials */
	bool is_streaming;
};

struct col_shm {
	struct segment_header *header;
	struct segment_rank *ranks;
	uint8_t *posts;
	uint8_t *outboxes;
	uint8_t *inboxes;
	size_t bytes;
	uint32_t rank;
	uint32_t rank_count;
	uint32_t post_bytes;
	uint32_t chunk_bytes;
	uint32_t slot_count;
	size_t posts_bytes;   /* of each rank */
	size_t post_at;       /* of the last post; the same on all ranks */
	size_t post_end;
	bool is_aborted;      /* by this rank */
	bool has_lent_target; /* the last operation's target is written by others */
	bool is_fenced;       /* every post needs a fence before the sleepers are looked at */
	uint32_t culprit;
	uint32_t processor;   /* as told */
	uint64_t missing;     /* a bit for each rank that was waited for, when last looked */
	uint64_t post_number;
	uint64_t long_number;
	uint64_t block_base;  /* blocks of all operations before the one in flight */
	uint64_t least_copied; /* of all ranks, when last looked at */
	uint64_t least_reduced;
	uint64_t least_fetched;
	const struct col_kernels *kernels;
	col_shm_wake_fn *wake;
	void *user;
	struct col__flow flow;
	struct col__lending lendings[COL_SHM_RANKS_MAX]; /* by reader; self: for all ranks */
	uint64_t heap_releases; /* when the own table was last scrubbed */
	uint32_t entry_since[COL__ENTRIES_MAX];
	uint32_t mapped_version[COL_SHM_RANKS_MAX];
	uint32_t tried_version[COL_SHM_RANKS_MAX];
	struct col__mapping (*mappings)[COL__ENTRIES_MAX]; /* by rank */
	char name[COL_SHM_NAME_BYTES];
	bool is_linked;       /* its name may still exist */
};

/* ---- segment.c ---- */

/* Release store, and a wake-up for who sleeps. */
void col__post(struct col_shm *shm, _Atomic uint64_t *flag, uint64_t value);
void col__abort_post(struct col_shm *shm);
static inline bool col__is_aborted(const struct col_shm *shm)
{
	return atomic_load_explicit(&shm->header->is_aborted, memory_order_acquire) != 0;
}

/* ---- lend.c ---- */

/* Copies into a slot that `reader` reads; self: that all ranks read. */
void col__lend(struct col_shm *shm, uint32_t reader, uint8_t *slot, const uint8_t *data,
               size_t bytes);

/* ---- shape.c: who gives and gets what ---- */

/* Fills flow from the call; 0 or COLLECT_E_*. */
int col__shape(struct col_shm *shm, const struct col_shm_call *call);
/* What the longest post of any rank would be; SIZE_MAX if ranks cannot agree without talking. */
size_t col__shape_post_bytes(const struct col_shm *shm);

/* ---- post.c ---- */

/* longest: of all ranks' posts, in bytes. */
void col__post_begin(struct col_shm *shm, size_t longest);
int col__post_advance(struct col_shm *shm);
bool col__post_is_seen(struct col_shm *shm);
void col__post_take(struct col_shm *shm);

/* ---- pipeline.c ---- */

int col__pipeline_begin(struct col_shm *shm);
int col__pipeline_advance(struct col_shm *shm);
bool col__pipeline_is_committed(struct col_shm *shm);
void col__pipeline_complete(struct col_shm *shm);
/* Whether this rank gets anything. */
bool col__target_is_mine(const struct col_shm *shm);
/* Whether writing the target destroys some of the source. */
bool col__target_hides_source(const struct col_shm *shm);
/* The target is a private area for now. COLLECT_E_MEMORY. */
int col__area_take(struct col__flow *flow, size_t bytes);

/* ---- direct.c ---- */

/* Announces the operation; flow->needs_announcements says whether the others' announcements must be
 * read before anything else. */
void col__announce(struct col_shm *shm);
/* Of those who have announced the operation in flight. */
bool col__digests_agree(struct col_shm *shm);
/* STUCK until all have announced; then MOVED once the path is chosen. */
int col__announcements_read(struct col_shm *shm);
int col__direct_begin(struct col_shm *shm);
int col__direct_advance(struct col_shm *shm);
bool col__direct_is_committed(struct col_shm *shm);
void col__direct_complete(struct col_shm *shm);

/* ---- heap.c: memory of collect_shared_alloc ---- */

struct col__place {
	uint64_t inode;
	uint64_t device;
	uint64_t bytes; /* of the whole allocation */
	uint64_t offset;
	int descriptor;
};
/* Whether [memory, memory + bytes) lies in one allocation. */
bool col__heap_find(const void *memory, size_t bytes, struct col__place *place_out);
/* Allocations that are gone, ever; and whether one is still there. */
uint64_t col__heap_releases(void);
bool col__heap_has(uint64_t inode, uint64_t device);
/* Maps another process's allocation; NULL when that is impossible. */
uint8_t *col__heap_map(uint32_t process, uint32_t descriptor, uint64_t inode, uint64_t device,
                       uint64_t bytes);
void col__heap_unmap(uint8_t *base, uint64_t bytes);
/* Gives the allocation around `memory` new pages at the same address with the same contents. */
int col__heap_disown(const void *memory);

#endif
