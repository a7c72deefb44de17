/*
 * Which algorithm a call gets, by a model of its time:
 *
 *     T = Σ over levels of  hops (L + o) + messages o + bytes / b   + reduced / γ
 *
 * with hops that wait for each other, and messages and bytes of the busiest rank. The levels are
 * local (within a host) and remote, with a link model each. All in integers of nanoseconds, so that
 * all members choose alike; of equal times the first algorithm wins.
 *
 * Where all ranks are on one host they share its processors, so that the messages of all of them
 * count: a star has fewer than an exchange, which has fewer hops. How many processors there are
 * nobody is told, and the choice must not depend on it: one for two ranks is assumed.
 * A message costs overhead at both ends, and about as much again for the ranks' turns:
 *
 *     T += 4 o messages of all ranks / (p / 2)
 *
 * Source: LogGP: Alexandrov, Ionescu, Schauser and Scheiman 1995, "LogGP: incorporating long
 * messages into the LogP model".
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "plan/plan_build.h"

#define TIME_MAX ((uint64_t)1 << 62)
#define BRUCK_BLOCK_MAX 256u /* bytes; above, what passes through others costs more than it saves */

__extension__ typedef unsigned __int128 wide;

enum { LOCAL, REMOTE, LEVEL_COUNT };

struct cost {
	uint64_t hops[LEVEL_COUNT];
	uint64_t messages[LEVEL_COUNT];
	uint64_t bytes[LEVEL_COUNT];
	uint64_t all_messages; /* of all ranks */
	uint64_t reduced;
};

struct call {
	const struct collect_recipe *recipe;
	int collective;
	uint64_t world;
	uint64_t bytes;
	uint64_t hosts;   /* that have ranks */
	uint64_t largest; /* ranks of the largest of them */
	uint64_t log;     /* ⌈log2 world⌉ */
};

static void hosts_count(struct call *call)
{
	const uint32_t *hosts = call->recipe->hosts;
	uint32_t sizes[COLLECT_RANKS_MAX] = {0};
	call->hosts = 0;
	call->largest = 1;
	for (uint64_t rank = 0; rank < call->world; rank++) {
		uint32_t host = hosts == NULL ? (uint32_t)rank : hosts[rank] % COLLECT_RANKS_MAX;
		call->hosts += sizes[host]++ == 0;
		if (sizes[host] > call->largest)
			call->largest = sizes[host];
	}
}

/* bytes * numerator / denominator */
static uint64_t part(uint64_t bytes, uint64_t numerator, uint64_t denominator)
{
	wide product = (wide)bytes * numerator;
	return (uint64_t)(product / denominator);
}

/* A cost between any two ranks: with several hosts a hop is remote, and as much of the rest as a
 * rank has remote peers. */
static struct cost flat(const struct call *call, uint64_t hops, uint64_t messages, uint64_t bytes)
{
	uint64_t peers = call->world - 1;
	uint64_t remote = call->world - call->world / call->hosts;
	struct cost cost = {.hops = {[REMOTE] = call->hosts > 1 ? hops : 0}};
	cost.hops[LOCAL] = hops - cost.hops[REMOTE];
	cost.messages[REMOTE] = col_div_ceil(messages * remote, peers);
	cost.messages[LOCAL] = messages - col_min_u64(messages, cost.messages[REMOTE]);
	cost.bytes[REMOTE] = part(bytes, remote, peers);
	cost.bytes[LOCAL] = bytes - cost.bytes[REMOTE];
	return cost;
}

/* How many journeys of the payload: a reduction, a distribution, or both. */
static uint64_t phases(int collective)
{
	return collective == COLLECT_ALL_REDUCE || collective == COLLECT_BARRIER ? 2 : 1;
}

static struct cost direct_cost(const struct call *call)
{
	uint64_t p = call->world;
	uint64_t slices = col_min_u64(p - 1, col_div_ceil(call->bytes, COL_SLICE_QUANTUM));
	switch (call->collective) {
	case COLLECT_REDUCE:
	case COLLECT_BROADCAST:  return flat(call, p == 2 ? 1 : 2, p - 2 + slices, call->bytes);
	case COLLECT_ALL_REDUCE:
		return flat(call, 2, p - 1 + slices, part(call->bytes, 2 * (p - 1), p));
	case COLLECT_BARRIER:    return flat(call, 2, p - 1, call->bytes * (p - 1));
	default:                 return flat(call, 1, p - 1, part(call->bytes, p - 1, p));
	}
}

