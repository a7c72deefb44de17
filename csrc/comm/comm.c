/*
 * The view of a comm: freeze, report, install. The rules are in docs/protocol.md sections 2 to 4.
 */
#include "comm/comm.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"

/* ---- report ---- */

static void report_fill(struct collect_comm *comm, struct collect_report *report)
{
	const struct collect_op *op = comm->ops_head;
	memset(report, 0, sizeof(*report));
	report->epoch = comm->epoch;
	report->consumed_op = comm->consumed_op;
	report->consumed_attempt = comm->consumed_attempt;
	report->consumed_status = comm->consumed_status;
	report->is_retained = comm->consumed_op != 0 && comm->retained_op == comm->consumed_op;
	if (op != NULL) {
		report->inflight_op = op->number;
		report->inflight_attempt = comm->epoch;
		report->inflight_digest = op->digest;
		report->inflight_is_aborted = op->is_given_up;
		report->inflight_is_whole = op->is_whole;
		report->inflight_is_shaped = op->is_shaped;
		report->inflight_is_rooted = op->call.root != 0;
		col__call_print(op, report->inflight_descriptor, sizeof(report->inflight_descriptor));
	}
	/* Of a sub-group its parent tells. */
	for (uint32_t rank = 0; rank < comm->member_count && comm->scope == 0; rank++) {
		const struct col_link *link = comm->by_rank[rank];
		if (link == NULL || link->state != COL_LINK_LOST)
			continue;
		report->lost_peers[report->lost_count] = comm->members[rank];
		report->lost_kinds[report->lost_count] = (uint8_t)link->loss;
		report->lost_count++;
	}
}

int collect_comm_freeze(collect_comm *comm, struct collect_report *report_out)
{
	int status = COLLECT_OK;
	col_engine_enter(comm->engine);
	if (comm->scope != 0 && !comm->is_frozen) {
		status = COLLECT_E_INVALID;
	} else if (!comm->is_frozen) {
		comm->is_frozen = true;
		col__op_stop(comm);
		col__scopes_freeze(comm);
	}
	if (status == COLLECT_OK)
		report_fill(comm, report_out);
	col_engine_leave(comm->engine);
	return status;
}

/* ---- install ---- */

/* What an install allocates, before it changes anything. */
struct next_view {
	uint64_t *members;
	struct col_link **by_rank;
	struct col_word *words;
	uint32_t *recipe_numbers;
	struct collect_recipe recipe;
};

static void next_view_free(struct next_view *next)
{
	col_free(next->members);
	col_free(next->by_rank);
	col_free(next->words);
	col_free(next->recipe_numbers);
}

/* The caller keeps its arrays. */
static int recipe_copy(const struct collect_install *install, struct next_view *next)
{
	uint32_t count = install->member_count;
	const uint32_t **lists[] = {&next->recipe.hosts, &next->recipe.weights, &next->recipe.order};
	next->recipe = *install->recipe;
	next->recipe_numbers = col_alloc_zeroed(3 * (size_t)count, sizeof(uint32_t));
	if (next->recipe_numbers == NULL)
		return COLLECT_E_MEMORY;
	for (uint32_t i = 0; i < 3; i++) {
		uint32_t *copy = next->recipe_numbers + i * (size_t)count;
		if (*lists[i] == NULL)
			continue;
		memcpy(copy, *lists[i], count * sizeof(*copy));
		*lists[i] = copy;
	}
	return COLLECT_OK;
}

static int next_view_prepare(struct collect_comm *comm, const struct collect_install *install,
                             struct next_view *next)
{
	uint32_t count = install->member_count;
	memset(next, 0, sizeof(*next));
	next->members = col_alloc_zeroed(count, sizeof(*next->members));
	next->by_rank = col_alloc_zeroed(count, sizeof(struct col_link *));
	next->words = col_alloc_zeroed(count, sizeof(*next->words));
	if (next->members == NULL || next->by_rank == NULL || next->words == NULL ||
	    recipe_copy(install, next) < 0)
		goto fail;
	for (uint32_t rank = 0; rank < count; rank++) {
		next->members[rank] = install->members[rank].incarnation;
		if (rank == install->self_rank)
			continue;
		next->by_rank[rank] = col__mesh_link(comm, next->members[rank]);
		if (next->by_rank[rank] == NULL)
			goto fail;
	}
	return COLLECT_OK;
fail:
	next_view_free(next);
	return COLLECT_E_MEMORY;
}

static bool is_named(const uint64_t *names, uint32_t count, uint64_t name)
{
	for (uint32_t i = 0; i < count; i++)
		if (names[i] == name)
			return true;
	return false;
}

