/*
 * A plan: what one rank does in one collective, as data.
 *
 * A plan has lanes; a lane is an ordered list of steps. The payload is cut into *slices* (one
 * owner each) by one integer formula, and each slice into chunks of a fixed size. A lane runs its
 * list once per chunk index: iteration c works on chunk c of every slice that its steps name.
 * Iterations of a lane start in order; several may be under way at once, each going through its
 * steps in order. A step on a slice that has no chunk c is skipped, by the sender and the receiver
 * alike. So a plan's size is independent of the payload.
 *
 * Buffers: the caller's input IN (never written), the result OUT, and for each iteration of a lane
 * WIRE: the payload of the frame that its last receive brought.
 *
 * A send names the receiver's lane and step: (lane, step, chunk) is where a frame belongs. A frame
 * that comes before its step's turn waits, and keeps its credit until the step takes it.
 *
 * A send is queued and makes nobody wait: an iteration is over, and another of its lane may begin,
 * when it has passed its last step, whether or not its frames have left. Else direct exchange
 * deadlocks: owners whose results lack credit would not take the contributions that hold it.
 *
 * opcode               effect on chunk c of the step's slice
 * SEND_IN              frame(IN) to peer
 * SEND_OUT             frame(OUT) to peer; OUT must be final, so that a frame may point into it
 * RECV                 OUT = frame from peer
 * RECV_SEND            OUT = frame from peer; forward it to `next`, unchanged
 * RECV_REDUCE          OUT = OUT op frame
 * RECV_REDUCE_IN       OUT = frame op IN
 * IN_REDUCE_RECV       OUT = IN op frame
 * RECV_REDUCE_SEND     frame = frame op IN; forward it to `next`
 * REDUCE_IN            OUT = OUT op IN
 * COPY_IN              OUT = IN
 *
 * The flag COL_STEP_SCALE divides OUT by the number of participants after the step when the
 * operation is an average. It marks the one step in the world that completes the sum of a slice.
 * COL_STEP_FINAL says that OUT then holds the result of that chunk.
 */
#ifndef COL_PLAN_PLAN_H
#define COL_PLAN_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "include/collect.h"

#define COL_RANK_NONE 0xffffffffu
#define COL_SLICE_QUANTUM 64u /* bytes; slice bounds are multiples of it, so of every element */
#define COL_PLAN_BYTES_MAX ((uint64_t)1 << 62) /* largest payload that is cut */

enum col_opcode {
	COL_SEND_IN,
	COL_SEND_OUT,
	COL_RECV,
	COL_RECV_SEND,
	COL_RECV_REDUCE,
	COL_RECV_REDUCE_IN,
	COL_IN_REDUCE_RECV,
	COL_RECV_REDUCE_SEND,
	COL_REDUCE_IN,
	COL_COPY_IN,
	COL_OPCODE_COUNT
};

enum {
	COL_STEP_FINAL = 1u,
	COL_STEP_SCALE = 2u,
};

/* 64 bytes: one cache line. */
struct col_step {
	uint16_t opcode; /* enum col_opcode */
	uint16_t flags;
	uint32_t slice;
	uint32_t peer;      /* rank that is sent to or received from; COL_RANK_NONE */
	uint32_t next;      /* rank that a *_SEND forwards to; COL_RANK_NONE */
	uint16_t peer_lane; /* of a send or forward: the receiver's lane … */
	uint16_t peer_step; /* … and step */
	uint8_t reserved[44];
};
_Static_assert(sizeof(struct col_step) == 64, "a step is one cache line");

struct col_lane {
	uint32_t step_begin; /* index into steps */
	uint32_t step_count;
	uint32_t slice_first; /* the lane's steps name slices in … */
	uint32_t slice_last;  /* … [slice_first, slice_last]: bounds its iterations */
};

struct collect_plan {
	int algorithm;
	uint32_t world;
	uint32_t rank;
	uint32_t slice_count;
	uint32_t lane_count;
	uint32_t step_count;
	uint32_t lane_capacity;
	uint32_t step_capacity;
	struct col_lane *lanes; /* owned */
	struct col_step *steps; /* owned */
	uint32_t *weights;      /* slice_count owner weights; owned; NULL: equal */
	uint64_t weight_sum;    /* of the weights, 1…2^32; slice_count when they are equal */
};

/* Opcode predicates. */
int col_opcode_receives(int opcode); /* needs a frame from peer */
int col_opcode_sends(int opcode);    /* sends to peer (SEND_*) or next (RECV_*SEND) */
int col_opcode_reads_in(int opcode);
int col_opcode_writes_out(int opcode);
const char *col_opcode_name(int opcode);

/* Builders. world 1…COLLECT_RANKS_MAX, rank < world. World 1 is one COPY_IN lane.
 * COLLECT_E_INVALID, COLLECT_E_MEMORY. The builder of `algorithm`: */
int col_plan_build(int algorithm, uint32_t world, uint32_t rank, struct collect_plan **plan_out);
int col_plan_build_direct(uint32_t world, uint32_t rank, struct collect_plan **plan_out);
int col_plan_build_ring(uint32_t world, uint32_t rank, struct collect_plan **plan_out);
int col_plan_build_star(uint32_t world, uint32_t rank, struct collect_plan **plan_out);
void col_plan_destroy(struct collect_plan **plan);

/* For builders: an empty plan with room, and appending to it. A lane gets the steps that are
 * appended after it. */
int col_plan_create(int algorithm, uint32_t world, uint32_t rank, uint32_t slice_count,
                    uint32_t lane_capacity, uint32_t step_capacity, struct collect_plan **plan_out);
void col_plan_lane_begin(struct collect_plan *plan);
void col_plan_step_add(struct collect_plan *plan, struct col_step step);

/* The plan of a world of one. */
int col_plan_build_alone(int algorithm, struct collect_plan **plan_out);

/* Appends a lane in which all inputs of `slice` go straight to `owner`, are reduced there in rank
 * order, and the result goes straight back. At most 2 world - 1 steps on the owner, 2 elsewhere. */
void col_plan_exchange_add(struct collect_plan *plan, uint32_t slice, uint32_t owner);

struct col_span {
	uint64_t begin; /* bytes */
	uint64_t end;
};

/*
 * Bytes of slice `slice` when `bytes` (at most 2^62) are cut: quanta in proportion to the owner
 * weights, integers only, the same on every rank. Slices are contiguous, in order, and cover
 * [0, bytes). With weights the cost grows with `slice`: keep what is asked for often.
 */
struct col_span col_plan_slice(const struct collect_plan *plan, uint32_t slice, uint64_t bytes);

/* How many iterations a lane runs: the chunks of its longest slice. None for 0 bytes. */
uint64_t col_plan_iterations(const struct collect_plan *plan, uint32_t lane, uint64_t bytes,
                             uint32_t chunk_bytes);

/* Writes the plan as text, cut off at capacity; returns the length it needs without the
 * terminating zero. */
size_t col_plan_print(const struct collect_plan *plan, char *text_out, size_t capacity);

#endif
