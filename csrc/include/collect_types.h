/*
 * The types of the public C ABI: limits, enumerations, structures. collect.h has its functions, and
 * what holds for all of it. The Python bindings are generated from the part between the two
 * cffi markers.
 */
#ifndef COLLECT_TYPES_H
#define COLLECT_TYPES_H

#include <stddef.h>
#include <stdint.h>

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

/* cffi: end */

#endif
