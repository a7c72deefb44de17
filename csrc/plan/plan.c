/* Plans as data: making one, cutting the payload, and printing. The algorithms are in plan_*.c. */
#include "plan/plan.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/size.h"
#include "plan/plan_build.h"

/* ---- opcodes ------------------------------------------------------------------------------- */

enum {
	RECEIVES = 1u,
	SENDS = 2u,
	READS_IN = 4u,
	WRITES_OUT = 8u,
};

static const struct {
	const char *name;
	unsigned effects;
} opcodes[COL_OPCODE_COUNT] = {
	[COL_SEND_IN]          = {"send_in", SENDS | READS_IN},
	[COL_SEND_OUT]         = {"send_out", SENDS},
	[COL_SEND_COPY]        = {"send_copy", SENDS},
	[COL_RECV]             = {"recv", RECEIVES | WRITES_OUT},
	[COL_RECV_SEND]        = {"recv_send", RECEIVES | SENDS | WRITES_OUT},
	[COL_RECV_REDUCE]      = {"recv_reduce", RECEIVES | WRITES_OUT},
	[COL_RECV_REDUCE_OUT]  = {"recv_reduce_out", RECEIVES | WRITES_OUT},
	[COL_RECV_REDUCE_IN]   = {"recv_reduce_in", RECEIVES | READS_IN | WRITES_OUT},
	[COL_IN_REDUCE_RECV]   = {"in_reduce_recv", RECEIVES | READS_IN | WRITES_OUT},
	[COL_RECV_REDUCE_SEND] = {"recv_reduce_send", RECEIVES | SENDS | READS_IN},
	[COL_IN_REDUCE_SEND]   = {"in_reduce_send", RECEIVES | SENDS | READS_IN},
	[COL_OUT_REDUCE_SEND]  = {"out_reduce_send", RECEIVES | SENDS},
	[COL_REDUCE_IN]        = {"reduce_in", READS_IN | WRITES_OUT},
	[COL_COPY_IN]          = {"copy_in", READS_IN | WRITES_OUT},
};

static int opcode_has(int opcode, unsigned effect)
{
	return opcode >= 0 && opcode < COL_OPCODE_COUNT && (opcodes[opcode].effects & effect) != 0;
}

int col_opcode_receives(int opcode)
{
	return opcode_has(opcode, RECEIVES);
}

int col_opcode_sends(int opcode)
{
	return opcode_has(opcode, SENDS);
}

int col_opcode_reads_in(int opcode)
{
	return opcode_has(opcode, READS_IN);
}

int col_opcode_writes_out(int opcode)
{
	return opcode_has(opcode, WRITES_OUT);
}

const char *col_opcode_name(int opcode)
{
	return opcode >= 0 && opcode < COL_OPCODE_COUNT ? opcodes[opcode].name : "unknown";
}

/* ---- collectives --------------------------------------------------------------------------- */

static const char *const collective_names[COLLECT_COLLECTIVE_COUNT] = {
	[COLLECT_ALL_REDUCE]     = "all_reduce",
	[COLLECT_REDUCE_SCATTER] = "reduce_scatter",
	[COLLECT_ALL_GATHER]     = "all_gather",
	[COLLECT_ALL_TO_ALL]     = "all_to_all",
	[COLLECT_BROADCAST]      = "broadcast",
	[COLLECT_REDUCE]         = "reduce",
	[COLLECT_GATHER]         = "gather",
	[COLLECT_SCATTER]        = "scatter",
	[COLLECT_BARRIER]        = "barrier",
};

const char *col__collective_name(int collective)
{
	return collective >= 0 && collective < COLLECT_COLLECTIVE_COUNT ? collective_names[collective]
	                                                                : "unknown";
}

bool col_collective_has_blocks(int collective)
{
	return collective == COLLECT_REDUCE_SCATTER || collective == COLLECT_ALL_GATHER ||
	       collective == COLLECT_ALL_TO_ALL || collective == COLLECT_GATHER ||
	       collective == COLLECT_SCATTER;
}

bool col__collective_reduces(int collective)
{
	return collective == COLLECT_ALL_REDUCE || collective == COLLECT_REDUCE ||
	       collective == COLLECT_REDUCE_SCATTER || collective == COLLECT_BARRIER;
}

bool col__collective_has_root(int collective)
{
	return collective == COLLECT_BROADCAST || collective == COLLECT_REDUCE ||
	       collective == COLLECT_GATHER || collective == COLLECT_SCATTER;
}

