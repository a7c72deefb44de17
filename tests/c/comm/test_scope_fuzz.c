/*
 * Random lives of sub-groups: members begin operations of the group and of overlapping sub-groups
 * in any order, make sub-groups late, are flushed at any moment, die, lose links and run out of
 * memory. A coordinator in this thread decides about each scope as docs/protocol.md says.
 *
 * Checked: every operation ends; who completes one has the result of the members of the attempt
 * that it names; and all have the same attempt.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/prng.h"
#include "comm/scopes.h"

#define PEERS 4u
#define SCOPES 7u /* the first is the group */
#define OPS 14u
#define EPOCHS_MAX 400u
#define ELEMENTS_MAX 6000u

static const uint32_t masks[SCOPES] = {15, 3, 12, 5, 7, 15, 14};

struct fuzz {
	struct world world;
	struct col_prng prng;
	struct scope scopes[SCOPES];
	uint32_t alive;
	uint32_t masks[EPOCHS_MAX]; /* members by epoch */
	collect_op *ops[SCOPES][PEERS][OPS];
	uint32_t begun[SCOPES][PEERS];
	int64_t *values[SCOPES][PEERS][OPS];
	struct collect_report reports[SCOPES][PEERS];
	struct collect_repair repairs[SCOPES][PEERS];
};

static size_t count_of(uint32_t scope, uint32_t op)
{
	static const size_t counts[] = {1, 700, ELEMENTS_MAX, 3, 2000};
	return counts[(scope + op) % 5];
}

static int64_t value_of(uint32_t scope, uint32_t peer, uint32_t op, size_t i)
{
	return (int64_t)((scope + 1) * 1000 + (peer + 1) * 10 + op + i % 3);
}

/* False: out of memory, or frozen. */
static bool made(struct fuzz *fuzz, uint32_t s, uint32_t peer)
{
	struct scope *scope = &fuzz->scopes[s];
	uint64_t members[PEERS];
	uint32_t count = 0;
	if (scope->comms[peer] != NULL)
		return true;
	for (uint32_t i = 0; i < PEERS; i++)
		if ((masks[s] >> i & 1) != 0)
			members[count++] = fuzz->world.peers[i].incarnation;
	int status = collect_comm_split(fuzz->world.peers[peer].comm, scope->name, members, count,
	                                &scope->comms[peer]);
	CHECK(status == COLLECT_OK || status == COLLECT_E_MEMORY);
	return status == COLLECT_OK;
}

static void begin(struct fuzz *fuzz, uint32_t s, uint32_t peer)
{
	uint32_t op = fuzz->begun[s][peer];
	if ((masks[s] & fuzz->alive & 1u << peer) == 0 || op == OPS || !made(fuzz, s, peer))
		return;
	size_t count = count_of(s, op);
	int64_t *values = fuzz->values[s][peer][op];
	if (values == NULL)
		fuzz->values[s][peer][op] = values = malloc(count * sizeof(*values));
	for (size_t i = 0; i < count; i++)
		values[i] = value_of(s, peer, op, i);
	struct collect_call call = {
		.collective = COLLECT_ALL_REDUCE, .dtype = COLLECT_INT64, .algorithm = COLLECT_AUTO,
		.source = values, .target = values, .count = count};
	int status = collect_comm_start(fuzz->scopes[s].comms[peer], &call, &fuzz->ops[s][peer][op]);
	CHECK(status == COLLECT_OK || status == COLLECT_E_MEMORY);
	fuzz->begun[s][peer] += status == COLLECT_OK;
}

/* ---- the coordinator ---- */

static uint64_t latest_of(const struct fuzz *fuzz, uint32_t s, uint32_t members,
                          const struct collect_report **by_out)
{
	uint64_t latest = 0;
	for (uint32_t i = 0; i < PEERS; i++) {
		const struct collect_report *report = &fuzz->reports[s][i];
		if ((members >> i & 1) == 0 || report->consumed_op < latest || report->consumed_op == 0)
			continue;
		bool is_worse = report->consumed_op == latest && (*by_out)->consumed_status != COLLECT_OK;
		latest = report->consumed_op;
		*by_out = is_worse ? *by_out : report;
	}
	return latest;
}

