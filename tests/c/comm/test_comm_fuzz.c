/*
 * Random lives of a group: peers call operations from threads of their own, while this thread is
 * the coordinator and freezes, kills, lets in, redials and aborts. The verdicts follow from the
 * reports as docs/protocol.md section 3 says. Every result is checked against the participants that
 * the operation names, every outcome against the other peers', and nothing may take long.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/prng.h"
#include "comm/world.h"

#define PATIENCE_NS (30 * COL_NS_PER_S)
#define OPS_MAX 20000u
#define EPOCHS_MAX 4096u
#define LIVES_MAX 64u
#define DEPTH_MAX 6u
/* A sanitizer makes everything several times slower. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define ROUNDS 10
#else
#define ROUNDS 60
#endif
#define ACTIONS 30

struct outcome {
	int status; /* COLLECT_PENDING: not known */
	uint64_t attempt;
};

/* One peer from its birth to its death. */
struct life {
	struct fuzz *fuzz;
	uint32_t id;
	uint32_t place; /* in the world */
	pthread_t thread;
	uint64_t first; /* number of its first operation in the program */
	uint64_t next;  /* … and of the next one that it calls; under the mutex */
	bool is_parked; /* likewise */
	bool is_dying;  /* likewise */
	bool was_killed;
	struct col_prng prng;
	struct outcome outcomes[OPS_MAX];
};

struct fuzz {
	struct world world;
	struct col_prng prng;
	uint64_t seed;
	pthread_mutex_t mutex; /* guards what lives and views say */
	pthread_cond_t cond;
	uint64_t boundary; /* nobody calls this operation, or a later one, yet */
	bool is_over;
	struct life *lives[LIVES_MAX];
	uint32_t life_count;
	struct life *at[WORLD_MAX]; /* the living, by place */
	uint64_t views[EPOCHS_MAX]; /* bit i: life i; by epoch */
	struct collect_report reports[WORLD_MAX];
};

/* ---- the program that every peer runs ---- */

static size_t count_of(const struct fuzz *fuzz, uint64_t number)
{
	static const size_t counts[] = {0, 1, 7, 64, 300, 2000, 12000};
	struct col_prng prng;
	col_prng_init(&prng, fuzz->seed * 7919 + number);
	size_t most = col_prng_below(&prng, 8) == 0 ? 7 : 5;
	return counts[col_prng_below(&prng, most)];
}

/* Most reduce; the others gather. */
static bool is_gather(const struct fuzz *fuzz, uint64_t number)
{
	return (fuzz->seed * 104729 + number) * 0x9e3779b97f4a7c15u >> 62 == 0;
}

static float value_of(uint32_t life, uint64_t number, size_t index)
{
	return (float)((life * 31 + number * 7 + index) % 101);
}

struct call {
	collect_op *op;
	uint64_t number;
	float *values;
};

static void gather_check(const struct life *life, const struct call *call, size_t count,
                         uint64_t view)
{
	const float *block = call->values + count;
	for (uint32_t place = 0; place < WORLD_MAX; place++)
		for (uint32_t each = 0; each < LIVES_MAX; each++) {
			if ((view >> each & 1) == 0 || life->fuzz->lives[each]->place != place)
				continue;
			for (size_t i = 0; i < count; i++, block++)
				if (*block != value_of(each, call->number, i))
					FAIL("seed %lu: operation %lu: life %u's block is wrong",
					     (unsigned long)life->fuzz->seed, (unsigned long)call->number, each);
		}
}

static void sum_check(const struct life *life, const struct call *call, size_t count,
                      uint64_t view)
{
	for (size_t i = 0; i < count; i++) {
		float sum = 0;
		for (uint32_t each = 0; each < LIVES_MAX; each++)
			if ((view >> each & 1) != 0)
				sum += value_of(each, call->number, i);
		if (call->values[i] != sum)
			FAIL("seed %lu: life %u, operation %lu, element %zu of %zu: %g is not %g",
			     (unsigned long)life->fuzz->seed, life->id, (unsigned long)call->number, i,
			     count, (double)call->values[i], (double)sum);
	}
}

