/*
 * collect: the public C ABI. This header, with its types in collect_types.h, is the only
 * declaration of it; the Python bindings are generated from what is between the cffi markers.
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

#include "include/collect_types.h"

#define COLLECT_API __attribute__((visibility("default")))

/* cffi: begin */

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