static void repairs_add(struct fuzz *fuzz, uint32_t s, uint32_t members,
                        struct collect_scope_verdict *verdict)
{
	struct collect_repair *repairs = fuzz->repairs[s];
	uint32_t holder = PEERS;
	for (uint32_t i = 0; i < PEERS; i++)
		if ((members >> i & 1) != 0 && fuzz->reports[s][i].is_retained &&
		    fuzz->reports[s][i].consumed_op == verdict->verdict_op)
			holder = i;
	for (uint32_t i = 0; i < PEERS; i++) {
		const struct collect_report *report = &fuzz->reports[s][i];
		if ((members >> i & 1) == 0 || report->inflight_op != verdict->verdict_op ||
		    report->inflight_is_whole || report->inflight_is_aborted)
			continue;
		CHECK(holder < PEERS);
		repairs[verdict->repair_count++] = (struct collect_repair){
			fuzz->world.peers[holder].incarnation, fuzz->world.peers[i].incarnation};
	}
	verdict->repairs = repairs;
}

static struct collect_scope_verdict decide(struct fuzz *fuzz, uint32_t s, uint32_t members)
{
	const struct collect_report *by = NULL;
	uint64_t latest = latest_of(fuzz, s, members, &by);
	struct collect_scope_verdict verdict = {.scope = fuzz->scopes[s].name};
	uint32_t lagging = 0, behind = 0, next = 0, whole = 0, aborted = 0;
	uint64_t next_op = 0;
	for (uint32_t i = 0; i < PEERS; i++) {
		const struct collect_report *report = &fuzz->reports[s][i];
		if ((members >> i & 1) == 0)
			continue;
		behind += report->consumed_op < latest;
		lagging += report->inflight_op != 0 && report->inflight_op == latest;
		if (report->inflight_op <= latest)
			continue;
		next++;
		next_op = report->inflight_op;
		whole += report->inflight_is_whole != 0;
		aborted += report->inflight_is_aborted != 0;
	}
	bool has_failed = latest != 0 && by->consumed_status != COLLECT_OK;
	if (has_failed && behind > 0) {
		verdict.verdict = COLLECT_VERDICT_FAIL;
		verdict.verdict_op = latest;
	} else if (lagging > 0) {
		verdict.verdict = COLLECT_VERDICT_REPAIR;
		verdict.verdict_op = latest;
		verdict.verdict_attempt = by->consumed_attempt;
		repairs_add(fuzz, s, members, &verdict);
	} else if (next > 0 && whole == (uint32_t)__builtin_popcount(members) && aborted == 0) {
		verdict.verdict = COLLECT_VERDICT_REPAIR;
		verdict.verdict_op = next_op;
		verdict.verdict_attempt = fuzz->world.epoch;
	} else if (aborted > 0) {
		verdict.verdict = COLLECT_VERDICT_FAIL;
		verdict.verdict_op = next_op;
	}
	return verdict;
}

static void install(struct fuzz *fuzz, const struct collect_scope_verdict *verdicts)
{
	struct world *world = &fuzz->world;
	struct collect_member members[WORLD_MAX];
	uint64_t all[PEERS];
	world->epoch++;
	CHECK(world->epoch < EPOCHS_MAX);
	fuzz->masks[world->epoch] = fuzz->alive;
	bool redials = false;
	for (uint32_t i = 0; i < PEERS; i++) {
		all[i] = world->peers[i].incarnation;
		if ((fuzz->alive >> i & 1) != 0)
			redials |= fuzz->reports[0][i].lost_count > 0;
	}
	for (uint32_t i = 0; i < PEERS; i++) {
		if ((fuzz->alive >> i & 1) == 0)
			continue;
		struct collect_install install = world_view(world, fuzz->alive, i, members);
		install.verdict = verdicts[0].verdict;
		install.verdict_op = verdicts[0].verdict_op;
		install.verdict_attempt = verdicts[0].verdict_attempt;
		install.repairs = verdicts[0].repairs;
		install.repair_count = verdicts[0].repair_count;
		install.scopes = verdicts + 1;
		install.scope_count = SCOPES - 1;
		install.redial = all;
		install.redial_count = redials ? PEERS : 0;
		int status = collect_comm_install(world->peers[i].comm, &install);
		if (status == COLLECT_E_MEMORY)
			status = collect_comm_install(world->peers[i].comm, &install);
		CHECK_EQ(status, COLLECT_OK);
	}
}