static void call_end(struct life *life, struct call *call)
{
	struct fuzz *fuzz = life->fuzz;
	size_t count = count_of(fuzz, call->number);
	int status = collect_op_wait(call->op, PATIENCE_NS);
	if (status == COLLECT_PENDING)
		FAIL("seed %lu: operation %lu hangs", (unsigned long)fuzz->seed,
		     (unsigned long)call->number);
	struct collect_op_info info;
	collect_op_info_get(call->op, &info);
	CHECK_EQ(info.status, status);
	life->outcomes[call->number] = (struct outcome){.status = status, .attempt = info.attempt};
	if (status == COLLECT_OK) {
		pthread_mutex_lock(&fuzz->mutex);
		uint64_t view = fuzz->views[info.attempt];
		pthread_mutex_unlock(&fuzz->mutex);
		(is_gather(fuzz, call->number) ? gather_check : sum_check)(life, call, count, view);
	} else {
		CHECK(status == COLLECT_E_FAILED || status == COLLECT_E_ABORTED);
		life->outcomes[call->number].attempt = 0;
	}
	free(call->values); /* the sanitizer sees whoever still uses it */
	collect_op_release(&call->op);
}

static void call_begin(struct life *life, struct call *call, uint64_t number)
{
	size_t count = count_of(life->fuzz, number);
	bool gathers = is_gather(life->fuzz, number);
	size_t room = (count + 1) * (gathers ? 1 + WORLD_MAX : 1);
	*call = (struct call){.number = number, .values = malloc(room * sizeof(float))};
	for (size_t i = 0; i < count; i++)
		call->values[i] = value_of(life->id, number, i);
	struct collect_call given = {
		.collective = gathers ? COLLECT_ALL_GATHER : COLLECT_ALL_REDUCE,
		.dtype = COLLECT_FLOAT32, .algorithm = COLLECT_AUTO, .source = call->values,
		.target = gathers ? call->values + count : call->values, .count = count};
	CHECK_EQ(collect_comm_start(life->fuzz->world.peers[life->place].comm, &given, &call->op),
	         COLLECT_OK);
}

/* Whether the next operation may be called; *must_wait_out: not before what is pending ended. */
static bool may_call(struct life *life, uint64_t *number_out, bool *must_wait_out, bool has_pending)
{
	struct fuzz *fuzz = life->fuzz;
	pthread_mutex_lock(&fuzz->mutex);
	*must_wait_out = life->next >= fuzz->boundary && has_pending;
	while (life->next >= fuzz->boundary && !has_pending && !life->is_dying && !fuzz->is_over) {
		life->is_parked = true;
		pthread_cond_broadcast(&fuzz->cond);
		pthread_cond_wait(&fuzz->cond, &fuzz->mutex);
	}
	life->is_parked = false;
	bool may = !life->is_dying && !fuzz->is_over && life->next < OPS_MAX;
	if (may && !*must_wait_out)
		*number_out = life->next++;
	pthread_mutex_unlock(&fuzz->mutex);
	return may;
}

static void *life_run(void *argument)
{
	struct life *life = argument;
	struct call calls[DEPTH_MAX];
	uint32_t pending = 0;
	uint64_t number = 0;
	bool must_wait;
	while (may_call(life, &number, &must_wait, pending > 0)) {
		if (!must_wait)
			call_begin(life, &calls[pending++], number);
		uint32_t keep = must_wait ? 0 : (uint32_t)col_prng_below(&life->prng, DEPTH_MAX);
		while (pending > keep) {
			call_end(life, &calls[0]);
			memmove(&calls[0], &calls[1], --pending * sizeof(calls[0]));
		}
		if (col_prng_below(&life->prng, 20) == 0)
			usleep((useconds_t)col_prng_below(&life->prng, 500));
	}
	for (uint32_t i = 0; i < pending; i++)
		call_end(life, &calls[i]);
	return NULL;
}

/* ---- the coordinator ---- */

static uint32_t living(const struct fuzz *fuzz)
{
	uint32_t mask = 0;
	for (uint32_t place = 0; place < WORLD_MAX; place++)
		mask |= fuzz->at[place] != NULL ? 1u << place : 0;
	return mask;
}

static uint32_t random_place(struct fuzz *fuzz)
{
	uint32_t place;
	do
		place = (uint32_t)col_prng_below(&fuzz->prng, WORLD_MAX);
	while (fuzz->at[place] == NULL);
	return place;
}

