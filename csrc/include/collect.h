/*
 * collect: the public C ABI. This header is the only declaration of it; the Python bindings
 * are generated from the part between the two cffi markers.
 *
 * Objects: an *engine* is one I/O thread, one listening port and an event queue; a *comm* is one
 * group's data plane (epoch, links, operations); an *op* is one collective call; a *plan* is what
 * one rank does in one collective.
 *
 * Threads: every function may be called from any thread unless it says otherwise. Nothing here
 * calls back: the engine makes a descriptor readable when events wait.
 *
 * Status: functions return 0 or a negative COLLECT_E_*; outputs are untouched on failure.
 * Memory: what a function takes by pointer is borrowed for the call unless it says otherwise.
 */
#ifndef COLLECT_H
#define COLLECT_H

#include <stddef.h>
#include <stdint.h>

#define COLLECT_API __attribute__((visibility("default")))

/* cffi: begin */

/* ---- limits -------------------------------------------------------------------------------- */

#define COLLECT_RANKS_MAX 1024          /* members of a view */
#define COLLECT_STREAMS_MAX 16          /* sockets of one link */
#define COLLECT_ADDRESS_BYTES_MAX 512   /* one member's address list, with its terminating zero */
#define COLLECT_DETAIL_BYTES_MAX 160    /* text of an event */
#define COLLECT_DESCRIPTOR_BYTES_MAX 64 /* text of an operation's descriptor */
#define COLLECT_NAME_BYTES_MAX 32       /* name of a definition, with its terminating zero */
#define COLLECT_SLICES_MAX 4096         /* slices of a definition */
#define COLLECT_PLACES_MAX 1048576      /* ranks times slices of a definition */
#define COLLECT_ALGORITHM_DEFINED 64    /* algorithms from here on: see collect_comm_define */
#define COLLECT_RUN_NS 250000000        /* collect_op_run waits for so long */

/* ---- enumerations -------------------------------------------------------------------------- */

enum collect_status {
	COLLECT_OK = 0,
	COLLECT_PENDING = 1,              /* not an error: the operation has not completed */
	COLLECT_E_INVALID = -1,           /* an argument is out of its documented range */
	COLLECT_E_MEMORY = -2,            /* out of memory */
	COLLECT_E_SYSTEM = -3,            /* a system call failed; errno tells */
	COLLECT_E_ADDRESS = -4,           /* an address does not parse, or cannot be bound */
	COLLECT_E_ABORTED = -5,           /* aborted by this peer */
	COLLECT_E_CLOSED = -6,            /* the comm or engine is closing */
	COLLECT_E_FAILED = -7,            /* failed on all members by a verdict; the view says why */
	COLLECT_E_BUSY = -8,              /* operations are in flight and the call needs none */
	COLLECT_E_FULL = -9,              /* too many operations are pending */
	COLLECT_E_UNAVAILABLE = -10,      /* this machine cannot do what was asked */
	COLLECT_E_MEMBERS = -11,          /* the call's shape was meant for another number of members */
	COLLECT_E_TIMEOUT = -12,          /* a message passed its deadline here */
	COLLECT_E_PEER = -13,             /* of a message: the link to the peer is lost, it is no
	                                   * member, or it gave the message up */
	COLLECT_E_TRUNCATED = -14,        /* a message is longer than the receiver's memory */
	COLLECT_E_BOUNDARY = -15          /* no boundary is lent to this start: see collect_comm_lend */
};

enum collect_dtype {
	COLLECT_INT8 = 0, COLLECT_INT16 = 1, COLLECT_INT32 = 2, COLLECT_INT64 = 3,
	COLLECT_UINT8 = 4, COLLECT_UINT16 = 5, COLLECT_UINT32 = 6, COLLECT_UINT64 = 7,
	COLLECT_FLOAT16 = 8, COLLECT_BFLOAT16 = 9, COLLECT_FLOAT32 = 10, COLLECT_FLOAT64 = 11,
	COLLECT_BOOL = 12, COLLECT_COMPLEX64 = 13, COLLECT_COMPLEX128 = 14,
	COLLECT_DTYPE_COUNT = 15
};

/* What a call does; what its source, target and counts mean is told at struct collect_call. */
enum collect_collective {
	COLLECT_ALL_REDUCE = 0, COLLECT_REDUCE_SCATTER = 1, COLLECT_ALL_GATHER = 2,
	COLLECT_ALL_TO_ALL = 3, COLLECT_BROADCAST = 4, COLLECT_REDUCE = 5, COLLECT_GATHER = 6,
	COLLECT_SCATTER = 7, COLLECT_BARRIER = 8,
	COLLECT_COLLECTIVE_COUNT = 9
};

