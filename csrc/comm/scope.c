/*
 * Sub-groups: making them, finding them, and what their parent's freezes, installs and end do to
 * them. Nothing of it sends a frame: members make the same sub-group each for itself.
 *
 * An install never fails because of a sub-group: its members only become fewer, so that it can be
 * adapted in place. A scope is never used twice in a parent, so frames of one that is gone are
 * known to be stale, however late they come. The scopes that are gone are remembered for that, at
 * some 8 bytes each; only this process's own calls add to them.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "comm/comm.h"

#define GONE_CAPACITY_MIN 64u

/* Neighbouring scopes, and keys that differ in a few bits, give keys with nothing in common. */
static uint64_t key_mix(uint64_t key, uint32_t scope)
{
	uint64_t mixed = (uint64_t)scope * 0x9e3779b97f4a7c15u;
	mixed = (mixed ^ mixed >> 32) * 0xd6e8feb86659fd93u;
	return key ^ mixed ^ mixed >> 32;
}

/* ---- names ---- */

static uint32_t bucket_of(uint32_t scope)
{
	return (scope * 0x9e3779b9u) >> 26; /* of COL_SCOPE_BUCKETS */
}

int col__scopes_make(struct collect_comm *parent)
{
	if (parent->scopes == NULL)
		parent->scopes = col_alloc_zeroed(1, sizeof(*parent->scopes));
	return parent->scopes != NULL ? COLLECT_OK : COLLECT_E_MEMORY;
}

struct collect_comm *col__scope_find(const struct collect_comm *parent, uint32_t scope)
{
	if (parent->scopes == NULL)
		return NULL;
	struct collect_comm *child = parent->scopes->buckets[bucket_of(scope)];
	while (child != NULL && child->scope != scope)
		child = child->child->next;
	return child;
}

/* Its place in the set, or the free one where it belongs. */
static uint32_t *gone_place(uint32_t *gone, uint32_t capacity, uint32_t scope)
{
	uint32_t at = (scope * 0x9e3779b9u) & (capacity - 1);
	while (gone[at] != 0 && gone[at] != scope)
		at = (at + 1) & (capacity - 1);
	return &gone[at];
}

bool col__scope_is_gone(const struct collect_comm *parent, uint32_t scope)
{
	const struct col_scopes *scopes = parent->scopes;
	return scopes != NULL && scopes->gone_capacity != 0 &&
	       *gone_place(scopes->gone, scopes->gone_capacity, scope) != 0;
}

/* Room for one more: so that a sub-group can always be destroyed, it is made when one is. */
static int gone_reserve(struct col_scopes *scopes)
{
	uint32_t needed = 2 * (scopes->gone_count + scopes->count + 1);
	uint32_t capacity = scopes->gone_capacity != 0 ? scopes->gone_capacity : GONE_CAPACITY_MIN;
	while (capacity < needed)
		capacity *= 2;
	if (capacity == scopes->gone_capacity)
		return COLLECT_OK;
	uint32_t *gone = col_alloc_zeroed(capacity, sizeof(*gone));
	if (gone == NULL)
		return COLLECT_E_MEMORY;
	for (uint32_t i = 0; i < scopes->gone_capacity; i++)
		if (scopes->gone[i] != 0)
			*gone_place(gone, capacity, scopes->gone[i]) = scopes->gone[i];
	col_free(scopes->gone);
	scopes->gone = gone;
	scopes->gone_capacity = capacity;
	return COLLECT_OK;
}

/* ---- the recipe ---- */

/* Numbers of hosts must be less than the world: they are counted anew, by first appearance. */
static bool hosts_restrict(const struct collect_comm *child, const uint32_t *hosts,
                           uint32_t *hosts_out)
{
	uint16_t numbers[COLLECT_RANKS_MAX];
	uint32_t count = 0;
	memset(numbers, 0xff, sizeof(numbers));
	for (uint32_t rank = 0; rank < child->member_count; rank++) {
		uint32_t host = hosts[child->child->parent_ranks[rank]];
		if (host >= COLLECT_RANKS_MAX)
			return false;
		if (numbers[host] == UINT16_MAX)
			numbers[host] = (uint16_t)count++;
		hosts_out[rank] = numbers[host];
	}
	return true;
}