static void epoch_begin(struct fuzz *fuzz)
{
	pthread_mutex_lock(&fuzz->mutex);
	uint64_t epoch = ++fuzz->world.epoch;
	CHECK(epoch < EPOCHS_MAX);
	for (uint32_t place = 0; place < WORLD_MAX; place++)
		if (fuzz->at[place] != NULL)
			fuzz->views[epoch] |= 1ull << fuzz->at[place]->id;
	pthread_mutex_unlock(&fuzz->mutex);
}

struct decision {
	struct verdict verdict;
	struct collect_repair repairs[WORLD_MAX];
	bool is_redialed[WORLD_MAX][WORLD_MAX];
};

static void redials_find(const struct fuzz *fuzz, struct decision *decision)
{
	for (uint32_t a = 0; a < WORLD_MAX; a++)
		for (uint32_t b = 0; fuzz->at[a] != NULL && b < WORLD_MAX; b++)
			for (uint32_t i = 0; fuzz->at[b] != NULL && i < fuzz->reports[a].lost_count; i++)
				if (fuzz->reports[a].lost_peers[i] == fuzz->world.peers[b].incarnation)
					decision->is_redialed[a][b] = decision->is_redialed[b][a] = true;
}

static void repairs_find(const struct fuzz *fuzz, struct decision *decision, uint64_t op)
{
	uint64_t holder = 0;
	for (uint32_t i = 0; i < WORLD_MAX; i++)
		if (fuzz->at[i] != NULL && fuzz->reports[i].consumed_op == op &&
		    fuzz->reports[i].is_retained)
			holder = fuzz->world.peers[i].incarnation;
	for (uint32_t i = 0; i < WORLD_MAX; i++) {
		const struct collect_report *report = &fuzz->reports[i];
		/* What is committed is whole everywhere, and needs no holder. */
		if (fuzz->at[i] == NULL || report->inflight_op != op || report->inflight_is_whole ||
		    report->inflight_is_aborted)
			continue;
		CHECK(holder != 0);
		decision->repairs[decision->verdict.repair_count++] = (struct collect_repair){
			.holder = holder, .needer = fuzz->world.peers[i].incarnation};
	}
}

static const struct collect_report *latest_of(const struct fuzz *fuzz)
{
	const struct collect_report *latest = NULL;
	for (uint32_t i = 0; i < WORLD_MAX; i++)
		if (fuzz->at[i] != NULL &&
		    (latest == NULL || fuzz->reports[i].consumed_op > latest->consumed_op))
			latest = &fuzz->reports[i];
	return latest;
}

/* The operation that runs again, or must fail because callers differ or gave it up. */
static void flights_judge(const struct fuzz *fuzz, uint64_t latest, struct verdict *verdict)
{
	const struct collect_report *first = NULL;
	for (uint32_t i = 0; i < WORLD_MAX; i++) {
		const struct collect_report *report = &fuzz->reports[i];
		if (fuzz->at[i] != NULL && report->inflight_op > latest &&
		    (first == NULL || report->inflight_op < first->inflight_op))
			first = report;
	}
	for (uint32_t i = 0; first != NULL && i < WORLD_MAX; i++) {
		const struct collect_report *report = &fuzz->reports[i];
		if (fuzz->at[i] == NULL || report->inflight_op != first->inflight_op)
			continue;
		CHECK_EQ(report->inflight_digest, first->inflight_digest);
		if (report->inflight_is_aborted) {
			verdict->verdict = COLLECT_VERDICT_FAIL;
			verdict->op = first->inflight_op;
		}
	}
}

