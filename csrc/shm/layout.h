/*
 * What lies in the segment, in this order:
 *
 *	header             one page: what this is, who has attached, who sleeps or has aborted
 *	ranks              struct segment_rank each: flags and announcements, each line with one writer
 *	posts              [rank][posts_bytes]
 *	outboxes           [owner][slot][chunk_bytes]
 *	inboxes            [owner][from][slot][chunk_bytes]
 *
 * A line is 128 bytes: two cache lines, because processors fetch them in pairs.
 */
#ifndef COL_SHM_LAYOUT_H
#define COL_SHM_LAYOUT_H

#include <stdatomic.h>

#include "shm/shm.h"

#define COL__LINE_BYTES 128
#define COL__LINE _Alignas(COL__LINE_BYTES)
#define COL__SEGMENT_MAGIC 0x31304d4853434c43ull /* "CLCSHM01" */
#define COL__SEGMENT_VERSION 1u
#define COL__INLINE_BYTES 48u  /* of a post that fits beside its flag */
#define COL__ENTRIES_MAX 64u   /* allocations of one rank that others may map */

struct segment_header {
	_Atomic uint64_t magic; /* written last */
	uint32_t version;
	uint32_t rank_count;
	uint64_t nonce;
	uint64_t bytes;
	uint32_t post_bytes;
	uint32_t chunk_bytes;
	uint32_t slot_count;
	_Atomic uint32_t attached_count;
	_Atomic uint64_t attached; /* a bit for each rank */
	/* Rarely written, by any rank: */
	COL__LINE _Atomic uint32_t is_aborted;
	_Atomic uint64_t sleeping;  /* a bit for each rank */
	_Atomic uint64_t unfenced;  /* a bit for each rank that posts without membarrier's help */
};

struct segment_post {
	COL__LINE _Atomic uint64_t number; /* of the post, counted from 1 */
	uint32_t digest;
	uint32_t unused;
	_Alignas(16) uint8_t inlined[COL__INLINE_BYTES];
};

/* An array of a call, where it lies in the rank's table of allocations. */
struct segment_array {
	uint32_t entry; /* COL__ENTRIES_MAX: in private memory */
	uint32_t since; /* version of the table from which on the entry says this */
	uint64_t offset;
};

/* Of one long operation. Rewritten when the next one starts: then all ranks have read it. */
struct segment_announcement {
	COL__LINE _Atomic uint64_t number; /* of the operation among the long ones, counted from 1 */
	_Atomic uint64_t digest; /* of the call, below the number's low half: read at any time */
	uint32_t piece_blocks;   /* blocks of this rank's longest piece */
	struct segment_array source;
	struct segment_array target;
	uint32_t mapped[COL_SHM_RANKS_MAX]; /* version of each rank's table that is mapped here */
};

/* Where to find an allocation: /proc/<process>/fd/<descriptor>, if its identity is that. */
struct segment_entry {
	_Atomic uint64_t inode; /* 0: none */
	_Atomic uint64_t device;
	_Atomic uint64_t bytes;
	_Atomic uint32_t process;
	_Atomic uint32_t descriptor;
};

struct segment_flag {
	COL__LINE _Atomic uint64_t value;
};

struct segment_rank {
	struct segment_post posts[2];
	struct segment_flag processor; /* on which it was seen last; rarely changes */
	struct segment_flag copied;   /* blocks that are in the others' inboxes */
	struct segment_flag reduced;  /* blocks that this owner has taken from its inbox … */
	struct segment_flag fetched;  /* … and from the others' outboxes */
	struct segment_flag finished; /* long operations that wrote to others' targets, and have */
	struct segment_announcement announcement;
	COL__LINE _Atomic uint32_t table_version; /* odd while the table changes */
	struct segment_entry table[COL__ENTRIES_MAX];
};

#endif