enum collect_reduce_op {
	COLLECT_SUM = 0,
	COLLECT_AVG = 1, /* the sum divided by the number of participants; integers truncate */
	COLLECT_MIN = 2, /* a NaN on any peer gives a NaN */
	COLLECT_MAX = 3,
	COLLECT_PROD = 4,
	COLLECT_AND = 5, /* bitwise; of bools logical. AND, OR, XOR: integers and bools */
	COLLECT_OR = 6,
	COLLECT_XOR = 7,
	COLLECT_PREMUL_SUM = 8, /* the sum of factor * source, each peer with a factor of its own;
	                         * floats and complexes */
	COLLECT_REDUCE_OP_COUNT = 9
};

/* Over what members on one host may exchange their data. */
enum collect_transport {
	COLLECT_TRANSPORT_AUTO = 0, /* shared memory where it can be, else TCP */
	COLLECT_TRANSPORT_TCP = 1
};

/* How a collective is done; csrc/plan/ has one file for each. AUTO: as the model of the view's
 * recipe says (collect_choose), the same on all members. */
enum collect_algorithm {
	COLLECT_AUTO = -1,
	COLLECT_DIRECT = 0,
	COLLECT_RING = 1,
	COLLECT_STAR = 2,
	COLLECT_EXCHANGE = 3,           /* everybody sends everybody its whole input: one hop */
	COLLECT_TREE = 4,               /* double binary tree, pipelined */
	COLLECT_CIRCULANT = 5,
	COLLECT_RECURSIVE_DOUBLING = 6,
	COLLECT_HIERARCHICAL = 7,       /* mixed radix: host, site, world */
	COLLECT_PAIRWISE = 8,
	COLLECT_BRUCK = 9,
	COLLECT_ALGORITHM_COUNT = 10
};

enum collect_isa {
	COLLECT_ISA_SCALAR = 0,
	COLLECT_ISA_AVX2 = 1,
	COLLECT_ISA_AVX512 = 2,
	COLLECT_ISA_NEON = 3
};

enum collect_event_kind {
	COLLECT_EVENT_LINK_UP = 1,      /* the link to `peer` carries frames */
	COLLECT_EVENT_LINK_LOST = 2,    /* the link to `peer` is gone; `loss` and `detail` say why */
	COLLECT_EVENT_REFUSED = 3,      /* bytes from a stranger were refused; `detail` says why */
	COLLECT_EVENT_MISMATCH = 4,     /* `peer` runs `op` with another descriptor */
	COLLECT_EVENT_REPAIRED = 5,     /* an install's repairs are complete on this peer */
	COLLECT_EVENT_LATE = 6,         /* `op` passed its deadline; it is still pending */
	COLLECT_EVENT_ABORTED = 7       /* `op` was aborted here; a verdict must settle it for all */
};

enum collect_loss {
	COLLECT_LOSS_RESET = 1,         /* end of file or connection reset */
	COLLECT_LOSS_SILENT = 2,        /* nothing heard for the engine's silence_ns */
	COLLECT_LOSS_UNREACHABLE = 3,   /* could not be connected in time */
	COLLECT_LOSS_GARBAGE = 4        /* sent bytes that are no valid frame */
};

enum collect_verdict {
	COLLECT_VERDICT_RERUN = 0,      /* an op in flight runs again, from its untouched input */
	COLLECT_VERDICT_REPAIR = 1,     /* `verdict_op` is complete; who lacks its result fetches it */
	COLLECT_VERDICT_FAIL = 2        /* `verdict_op` fails here, or as soon as it is submitted */
};

/* ---- structures ---------------------------------------------------------------------------- */

typedef struct collect_engine collect_engine;
typedef struct collect_comm collect_comm;
typedef struct collect_op collect_op;
typedef struct collect_plan collect_plan;

struct collect_engine_options {
	const char *bind_address;    /* numeric IPv4 or IPv6; "::" with dual stack listens to both */
	uint16_t port;               /* 0: any */
	uint16_t streams;            /* sockets per link, 1…COLLECT_STREAMS_MAX */
	uint16_t streams_max;        /* up to which a busy link on a long, lossy path adds sockets while
	                              * each brings more; at most COLLECT_STREAMS_MAX. Below `streams`:
	                              * it adds none */
	uint32_t chunk_bytes;        /* payload of one frame, multiple of 64, 64…1 MiB */
	uint32_t window_bytes;       /* credit per link, at least 4 chunks */
	uint64_t silence_ns;         /* a link that has been silent for so long is lost */
	uint64_t connect_ns;         /* a link that could not be opened for so long is lost */
};