/* Of a journey only the hops between hosts are remote, but some rank makes all of its own there. */
static struct cost ring_cost(const struct call *call)
{
	uint64_t p = call->world;
	uint64_t trips = phases(call->collective);
	bool is_rooted = call->collective == COLLECT_REDUCE || call->collective == COLLECT_BROADCAST;
	uint64_t messages = is_rooted ? 2 : 2 * (p - 1) * trips;
	uint64_t bytes = is_rooted ? call->bytes : part(call->bytes, (p - 1) * trips, p);
	uint64_t remote = call->hosts > 1 ? col_min_u64(call->hosts, p - 1) : 0;
	struct cost cost = {.hops = {(p - 1 - remote) * trips, remote * trips}};
	int level = call->hosts > 1 ? REMOTE : LOCAL;
	cost.messages[level] = messages;
	cost.bytes[level] = bytes;
	return cost;
}

static struct cost star_cost(const struct call *call)
{
	uint64_t p = call->world;
	bool has_blocks = col_collective_has_blocks(call->collective);
	uint64_t bytes = has_blocks ? part(call->bytes, p - 1, p) : call->bytes * (p - 1);
	return flat(call, phases(call->collective), p - 1, bytes);
}

static struct cost tree_cost(const struct call *call)
{
	uint64_t trips = phases(call->collective);
	return flat(call, call->log * trips, 2 * trips, call->bytes * trips);
}

static struct cost circulant_cost(const struct call *call)
{
	uint64_t p = call->world;
	uint64_t trips = phases(call->collective);
	if (call->collective == COLLECT_BARRIER)
		return flat(call, 2 * call->log, 2 * call->log, 2 * call->log * call->bytes);
	return flat(call, call->log * trips, (p - 1) * trips, part(call->bytes, (p - 1) * trips, p));
}

/* Within a host first, then between hosts, both by direct exchange. */
static struct cost hierarchical_cost(const struct call *call)
{
	uint64_t trips = phases(call->collective);
	uint64_t inner = call->largest;
	uint64_t share = col_div_ceil(call->bytes, inner);
	uint64_t slices = call->collective == COLLECT_BARRIER ? 1 : call->hosts;
	if (call->collective == COLLECT_ALL_TO_ALL) {
		slices = inner;
		share = call->bytes;
	}
	bool has_hop = call->collective == COLLECT_REDUCE || call->collective == COLLECT_BROADCAST;
	return (struct cost){
		.hops = {trips, trips + has_hop},
		.messages = {(inner - 1) * slices * trips, (call->hosts - 1) * trips *
		             (call->collective == COLLECT_ALL_TO_ALL ? inner : 1)},
		.bytes = {part(call->bytes, (inner - 1) * trips, inner),
		          part(share, (call->hosts - 1) * (trips + has_hop), call->hosts)},
	};
}

static struct cost cost_of(const struct call *call, int algorithm)
{
	uint64_t p = call->world;
	switch (algorithm) {
	case COLLECT_RING:         return ring_cost(call);
	case COLLECT_STAR:         return star_cost(call);
	case COLLECT_EXCHANGE:     return flat(call, 1, p - 1, call->bytes * (p - 1));
	case COLLECT_TREE:         return tree_cost(call);
	case COLLECT_CIRCULANT:    return circulant_cost(call);
	case COLLECT_HIERARCHICAL: return hierarchical_cost(call);
	case COLLECT_BRUCK:
		return flat(call, call->log, call->log * p / 2, part(call->bytes, call->log, 2));
	case COLLECT_RECURSIVE_DOUBLING:
		return flat(call, call->log + ((p & (p - 1)) != 0), call->log, call->bytes * call->log);
	default:
		return direct_cost(call);
	}
}

/* As many of every rank as of the busiest, unless some have more to do by design. */
static uint64_t all_messages_of(const struct call *call, const struct cost *cost, int algorithm)
{
	uint64_t p = call->world;
	uint64_t trips = phases(call->collective);
	bool is_rooted = call->collective == COLLECT_REDUCE || call->collective == COLLECT_BROADCAST;
	bool has_owners = !col_collective_has_blocks(call->collective);
	if (algorithm == COLLECT_TREE || (algorithm == COLLECT_RING && is_rooted))
		return 2 * (p - 1) * trips;
	if (algorithm == COLLECT_STAR && has_owners)
		return (p - 1) * trips;
	if (algorithm == COLLECT_DIRECT && has_owners) {
		uint64_t owners = col_min_u64(is_rooted ? p - 1 : p,
		                              col_div_ceil(call->bytes, COL_SLICE_QUANTUM));
		return (call->collective == COLLECT_BARRIER ? 1 : owners) * (p - 1) * trips;
	}
	return p * (cost->messages[LOCAL] + cost->messages[REMOTE]);
}

