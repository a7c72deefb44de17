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
 *   COMMITTING  it is whole here; the others' word is awaited    their word, freeze, abort
 *   REPAIRING   its result comes from a holder                   complete, freeze, abort
 *   ABANDONED   the caller gave it up; a verdict must settle it  install
 *
 * An op is delivered in one of two ways; which follows from what members agree on:
 *  - at once: when it is whole here. The result is gathered in `result` and, where it is the same
 *    on all members, retained for those who lack it when somebody fails.
 *  - by commit: when every member has sent its word (a frame DONE) that the op is whole there. So
 *    what is delivered anywhere is whole everywhere, and nothing need be retained: the result
 *    comes straight into the caller's target. For large payloads; and for calls in which somebody
 *    depends on nobody, who would else run ahead of the others by any number of ops.
 *
 * An op over shared memory (share.c) is delivered as by commit, without frames.
 *
 * A *sub-group* is a comm of some of the members (its *scope* is its name) with ops, plans, results
 * and a segment of its own; it borrows links, epochs and freezes of its *parent*. Its ranks are its
 * own: col__rank_of maps a link to one. Scopes never wait for one another (flow.c): ops of
 * different scopes may start in any order on any member; those of one scope start in the same order
 * on all of them.
 *
 * Owner: whoever holds the engine's baton; ops' status is atomic.
 */
#ifndef COL_COMM_COMM_H
#define COL_COMM_COMM_H

#include "comm/engine.h"
#include "comm/message.h"
#include "exec/exec.h"

/* Ops that one comm may have pending. */
#define COL_OPS_MAX 4096u
/* Links to peers that are not (yet) members. */
#define COL_STRANGERS_MAX 256u

/* Sub-groups of one comm. */
#define COL_SCOPES_MAX 1024u
#define COL_SCOPE_BUCKETS 64u

/* Plans that one comm keeps. */
#define COL_RUNNERS_MAX 64u
/* Views of which the number of members is remembered. */
#define COL_VIEWS_MAX 16u
/* Classes of payload sizes for which the choice of an algorithm is remembered. */
#define COL_SIZE_CLASSES 512u

enum col_phase {
	COL_PHASE_WAITING,
	COL_PHASE_RUNNING,
	COL_PHASE_COMMITTING,
	COL_PHASE_REPAIRING,
	COL_PHASE_ABANDONED
};

/* A plan and its executor, kept for the calls to come. */
struct col_runner {
	struct col_runner *next;
	int collective;
	int algorithm;
	uint32_t root; /* rank; COL_RANK_NONE */
	struct collect_plan *plan;
	struct col_exec exec;
};

/* Bytes of a call in a world of so many members. */
struct col_shape {
	uint64_t payload_bytes; /* all blocks; of an all-to-all with counts nobody knows: 0 */
	uint64_t result_bytes;  /* of what this rank must hold in the end */
	uint64_t target_bytes;  /* … of which the caller gets so many: all, or none of a token */
	uint64_t layout_bytes;  /* of the payload, or of each of equal blocks */
};

struct collect_op {
	struct collect_comm *comm;
	struct collect_op *next;
	atomic_int status; /* COLLECT_PENDING until everything else is final */
	atomic_uint holds; /* the caller's and the comm's */
	struct col_message *message; /* NULL: a collective; else, of the rest, only times are used */

	/* The call. Counts are in blocks_at and target_at. */
	struct collect_call call;
	const uint64_t *blocks_at; /* as in struct col_layout; owned; NULL: no counts */
	const uint64_t *target_at;
	size_t element_bytes;
	uint32_t digest;  /* of the call */
	bool is_token;    /* nothing but that everybody came: a number is summed */
	bool is_shaped;
	bool is_prepared; /* starts many times */