/* False: nobody here owns anything, so all do alike. */
static bool weights_restrict(const struct collect_comm *child, const uint32_t *weights,
                             uint32_t *weights_out)
{
	bool has_some = false;
	for (uint32_t rank = 0; rank < child->member_count; rank++) {
		weights_out[rank] = weights[child->child->parent_ranks[rank]];
		has_some = has_some || weights_out[rank] != 0;
	}
	return has_some;
}

static bool order_restrict(const struct collect_comm *child, const uint32_t *order,
                           uint32_t *order_out)
{
	uint32_t count = 0;
	for (uint32_t place = 0; place < child->parent->member_count; place++) {
		if (order[place] >= child->parent->member_count)
			return false;
		uint32_t rank = child->child->ranks[order[place]];
		if (rank != UINT16_MAX && count < child->member_count)
			order_out[count++] = rank;
	}
	return count == child->member_count;
}

static bool levels_fit(const struct collect_recipe *recipe, uint32_t member_count)
{
	uint64_t product = 1;
	for (uint32_t level = 0; level < recipe->level_count; level++)
		product = product > member_count ? product : product * recipe->radices[level];
	return product == member_count;
}

/* The parent's, for these members. */
static void recipe_restrict(struct collect_comm *child)
{
	const struct collect_recipe *whole = &child->parent->recipe;
	struct collect_recipe *recipe = &child->recipe;
	uint32_t count = child->member_count;
	uint32_t *numbers = child->recipe_numbers;
	*recipe = *whole;
	recipe->hosts = NULL;
	recipe->weights = NULL;
	recipe->order = NULL;
	if (whole->hosts != NULL && hosts_restrict(child, whole->hosts, numbers))
		recipe->hosts = numbers;
	if (whole->weights != NULL && weights_restrict(child, whole->weights, numbers + count))
		recipe->weights = numbers + count;
	if (whole->order != NULL && order_restrict(child, whole->order, numbers + 2 * (size_t)count))
		recipe->order = numbers + 2 * (size_t)count;
	if (!levels_fit(recipe, count))
		recipe->level_count = 0;
}

/* ---- the view ---- */

/* members and parent_ranks are right: all that follows from them and the parent. */
static void view_enter(struct collect_comm *child)
{
	struct collect_comm *parent = child->parent;
	memset(child->child->ranks, 0xff, sizeof(child->child->ranks));
	for (uint32_t rank = 0; rank < child->member_count; rank++) {
		uint16_t parent_rank = child->child->parent_ranks[rank];
		child->child->ranks[parent_rank] = (uint16_t)rank;
		child->by_rank[rank] = parent->by_rank[parent_rank];
		if (child->members[rank] == child->self)
			child->self_rank = rank;
	}
	memset(child->words, 0, child->member_count * sizeof(*child->words));
	recipe_restrict(child);
	col__flows_reset(child);
	child->epoch = parent->epoch;
	child->is_frozen = false;
	col__comm_view_note(child);
}

/* Frames whose epoch has come are in a window from here on. */
static void waiting_admit(struct collect_comm *child)
{
	col__waiting_drop_older(&child->waiting, child->epoch);
	for (struct col_waiting_frame *it = child->waiting.head; it != NULL; it = it->next) {
		uint32_t rank = col__rank_of(child, it->link);
		if (it->frame.attempt > child->epoch || it->early_bytes == 0)
			continue;
		col__waiting_admit(it);
		bool is_data = it->frame.kind == COL_FRAME_DATA || it->frame.kind == COL_FRAME_REPAIR;
		if (is_data && rank != COL_RANK_NONE)
			(void)col__flow_take(child, rank, &it->frame);
	}
}

static void child_adopt(struct collect_comm *child, const uint16_t *moved)
{
	struct col_child *own = child->child;
	uint32_t count = 0;
	for (uint32_t rank = 0; rank < child->member_count; rank++) {
		if (moved[own->parent_ranks[rank]] == UINT16_MAX)
			continue;
		child->members[count] = child->members[rank];
		own->parent_ranks[count++] = moved[own->parent_ranks[rank]];
	}
	bool is_smaller = count < child->member_count;
	child->member_count = count;
	col__runners_drop(child);
	col__share_retire(child, is_smaller);
	view_enter(child);
	/* As of a group: who calls from here on may name another root. */
	for (struct collect_op *op = child->ops_head; op != NULL && is_smaller; op = op->next)
		op->is_uprooted = op->call.root != 0;
	waiting_admit(child);
}