/* Opens what is not open. The later member dials the earlier one: so exactly one of them does, and
 * a newcomer, who comes last, dials everybody. */
static void links_open(struct collect_comm *comm, const struct collect_install *install)
{
	for (uint32_t rank = 0; rank < comm->member_count; rank++) {
		struct col_link *link = comm->by_rank[rank];
		if (link == NULL)
			continue;
		bool is_anew = is_named(install->redial, install->redial_count, comm->members[rank]) &&
		               link->opened_epoch != install->epoch;
		bool is_dialer = comm->self_rank > rank;
		if (!is_anew && (link->state == COL_LINK_UP || link->state == COL_LINK_DIALING))
			continue;
		if (is_dialer)
			col_link_dial(link, install->members[rank].addresses, install->epoch);
		else
			col_link_expect(link, install->epoch);
	}
}

/* Links to members that are not members any more. Strangers' links stay: they may join. */
static void links_prune(struct collect_comm *comm, const uint64_t *old_members, uint32_t old_count)
{
	for (uint32_t i = 0; i < old_count; i++) {
		uint64_t peer = old_members[i];
		struct col_link *link = col__mesh_find(comm, peer);
		if (link != NULL && !col__mesh_is_member(comm, peer))
			col__mesh_remove(comm, link);
	}
}

/* Whether somebody left between two views. */
static bool has_lost(const struct collect_comm *comm, const uint64_t *old_members,
                     uint32_t old_count)
{
	for (uint32_t i = 0; i < old_count; i++)
		if (!col__mesh_is_member(comm, old_members[i]))
			return true;
	return false;
}

/* Who calls from here on counts other ranks, and may name another root: then nobody sends a frame.
 * Only an op that everybody has in flight has one root for certain. */
static void ops_uproot(struct collect_comm *comm, const struct collect_install *install)
{
	bool is_rerun = install->verdict == COLLECT_VERDICT_RERUN;
	for (struct collect_op *op = comm->ops_head; op != NULL; op = op->next)
		op->is_uprooted =
		        op->call.root != 0 && !(is_rerun && op->number == install->verdict_op);
}

void col__comm_view_note(struct collect_comm *comm)
{
	uint32_t slot = comm->view_count++ % COL_VIEWS_MAX;
	comm->views[slot].epoch = comm->epoch;
	comm->views[slot].member_count = comm->member_count;
}

/* Where the ranks of the old view are now. Its sub-groups' members are among them. */
static void scopes_adopt(struct collect_comm *comm, const uint64_t *old_members, uint32_t old_count)
{
	uint16_t moved[COLLECT_RANKS_MAX];
	if (comm->scopes == NULL)
		return;
	for (uint32_t rank = 0; rank < old_count; rank++) {
		uint32_t now = col__mesh_rank(comm, old_members[rank]);
		moved[rank] = now != COL_RANK_NONE ? (uint16_t)now : UINT16_MAX;
	}
	col__scopes_adopt(comm, moved);
}

static void view_adopt(struct collect_comm *comm, const struct collect_install *install,
                       struct next_view *next)
{
	uint64_t *old_members = comm->members;
	uint32_t old_count = comm->member_count;
	col__runners_drop(comm);
	col_free(comm->by_rank);
	col_free(comm->words);
	col_free(comm->recipe_numbers);
	comm->recipe = next->recipe;
	comm->recipe_numbers = next->recipe_numbers;
	comm->members = next->members;
	comm->by_rank = next->by_rank;
	comm->words = next->words;
	comm->member_count = install->member_count;
	comm->self_rank = install->self_rank;
	comm->epoch = install->epoch;
	comm->is_frozen = false;
	col__comm_view_note(comm);
	bool is_smaller = has_lost(comm, old_members, old_count);
	if (is_smaller)
		ops_uproot(comm, install);
	col__share_retire(comm, is_smaller);
	for (struct col_link *link = comm->links; link != NULL; link = link->next)
		link->rank = COL_RANK_NONE;
	for (uint32_t rank = 0; rank < comm->member_count; rank++)
		if (comm->by_rank[rank] != NULL)
			comm->by_rank[rank]->rank = rank;
	scopes_adopt(comm, old_members, old_count);
	links_prune(comm, old_members, old_count);
	col_free(old_members);
	links_open(comm, install);
	col__messages_view_changed(comm);
}

static void renumber(struct collect_comm *comm, uint64_t op_base)
{
	comm->submitted = op_base;
	for (struct collect_op *op = comm->ops_head; op != NULL; op = op->next)
		op->number = ++comm->submitted;
}