struct collect_event {
	int kind;                    /* enum collect_event_kind */
	int loss;                    /* enum collect_loss, for LINK_LOST */
	uint64_t comm_key;           /* of which comm; 0 when unknown */
	uint64_t peer;               /* incarnation; 0 when unknown */
	uint64_t op;
	uint64_t epoch;
	uint64_t at_ns;              /* CLOCK_MONOTONIC */
	char detail[160];
};

struct collect_member {
	uint64_t incarnation;
	char addresses[512];         /* candidates "1.2.3.4:5", "[::1]:5", separated by commas */
};

/* What a frozen peer tells the coordinator. Ops are numbers; 0 means none. */
struct collect_report {
	uint64_t epoch;              /* the epoch that was frozen */
	uint64_t consumed_op;        /* last op that was delivered, failed or aborted */
	uint64_t consumed_attempt;
	int consumed_status;         /* 0, or the COLLECT_E_* it ended with */
	int is_retained;             /* its result is still here and can repair others */
	uint64_t inflight_op;        /* the op that was running or waiting to run */
	uint64_t inflight_attempt;
	uint32_t inflight_digest;
	int inflight_is_aborted;     /* the caller has given it up; a verdict must still settle it */
	int inflight_is_whole;       /* its result is complete here, and only the others' word of theirs
	                              * was missing: a verdict REPAIR completes it without a holder */
	int inflight_is_shaped;      /* its shape holds for the members of inflight_attempt only */
	int inflight_is_rooted;      /* it names a root */
	char inflight_descriptor[64];
	uint32_t lost_count;         /* entries in lost_peers and lost_kinds */
	uint64_t lost_peers[1024];
	uint8_t lost_kinds[1024];    /* enum collect_loss */
};

struct collect_repair {
	uint64_t holder;             /* incarnation that sends its retained result */
	uint64_t needer;
};

#define COLLECT_LEVELS_MAX 4

/* Measured figures from which an algorithm is chosen; integers, so that all ranks choose alike. One
 * for links within a host, one for links between hosts. */
struct collect_link_model {
	uint64_t latency_ns;         /* of one dependent hop */
	uint64_t overhead_ns;        /* CPU time per message, sender and receiver together */
	uint64_t bytes_per_s;        /* of one rank, each way */
};

/*
 * What all members of a view agree on besides who they are. It travels in the install; plans
 * follow from it.
 */
struct collect_recipe {
	int algorithm;               /* enum collect_algorithm; AUTO: chosen per call from the models */
	int transport;               /* enum collect_transport */
	uint32_t commit_bytes;       /* calls of at least so many bytes end with everybody's word that
	                              * its result is complete; smaller ones retain a copy instead */
	struct collect_link_model local;  /* within a host */
	struct collect_link_model remote; /* between hosts */
	uint64_t reduce_bytes_per_s; /* of one core */
	const uint32_t *hosts;       /* by rank: number of its host, 0…; NULL: all on their own */
	const uint32_t *weights;     /* by rank: owner shares of direct exchange; NULL: equal */
	const uint32_t *order;       /* ranks in the order of the ring; NULL: 0, 1, 2, … */
	uint32_t level_count;        /* of the hierarchical algorithm; 0: host and world */
	uint32_t radices[4];         /* innermost first; their product is the member count */
};

/* What becomes of a sub-group's op; fields as in struct collect_install. */
struct collect_scope_verdict {
	uint32_t scope;
	int verdict;
	uint64_t verdict_op;
	uint64_t verdict_attempt;
	const struct collect_repair *repairs;
	uint32_t repair_count;
};

struct collect_install {
	uint64_t epoch;              /* greater than the current one */
	const struct collect_member *members; /* in rank order */
	uint32_t member_count;
	uint32_t self_rank;
	uint64_t op_base;            /* not 0: the next op is op_base + 1 (a planned switch) */
	const struct collect_recipe *recipe;
	int verdict;                 /* enum collect_verdict */
	uint64_t verdict_op;         /* for REPAIR and FAIL; for RERUN the op with a root that everybody
	                              * has in flight, or 0: others fail when members were lost, since
	                              * who calls them later counts other ranks */
	uint64_t verdict_attempt;    /* for REPAIR: the attempt that was delivered */
	const struct collect_repair *repairs;
	uint32_t repair_count;
	const uint64_t *redial;      /* links to these members are opened anew even if they look fine */
	uint32_t redial_count;
	const struct collect_scope_verdict *scopes; /* of sub-groups, each once; others: RERUN, op 0.
	                              * One that is not here (yet) fails its op when it is */
	uint32_t scope_count;
};