	bool is_queued;   /* the comm has it */
	bool is_uprooted; /* its root was named by ranks that are others now */
	bool is_given_up; /* completed for the caller; unsettled for the others */
	bool is_late;
	bool is_whole;    /* its result is complete here and not yet delivered */
	bool is_scaled;   /* `scaled` holds factor * source */
	bool commits;     /* in this attempt: delivered by commit, */
	bool is_direct;   /* … written straight into the target */
	bool is_shared;   /* … over shared memory */
	uint64_t deadline_ns; /* 0: none */
	uint64_t number;
	uint64_t attempt;
	uint32_t attempts;
	uint32_t participants;
	int algorithm;
	struct col_shape shape; /* in this attempt */
	uint64_t submitted_ns;
	uint64_t completed_ns;
	uint8_t *scaled; /* owned; of PREMUL_SUM */
	int64_t token;   /* the number */

	struct col_runner *runner; /* as of comm->runners_version; else to be looked up */
	uint64_t runner_version;

	uint64_t sums[]; /* behind blocks_at and target_at, or the message */
};

struct col_shm;

/* See share.c. */
enum col_share_state {
	COL_SHARE_OFF,
	COL_SHARE_IDLE,
	COL_SHARE_OPENING,
	COL_SHARE_ON
};

struct col_share {
	enum col_share_state state;
	bool has_spoken;        /* this rank has said whether it could attach */
	bool is_refused;        /* somebody could not */
	bool is_running;        /* the head runs over it */
	bool is_done;           /* the head was done when the old segment was aborted */
	bool must_disown;       /* somebody in the old segment may not have stopped */
	uint64_t words;         /* a bit for each rank that has spoken */
	uint32_t words_missing;
	struct col_shm *shm;    /* owned */
	struct col_shm *old;    /* of the frozen epoch, until the verdict; owned */
};

/* What a member last said to be whole there, in this epoch. */
struct col_word {
	uint64_t op;
	uint32_t digest;
};

/* A frame that came before its op, epoch or sub-group. */
struct col_waiting_frame {
	struct col_waiting_frame *next;
	struct col_link *link;
	struct col_frame frame;
	struct col_buffer *buffer;
	uint32_t early_bytes; /* of the link's */
};

/* In the order in which they came. */
struct col_waiting {
	struct col_waiting_frame *head;
	struct col_waiting_frame *tail;
};

/* A frame of a sub-group that waits at its sender for its window. */
struct col_flow_frame {
	struct col_flow_frame *next;
	struct col_frame frame;
	const uint8_t *payload;    /* as for col_link_send */
	struct col_buffer *buffer;
	void *token;
};

/* The windows between this member and another in a sub-group, in this epoch: see flow.c. Charges
 * since the epoch began. */
struct col_flow {
	struct col_flow_frame *head;
	struct col_flow_frame *tail;
	uint64_t sent;
	uint64_t limit;    /* … and up to here the other lets us */
	uint64_t taken;
	uint64_t consumed;
	uint64_t told;     /* up to here we let the other */
	bool has_asked;    /* we have asked for more */
	bool is_asked;     /* the other has */
};

/* What only a sub-group has. */
struct col_child {
	struct collect_comm *next; /* in its bucket */
	bool is_busy;              /* in the engine's list */
	uint16_t *parent_ranks;    /* by rank; owned */
	struct col_flow *flows;    /* by rank; owned */
	uint16_t ranks[COLLECT_RANKS_MAX]; /* by the parent's rank; UINT16_MAX: not in it */
};

/* A verdict on an op of a sub-group that is not here yet. */
struct col_scope_failure {
	struct col_scope_failure *next;
	uint32_t scope;
	uint64_t op;
	uint64_t epoch;
};

/* What only the parent of sub-groups has, or of which members have some. */
struct col_scopes {
	struct collect_comm *buckets[COL_SCOPE_BUCKETS];
	uint32_t count;
	struct col_waiting waiting;         /* frames of scopes that are not here yet */
	struct col_scope_failure *failures;
	uint32_t *gone;                     /* scopes that were here: a hash set; 0: a free place */
	uint32_t gone_count;
	uint32_t gone_capacity;             /* a power of two, or 0 */
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
	uint64_t *members;          /* incarnations by rank; owned */
	struct col_link **by_rank;  /* NULL for self; owned array of borrowed links */
	struct col_word *words;     /* by rank; owned */
	struct collect_recipe recipe;
	uint32_t *recipe_numbers;   /* behind its hosts, weights and order; owned */
	struct col_link *links;     /* list; owned */
	struct {
		uint64_t epoch;
		uint32_t member_count;
	} views[COL_VIEWS_MAX];     /* the last ones; circular */
	uint32_t view_count;

