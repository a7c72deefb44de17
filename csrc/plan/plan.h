/*
 * A plan: what one rank does in one collective, as data.
 *
 * The payload is cut into *slices*. Each slice has contributors (all ranks when it is reduced, else
 * one rank) and needers (who must hold it in the end):
 *
 *   collective               slices                        contributors   needers
 *   all_reduce               any number, by owner weights  all            all
 *   reduce                   likewise                      all            root
 *   broadcast                likewise                      root           all
 *   reduce_scatter           parts of rank r's block       all            r
 *   all_gather               parts of rank r's block       r              all
 *   gather                   parts of rank r's block       r              root
 *   scatter                  parts of rank r's block       root           r
 *   all_to_all               source * world + target       source         target
 *   barrier                  one, of a token               all            all
 *
 * A plan has lanes; a lane is an ordered list of steps, all on the one slice of the lane, and no
 * other lane of this rank touches that slice. A slice is cut into chunks of a fixed size; a lane
 * runs its list once per chunk, so a plan's size is independent of the payload. Iterations of a
 * lane start in order; several may be under way at once, each going through its steps in order.
 *
 * Buffers: the caller's input IN (never written), the result OUT, and for each iteration WIRE: the
 * payload of the frame that its last receive brought. A rank that writes OUT of a slice that it
 * does not need uses OUT as scratch: the executor finds room for it.
 *
 * A send names the receiver's lane and step: (lane, step, chunk) is where a frame belongs. A frame
 * that comes before its step's turn waits, and keeps its credit until the step takes it.
 *
 * A send is queued and makes nobody wait: an iteration is over, and another of its lane may begin,
 * when it has passed its last step, whether or not its frames have left. Else direct exchange
 * deadlocks: owners whose results lack credit would not take the contributions that hold it.
 *
 * An executor may limit the iterations of a lane that are under way, except of a lane whose first
 * step receives: there an iteration begins when its frame has come. Else trees that share links
 * deadlock: a frame that waits for the limit holds the credit of one that the limit waits for. Nor
 * does it begin an iteration of a lane before the last one that began has done what it can.
 *
 * opcode               effect on the chunk
 * SEND_IN              frame(IN) to peer
 * SEND_OUT             frame(OUT) to peer; OUT does not change from here on: a frame points into it
 * SEND_COPY            frame(a copy of OUT) to peer: OUT may change afterwards; for small payloads
 * RECV                 OUT = frame from peer
 * RECV_SEND            OUT = frame from peer; forward it to `next`, unchanged
 * RECV_REDUCE          OUT = OUT op frame
 * RECV_REDUCE_OUT      OUT = frame op OUT
 * RECV_REDUCE_IN       OUT = frame op IN
 * IN_REDUCE_RECV       OUT = IN op frame
 * RECV_REDUCE_SEND     frame = frame op IN; forward it to `next`
 * IN_REDUCE_SEND       frame = IN op frame; forward it to `next`
 * OUT_REDUCE_SEND      frame = OUT op frame; forward it to `next`
 * REDUCE_IN            OUT = OUT op IN
 * COPY_IN              OUT = IN
 *
 * The flag COL_STEP_SCALE divides OUT by the number of participants after the step when the
 * operation is an average, and rounds what was accumulated in a wider type: it marks the step that
 * completes the sum of a slice. COL_STEP_FINAL says that OUT then holds the result of that chunk.
 *
 * One rank completes each slice, or several do (exchange, recursive doubling): then all of them
 * evaluate the same expression, operand order included, so that the bits agree.
 */
#ifndef COL_PLAN_PLAN_H
#define COL_PLAN_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "include/collect.h"

#define COL_RANK_NONE 0xffffffffu
#define COL_SLICE_QUANTUM 64u /* bytes; slice bounds are multiples of it, so of every element */
#define COL_PLAN_BYTES_MAX ((uint64_t)1 << 62) /* largest payload that is cut */