/*
 * One call of a collective by one member. All members make the same calls in the same order, with
 * equal collective, dtype, reduce_op, algorithm, root, count and, but for all-to-all, counts.
 *
 * collective      source                      target                       counts (NULL: `count`)
 * ALL_REDUCE      count                       count                        -
 * REDUCE_SCATTER  world blocks                this rank's block            elements of each block
 * ALL_GATHER      this rank's block           world blocks                 elements of each block
 * ALL_TO_ALL      world blocks, by receiver   world blocks, by sender      to each; from each
 * BROADCAST       count, of the root only     count                        -
 * REDUCE          count                       count, of the root only      -
 * GATHER          this rank's block           world blocks, root only      elements of each block
 * SCATTER         world blocks, root only     this rank's block            elements of each block
 * BARRIER         -                           -                            -
 *
 * The source is only read. It may be the target itself where both have the same size (ALL_REDUCE,
 * BROADCAST, REDUCE; ALL_TO_ALL without counts), or lie in the target at this rank's block
 * (ALL_GATHER, GATHER), or hold the target as this rank's block (REDUCE_SCATTER, SCATTER); they
 * may not overlap otherwise.
 *
 * With blocks a call is *shaped*: it means a world of `world` members. When members are lost in
 * the middle it fails on all of them (COLLECT_E_MEMBERS), instead of running again with blocks that
 * belong to nobody. ALL_GATHER and GATHER without counts are not: they run again, and give as many
 * blocks as there are participants.
 */
struct collect_call {
	int collective;              /* enum collect_collective */
	int dtype;                   /* enum collect_dtype */
	int reduce_op;               /* enum collect_reduce_op; SUM where nothing is reduced */
	int algorithm;               /* enum collect_algorithm; AUTO: the recipe's. Or a definition's
	                              * number: where the world has none, as AUTO but over links */
	uint64_t root;               /* incarnation; 0 where there is none */
	uint32_t world;              /* members that the caller means; 0: any, of unshaped calls only */
	const void *source;
	void *target;
	uint64_t count;              /* elements, of a block where there are blocks */
	const uint64_t *counts;      /* `world` entries, copied; ALL_TO_ALL: to each */
	const uint64_t *target_counts; /* ALL_TO_ALL with counts: from each; else NULL */
	double factor;               /* of PREMUL_SUM */
	int is_produced;             /* the source is written while the op is under way: elements are
	                              * read once collect_op_produce has named them. No other member
	                              * need know; not of a prepared op */
	uint64_t deadline_ns;        /* CLOCK_MONOTONIC; an event LATE is queued then. 0: none. Of a
	                              * prepared op: nanoseconds from each start instead */
	int takes_boundary;          /* 1: each start passes a boundary, or is refused */
};

struct collect_op_info {
	int status;                  /* COLLECT_PENDING, 0 or COLLECT_E_* */
	uint64_t op;
	uint64_t attempt;            /* epoch in which it completed */
	uint64_t submitted_ns;       /* CLOCK_MONOTONIC */
	uint64_t completed_ns;
	uint32_t attempts;           /* how often it was started */
	uint32_t participants;       /* members of `attempt` */
	int algorithm;               /* that ran last */
	int is_shared;               /* all that this member sent and received of it went through
	                              * shared memory */
	int is_mixed;                /* a part of it did */
	uint64_t peer;               /* of a message: the other end's incarnation; 0: none matched */
	uint64_t bytes;              /* of a message: its length, also where it was truncated */
};

/* `rank` sends its sum to `parent`, or gets the result from it. */
struct collect_edge {
	uint32_t rank;
	uint32_t parent;
};

/*
 * A slice of a definition: two trees, each edge by edge.
 *
 * reduce   of reductions: everybody but one, the *owner*, has a parent. A parent joins its
 *          children's sums in the order of the edges; its own part comes after the first of them
 *          that have lower ranks.
 * spread   from the owner, or where nothing is reduced from who contributes the slice, to everybody
 *          who needs it, by way of anybody. A parent sends in the order of the edges.
 */
struct collect_slice {
	uint32_t block;              /* of collectives with blocks: whose, in ascending order, as many
	                              * slices for each rank; else 0 */
	uint32_t weight;             /* its share of the payload; with blocks 1 */
	const struct collect_edge *reduce;
	uint32_t reduce_count;
	const struct collect_edge *spread;
	uint32_t spread_count;
};

/* An algorithm of the caller's own, for one world: any collective but all-to-all and barrier. Of
 * rooted ones the root is rank 0; with another root, ranks are counted from it on. */
struct collect_definition {
	const char *name;            /* 1…31 printable characters */
	int algorithm;               /* its number: COLLECT_ALGORITHM_DEFINED or more */
	int collective;              /* enum collect_collective */
	uint32_t world;              /* 2…COLLECT_RANKS_MAX */
	const struct collect_slice *slices;
	uint32_t slice_count;        /* 1…COLLECT_SLICES_MAX */
};