	/* Plans of this view. */
	struct col_runner *runners; /* the latest first; owned */
	uint32_t runner_count;
	uint64_t runners_version;   /* changes when a runner goes */
	int8_t choices[COLLECT_COLLECTIVE_COUNT][COL_SIZE_CLASSES]; /* algorithm + 1; 0: not yet */

	/* Operations. */
	struct collect_op *ops_head; /* the one in flight */
	struct collect_op *ops_tail;
	uint32_t ops_count;
	uint64_t submitted; /* number of the last submitted op, or its base */
	enum col_phase phase;
	bool is_starting;        /* col__op_start_next is on the stack */
	struct col_runner *runner; /* of the head, while it runs */
	uint32_t digest;         /* of the head's call and the recipe, in this epoch */
	uint32_t words_missing;  /* of the head: members that have not sent their word */
	uint64_t mismatch_op; /* for which a mismatch was told */
	uint64_t consumed_op;
	uint64_t consumed_attempt;
	int consumed_status;
	struct col_result result;   /* of the head, under way */
	struct col_result retained; /* of retained_op, complete */
	struct col_result scratch;  /* slices that the head passes on and does not need */
	uint64_t retained_op;
	uint64_t retained_bytes;
	struct col_waiting waiting;

	struct col_share share;
	struct col_messages messages;

	/* The head's repair. */
	uint64_t repair_attempt;
	uint64_t repair_missing; /* chunks */
	uint8_t *repair_has;     /* by chunk; owned */

	/* Sub-groups: see scope.c. */
	uint32_t scope;               /* 0: it is none */
	struct collect_comm *parent;  /* NULL: it is no sub-group, or its parent is gone */
	struct col_child *child;      /* of a sub-group; owned */
	struct col_scopes *scopes;    /* NULL: none yet; owned */

	/* The fail-point. 0: none. */
	uint64_t kill_op;
	uint32_t kill_frames;
};

extern const struct col_listener_events col_comm_listener_events;

/* Whose links it uses. */
static inline const struct collect_comm *col_comm_base(const struct collect_comm *comm)
{
	return comm->parent != NULL ? comm->parent : comm;
}

/* Called by the engine's tick. stopped_ns: how long this process itself did not run; 0: it did. */
void col_comm_tick(struct collect_comm *comm, uint64_t stopped_ns);

/* Called by the engine while it drives. Whether something moved. */
bool col_comm_progress(struct collect_comm *comm);
/* Before a sleep, then progress once more; false: a wake-up might be missed. After it: disarm. */
bool col_comm_arm(struct collect_comm *comm);
void col_comm_disarm(struct collect_comm *comm);

/* Between the files of this folder; all with the baton. */

/* share.c: shared memory. */
/* A view is adopted: the old segment is kept for the verdict; no op starts until … */
void col__share_retire(struct collect_comm *comm, bool has_lost);
/* … after the verdict: whether this view's members share is found out; of a sub-group when its
 * first op starts. */
void col__share_open(struct collect_comm *comm);
void col__share_begin(struct collect_comm *comm);
void col__share_close(struct collect_comm *comm);
/* A member's word whether it could attach. */
void col__share_word(struct collect_comm *comm, uint32_t rank, bool could);
/* Runs the head, which is laid out; it may be over before this returns. */
int col__share_run(struct collect_comm *comm, uint32_t root);
/* Frozen or aborted: the segment is of no use any more but to complete what is whole. */
void col__share_stop(struct collect_comm *comm);
/* The result of the head, which is whole, is in its target when this returns. */
void col__share_complete(struct collect_comm *comm);

/* call.c: what a call is. */
/* An op of the call, which the caller holds and which is complete until it is submitted. As
 * collect_comm_start. */