bool col_plan_contributes(const struct collect_plan *plan, uint32_t slice, uint32_t rank)
{
	switch (plan->collective) {
	case COLLECT_BROADCAST:
	case COLLECT_SCATTER:    return rank == plan->root;
	case COLLECT_ALL_GATHER:
	case COLLECT_GATHER:     return rank == slice / plan->parts;
	case COLLECT_ALL_TO_ALL: return rank == slice / plan->world;
	default:                 return true;
	}
}

bool col_plan_needs(const struct collect_plan *plan, uint32_t slice, uint32_t rank)
{
	switch (plan->collective) {
	case COLLECT_REDUCE:
	case COLLECT_GATHER:         return rank == plan->root;
	case COLLECT_REDUCE_SCATTER:
	case COLLECT_SCATTER:        return rank == slice / plan->parts;
	case COLLECT_ALL_TO_ALL:     return rank == slice % plan->world;
	default:                     return true;
	}
}

/* ---- making -------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	col_builder *build;
	unsigned collectives; /* a bit for each */
} algorithms[COLLECT_ALGORITHM_COUNT] = {
	[COLLECT_DIRECT]   = {"direct", col__build_direct, (1u << COLLECT_COLLECTIVE_COUNT) - 1},
	[COLLECT_RING]     = {"ring", col__build_ring,
	                      1u << COLLECT_ALL_REDUCE | 1u << COLLECT_REDUCE_SCATTER |
	                      1u << COLLECT_ALL_GATHER | 1u << COLLECT_REDUCE |
	                      1u << COLLECT_BROADCAST},
	[COLLECT_STAR]     = {"star", col__build_star,
	                      1u << COLLECT_ALL_REDUCE | 1u << COLLECT_REDUCE |
	                      1u << COLLECT_BROADCAST | 1u << COLLECT_GATHER | 1u << COLLECT_SCATTER},
	[COLLECT_EXCHANGE] = {"exchange", col__build_exchange,
	                      1u << COLLECT_ALL_REDUCE | 1u << COLLECT_BARRIER},
	[COLLECT_TREE]     = {"tree", col__build_tree,
	                      1u << COLLECT_ALL_REDUCE | 1u << COLLECT_REDUCE |
	                      1u << COLLECT_BROADCAST | 1u << COLLECT_BARRIER},
	[COLLECT_CIRCULANT] = {"circulant", col__build_circulant,
	                       1u << COLLECT_ALL_REDUCE | 1u << COLLECT_REDUCE_SCATTER |
	                       1u << COLLECT_ALL_GATHER | 1u << COLLECT_BARRIER},
	[COLLECT_RECURSIVE_DOUBLING] = {"recursive_doubling", col__build_doubling,
	                                1u << COLLECT_ALL_REDUCE | 1u << COLLECT_BARRIER},
	[COLLECT_HIERARCHICAL] = {"hierarchical", col__build_hierarchical,
	                          1u << COLLECT_ALL_REDUCE | 1u << COLLECT_REDUCE_SCATTER |
	                          1u << COLLECT_ALL_GATHER | 1u << COLLECT_ALL_TO_ALL |
	                          1u << COLLECT_BROADCAST | 1u << COLLECT_REDUCE |
	                          1u << COLLECT_BARRIER},
	[COLLECT_PAIRWISE] = {"pairwise", col__build_pairwise, 1u << COLLECT_ALL_TO_ALL},
	[COLLECT_BRUCK]    = {"bruck", col__build_bruck, 1u << COLLECT_ALL_TO_ALL},
};

bool col__algorithm_has(int algorithm, int collective)
{
	return algorithm >= 0 && algorithm < COLLECT_ALGORITHM_COUNT && collective >= 0 &&
	       collective < COLLECT_COLLECTIVE_COUNT && algorithms[algorithm].build != NULL &&
	       (algorithms[algorithm].collectives >> collective & 1) != 0;
}

const char *col__algorithm_name(int algorithm)
{
	return algorithm >= 0 && algorithm < COLLECT_ALGORITHM_COUNT ? algorithms[algorithm].name
	                                                              : "unknown";
}