/* Elements of an op's target; see collect_op_next_range. */
struct collect_range {
	uint64_t attempt;            /* epoch */
	uint64_t begin;
	uint64_t end;
};

struct collect_step {
	int opcode;                  /* see collect_opcode_name */
	int is_final;                /* the slice is the result after this step */
	int is_scaled;               /* an average is divided by the participants in this step */
	uint32_t peer;               /* rank it receives from, else sends to; or 0xffffffff */
	uint32_t next;               /* rank that a *_send forwards to, or 0xffffffff */
	uint32_t peer_lane;          /* of a send: where the receiver expects it */
	uint32_t peer_step;
};

struct collect_link_info {
	uint64_t peer;
	int is_up;
	uint32_t streams;
	uint64_t sent_bytes;
	uint64_t received_bytes;
	uint64_t silent_ns;          /* since anything was heard */
	uint64_t rtt_min_ns;         /* least round trip of its streams; 0: unknown */
	uint64_t delivery_bytes_per_s; /* sum of its streams' latest delivery rates; 0: unknown */
	uint64_t retransmitted_bytes;
	uint64_t shared_bytes;       /* of sent and received, what went through shared memory */
};

/* ---- library ------------------------------------------------------------------------------- */

/* Static strings; never NULL. */
COLLECT_API const char *collect_version(void);
COLLECT_API const char *collect_status_name(int status);
COLLECT_API const char *collect_opcode_name(int opcode);

/* Selects the widest instruction set to use, at most `isa`; returns what is used from now on. The
 * result of every kernel is the same in all. Not while operations run. */
COLLECT_API int collect_isa_select(int isa);

/* target[i] = a[i] op b[i] with the selected kernels; target may equal a or b. For tests and
 * benchmarks. COLLECT_E_UNAVAILABLE: no kernel for this dtype yet. */
COLLECT_API int collect_kernel_reduce(void *target, const void *a, const void *b, size_t count,
                                      int dtype, int reduce_op);

/* Bytes and blocks that the core holds from the heap, for leak checks. */
COLLECT_API size_t collect_heap_blocks(void);

/* Memory that members on the same host may read and write directly: a collective of such arrays
 * copies nothing. 4096-byte aligned, zeroed, touched. NULL: none left (errno tells). Free it when
 * no operation uses it. */
COLLECT_API void *collect_shared_alloc(size_t bytes);
COLLECT_API void collect_shared_free(void *memory);

/* ---- engine -------------------------------------------------------------------------------- */

/* Opens the port and starts the I/O thread. */
COLLECT_API int collect_engine_create(const struct collect_engine_options *options,
                                      collect_engine **engine_out);

/* Stops the thread, closes everything, frees; every comm must be destroyed first. Sets *engine to
 * NULL; accepts NULL. Not from two threads at once. */
COLLECT_API void collect_engine_destroy(collect_engine **engine);

/* The port that it listens on. */
COLLECT_API uint16_t collect_engine_port(const collect_engine *engine);

/* Readable while events wait. Owned by the engine. */
COLLECT_API int collect_engine_event_fd(const collect_engine *engine);

/* 1: *event_out is the oldest event, removed from the queue. 0: none. */
COLLECT_API int collect_engine_next_event(collect_engine *engine, struct collect_event *event_out);

/* ---- comm ---------------------------------------------------------------------------------- */

/* A communicator without a view: operations may be submitted, and wait. `self` is this peer's
 * incarnation, `key` the group's. */
COLLECT_API int collect_comm_create(collect_engine *engine, uint64_t key, uint64_t self,
                                    collect_comm **comm_out);

/*
 * A *sub-group*: a communicator of some members of `parent`'s view, which must have one and be no
 * sub-group itself. It runs operations like any other, and independently of the others. Links,
 * epochs, freezes and installs are its parent's, and so are messages: collect_comm_dial, _install,
 * _rebase, _send and _receive refuse it (COLLECT_E_INVALID), and it has no links.
 *
 * `scope`, not 0 and never used before in the parent, names it on all members: each of them makes
 * it with the same scope and the same members in the same order, which is that of its ranks.
 * Operations wait until all of them have. `members`: at most COLLECT_RANKS_MAX incarnations, each
 * once, self among them. When members are lost it goes on with the others, in the same order.
 *
 * COLLECT_E_INVALID; COLLECT_E_MEMORY; COLLECT_E_MEMBERS: one of them is no member (any more);
 * COLLECT_E_BUSY: the parent is frozen, try again after the install; COLLECT_E_FULL: there are 1024
 * already.
 */