/* killed: who dies when some are frozen already; PEERS: nobody. */
static void flush(struct fuzz *fuzz, uint32_t killed)
{
	struct collect_scope_verdict verdicts[SCOPES];
	uint32_t first = (uint32_t)col_prng_below(&fuzz->prng, PEERS);
	memset(fuzz->reports, 0, sizeof(fuzz->reports));
	if (killed < PEERS) {
		for (uint32_t s = 1; s < SCOPES; s++)
			collect_comm_destroy(&fuzz->scopes[s].comms[killed]);
		fuzz->alive &= ~(1u << killed);
		world_kill(&fuzz->world, killed);
		fuzz->scopes[0].comms[killed] = NULL;
	}
	for (uint32_t k = 0; k < PEERS; k++) {
		uint32_t i = (first + k) % PEERS;
		if ((fuzz->alive >> i & 1) == 0)
			continue;
		if (col_prng_below(&fuzz->prng, 2) == 0)
			usleep((useconds_t)col_prng_below(&fuzz->prng, 500));
		CHECK_EQ(collect_comm_freeze(fuzz->world.peers[i].comm, &fuzz->reports[0][i]), COLLECT_OK);
		for (uint32_t s = 1; s < SCOPES; s++)
			if (fuzz->scopes[s].comms[i] != NULL)
				CHECK_EQ(collect_comm_freeze(fuzz->scopes[s].comms[i], &fuzz->reports[s][i]),
				         COLLECT_OK);
	}
	for (uint32_t s = 0; s < SCOPES; s++)
		verdicts[s] = decide(fuzz, s, masks[s] & fuzz->alive);
	install(fuzz, verdicts);
}

static bool is_in_trouble(struct fuzz *fuzz)
{
	bool is = false;
	struct collect_event event;
	for (uint32_t i = 0; i < PEERS; i++)
		while ((fuzz->alive >> i & 1) != 0 &&
		       collect_engine_next_event(fuzz->world.peers[i].engine, &event))
			is |= event.epoch == fuzz->world.epoch && (event.kind == COLLECT_EVENT_LINK_LOST ||
			                                           event.kind == COLLECT_EVENT_ABORTED);
	return is;
}

/* ---- a life ---- */

static void check_op(struct fuzz *fuzz, uint32_t s, uint32_t op)
{
	uint64_t attempt = 0;
	for (uint32_t peer = 0; peer < PEERS; peer++) {
		if ((masks[s] & fuzz->alive & 1u << peer) == 0)
			continue;
		struct collect_op_info info;
		collect_op_info_get(fuzz->ops[s][peer][op], &info);
		CHECK(info.status == COLLECT_OK || info.status == COLLECT_E_MEMORY ||
		      info.status == COLLECT_E_FAILED || info.status == COLLECT_E_ABORTED);
		if (info.status != COLLECT_OK)
			continue;
		if (attempt != 0 && info.attempt != attempt)
			FAIL("scope %u op %u: attempts %" PRIu64 " and %" PRIu64, s, op, info.attempt, attempt);
		attempt = info.attempt;
		uint32_t members = masks[s] & fuzz->masks[attempt];
		CHECK_EQ(info.participants, __builtin_popcount(members));
		for (size_t i = 0; i < count_of(s, op); i++) {
			int64_t sum = 0;
			for (uint32_t r = 0; r < PEERS; r++)
				sum += (members >> r & 1) != 0 ? value_of(s, r, op, i) : 0;
			CHECK_EQ(fuzz->values[s][peer][op][i], sum);
		}
	}
}

static void settle(struct fuzz *fuzz)
{
	for (uint32_t op = 0; op < OPS; op++)
		for (uint32_t s = 0; s < SCOPES; s++)
			for (uint32_t peer = 0; peer < PEERS; peer++) {
				uint64_t until_ns = col_clock_ns() + 30 * COL_NS_PER_S;
				while ((masks[s] & fuzz->alive & 1u << peer) != 0 &&
				       collect_op_wait(fuzz->ops[s][peer][op], 5 * COL_NS_PER_MS) ==
				               COLLECT_PENDING) {
					if (is_in_trouble(fuzz))
						flush(fuzz, PEERS);
					if (col_clock_ns() > until_ns)
						FAIL("scope %u peer %u op %u hangs", s, peer, op);
				}
			}
}