/* One rank, one slice: what it contributes is the result. */
static int build_alone(const struct col_request *request, struct collect_plan **plan_out)
{
	struct collect_plan *plan;
	int status = col__plan_create(request, request->recipe->algorithm, 1, 1, &plan);
	if (status < 0)
		return status;
	status = col__plan_reserve(plan, 1);
	if (status < 0) {
		col_plan_destroy(&plan);
		return status;
	}
	col__plan_lane_begin(plan, 0);
	unsigned flags = COL_STEP_FINAL;
	if (col__collective_reduces(request->collective))
		flags |= COL_STEP_SCALE;
	col__plan_step_add(plan, col__step_take(COL_COPY_IN, COL_RANK_NONE, flags));
	plan->is_rank_ordered = true;
	*plan_out = plan;
	return 0;
}

int col_plan_build(const struct collect_recipe *recipe, int collective, uint32_t world,
                   uint32_t root, uint32_t rank, struct collect_plan **plan_out)
{
	if (world == 0 || world > COLLECT_RANKS_MAX || rank >= world ||
	    !col__algorithm_has(recipe->algorithm, collective))
		return COLLECT_E_INVALID;
	if (col__collective_has_root(collective) ? root >= world : root != COL_RANK_NONE)
		return COLLECT_E_INVALID;
	struct col_request request = {recipe, collective, world, root, rank};
	if (world == 1)
		return build_alone(&request, plan_out);
	return algorithms[recipe->algorithm].build(&request, plan_out);
}

int col__plan_create(const struct col_request *request, int algorithm, uint32_t slice_count,
                     uint32_t parts, struct collect_plan **plan_out)
{
	struct collect_plan *plan = col_alloc_zeroed(1, sizeof(*plan));
	if (plan == NULL)
		return COLLECT_E_MEMORY;
	plan->collective = request->collective;
	plan->algorithm = algorithm;
	plan->world = request->world;
	plan->rank = request->rank;
	plan->root = request->root;
	plan->slice_count = slice_count;
	plan->parts = parts;
	plan->weight_sum = slice_count;
	*plan_out = plan;
	return 0;
}

void col_plan_destroy(struct collect_plan **plan)
{
	if (*plan == NULL)
		return;
	col_free((*plan)->lanes);
	col_free((*plan)->steps);
	col_free((*plan)->weights);
	col_free(*plan);
	*plan = NULL;
}

/* `array` of `count` elements becomes one of `capacity`; NULL: as it was. */
static void *grown(void *array, size_t count, size_t capacity, size_t element_bytes)
{
	void *larger = col_alloc_zeroed(capacity, element_bytes);
	if (larger == NULL)
		return NULL;
	if (count > 0)
		memcpy(larger, array, count * element_bytes);
	col_free(array);
	return larger;
}

int col__plan_reserve(struct collect_plan *plan, uint32_t step_count)
{
	if (plan->lane_count == plan->lane_capacity) {
		uint32_t capacity = plan->lane_capacity == 0 ? 8 : plan->lane_capacity * 2;
		void *lanes = grown(plan->lanes, plan->lane_count, capacity, sizeof(*plan->lanes));
		if (lanes == NULL)
			return COLLECT_E_MEMORY;
		plan->lanes = lanes;
		plan->lane_capacity = capacity;
	}
	if (plan->step_count + step_count > plan->step_capacity) {
		uint32_t capacity = plan->step_capacity * 2 + step_count + 8;
		void *steps = grown(plan->steps, plan->step_count, capacity, sizeof(*plan->steps));
		if (steps == NULL)
			return COLLECT_E_MEMORY;
		plan->steps = steps;
		plan->step_capacity = capacity;
	}
	return 0;
}

void col__plan_lane_begin(struct collect_plan *plan, uint32_t slice)
{
	COL_ASSERT(plan->lane_count < plan->lane_capacity && plan->lane_count <= UINT16_MAX);
	COL_ASSERT(slice < plan->slice_count);
	plan->lanes[plan->lane_count++] = (struct col_lane){
		.step_begin = plan->step_count,
		.slice = slice,
	};
}

void col__plan_step_add(struct collect_plan *plan, struct col_step step)
{
	COL_ASSERT(plan->lane_count > 0);
	COL_ASSERT(plan->step_count < plan->step_capacity);
	plan->lanes[plan->lane_count - 1].step_count++;
	plan->steps[plan->step_count++] = step;
}

/* ---- slices -------------------------------------------------------------------------------- */

static uint64_t slice_weight(const struct collect_plan *plan, uint32_t slice)
{
	return plan->weights == NULL ? 1 : plan->weights[slice];
}