COLLECT_API int collect_comm_split(collect_comm *parent, uint32_t scope, const uint64_t *members,
                                   uint32_t member_count, collect_comm **comm_out);

/* The comm_key of its events: the key that it was created with, or one made of the parent's key and
 * the scope. */
COLLECT_API uint64_t collect_comm_key(const collect_comm *comm);

/* Aborts what is pending, closes every link, frees. Ops must be released by their owners before or
 * after. No other thread may be inside a function of this comm. Threads inside one of an op of it
 * are waited for, which takes no time, since every op is complete; from here on nothing of these
 * can be started (COLLECT_E_CLOSED). Its sub-groups end with it, in the same way: they may only be
 * destroyed then. The others of a sub-group are not told that it is destroyed here. Sets *comm to
 * NULL; accepts NULL. */
COLLECT_API void collect_comm_destroy(collect_comm **comm);

/* Dials these peers, without changing the view. LINK_UP or LINK_LOST tells for each, also for a
 * link that is up already. */
COLLECT_API int collect_comm_dial(collect_comm *comm, const struct collect_member *members,
                                  uint32_t member_count);

/* From here on nothing of the current epoch is sent, accepted or delivered, until an install; nor
 * by its sub-groups. Returns what this peer knows. Idempotent: a second call reports the same. Of a
 * sub-group: its report, without lost links; COLLECT_E_INVALID if its parent is not frozen. */
COLLECT_API int collect_comm_freeze(collect_comm *comm, struct collect_report *report_out);

/* Enters an epoch, with its sub-groups. After a freeze: applies the verdicts and goes on. Without a
 * freeze (a planned switch): COLLECT_E_BUSY while operations are in flight, of sub-groups too,
 * except on a comm that never had a view. An event REPAIRED follows when this peer's repair, if
 * any, is complete; one for each sub-group with a repair. */
COLLECT_API int collect_comm_install(collect_comm *comm, const struct collect_install *install);

/* The next submitted op is op_base + 1; what was consumed keeps its number. COLLECT_E_BUSY while
 * operations are in flight. */
COLLECT_API int collect_comm_rebase(collect_comm *comm, uint64_t op_base);

/*
 * Boundaries (docs/protocol.md) are counted from 1. A start of a call that takes one passes the
 * next, in the same step as it starts: so no boundary is ever passed without its op. It may pass
 * those up to `limit`, until this says another; beyond it is refused with COLLECT_E_BOUNDARY.
 * passed: boundaries up to this one lie behind, however they were passed; never fewer than before.
 * Returns the last one that was passed.
 */
COLLECT_API uint64_t collect_comm_lend(collect_comm *comm, uint64_t passed, uint64_t limit);

/* Completes every pending op as aborted, at once; their memory is no longer touched. The other
 * members still wait for them: each in turn must be settled by a verdict before the next op can
 * run; an event ABORTED asks for it. */
COLLECT_API int collect_comm_abort(collect_comm *comm);

/* Ops that were submitted and are not consumed. */
COLLECT_API uint32_t collect_comm_pending(collect_comm *comm);

/* The last op that was submitted; and the last that was consumed, if it was delivered, else 0. */
COLLECT_API void collect_comm_progress(collect_comm *comm, uint64_t *submitted_out,
                                       uint64_t *delivered_out);

/* Fills at most `capacity` entries, returns how many links there are. */
COLLECT_API uint32_t collect_comm_links(collect_comm *comm, struct collect_link_info *infos_out,
                                        uint32_t capacity);

/* A fail-point for tests and stress runs: SIGKILLs this process when it has handed `frame` data
 * frames of op `op` to the network (op 0: the next one submitted; UINT64_MAX: pieces of messages,
 * sent or received, count instead). */
COLLECT_API void collect_comm_kill_at(collect_comm *comm, uint64_t op, uint32_t frame);

/*
 * Starts an operation; never blocks. The memory is borrowed until the op completes; `call` itself
 * only during the call. op_out receives an op that the caller releases with collect_op_release.
 *
 * COLLECT_E_INVALID, COLLECT_E_UNAVAILABLE (no such reduction of this dtype), COLLECT_E_MEMORY,
 * COLLECT_E_FULL, COLLECT_E_BUSY (the op before it is not produced yet), COLLECT_E_BOUNDARY.
 */
COLLECT_API int collect_comm_start(collect_comm *comm, const struct collect_call *call,
                                   collect_op **op_out);

/*
 * The same call over and over: checked and laid out once. The memory stays the same; `source` is
 * read at each start. An op of this kind completes and can be started again, any number of times;
 * it is COLLECT_OK, with no meaning, before the first start.
 */