static void verdict_fail(struct collect_comm *comm, uint64_t failed_op)
{
	if (comm->ops_head != NULL && comm->ops_head->number == failed_op) {
		col__op_head_finish(comm, COLLECT_E_FAILED, comm->epoch);
	} else if (comm->consumed_op < failed_op) {
		/* Not submitted here yet: it fails as soon as it is. */
		comm->consumed_op = failed_op;
		comm->consumed_attempt = comm->epoch;
		comm->consumed_status = COLLECT_E_FAILED;
	}
}

static void verdict_repair(struct collect_comm *comm, const struct collect_scope_verdict *verdict)
{
	struct collect_op *op = comm->ops_head;
	if (op != NULL && op->number == verdict->verdict_op)
		col__op_repair(comm, verdict->verdict_attempt);
	if (comm->retained_op != verdict->verdict_op)
		return;
	for (uint32_t i = 0; i < verdict->repair_count; i++)
		if (verdict->repairs[i].holder == comm->self)
			col__mesh_repair_send(comm, verdict->repairs[i].needer);
}

void col__comm_settle(struct collect_comm *comm, const struct collect_scope_verdict *verdict)
{
	if (verdict->verdict == COLLECT_VERDICT_FAIL)
		verdict_fail(comm, verdict->verdict_op);
	else if (verdict->verdict == COLLECT_VERDICT_REPAIR)
		verdict_repair(comm, verdict);
}

void col__comm_resume(struct collect_comm *comm)
{
	col__share_open(comm);
	col__mesh_offer_waiting(comm);
	col__op_start_next(comm);
}

static bool recipe_is_valid(const struct collect_recipe *recipe)
{
	return recipe != NULL && recipe->algorithm >= COLLECT_AUTO &&
	       recipe->algorithm < COLLECT_ALGORITHM_COUNT &&
	       recipe->level_count <= COLLECT_LEVELS_MAX;
}

static bool scopes_are_valid(const struct collect_install *install)
{
	if (install->scope_count > 0 && install->scopes == NULL)
		return false;
	for (uint32_t i = 0; i < install->scope_count; i++)
		if (install->scopes[i].scope == 0)
			return false;
	return true;
}

static int install_check(struct collect_comm *comm, const struct collect_install *install)
{
	if (comm->scope != 0 || !scopes_are_valid(install))
		return COLLECT_E_INVALID;
	if (install->epoch <= comm->epoch || install->member_count == 0 ||
	    install->member_count > COLLECT_RANKS_MAX ||
	    install->self_rank >= install->member_count ||
	    install->members[install->self_rank].incarnation != comm->self ||
	    !recipe_is_valid(install->recipe))
		return COLLECT_E_INVALID;
	/* A planned switch comes between operations. A joiner may have submitted some already. */
	if (!comm->is_frozen && comm->epoch != 0 &&
	    (comm->ops_head != NULL || col__scopes_are_busy(comm)))
		return COLLECT_E_BUSY;
	return COLLECT_OK;
}

int collect_comm_install(collect_comm *comm, const struct collect_install *install)
{
	struct next_view next;
	col_engine_enter(comm->engine);
	int status = install_check(comm, install);
	if (status == COLLECT_OK)
		status = next_view_prepare(comm, install, &next);
	if (status < 0) {
		col_engine_leave(comm->engine);
		return status;
	}
	view_adopt(comm, install, &next);
	if (install->op_base != 0)
		renumber(comm, install->op_base);
	col__comm_settle(comm, &(struct collect_scope_verdict){
		.verdict = install->verdict,
		.verdict_op = install->verdict_op,
		.verdict_attempt = install->verdict_attempt,
		.repairs = install->repairs,
		.repair_count = install->repair_count,
	});
	col__comm_resume(comm);
	col__scopes_settle(comm, install);
	col_engine_leave(comm->engine);
	return COLLECT_OK;
}

int collect_comm_rebase(collect_comm *comm, uint64_t op_base)
{
	col_engine_enter(comm->engine);
	int status = comm->ops_head != NULL ? COLLECT_E_BUSY : COLLECT_OK;
	if (comm->scope != 0)
		status = COLLECT_E_INVALID;
	if (status == COLLECT_OK)
		comm->submitted = op_base;
	col_engine_leave(comm->engine);
	return status;
}

/* ---- dialing ahead ---- */