static void decide(const struct fuzz *fuzz, struct decision *decision)
{
	const struct collect_report *latest = latest_of(fuzz);
	bool lags = false;
	memset(decision, 0, sizeof(*decision));
	redials_find(fuzz, decision);
	for (uint32_t i = 0; i < WORLD_MAX; i++) {
		const struct collect_report *report = &fuzz->reports[i];
		if (fuzz->at[i] == NULL)
			continue;
		bool has_failed = latest->consumed_status != COLLECT_OK;
		lags |= report->inflight_op != 0 && report->inflight_op == latest->consumed_op;
		lags |= has_failed && report->inflight_op == 0 &&
		        report->consumed_op < latest->consumed_op;
	}
	if (!lags) {
		flights_judge(fuzz, latest->consumed_op, &decision->verdict);
		return;
	}
	decision->verdict.op = latest->consumed_op;
	decision->verdict.attempt = latest->consumed_attempt;
	decision->verdict.verdict =
		latest->consumed_status == COLLECT_OK ? COLLECT_VERDICT_REPAIR : COLLECT_VERDICT_FAIL;
	if (latest->consumed_status == COLLECT_OK)
		repairs_find(fuzz, decision, latest->consumed_op);
}

static void install_at(struct fuzz *fuzz, uint32_t place, const struct decision *decision,
                       uint64_t op_base)
{
	struct collect_member members[WORLD_MAX];
	uint64_t redials[WORLD_MAX];
	struct collect_install install = world_view(&fuzz->world, living(fuzz), place, members);
	install.op_base = op_base;
	install.redial = redials;
	for (uint32_t i = 0; i < WORLD_MAX; i++)
		if (decision->is_redialed[place][i])
			redials[install.redial_count++] = fuzz->world.peers[i].incarnation;
	world_verdict_set(&install, &decision->verdict);
	install.repairs = decision->repairs;
	CHECK_EQ(collect_comm_install(fuzz->world.peers[place].comm, &install), COLLECT_OK);
}

/* One flush. At times the install reaches only some, and another flush must follow. */
static void flush(struct fuzz *fuzz, uint32_t redial_a, uint32_t redial_b)
{
	struct decision decision;
	for (bool is_whole = false; !is_whole;) {
		uint32_t first = random_place(fuzz);
		for (uint32_t i = 0; i < WORLD_MAX; i++) {
			uint32_t place = (first + i) % WORLD_MAX;
			if (fuzz->at[place] == NULL)
				continue;
			CHECK_EQ(collect_comm_freeze(fuzz->world.peers[place].comm, &fuzz->reports[place]),
			         COLLECT_OK);
			if (col_prng_below(&fuzz->prng, 4) == 0)
				usleep((useconds_t)col_prng_below(&fuzz->prng, 1000));
		}
		decide(fuzz, &decision);
		if (redial_a != redial_b)
			decision.is_redialed[redial_a][redial_b] = decision.is_redialed[redial_b][redial_a] =
				true;
		epoch_begin(fuzz);
		is_whole = true;
		first = random_place(fuzz);
		for (uint32_t i = 0; i < WORLD_MAX && is_whole; i++) {
			uint32_t place = (first + i) % WORLD_MAX;
			if (fuzz->at[place] == NULL)
				continue;
			install_at(fuzz, place, &decision, 0);
			is_whole = col_prng_below(&fuzz->prng, 12) != 0;
		}
		if (!is_whole)
			usleep((useconds_t)col_prng_below(&fuzz->prng, 2000));
	}
}

/* Reads what the engines tell; flushes when somebody must be helped. */
static void events_handle(struct fuzz *fuzz)
{
	bool is_needed = false;
	struct collect_event event;
	for (uint32_t place = 0; place < WORLD_MAX; place++) {
		while (fuzz->at[place] != NULL &&
		       collect_engine_next_event(fuzz->world.peers[place].engine, &event)) {
			CHECK(event.kind != COLLECT_EVENT_MISMATCH && event.kind != COLLECT_EVENT_LATE);
			CHECK(event.loss != COLLECT_LOSS_GARBAGE);
			bool is_trouble = event.kind == COLLECT_EVENT_LINK_LOST ||
			                  event.kind == COLLECT_EVENT_ABORTED;
			is_needed |= is_trouble && event.epoch == fuzz->world.epoch;
		}
	}
	if (is_needed)
		flush(fuzz, 0, 0);
}