COLLECT_API int collect_op_prepare(collect_comm *comm, const struct collect_call *call,
                                   collect_op **op_out);
/* Starts a prepared op; deadline_ns as in struct collect_call, 0: as prepared. COLLECT_E_BUSY: it
 * has not completed. COLLECT_E_CLOSED: the comm is gone. Otherwise as collect_comm_start. */
COLLECT_API int collect_op_start(collect_op *op, uint64_t deadline_ns);
/* Starts and waits in one call, for at most COLLECT_RUN_NS: the shortest way. As collect_op_start,
 * then as collect_op_wait. Also COLLECT_E_BOUNDARY: the call has blocks, and the view is another
 * than when it was prepared or last started by collect_op_start, whose caller looks whether the
 * blocks fit it. */
COLLECT_API int collect_op_run(collect_op *op);
/* Runs a prepared all-reduce on other memory than it was prepared with, which is kept. Besides,
 * COLLECT_E_INVALID: the memory is none, or overlaps in part; nothing is changed. */
COLLECT_API int collect_op_run_on(collect_op *op, const void *source, void *target,
                                  uint64_t count);

/* ---- messages ------------------------------------------------------------------------------ */

/*
 * A message goes from one member to another, or to itself. It is no operation of the group's
 * sequence: nobody else takes part, no view change or verdict concerns it as long as both are
 * members and the link between them stays.
 *
 * Matching: a receive takes the oldest message of its tag from its peer (0: from any), in the order
 * in which each member sent them; a message goes to the oldest receive that fits. So messages of a
 * pair and tag never overtake each other.
 *
 * Completion: a send completes when the receiver has taken it, all bytes are in its memory: no send
 * completes before its receive was called. Two members that send to each other and wait before
 * they receive wait for ever. A receive completes when all bytes are in its target.
 *
 * The memory is borrowed until the op completes; that of a receive that fails holds anything. The
 * op is waited for, looked at and released like any other. Functions: COLLECT_E_INVALID,
 * COLLECT_E_MEMORY, COLLECT_E_PEER (no member, or its link is lost), COLLECT_E_FULL (4096 messages
 * are pending). Completion:
 *
 * COLLECT_E_TIMEOUT    it passed its deadline (CLOCK_MONOTONIC; 0: none), noticed within a
 *                      twentieth of the engine's silence_ns, 50 ms at most
 * COLLECT_E_PEER       the link was lost or opened anew, the peer was expelled, or it gave up when
 *                      the message was on its way. Of a send: the message may have arrived
 * COLLECT_E_TRUNCATED  the message is longer than the receiver's memory; at both ends
 * COLLECT_E_ABORTED    collect_op_cancel or collect_comm_cancel_messages
 */
COLLECT_API int collect_comm_send(collect_comm *comm, uint64_t peer, uint64_t tag,
                                  const void *source, uint64_t bytes, uint64_t deadline_ns,
                                  collect_op **op_out);
/* bytes: room in the target; the message may be shorter. */
COLLECT_API int collect_comm_receive(collect_comm *comm, uint64_t peer, uint64_t tag, void *target,
                                     uint64_t bytes, uint64_t deadline_ns, collect_op **op_out);
/* Ends a pending message here, as aborted. COLLECT_E_INVALID: it is a collective's op. */
COLLECT_API int collect_op_cancel(collect_op *op);
/* Likewise all that are pending. collect_comm_abort does not concern messages. */
COLLECT_API int collect_comm_cancel_messages(collect_comm *comm);

/* ---- op ------------------------------------------------------------------------------------ */

/* Waits at most timeout_ns, driving progress meanwhile if no other thread does. Returns the op's
 * status: COLLECT_PENDING when time ran out or a signal arrived. */
COLLECT_API int collect_op_wait(collect_op *op, uint64_t timeout_ns);

/* Never blocks. */
COLLECT_API void collect_op_info_get(collect_op *op, struct collect_op_info *info_out);

/*
 * Of an op with is_produced: the source's elements [begin, end) are written and do not change any
 * more. In any order, each once; what can be sent of them is sent. The op completes when all were
 * named, and until then no other op of the comm can be started. What was named stays so when the
 * op runs again. left_out receives how many are missing; 0 when it is over, too.
 *
 * COLLECT_E_INVALID: beyond the source, or named before. COLLECT_E_MEMORY.
 */
COLLECT_API int collect_op_produce(collect_op *op, uint64_t begin, uint64_t end,
                                   uint64_t *left_out);