void col__scopes_adopt(struct collect_comm *parent, const uint16_t *moved)
{
	if (parent->scopes == NULL)
		return;
	col__waiting_drop_older(&parent->scopes->waiting, parent->epoch);
	for (uint32_t i = 0; i < COL_SCOPE_BUCKETS; i++)
		for (struct collect_comm *child = parent->scopes->buckets[i]; child != NULL;
		     child = child->child->next)
			child_adopt(child, moved);
}

/* ---- verdicts ---- */

/* Without memory for it the member that has yet to make the sub-group would run an op that failed
 * elsewhere, and be told of another number of its; its own deadline ends that. */
static void failure_keep(struct collect_comm *parent, const struct collect_scope_verdict *verdict)
{
	if (verdict->verdict != COLLECT_VERDICT_FAIL ||
	    col__scope_is_gone(parent, verdict->scope) || col__scopes_make(parent) < 0)
		return;
	struct col_scope_failure *failure = parent->scopes->failures;
	while (failure != NULL && failure->scope != verdict->scope)
		failure = failure->next;
	if (failure == NULL) {
		failure = col_alloc_zeroed(1, sizeof(*failure));
		if (failure == NULL)
			return;
		failure->scope = verdict->scope;
		failure->next = parent->scopes->failures;
		parent->scopes->failures = failure;
	}
	if (verdict->verdict_op > failure->op) {
		failure->op = verdict->verdict_op;
		failure->epoch = parent->epoch;
	}
}

/* What was decided before it was here. */
static void failure_apply(struct collect_comm *child)
{
	for (struct col_scope_failure **at = &child->parent->scopes->failures; *at != NULL;
	     at = &(*at)->next) {
		struct col_scope_failure *failure = *at;
		if (failure->scope != child->scope)
			continue;
		child->consumed_op = failure->op;
		child->consumed_attempt = failure->epoch;
		child->consumed_status = COLLECT_E_FAILED;
		*at = failure->next;
		col_free(failure);
		return;
	}
}

void col__scopes_settle(struct collect_comm *parent, const struct collect_install *install)
{
	for (uint32_t i = 0; i < install->scope_count; i++) {
		const struct collect_scope_verdict *verdict = &install->scopes[i];
		struct collect_comm *child = col__scope_find(parent, verdict->scope);
		if (child == NULL) {
			failure_keep(parent, verdict);
			continue;
		}
		bool is_rerun = verdict->verdict == COLLECT_VERDICT_RERUN;
		for (struct collect_op *op = child->ops_head; op != NULL; op = op->next)
			op->is_uprooted =
				op->is_uprooted && !(is_rerun && op->number == verdict->verdict_op);
		col__comm_settle(child, verdict);
	}
	col__scopes_each(parent, col__comm_resume);
}

/* ---- all of a parent's ---- */

void col__scopes_each(struct collect_comm *parent, void (*act)(struct collect_comm *child))
{
	for (uint32_t i = 0; parent->scopes != NULL && i < COL_SCOPE_BUCKETS; i++)
		for (struct collect_comm *child = parent->scopes->buckets[i]; child != NULL;
		     child = child->child->next)
			act(child);
}

static void freeze(struct collect_comm *child)
{
	child->is_frozen = true;
	col__op_stop(child);
}

void col__scopes_freeze(struct collect_comm *parent)
{
	col__scopes_each(parent, freeze);
}

/* With an op in flight, or repairs that wait for their needer's window. */
static bool is_busy(const struct collect_comm *child)
{
	bool is = child->ops_head != NULL;
	for (uint32_t rank = 0; rank < child->member_count && !is; rank++)
		is = child->child->flows[rank].head != NULL;
	return is;
}

bool col__scopes_are_busy(struct collect_comm *parent)
{
	for (uint32_t i = 0; parent->scopes != NULL && i < COL_SCOPE_BUCKETS; i++)
		for (struct collect_comm *child = parent->scopes->buckets[i]; child != NULL;
		     child = child->child->next)
			if (is_busy(child))
				return true;
	return false;
}

