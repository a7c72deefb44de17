/*
 * A communicator: one group's data plane on this peer.
 *
 * State: an epoch with its members and their links, the ops that were submitted, and the result of
 * the last one. Ops are a queue; only its head runs (window 1, docs/protocol.md section 2). What
 * the head does:
 *
 *   phase       meaning                                          left by
 *   WAITING     no view yet, or frozen                           install
 *   RUNNING     the executor runs it in this epoch               done, freeze, abort
 *   REPAIRING   its result comes from a holder                   complete, freeze, abort
 *   ABANDONED   the caller aborted it; a verdict must settle it  install
 *
 * Owner: whoever holds the engine's baton; ops' status is atomic.
 */
#ifndef COL_COMM_COMM_H
#define COL_COMM_COMM_H

#include "comm/engine.h"
#include "exec/exec.h"

/* Ops that one comm may have pending. */
#define COL_OPS_MAX 4096u
/* Links to peers that are not (yet) members. */
#define COL_STRANGERS_MAX 256u

enum col_phase {
	COL_PHASE_WAITING,
	COL_PHASE_RUNNING,
	COL_PHASE_REPAIRING,
	COL_PHASE_ABANDONED
};

struct collect_op {
	struct collect_comm *comm;
	struct collect_op *next;
	atomic_int status; /* COLLECT_PENDING until everything else is final */
	atomic_uint holds; /* the caller's and the comm's */
	const uint8_t *source;
	uint8_t *target;
	size_t bytes;
	size_t count;
	int dtype;
	int reduce_op;
	uint32_t digest;      /* of the call */
	bool is_given_up;     /* completed as aborted for the caller; unsettled for the others */
	bool is_late;
	uint64_t deadline_ns; /* 0: none */
	uint64_t number;
	uint64_t attempt;
	uint32_t attempts;
	uint32_t participants;
	uint64_t submitted_ns;
	uint64_t completed_ns;
	int64_t token; /* what an op without elements reduces, so that it depends on everybody too */
};

/* A frame that came before its op or epoch. */
struct col_waiting_frame {
	struct col_waiting_frame *next;
	struct col_link *link;
	struct col_frame frame;
	struct col_buffer *buffer;
};

/* A result area. */
struct col_result {
	uint8_t *bytes;
	size_t capacity;
};

struct collect_comm {
	struct collect_engine *engine;
	struct collect_comm *next;
	uint64_t key;
	uint64_t self;

	/* The view. */
	uint64_t epoch; /* 0: none yet */
	bool is_frozen;
	uint32_t self_rank;
	uint32_t member_count;
	uint64_t *members;            /* incarnations by rank; owned */
	struct col_link **by_rank;    /* NULL for self; owned array of borrowed links */
	struct collect_plan *plan;    /* owned */
	struct col_exec exec;
	struct col_link *links; /* list; owned */

	/* Operations. */
	struct collect_op *ops_head; /* the one in flight */
	struct collect_op *ops_tail;
	uint32_t ops_count;
	uint64_t submitted; /* number of the last submitted op, or its base */
	enum col_phase phase;
	bool is_starting; /* col__op_start_next is on the stack */
	uint32_t digest; /* of the head's call and the recipe, in this epoch */
	uint64_t mismatch_op; /* for which a mismatch was told */
	uint64_t consumed_op;
	uint64_t consumed_attempt;
	int consumed_status;
	struct col_result result;   /* of the head, under way */
	struct col_result retained; /* of retained_op, complete */
	uint64_t retained_op;
	uint64_t retained_bytes;
	struct col_waiting_frame *waiting_head;
	struct col_waiting_frame *waiting_tail;

	/* The head's repair. */
	uint64_t repair_attempt;
	uint64_t repair_missing; /* chunks */
	uint8_t *repair_has;     /* by chunk; owned */

	/* The fail-point. 0: none. */
	uint64_t kill_op;
	uint32_t kill_frames;
};

extern const struct col_listener_events col_comm_listener_events;

/* Called by the engine's tick. stopped_ns: how long this process itself did not run; 0: it did. */
void col_comm_tick(struct collect_comm *comm, uint64_t stopped_ns);

/* Between comm.c, op.c and mesh.c; all with the baton. */

/* op.c: the queue. */
int col__op_submit(struct collect_comm *comm, struct collect_op *op);
void col__op_start_next(struct collect_comm *comm);
void col__op_head_finish(struct collect_comm *comm, int status, uint64_t attempt);
void col__op_give_up_all(struct collect_comm *comm, int status);
void col__op_release(struct collect_op *op);
void col__op_repair_begin(struct collect_comm *comm, uint64_t attempt);
/* The head's repair is over, also when nobody waits for its result any more: tells so. */
void col__op_repair_finish(struct collect_comm *comm, uint64_t attempt);
void col__op_repair_check(struct collect_comm *comm);
/* Stops the executor or repair of the head; its memory is not touched any more. */
void col__op_stop(struct collect_comm *comm);
extern const struct col_exec_events col__op_exec_events;

/* mesh.c: links, and the frames that come over them. */
struct col_link *col__mesh_find(struct collect_comm *comm, uint64_t peer);
/* Finds or makes. NULL: out of memory. */
struct col_link *col__mesh_link(struct collect_comm *comm, uint64_t peer);
void col__mesh_remove(struct collect_comm *comm, struct col_link *link);
bool col__mesh_is_member(const struct collect_comm *comm, uint64_t peer);
/* Offers the frames that waited to the head; drops what is too old. */
void col__mesh_offer_waiting(struct collect_comm *comm);
void col__mesh_drop_waiting(struct collect_comm *comm, const struct col_link *link);
void col__mesh_post(struct collect_comm *comm, int kind, uint64_t peer, int loss,
                    const char *detail);
void col__mesh_repair_send(struct collect_comm *comm, uint64_t needer);

#endif