/* All stop before the same operation, and have none pending. */
static void park_all(struct fuzz *fuzz)
{
	uint64_t until_ns = col_clock_ns() + PATIENCE_NS;
	pthread_mutex_lock(&fuzz->mutex);
	fuzz->boundary = 0;
	for (uint32_t place = 0; place < WORLD_MAX; place++)
		if (fuzz->at[place] != NULL && fuzz->at[place]->next > fuzz->boundary)
			fuzz->boundary = fuzz->at[place]->next;
	fuzz->boundary += col_prng_below(&fuzz->prng, 3);
	pthread_mutex_unlock(&fuzz->mutex);
	for (bool is_parked = false; !is_parked;) {
		if (col_clock_ns() > until_ns)
			FAIL("seed %lu: no boundary is reached", (unsigned long)fuzz->seed);
		events_handle(fuzz);
		usleep(200);
		is_parked = true;
		pthread_mutex_lock(&fuzz->mutex);
		for (uint32_t place = 0; place < WORLD_MAX; place++)
			if (fuzz->at[place] != NULL)
				is_parked &= fuzz->at[place]->is_parked &&
				             fuzz->at[place]->next == fuzz->boundary;
		pthread_mutex_unlock(&fuzz->mutex);
	}
}

static void unpark(struct fuzz *fuzz)
{
	pthread_mutex_lock(&fuzz->mutex);
	fuzz->boundary = UINT64_MAX;
	pthread_cond_broadcast(&fuzz->cond);
	pthread_mutex_unlock(&fuzz->mutex);
}

static struct life *life_new(struct fuzz *fuzz, uint32_t place, uint64_t first)
{
	CHECK(fuzz->life_count < LIVES_MAX);
	struct life *life = calloc(1, sizeof(*life));
	life->fuzz = fuzz;
	life->id = fuzz->life_count;
	life->place = place;
	life->first = first;
	life->next = first;
	for (size_t i = 0; i < OPS_MAX; i++)
		life->outcomes[i].status = COLLECT_PENDING;
	col_prng_init(&life->prng, fuzz->seed * 101 + life->id);
	fuzz->lives[fuzz->life_count++] = life;
	fuzz->at[place] = life;
	return life;
}

/* A view of everybody that is alive, entered between operations. */
static void switch_all(struct fuzz *fuzz)
{
	static const struct decision none;
	epoch_begin(fuzz);
	for (uint32_t place = 0; place < WORLD_MAX; place++)
		if (fuzz->at[place] != NULL)
			install_at(fuzz, place, &none, fuzz->world.epoch << 32);
}

static void let_in(struct fuzz *fuzz)
{
	uint32_t place = 0;
	while (place < WORLD_MAX && fuzz->at[place] != NULL)
		place++;
	if (place == WORLD_MAX || fuzz->life_count == LIVES_MAX)
		return;
	park_all(fuzz);
	world_revive(&fuzz->world, place, 1000 + fuzz->life_count);
	struct collect_member members[WORLD_MAX];
	struct collect_install view = world_view(&fuzz->world, living(fuzz), WORLD_MAX, members);
	if (col_prng_below(&fuzz->prng, 2) == 0)
		CHECK_EQ(collect_comm_dial(fuzz->world.peers[place].comm, members, view.member_count),
		         COLLECT_OK);
	struct life *life = life_new(fuzz, place, fuzz->boundary);
	switch_all(fuzz);
	CHECK_EQ(pthread_create(&life->thread, NULL, life_run, life), 0);
	unpark(fuzz);
}

static void kill_one(struct fuzz *fuzz)
{
	uint32_t place = random_place(fuzz);
	struct life *life = fuzz->at[place];
	if (living(fuzz) == 1u << place)
		return;
	pthread_mutex_lock(&fuzz->mutex);
	life->is_dying = true;
	pthread_cond_broadcast(&fuzz->cond);
	pthread_mutex_unlock(&fuzz->mutex);
	/* What it calls after this abort is aborted by the next: its thread ends when it sees that it
	 * dies. */
	CHECK_EQ(collect_comm_abort(fuzz->world.peers[place].comm), COLLECT_OK);
	usleep(1000);
	CHECK_EQ(collect_comm_abort(fuzz->world.peers[place].comm), COLLECT_OK);
	pthread_join(life->thread, NULL);
	world_kill(&fuzz->world, place);
	life->was_killed = true;
	fuzz->at[place] = NULL;
	if (col_prng_below(&fuzz->prng, 2) == 0)
		usleep((useconds_t)col_prng_below(&fuzz->prng, 3000));
	flush(fuzz, 0, 0);
}