void col__scopes_drop_waiting(struct collect_comm *parent, const struct col_link *link)
{
	if (parent->scopes == NULL)
		return;
	col__waiting_drop(&parent->scopes->waiting, link);
	for (uint32_t i = 0; i < COL_SCOPE_BUCKETS; i++)
		for (struct collect_comm *child = parent->scopes->buckets[i]; child != NULL;
		     child = child->child->next)
			col__waiting_drop(&child->waiting, link);
}

/* ---- the engine's list ---- */

void col__scope_wake(struct collect_comm *child)
{
	if (child->child->is_busy)
		return;
	child->child->is_busy = true;
	child->next = child->engine->comms;
	child->engine->comms = child;
}

void col__scope_rest(struct collect_comm *child)
{
	if (!child->child->is_busy)
		return;
	child->child->is_busy = false;
	/* child->next stays: who goes through the list may be at this very place. */
	for (struct collect_comm **at = &child->engine->comms; *at != NULL; at = &(*at)->next) {
		if (*at != child)
			continue;
		*at = child->next;
		return;
	}
}

/* ---- life ---- */

static void child_free(struct collect_comm *child)
{
	col__waiting_drop(&child->waiting, NULL);
	col__comm_fini(child);
	col_free(child->child->parent_ranks);
	col_free(child->child->flows);
	col_free(child->child);
	child->child = NULL;
	child->parent = NULL;
}

void col__scope_leave(struct collect_comm *child)
{
	struct col_scopes *scopes = child->parent->scopes;
	struct collect_comm **at = &scopes->buckets[bucket_of(child->scope)];
	while (*at != child)
		at = &(*at)->child->next;
	*at = child->child->next;
	scopes->count--;
	*gone_place(scopes->gone, scopes->gone_capacity, child->scope) = child->scope;
	scopes->gone_count++;
	col__op_stop(child);
	child_free(child);
}

void col__scopes_close(struct collect_comm *parent)
{
	struct col_scopes *scopes = parent->scopes;
	if (scopes == NULL)
		return;
	for (uint32_t i = 0; i < COL_SCOPE_BUCKETS; i++) {
		while (scopes->buckets[i] != NULL) {
			struct collect_comm *child = scopes->buckets[i];
			col__comm_give_up(child);
			col__scope_leave(child);
		}
	}
	while (scopes->failures != NULL) {
		struct col_scope_failure *failure = scopes->failures;
		scopes->failures = failure->next;
		col_free(failure);
	}
	col__waiting_drop(&scopes->waiting, NULL);
	col_free(scopes->gone);
	col_free(scopes);
	parent->scopes = NULL;
}

/* ---- making one ---- */

static int members_check(const struct collect_comm *parent, const uint64_t *members,
                         uint32_t member_count, uint16_t *parent_ranks_out)
{
	uint8_t is_named[COLLECT_RANKS_MAX] = {0};
	bool has_self = false;
	bool has_stranger = false;
	for (uint32_t i = 0; i < member_count; i++) {
		uint32_t rank = col__mesh_rank(parent, members[i]);
		has_self = has_self || members[i] == parent->self;
		if (rank == COL_RANK_NONE) {
			has_stranger = true;
			continue;
		}
		if (is_named[rank])
			return COLLECT_E_INVALID;
		is_named[rank] = 1;
		parent_ranks_out[i] = (uint16_t)rank;
	}
	if (!has_self)
		return COLLECT_E_INVALID;
	return has_stranger ? COLLECT_E_MEMBERS : COLLECT_OK;
}

static int split_check(const struct collect_comm *parent, uint32_t scope)
{
	if (parent->scope != 0 || parent->epoch == 0 || scope == 0)
		return COLLECT_E_INVALID;
	if (parent->is_frozen)
		return COLLECT_E_BUSY;
	if (col__scope_find(parent, scope) != NULL || col__scope_is_gone(parent, scope))
		return COLLECT_E_INVALID;
	bool is_full = parent->scopes != NULL && parent->scopes->count >= COL_SCOPES_MAX;
	return is_full ? COLLECT_E_FULL : COLLECT_OK;
}