/* What the busiest rank adds up: as much as it receives in the reduction. */
static uint64_t reduced_of(const struct call *call, const struct cost *cost, int algorithm)
{
	if (!col__collective_reduces(call->collective))
		return 0;
	bool is_one_way = algorithm == COLLECT_EXCHANGE || algorithm == COLLECT_RECURSIVE_DOUBLING ||
	                  algorithm == COLLECT_STAR;
	uint64_t journeys = is_one_way ? 1 : phases(call->collective);
	return (cost->bytes[LOCAL] + cost->bytes[REMOTE]) / journeys;
}

static wide transfer_ns(uint64_t bytes, uint64_t bytes_per_s)
{
	if (bytes_per_s == 0)
		return 0;
	return (wide)bytes * 1000000000u / bytes_per_s;
}

static uint64_t time_ns(const struct call *call, const struct cost *cost)
{
	const struct collect_link_model models[LEVEL_COUNT] = {
		call->recipe->local, call->recipe->remote,
	};
	wide time = transfer_ns(cost->reduced, call->recipe->reduce_bytes_per_s);
	if (call->hosts == 1)
		time += (wide)cost->all_messages * 8 * models[LOCAL].overhead_ns / call->world;
	for (int level = 0; level < LEVEL_COUNT; level++) {
		const struct collect_link_model *model = &models[level];
		time += (wide)cost->hops[level] * model->latency_ns;
		time += (wide)(cost->hops[level] + cost->messages[level]) * model->overhead_ns;
		time += transfer_ns(cost->bytes[level], model->bytes_per_s);
	}
	return time > TIME_MAX ? TIME_MAX : (uint64_t)time;
}

/* Algorithms that the model would choose for reasons that it does not know are left out. */
static bool is_candidate(const struct call *call, int algorithm)
{
	if (!col__algorithm_has(algorithm, call->collective))
		return false;
	switch (algorithm) {
	case COLLECT_RECURSIVE_DOUBLING:
		return call->collective == COLLECT_BARRIER;
	case COLLECT_BRUCK:
		return call->bytes / call->world <= BRUCK_BLOCK_MAX;
	case COLLECT_HIERARCHICAL:
		return call->hosts > 1 && call->hosts < call->world && call->recipe->level_count == 0;
	default:
		return true;
	}
}

struct text {
	char *target;
	size_t capacity;
};

static void explain(struct text *text, int algorithm, const struct cost *cost, uint64_t time)
{
	int length = snprintf(text->target, text->capacity,
	                      "%s: hops %" PRIu64 "+%" PRIu64 ", messages %" PRIu64 "+%" PRIu64
	                      ", bytes %" PRIu64 "+%" PRIu64 ", reduced %" PRIu64 ", ns %" PRIu64 "\n",
	                      col__algorithm_name(algorithm), cost->hops[LOCAL], cost->hops[REMOTE],
	                      cost->messages[LOCAL], cost->messages[REMOTE], cost->bytes[LOCAL],
	                      cost->bytes[REMOTE], cost->reduced, time);
	size_t added = length < 0 ? 0 : (size_t)length;
	if (text->target == NULL || added >= text->capacity) {
		text->capacity = 0;
		return;
	}
	text->target += added;
	text->capacity -= added;
}

static int choose(const struct call *call, struct text *text)
{
	int best = COLLECT_DIRECT;
	uint64_t best_time = UINT64_MAX;
	for (int algorithm = 0; algorithm < COLLECT_ALGORITHM_COUNT; algorithm++) {
		if (!is_candidate(call, algorithm))
			continue;
		struct cost cost = cost_of(call, algorithm);
		cost.all_messages = all_messages_of(call, &cost, algorithm);
		cost.reduced = reduced_of(call, &cost, algorithm);
		uint64_t time = time_ns(call, &cost);
		explain(text, algorithm, &cost, time);
		if (time < best_time) {
			best_time = time;
			best = algorithm;
		}
	}
	return best;
}

int collect_choose(const struct collect_recipe *recipe, int collective, uint32_t world,
                   uint64_t bytes, char *explanation_out, size_t capacity)
{
	if (recipe == NULL || collective < 0 || collective >= COLLECT_COLLECTIVE_COUNT || world == 0 ||
	    world > COLLECT_RANKS_MAX || bytes > COL_PLAN_BYTES_MAX)
		return COLLECT_E_INVALID;
	struct text text = {explanation_out, explanation_out == NULL ? 0 : capacity};
	if (text.capacity > 0)
		*text.target = '\0';
	if (col__algorithm_has(recipe->algorithm, collective))
		return recipe->algorithm;
	if (world == 1)
		return COLLECT_DIRECT;

	/* Larger payloads do not change the choice, and could overflow what is counted. */
	struct call call = {
		.recipe = recipe,
		.collective = collective,
		.world = world,
		.bytes = col_min_u64(bytes, (uint64_t)1 << 48),
	};
	hosts_count(&call);
	while ((uint64_t)1 << call.log < world)
		call.log++;
	return choose(&call, &text);
}