int col__call_make(struct collect_comm *comm, const struct collect_call *call,
                   struct collect_op **op_out);
bool col__call_has_blocks(int collective);
bool col__call_reduces(int collective);
/* Everybody gets the same, and nobody before all others have begun. */
bool col__call_is_retained(const struct collect_op *op);
/* Nobody's result is complete before all others have begun. */
bool col__call_waits_for_all(const struct collect_op *op);
struct col_shape col__call_shape(const struct collect_op *op, uint32_t world, uint32_t rank);
/* Whether the result may be written into the target while the source is still needed. */
bool col__call_can_be_direct(const struct collect_op *op, uint32_t world, uint32_t rank);
void col__call_print(const struct collect_op *op, char *text_out, size_t capacity);

/* choice.c: which algorithm, and its plan. */
/* Sets op->runner and op->algorithm. root: a rank, or COL_RANK_NONE. */
int col__runner_find(struct collect_comm *comm, struct collect_op *op, uint32_t root);
void col__runners_drop(struct collect_comm *comm);

/* op.c: the queue. */
int col__op_submit(struct collect_comm *comm, struct collect_op *op);
void col__op_start_next(struct collect_comm *comm);
void col__op_head_finish(struct collect_comm *comm, int status, uint64_t attempt);
void col__op_give_up_all(struct collect_comm *comm, int status);
void col__op_release(struct collect_op *op);
/* For its caller: its status, and that it waits no longer. */
void col__op_complete(struct collect_op *op, int status);
/* The head cannot go on here: its caller is told so, and the others by a verdict. */
void col__op_abandon(struct collect_comm *comm, int status);
/* A member's word that its result of an op is complete. */
void col__op_word(struct collect_comm *comm, uint32_t rank, const struct col_frame *frame);
/* The head's repair is over, also when nobody waits for its result any more: tells so. */
void col__op_repair_finish(struct collect_comm *comm, uint64_t attempt);
/* The head was delivered somewhere in `attempt`: it is complete here too, or a repair begins. */
void col__op_repair(struct collect_comm *comm, uint64_t attempt);
void col__op_repair_check(struct collect_comm *comm);
/* Stops the executor or repair of the head; its memory is not touched any more. */
void col__op_stop(struct collect_comm *comm);
extern const struct col_exec_events col__op_exec_events;

/* comm.c: the view. */
/* The verdict on the head, after the new view is adopted. */
void col__comm_settle(struct collect_comm *comm, const struct collect_scope_verdict *verdict);
/* From here on ops may start. */
void col__comm_resume(struct collect_comm *comm);
/* Remembers how many members the new epoch has. */
void col__comm_view_note(struct collect_comm *comm);
/* Ends all that is pending, as closed. */
void col__comm_give_up(struct collect_comm *comm);
/* Afterwards: frees what a sub-group has too; not the comm. */
void col__comm_fini(struct collect_comm *comm);

/* mesh.c: links, and the frames that come over them. */
struct col_link *col__mesh_find(struct collect_comm *comm, uint64_t peer);
/* Finds or makes. NULL: out of memory. */
struct col_link *col__mesh_link(struct collect_comm *comm, uint64_t peer);
void col__mesh_remove(struct collect_comm *comm, struct col_link *link);
/* COL_RANK_NONE: no member. */
uint32_t col__mesh_rank(const struct collect_comm *comm, uint64_t peer);
bool col__mesh_is_member(const struct collect_comm *comm, uint64_t peer);
/* Offers the frames that waited to the head; drops what is too old. */
void col__mesh_offer_waiting(struct collect_comm *comm);
void col__mesh_mismatch(struct collect_comm *comm, uint64_t peer);
void col__mesh_post(struct collect_comm *comm, int kind, uint64_t peer, int loss,
                    const char *detail);
void col__mesh_repair_send(struct collect_comm *comm, uint64_t needer);

/* waiting.c: frames that wait for their op, epoch or sub-group. */
/* is_early: it is in no window, and counts among the link's early ones. Too many of those, or no
 * memory, lose the link. Takes the buffer. */