static void step(struct fuzz *fuzz, uint32_t round, uint32_t faults)
{
	uint32_t s = (uint32_t)col_prng_below(&fuzz->prng, SCOPES);
	uint32_t peer = (uint32_t)col_prng_below(&fuzz->prng, PEERS);
	begin(fuzz, s, peer);
	bool has_pause = col_prng_below(&fuzz->prng, 4) == 0;
	if (has_pause)
		usleep((useconds_t)col_prng_below(&fuzz->prng, 300));
	if (faults >= 1 && (is_in_trouble(fuzz) || col_prng_below(&fuzz->prng, 60) == 0))
		flush(fuzz, PEERS);
	if (faults >= 2 && (round == 150 || round == 300)) {
		for (uint32_t i = 0; i < SCOPES * PEERS; i++)
			if ((masks[i / PEERS] & fuzz->alive & 1u << i % PEERS) != 0)
				while (!made(fuzz, i / PEERS, i % PEERS))
					continue;
		flush(fuzz, round == 150 ? 3 : 1);
	}
	if (faults >= 3 && col_prng_below(&fuzz->prng, 12) == 0)
		col_alloc_fail_at(1 + col_prng_below(&fuzz->prng, 40));
	if (faults >= 1 && col_prng_below(&fuzz->prng, 100) == 0 &&
	    fuzz->scopes[s].comms[peer] != NULL)
		CHECK_EQ(collect_comm_abort(fuzz->scopes[s].comms[peer]), COLLECT_OK);
}

static void live(uint64_t seed, uint32_t faults)
{
	struct fuzz *fuzz = calloc(1, sizeof(*fuzz));
	static const uint32_t commits[] = {0, 8192, 1};
	col_prng_init(&fuzz->prng, seed);
	world_open(&fuzz->world, &(struct world_options){
		.count = PEERS, .algorithm = COLLECT_AUTO, .window_bytes = 4 * 4096,
		.streams = (uint16_t)(1 + seed % 2), .commit_bytes = commits[seed % 3]});
	fuzz->alive = 15;
	fuzz->masks[1] = 15;
	world_install(&fuzz->world, 15, 0);
	for (uint32_t s = 0; s < SCOPES; s++)
		fuzz->scopes[s] = (struct scope){.name = s, .mask = masks[s]};
	for (uint32_t peer = 0; peer < PEERS; peer++)
		fuzz->scopes[0].comms[peer] = fuzz->world.peers[peer].comm;
	for (uint32_t round = 0; round < 450; round++)
		step(fuzz, round, faults);
	col_alloc_fail_at(0);
	for (uint32_t s = 0; s < SCOPES; s++)
		for (uint32_t peer = 0; peer < PEERS; peer++)
			while ((masks[s] & fuzz->alive & 1u << peer) != 0 && fuzz->begun[s][peer] < OPS)
				begin(fuzz, s, peer);
	settle(fuzz);
	for (uint32_t s = 0; s < SCOPES; s++)
		for (uint32_t op = 0; op < OPS; op++)
			check_op(fuzz, s, op);
	for (uint32_t s = 1; s < SCOPES; s++)
		scope_close(&fuzz->scopes[s]);
	world_close(&fuzz->world);
	for (uint32_t s = 0; s < SCOPES; s++)
		for (uint32_t peer = 0; peer < PEERS; peer++)
			for (uint32_t op = 0; op < OPS; op++) {
				collect_op_release(&fuzz->ops[s][peer][op]);
				free(fuzz->values[s][peer][op]);
			}
	free(fuzz);
}

TEST(many_scopes_at_once)
{
	for (uint64_t seed = 0; seed < 6; seed++)
		live(test_seed() * 100 + seed, 0);
}

TEST(flushed_and_aborted_at_any_moment)
{
	for (uint64_t seed = 0; seed < 12; seed++)
		live(test_seed() * 100 + seed, 1);
}

TEST(members_die)
{
	for (uint64_t seed = 0; seed < 12; seed++)
		live(test_seed() * 100 + seed, 2);
}

TEST(memory_runs_out)
{
	for (uint64_t seed = 0; seed < 12; seed++)
		live(test_seed() * 100 + seed, 3);
}