/*
 * Elements of the target that hold the result of the attempt under way, and that this function has
 * not told yet; waits for some for at most timeout_ns, as collect_op_wait does. When the op runs
 * again it begins anew, with another `attempt`: what was told before is no result of anything. Some
 * elements, all if need be, are told only when the op is complete.
 *
 * COLLECT_OK: *range_out is filled; with begin == end: all were told, the op is complete.
 * COLLECT_PENDING: none in time, or a signal arrived; range_out->attempt is the one under way, the
 * rest 0. COLLECT_E_INVALID: the op is prepared or a message. COLLECT_E_MEMORY. Otherwise the
 * status with which the op failed. One thread at a time for one op.
 */
COLLECT_API int collect_op_next_range(collect_op *op, uint64_t timeout_ns,
                                      struct collect_range *range_out);

/* Gives the caller's hold up. A pending op goes on and is freed when it completes: the memory it
 * borrowed must stay valid until then. Sets *op to NULL; accepts NULL. */
COLLECT_API void collect_op_release(collect_op **op);

/* ---- plans --------------------------------------------------------------------------------- */

/* Which algorithm the recipe gives a call of `bytes` (of the whole payload: all blocks together)
 * over `world` ranks. explanation_out (capacity bytes; may be NULL) receives a line for each
 * candidate with its predicted time. Integers only: the same answer everywhere. */
COLLECT_API int collect_choose(const struct collect_recipe *recipe, int collective, uint32_t world,
                               uint64_t bytes, char *explanation_out, size_t capacity);

/* Whether `algorithm` can do `collective`. */
COLLECT_API int collect_algorithm_has(int algorithm, int collective);

/* The plan of `rank` in a collective over `world` ranks. recipe->algorithm says which; not AUTO.
 * root: a rank, of rooted collectives. */
COLLECT_API int collect_plan_create(const struct collect_recipe *recipe, int collective,
                                    uint32_t world, uint32_t root, uint32_t rank,
                                    collect_plan **plan_out);
COLLECT_API void collect_plan_destroy(collect_plan **plan);
COLLECT_API uint32_t collect_plan_lane_count(const collect_plan *plan);
COLLECT_API uint32_t collect_plan_slice_count(const collect_plan *plan);
COLLECT_API uint32_t collect_plan_lane_slice(const collect_plan *plan, uint32_t lane);
COLLECT_API uint32_t collect_plan_step_count(const collect_plan *plan, uint32_t lane);
COLLECT_API int collect_plan_step(const collect_plan *plan, uint32_t lane, uint32_t index,
                                  struct collect_step *step_out);

/* Element range [*begin_out, *end_out) in bytes of `slice` when `bytes` are cut. */
COLLECT_API int collect_plan_slice(const collect_plan *plan, uint32_t slice, uint64_t bytes,
                                   uint64_t *begin_out, uint64_t *end_out);

/* Writes the plan as text; returns the length it needs without the terminating zero. */
COLLECT_API size_t collect_plan_print(const collect_plan *plan, char *text_out, size_t capacity);

/* Proves the plans of a whole world: sends matched with receives, every contribution once, one
 * owner per slice, no read before it is ready, no deadlock under `credit` frames per link. On
 * failure reason_out (capacity bytes) says which rank, lane and step breaks what. */
COLLECT_API int collect_plan_check(const struct collect_recipe *recipe, int collective,
                                   uint32_t world, uint32_t root, uint32_t credit,
                                   char *reason_out, size_t capacity);

/*
 * Proves a definition as collect_plan_check does, with one frame of credit per link. 0;
 * COLLECT_E_MEMORY; COLLECT_E_INVALID: reason_out (capacity bytes) says which slice and rank, or
 * which rank, lane and step.
 */
COLLECT_API int collect_definition_check(const struct collect_definition *definition,
                                         char *reason_out, size_t capacity);

/* The plan of `rank` by a definition. root: a rank, of rooted collectives. COLLECT_E_INVALID,
 * COLLECT_E_MEMORY. */
COLLECT_API int collect_definition_plan(const struct collect_definition *definition, uint32_t root,
                                        uint32_t rank, collect_plan **plan_out);

/*
 * Proves a definition and lets calls of this comm name its number, in any world: one definition for
 * each number, collective and world, copied, kept as long as the comm. All members have equal ones
 * before they are called for, and before an install in which a call may run again: the definition
 * is part of what members must agree on. Calls that a definition cannot do are refused; an
 * all-reduce of nothing is a barrier and does without. The same definition again: 0.
 *
 * COLLECT_E_INVALID (see collect_definition_check; or the number has another definition, or does
 * another collective), COLLECT_E_MEMORY, COLLECT_E_FULL (there are 4096).
 */
COLLECT_API int collect_comm_define(collect_comm *comm, const struct collect_definition *definition,
                                    char *reason_out, size_t capacity);

/* cffi: end */

#endif