int collect_comm_dial(collect_comm *comm, const struct collect_member *members,
                      uint32_t member_count)
{
	int status = comm->scope != 0 ? COLLECT_E_INVALID : COLLECT_OK;
	col_engine_enter(comm->engine);
	for (uint32_t i = 0; i < member_count && status == COLLECT_OK; i++) {
		if (members[i].incarnation == comm->self)
			continue;
		struct col_link *link = col__mesh_link(comm, members[i].incarnation);
		if (link == NULL)
			status = COLLECT_E_MEMORY;
		else if (link->state == COL_LINK_UP)
			col__mesh_post(comm, COLLECT_EVENT_LINK_UP, members[i].incarnation, 0, "");
		else if (link->state != COL_LINK_DIALING)
			col_link_dial(link, members[i].addresses, comm->epoch);
	}
	col_engine_leave(comm->engine);
	return status;
}

/* ---- time ---- */

static void op_tick(struct collect_comm *comm)
{
	struct collect_op *op = comm->ops_head;
	if (op == NULL || op->is_late || op->deadline_ns == 0 ||
	    comm->engine->now_ns < op->deadline_ns)
		return;
	op->is_late = true;
	col__mesh_post(comm, COLLECT_EVENT_LATE, comm->self, 0, "the operation passed its deadline");
}

void col_comm_tick(struct collect_comm *comm, uint64_t stopped_ns)
{
	struct col_link *next;
	op_tick(comm);
	col__messages_tick(comm);
	for (struct col_link *link = comm->links; link != NULL; link = next) {
		next = link->next;
		if (stopped_ns > 0)
			col_link_forgive(link, stopped_ns);
		col_link_tick(link, comm->engine->heartbeat_ns);
		/* A stranger's link is of use only while it is open or being opened from here. */
		bool is_of_use = link->state == COL_LINK_UP || link->state == COL_LINK_DIALING;
		if (!is_of_use && !col__mesh_is_member(comm, link->options.peer))
			col__mesh_remove(comm, link);
	}
}

/* ---- life ---- */

int collect_comm_create(collect_engine *engine, uint64_t key, uint64_t self,
                        collect_comm **comm_out)
{
	if (self == 0)
		return COLLECT_E_INVALID;
	struct collect_comm *comm = col_alloc_zeroed(1, sizeof(*comm));
	if (comm == NULL)
		return COLLECT_E_MEMORY;
	comm->engine = engine;
	comm->key = key;
	comm->self = self;
	comm->runners_version = 1; /* an op that never ran has none */
	col__messages_init(comm);
	col_engine_enter(engine);
	comm->next = engine->comms;
	engine->comms = comm;
	col_engine_leave(engine);
	*comm_out = comm;
	return COLLECT_OK;
}

void col__comm_fini(struct collect_comm *comm)
{
	col__messages_fini(comm);
	COL_ASSERT(comm->waiting.head == NULL);
	col__share_close(comm);
	col__runners_drop(comm);
	col_free(comm->members);
	col_free(comm->by_rank);
	col_free(comm->words);
	col_free(comm->recipe_numbers);
	col_free(comm->scratch.bytes);
	col_free(comm->result.bytes);
	col_free(comm->retained.bytes);
	col_free(comm->repair_has);
}

void col__comm_give_up(struct collect_comm *comm)
{
	comm->is_frozen = true; /* nothing starts any more */
	col__op_give_up_all(comm, COLLECT_E_CLOSED);
	col__messages_give_up(comm, COLLECT_E_CLOSED);
	while (comm->ops_head != NULL) {
		struct collect_op *op = comm->ops_head;
		comm->ops_head = op->next;
		op->is_queued = false;
		col__op_release(op);
	}
	if (comm->scope != 0)
		col__scope_rest(comm);
}

static void group_close(struct collect_comm *comm)
{
	struct collect_engine *engine = comm->engine;
	col__scopes_close(comm);
	for (struct collect_comm **at = &engine->comms; *at != NULL; at = &(*at)->next) {
		if (*at != comm)
			continue;
		*at = comm->next;
		break;
	}
	while (comm->links != NULL)
		col__mesh_remove(comm, comm->links);
	col__comm_fini(comm);
}

void collect_comm_destroy(collect_comm **comm_in)
{
	struct collect_comm *comm = *comm_in;
	if (comm == NULL)
		return;
	bool is_detached = comm->scope != 0 && comm->parent == NULL;
	if (!is_detached) {
		struct collect_engine *engine = comm->engine;
		col_engine_enter(engine);
		col__comm_give_up(comm);
		if (comm->scope != 0)
			col__scope_leave(comm);
		else
			group_close(comm);
		col_engine_leave(engine);
	}
	col_free(comm);
	*comm_in = NULL;
}