/* NULL: out of memory. */
static struct collect_comm *child_alloc(uint32_t count)
{
	struct collect_comm *comm = col_alloc_zeroed(1, sizeof(*comm));
	struct col_child *own = col_alloc_zeroed(1, sizeof(*own));
	if (comm == NULL || own == NULL)
		goto fail;
	comm->child = own;
	own->parent_ranks = col_alloc_zeroed(count, sizeof(*own->parent_ranks));
	own->flows = col_alloc_zeroed(count, sizeof(*own->flows));
	comm->members = col_alloc_zeroed(count, sizeof(*comm->members));
	comm->by_rank = col_alloc_zeroed(count, sizeof(struct col_link *));
	comm->words = col_alloc_zeroed(count, sizeof(*comm->words));
	comm->recipe_numbers = col_alloc_zeroed(3 * (size_t)count, sizeof(uint32_t));
	if (own->parent_ranks == NULL || own->flows == NULL || comm->members == NULL ||
	    comm->by_rank == NULL || comm->words == NULL || comm->recipe_numbers == NULL)
		goto fail;
	return comm;
fail:
	if (own != NULL) {
		col_free(own->parent_ranks);
		col_free(own->flows);
		col_free(own);
	}
	if (comm != NULL) {
		col_free(comm->members);
		col_free(comm->by_rank);
		col_free(comm->words);
		col_free(comm->recipe_numbers);
		col_free(comm);
	}
	return NULL;
}

/* The frames of it that came before it was here. */
static void waiting_fetch(struct collect_comm *child)
{
	struct col_waiting *all = &child->parent->scopes->waiting;
	struct col_waiting_frame *before = NULL;
	struct col_waiting_frame *it = all->head;
	while (it != NULL) {
		struct col_waiting_frame *next = it->next;
		if (it->frame.group != child->scope) {
			before = it;
		} else {
			it = col__waiting_unlink(all, before);
			it->next = NULL;
			if (child->waiting.tail != NULL)
				child->waiting.tail->next = it;
			else
				child->waiting.head = it;
			child->waiting.tail = it;
		}
		it = next;
	}
}

static struct collect_comm *child_make(struct collect_comm *parent, uint32_t scope,
                                       const uint64_t *members, const uint16_t *parent_ranks,
                                       uint32_t count)
{
	if (col__scopes_make(parent) < 0 || gone_reserve(parent->scopes) < 0)
		return NULL;
	struct collect_comm *child = child_alloc(count);
	if (child == NULL)
		return NULL;
	child->engine = parent->engine;
	child->parent = parent;
	child->scope = scope;
	child->key = key_mix(parent->key, scope);
	child->self = parent->self;
	child->runners_version = 1; /* an op that never ran has none */
	child->member_count = count;
	memcpy(child->members, members, count * sizeof(*members));
	memcpy(child->child->parent_ranks, parent_ranks, count * sizeof(*parent_ranks));
	col__messages_init(child);
	struct collect_comm **bucket = &parent->scopes->buckets[bucket_of(scope)];
	child->child->next = *bucket;
	*bucket = child;
	parent->scopes->count++;
	return child;
}

int collect_comm_split(collect_comm *parent, uint32_t scope, const uint64_t *members,
                       uint32_t member_count, collect_comm **comm_out)
{
	uint16_t parent_ranks[COLLECT_RANKS_MAX];
	if (members == NULL || member_count == 0 || member_count > COLLECT_RANKS_MAX)
		return COLLECT_E_INVALID;
	col_engine_enter(parent->engine);
	struct collect_comm *child = NULL;
	int status = split_check(parent, scope);
	if (status == COLLECT_OK)
		status = members_check(parent, members, member_count, parent_ranks);
	if (status == COLLECT_OK) {
		child = child_make(parent, scope, members, parent_ranks, member_count);
		status = child != NULL ? COLLECT_OK : COLLECT_E_MEMORY;
	}
	if (child != NULL) {
		view_enter(child);
		failure_apply(child);
		waiting_fetch(child);
		waiting_admit(child);
		col__comm_resume(child);
	}
	col_engine_leave(parent->engine);
	if (status == COLLECT_OK)
		*comm_out = child;
	return status;
}

uint64_t collect_comm_key(const collect_comm *comm)
{
	return comm->key;
}
