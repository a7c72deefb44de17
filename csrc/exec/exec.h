/*
 * The executor: runs any plan for one operation, pipelined over chunks.
 *
 * Each lane runs up to COL_EXEC_DEPTH iterations at once, each on its own chunk, each through
 * the lane's steps in order; a lane that begins by receiving runs as many as frames have begun
 * (plan.h says why). A step that receives waits for its frame; a send is queued and does
 * not wait, nor does the lane's next iteration wait for it (plan.h says why). A frame
 * that comes before its step is kept; how many can come is bounded by the links' credit.
 *
 * Sums and products of 16-bit floats are kept in float32 between the steps of an iteration, and
 * rounded when the sum is complete, or must leave: so what one rank adds up is rounded once.
 *
 * A source may still be in the making when a run starts: then a step that reads IN waits until its
 * chunk, and every chunk before it in the lane, is produced. So each lane keeps its order, and the
 * others see a rank that is slow, nothing new. Were chunks sent as they come, ahead of others of
 * their lane, they would hold credit that those need, and members who go by the order would wait
 * for ever: the tests find such circles from 4 ranks on.
 *
 * Owner: whoever holds the engine's baton. It knows ranks, not peers: its owner maps them.
 */
#ifndef COL_EXEC_EXEC_H
#define COL_EXEC_EXEC_H

#include <stdbool.h>

#include "exec/layout.h"
#include "exec/ranges.h"
#include "kernels/kernels.h"
#include "plan/plan.h"
#include "transport/link.h"
#include "wire/frame.h"

/* Chunks of one lane under way: enough that a send, a reduction and a receive overlap. */
#define COL_EXEC_DEPTH 8u

struct col_exec;

struct col_exec_events {
	/* Sends to a rank. frame: lane, step, offset (in the slice) and length are set. payload and
	 * buffer as for col_link_send; token comes back through col_exec_sent. */
	void (*send)(void *user, uint32_t rank, struct col_frame *frame, const uint8_t *payload,
	             struct col_buffer *buffer, void *token);
	/* `bytes` of payload from a rank were consumed. */
	void (*consumed)(void *user, uint32_t rank, uint32_t bytes);
	/* The whole result is in place and everything was sent. Called once per run, last. */
	void (*done)(void *user);
	/* Out of memory: the run cannot go on, and is to be stopped. Called once per run, last. */
	void (*starved)(void *user);
	/* Of a run that is watched: a chunk has become final. */
	void (*finished)(void *user);
};

struct col_run {
	struct col_layout layout; /* its memory is borrowed until done or stopped */
	int dtype;
	int reduce_op;
	const struct col_ranges *produced; /* bytes of the source that may be read; borrowed likewise;
	                                    * NULL: all */
};

struct col_iteration {
	struct col_lane_run *lane;
	uint64_t chunk;
	uint32_t pc;  /* next step */
	float *total; /* what OUT stands for, while it is kept in float32; else NULL */
};

struct col_early {
	struct col_early *next;
	uint32_t step;
	uint64_t chunk;
	struct col_buffer *buffer; /* NULL: already in OUT */
};

struct col_lane_run {
	struct col_exec *exec;
	uint32_t index;
	bool writes_out; /* some step of it does */
	bool is_begun_by_frames; /* its first step receives */
	bool is_queued;  /* in the list of lanes to look at */
	bool is_done;
	struct col_lane_run *next;
	const uint8_t *in; /* the lane's slice */
	uint8_t *out;
	uint64_t bytes;
	uint64_t readable;   /* chunks of IN that may be read: those before it */
	uint64_t scratch_at; /* where OUT lies in the scratch; UINT64_MAX: it does not */
	uint64_t iterations;
	uint64_t begun;    /* iterations [completed, begun) are under way */
	uint64_t completed;
	uint32_t sends_pending; /* frames of all iterations that are queued and not yet written */
	struct col_iteration *window; /* by chunk modulo capacity; `few`, or owned */
	uint32_t capacity;
	struct col_iteration few[COL_EXEC_DEPTH];
	struct col_early *early;
};

struct col_exec {
	const struct collect_plan *plan; /* borrowed */
	const struct col_exec_events *events;
	void *user;
	struct col_buffers *buffers;
	const struct col_kernels *kernels;
	uint32_t chunk_bytes;
	struct col_pool earlies;
	struct col_pool totals;     /* a chunk's elements in float32 */
	struct col_lane_run *lanes; /* plan->lane_count; owned */
	uint8_t *goes_straight;     /* per step: its frame may land in OUT as soon as it comes; owned */
	int dtype;
	int reduce_op;
	uint32_t element_bytes;
	uint32_t divisor; /* of the step that scales */
	const uint8_t *source;
	const struct col_ranges *produced; /* of this run */
	bool is_watched;  /* somebody wants to know what is final */
	bool is_running;
	bool is_advancing;
	bool is_starved;
	uint32_t lanes_left;
	struct col_lane_run *queue; /* lanes to look at */
};

/* For one plan; many runs. It is not moved afterwards. COLLECT_E_MEMORY. */
int col_exec_init(struct col_exec *exec, const struct collect_plan *plan, uint32_t chunk_bytes,
                  struct col_buffers *buffers, const struct col_exec_events *events, void *user);
/* Zeroed memory is fine. */
void col_exec_fini(struct col_exec *exec);

/* Lays a run out. Returns how many bytes of scratch it needs. */
uint64_t col_exec_lay_out(struct col_exec *exec, const struct col_run *run);
/* Begins the run that was laid out; may be done before it returns. scratch: 64-byte aligned,
 * borrowed until done or stopped. */
void col_exec_start(struct col_exec *exec, uint8_t *scratch);
/* Forgets the run: nothing of its memory is touched by the executor any more. The caller purges the
 * links. Consumes frames that were kept. */
void col_exec_stop(struct col_exec *exec);

/* More bytes of the source are in `produced`. */
void col_exec_produced(struct col_exec *exec);
/* From here on, for this run, `finished` is called. */
void col_exec_watch(struct col_exec *exec);
/* Some bytes of `target`, the run's, that are final and not in `known`: they hold the result and do
 * not change any more. Empty when there are none now. */
struct col_range col_exec_final_next(const struct col_exec *exec, const uint8_t *target,
                                     const struct col_ranges *known);

/* Where the payload of a data frame from `rank` goes. */
struct col_sink col_exec_place(struct col_exec *exec, uint32_t rank, const struct col_frame *frame);
/* It is there. Takes sink->buffer. COLLECT_E_MEMORY: the frame is forgotten, and nobody will send
 * it again. */
int col_exec_arrived(struct col_exec *exec, const struct col_frame *frame,
                     const struct col_sink *sink);
/* Whether some iteration that has begun waits for a frame from `rank`. */
bool col_exec_awaits(const struct col_exec *exec, uint32_t rank);
/* A frame was written. */
void col_exec_sent(void *token);

/* Between exec.c and lane.c. */
static inline struct col_iteration *col__exec_iteration(const struct col_lane_run *lane,
                                                        uint64_t chunk)
{
	return &lane->window[chunk % lane->capacity];
}
void col__exec_lane_advance(struct col_lane_run *lane);
/* Bytes of a chunk of the lane's slice; 0: beyond its end. */
static inline uint32_t col__exec_chunk_bytes(const struct col_lane_run *lane, uint64_t chunk)
{
	if (chunk >= lane->iterations)
		return 0;
	uint64_t rest = lane->bytes - chunk * lane->exec->chunk_bytes;
	return rest < lane->exec->chunk_bytes ? (uint32_t)rest : lane->exec->chunk_bytes;
}

#endif