enum col_opcode {
	COL_SEND_IN,
	COL_SEND_OUT,
	COL_SEND_COPY,
	COL_RECV,
	COL_RECV_SEND,
	COL_RECV_REDUCE,
	COL_RECV_REDUCE_OUT,
	COL_RECV_REDUCE_IN,
	COL_IN_REDUCE_RECV,
	COL_RECV_REDUCE_SEND,
	COL_IN_REDUCE_SEND,
	COL_OUT_REDUCE_SEND,
	COL_REDUCE_IN,
	COL_COPY_IN,
	COL_OPCODE_COUNT
};

enum {
	COL_STEP_FINAL = 1u,
	COL_STEP_SCALE = 2u,
};

struct col_step {
	uint8_t opcode; /* enum col_opcode */
	uint8_t flags;
	uint16_t peer_lane; /* of a send or forward: the receiver's lane … */
	uint16_t peer_step; /* … and step */
	uint16_t reserved;
	uint32_t peer; /* rank that is sent to or received from; COL_RANK_NONE */
	uint32_t next; /* rank that a *_SEND forwards to; COL_RANK_NONE */
};
_Static_assert(sizeof(struct col_step) == 16, "four steps in a cache line");

struct col_lane {
	uint32_t step_begin; /* index into steps */
	uint32_t step_count;
	uint32_t slice;
};

struct collect_plan {
	int collective;
	int algorithm;
	char name[COLLECT_NAME_BYTES_MAX]; /* of a definition; else empty */
	uint32_t world;
	uint32_t rank;
	uint32_t root; /* COL_RANK_NONE */
	uint32_t slice_count;
	uint32_t parts; /* slices of a block, of collectives with blocks; else 1 */
	uint32_t lane_count;
	uint32_t step_count;
	uint32_t lane_capacity;
	uint32_t step_capacity;
	struct col_lane *lanes; /* owned */
	struct col_step *steps; /* owned */
	uint32_t *weights;      /* slice_count owner weights; owned; NULL: equal */
	uint64_t weight_sum;    /* of the weights, 1…2^32; slice_count when they are equal */
	bool is_rank_ordered;   /* every sum is ((0 op 1) op 2) … : bits like direct's */
};

/* Opcode predicates. */
int col_opcode_receives(int opcode); /* needs a frame from peer */
int col_opcode_sends(int opcode);    /* sends to peer (SEND_*) or next (RECV_*SEND) */
int col_opcode_reads_in(int opcode);
int col_opcode_writes_out(int opcode);
const char *col_opcode_name(int opcode);

/* Slices of the payload that has no blocks; collectives with blocks have world * parts, all_to_all
 * has world * world. */
bool col_collective_has_blocks(int collective);
/* Who contributes to a slice and who needs it, as in the table above. */
bool col_plan_contributes(const struct collect_plan *plan, uint32_t slice, uint32_t rank);
bool col_plan_needs(const struct collect_plan *plan, uint32_t slice, uint32_t rank);

/* The plan of `rank`. recipe->algorithm is not AUTO; root is a rank, or COL_RANK_NONE where the
 * collective has none. COLLECT_E_INVALID (also: the algorithm cannot do the collective),
 * COLLECT_E_MEMORY. */
int col_plan_build(const struct collect_recipe *recipe, int collective, uint32_t world,
                   uint32_t root, uint32_t rank, struct collect_plan **plan_out);
void col_plan_destroy(struct collect_plan **plan);

struct col_span {
	uint64_t begin; /* bytes */
	uint64_t end;
};

/*
 * The part of `bytes` (at most 2^62) that is slice `slice` of a payload without blocks: quanta in
 * proportion to the owner weights, integers only, the same on every rank. Slices are contiguous, in
 * order, and cover [0, bytes). With weights the cost grows with `slice`: keep what is asked for
 * often.
 */
struct col_span col_plan_slice(const struct collect_plan *plan, uint32_t slice, uint64_t bytes);

/* The same for part `part` of a block of `bytes`. */
struct col_span col_plan_part(const struct collect_plan *plan, uint32_t part, uint64_t bytes);

/* Writes the plan as text, cut off at capacity; returns the length it needs without the
 * terminating zero. */
size_t col_plan_print(const struct collect_plan *plan, char *text_out, size_t capacity);

#endif