void col__waiting_add(struct col_waiting *waiting, struct col_link *link,
                      const struct col_frame *frame, struct col_buffer *buffer, bool is_early);
/* The one after `before` (NULL: the first); it is the caller's. */
struct col_waiting_frame *col__waiting_unlink(struct col_waiting *waiting,
                                              struct col_waiting_frame *before);
/* Counts it among the link's early ones no more. */
void col__waiting_admit(struct col_waiting_frame *frame);
/* Those of a link; NULL: all. */
void col__waiting_drop(struct col_waiting *waiting, const struct col_link *link);
void col__waiting_drop_older(struct col_waiting *waiting, uint64_t epoch);

/* scope.c: sub-groups. */
/* NULL: it is not here. */
struct collect_comm *col__scope_find(const struct collect_comm *parent, uint32_t scope);
/* It was here. */
bool col__scope_is_gone(const struct collect_comm *parent, uint32_t scope);
/* Makes comm->scopes. */
int col__scopes_make(struct collect_comm *parent);
/* Calls `act` with each. It may not make or remove any. */
void col__scopes_each(struct collect_comm *parent, void (*act)(struct collect_comm *child));
void col__scopes_freeze(struct collect_comm *parent);
bool col__scopes_are_busy(struct collect_comm *parent);
/* The parent has adopted a view: moved[old rank] is the new one, or UINT16_MAX. */
void col__scopes_adopt(struct collect_comm *parent, const uint16_t *moved);
/* After col__comm_settle of the parent. */
void col__scopes_settle(struct collect_comm *parent, const struct collect_install *install);
void col__scopes_drop_waiting(struct collect_comm *parent, const struct col_link *link);
/* Ends and detaches all. */
void col__scopes_close(struct collect_comm *parent);
/* Out of the parent. */
void col__scope_leave(struct collect_comm *child);
/* It has an op, or none any more: the engine looks after those that have. */
void col__scope_wake(struct collect_comm *child);
void col__scope_rest(struct collect_comm *child);

/* flow.c: sending as a sub-group. */
/* A new epoch, or a new sub-group. */
void col__flows_reset(struct collect_comm *child);
/* As col_link_send. */
int col__flow_send(struct collect_comm *child, uint32_t rank, const struct col_frame *frame,
                   const uint8_t *payload, struct col_buffer *buffer, void *token);
/* A frame of this epoch came. False: more than it was granted. */
bool col__flow_take(struct collect_comm *child, uint32_t rank, const struct col_frame *frame);
/* Its `bytes` of payload are consumed. */
void col__flow_consume(struct collect_comm *child, uint32_t rank, uint32_t bytes);
/* A GRANT. */
void col__flow_word(struct collect_comm *child, uint32_t rank, const struct col_frame *frame);
/* Drops what waits, and all that the links still have of it: as col_link_purge. */
void col__flows_purge(struct collect_comm *child);

/* The rank of the peer of one of the parent's links. */
static inline uint32_t col__rank_of(const struct collect_comm *comm, const struct col_link *link)
{
	if (comm->scope == 0 || link->rank == COL_RANK_NONE)
		return link->rank;
	uint32_t rank = comm->child->ranks[link->rank];
	return rank != UINT16_MAX ? rank : COL_RANK_NONE;
}

/* A frame of an operation. As col_link_send. */
static inline int col__comm_send(struct collect_comm *comm, uint32_t rank, struct col_frame *frame,
                                 const uint8_t *payload, struct col_buffer *buffer, void *token)
{
	frame->group = comm->scope;
	if (comm->scope != 0)
		return col__flow_send(comm, rank, frame, payload, buffer, token);
	return col_link_send(comm->by_rank[rank], frame, payload, buffer, token);
}

/* Its `bytes` of payload are consumed. */
static inline void col__comm_consume(struct collect_comm *comm, uint32_t rank, uint32_t bytes)
{
	if (comm->scope != 0)
		col__flow_consume(comm, rank, bytes);
	else
		col_link_consume(comm->by_rank[rank], bytes);
}

#endif