/* Sum of the weights of the slices before `slice`. */
static uint64_t weight_before(const struct collect_plan *plan, uint32_t slice)
{
	if (plan->weights == NULL)
		return slice;
	uint64_t sum = 0;
	for (uint32_t i = 0; i < slice; i++)
		sum += plan->weights[i];
	return sum;
}

/*
 * The byte at which the first `weight` of `sum` of the payload end.
 *
 * With n quanta the bound is floor(n * weight / sum) quanta. The product may need 90 bits; with
 * n = a * sum + b it is a * weight + b * weight / sum, exactly, and fits. Equal bounds follow from
 * equal weights, so slices are contiguous whatever the rounding.
 */
static uint64_t share(uint64_t sum, uint64_t weight, uint64_t bytes)
{
	COL_ASSERT(bytes <= COL_PLAN_BYTES_MAX);
	COL_ASSERT(sum > 0 && sum <= COL_WEIGHT_SUM_MAX);
	COL_ASSERT(weight <= sum);

	uint64_t quanta = col_div_ceil(bytes, COL_SLICE_QUANTUM);
	uint64_t whole = quanta / sum * weight;
	uint64_t rest = quanta % sum * weight / sum;
	return col_min_u64((whole + rest) * COL_SLICE_QUANTUM, bytes);
}

struct col_span col_plan_slice(const struct collect_plan *plan, uint32_t slice, uint64_t bytes)
{
	COL_ASSERT(slice < plan->slice_count);
	uint64_t before = weight_before(plan, slice);
	return (struct col_span){
		.begin = share(plan->weight_sum, before, bytes),
		.end = share(plan->weight_sum, before + slice_weight(plan, slice), bytes),
	};
}

struct col_span col_plan_part(const struct collect_plan *plan, uint32_t part, uint64_t bytes)
{
	COL_ASSERT(part < plan->parts);
	return (struct col_span){
		.begin = share(plan->parts, part, bytes),
		.end = share(plan->parts, part + 1, bytes),
	};
}

/* ---- printing ------------------------------------------------------------------------------ */

struct text {
	char *target;
	size_t capacity;
	size_t length; /* that is needed, which may be more than fits */
};

__attribute__((format(printf, 2, 3)))
static void text_add(struct text *text, const char *format, ...)
{
	size_t room = text->length < text->capacity ? text->capacity - text->length : 0;
	va_list arguments;
	va_start(arguments, format);
	int added = vsnprintf(room > 0 ? text->target + text->length : NULL, room, format, arguments);
	va_end(arguments);
	COL_ASSERT(added >= 0);
	text->length += (size_t)added;
}

static void step_print(const struct col_step *step, uint32_t index, struct text *text)
{
	text_add(text, "%6" PRIu32 "  %-16s", index, col_opcode_name(step->opcode));
	uint32_t target = step->peer;
	if (col_opcode_receives(step->opcode)) {
		text_add(text, "  <- rank %" PRIu32, step->peer);
		target = step->next;
	}
	if (col_opcode_sends(step->opcode))
		text_add(text, "  -> rank %" PRIu32 " lane %" PRIu16 " step %" PRIu16, target,
		         step->peer_lane, step->peer_step);
	text_add(text, "%s%s\n", step->flags & COL_STEP_FINAL ? "  final" : "",
	         step->flags & COL_STEP_SCALE ? "  scale" : "");
}

size_t col_plan_print(const struct collect_plan *plan, char *text_out, size_t capacity)
{
	struct text text = {.target = text_out, .capacity = capacity};
	const char *name = plan->name[0] != '\0' ? plan->name : col__algorithm_name(plan->algorithm);
	text_add(&text, "%s %s, rank %" PRIu32 " of %" PRIu32, name,
	         col__collective_name(plan->collective), plan->rank, plan->world);
	if (plan->root != COL_RANK_NONE)
		text_add(&text, ", root %" PRIu32, plan->root);
	text_add(&text, ": lanes %" PRIu32 ", slices %" PRIu32 ", steps %" PRIu32 "\n",
	         plan->lane_count, plan->slice_count, plan->step_count);
	for (uint32_t i = 0; i < plan->lane_count; i++) {
		const struct col_lane *lane = &plan->lanes[i];
		text_add(&text, "lane %" PRIu32 "  slice %" PRIu32 "\n", i, lane->slice);
		for (uint32_t step = 0; step < lane->step_count; step++)
			step_print(&plan->steps[lane->step_begin + step], step, &text);
	}
	return text.length;
}