static void act(struct fuzz *fuzz)
{
	switch (col_prng_below(&fuzz->prng, 8)) {
	case 0:
		kill_one(fuzz);
		break;
	case 1:
	case 2:
		let_in(fuzz);
		break;
	case 3:
		CHECK_EQ(collect_comm_abort(fuzz->world.peers[random_place(fuzz)].comm), COLLECT_OK);
		break;
	case 4:
	case 5: /* with a new connection, if they are two */
		flush(fuzz, random_place(fuzz), random_place(fuzz));
		break;
	default:
		usleep((useconds_t)col_prng_below(&fuzz->prng, 3000));
	}
	events_handle(fuzz);
}

/* ---- the oracle ---- */

/* Who was killed may be one operation ahead of the others: its last one does not count. */
static uint64_t last_of(const struct life *life)
{
	uint64_t last = life->next;
	while (life->was_killed && last > life->first && last-- > life->first)
		if (life->outcomes[last].status == COLLECT_OK)
			break;
	return last;
}

static void outcomes_check(const struct fuzz *fuzz)
{
	for (uint64_t number = 1; number < OPS_MAX; number++) {
		const struct outcome *known = NULL;
		for (uint32_t i = 0; i < fuzz->life_count; i++) {
			const struct life *life = fuzz->lives[i];
			const struct outcome *outcome = &life->outcomes[number];
			if (number < life->first || number >= last_of(life) ||
			    outcome->status == COLLECT_PENDING || outcome->status == COLLECT_E_ABORTED)
				continue;
			if (known == NULL)
				known = outcome;
			if (known->status != outcome->status || known->attempt != outcome->attempt)
				FAIL("seed %lu: operation %lu ended with %s in epoch %lu, and with %s in %lu",
				     (unsigned long)fuzz->seed, (unsigned long)number,
				     collect_status_name(known->status), (unsigned long)known->attempt,
				     collect_status_name(outcome->status), (unsigned long)outcome->attempt);
		}
	}
}

static void fuzz_run(uint64_t seed)
{
	struct fuzz *fuzz = calloc(1, sizeof(*fuzz));
	fuzz->seed = seed;
	col_prng_init(&fuzz->prng, seed);
	pthread_mutex_init(&fuzz->mutex, NULL);
	pthread_cond_init(&fuzz->cond, NULL);
	fuzz->boundary = UINT64_MAX;
	world_open(&fuzz->world, &(struct world_options){
		.count = 2 + (uint32_t)col_prng_below(&fuzz->prng, 4),
		.chunk_bytes = 512u << col_prng_below(&fuzz->prng, 3),
		.window_bytes = 8192u << col_prng_below(&fuzz->prng, 5),
		.streams = (uint16_t)(1 + col_prng_below(&fuzz->prng, 3)),
		.algorithm = (int)col_prng_below(&fuzz->prng, COLLECT_ALGORITHM_COUNT + 1) - 1,
		.commit_bytes = 1u << col_prng_below(&fuzz->prng, 20),
	});
	for (uint32_t place = 0; place < fuzz->world.options.count; place++)
		life_new(fuzz, place, 1);
	switch_all(fuzz);
	for (uint32_t i = 0; i < fuzz->life_count; i++)
		CHECK_EQ(pthread_create(&fuzz->lives[i]->thread, NULL, life_run, fuzz->lives[i]), 0);
	for (int i = 0; i < ACTIONS; i++)
		act(fuzz);
	park_all(fuzz);
	pthread_mutex_lock(&fuzz->mutex);
	fuzz->is_over = true;
	pthread_cond_broadcast(&fuzz->cond);
	pthread_mutex_unlock(&fuzz->mutex);
	for (uint32_t place = 0; place < WORLD_MAX; place++)
		if (fuzz->at[place] != NULL)
			pthread_join(fuzz->at[place]->thread, NULL);
	outcomes_check(fuzz);
	world_close(&fuzz->world);
	for (uint32_t i = 0; i < fuzz->life_count; i++)
		free(fuzz->lives[i]);
	free(fuzz);
}

TEST(whatever_happens_outcomes_are_uniform_and_results_right)
{
	for (uint64_t round = 0; round < ROUNDS; round++)
		fuzz_run(test_seed() * 1000 + round);
}
