/* Plans as data: making one, cutting the payload, and printing. The algorithms are in plan_*.c. */
#include "plan/plan.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/size.h"

#define WEIGHT_SUM_MAX ((uint64_t)1 << 32)

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
	[COL_RECV]             = {"recv", RECEIVES | WRITES_OUT},
	[COL_RECV_SEND]        = {"recv_send", RECEIVES | SENDS | WRITES_OUT},
	[COL_RECV_REDUCE]      = {"recv_reduce", RECEIVES | WRITES_OUT},
	[COL_RECV_REDUCE_IN]   = {"recv_reduce_in", RECEIVES | READS_IN | WRITES_OUT},
	[COL_IN_REDUCE_RECV]   = {"in_reduce_recv", RECEIVES | READS_IN | WRITES_OUT},
	[COL_RECV_REDUCE_SEND] = {"recv_reduce_send", RECEIVES | SENDS | READS_IN},
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

/* ---- making -------------------------------------------------------------------------------- */

int col_plan_build(int algorithm, uint32_t world, uint32_t rank, struct collect_plan **plan_out)
{
	switch (algorithm) {
	case COLLECT_DIRECT: return col_plan_build_direct(world, rank, plan_out);
	case COLLECT_RING:   return col_plan_build_ring(world, rank, plan_out);
	case COLLECT_STAR:   return col_plan_build_star(world, rank, plan_out);
	default:             return COLLECT_E_INVALID;
	}
}

int col_plan_create(int algorithm, uint32_t world, uint32_t rank, uint32_t slice_count,
                    uint32_t lane_capacity, uint32_t step_capacity, struct collect_plan **plan_out)
{
	if (world == 0 || world > COLLECT_RANKS_MAX || rank >= world || slice_count == 0)
		return COLLECT_E_INVALID;

	struct collect_plan *plan = col_alloc_zeroed(1, sizeof(*plan));
	if (plan == NULL)
		return COLLECT_E_MEMORY;
	plan->algorithm = algorithm;
	plan->world = world;
	plan->rank = rank;
	plan->slice_count = slice_count;
	plan->weight_sum = slice_count;
	plan->lane_capacity = lane_capacity;
	plan->step_capacity = step_capacity;
	plan->lanes = col_alloc_zeroed(lane_capacity, sizeof(*plan->lanes));
	plan->steps = col_alloc_zeroed(step_capacity, sizeof(*plan->steps));
	if (plan->lanes == NULL || plan->steps == NULL) {
		col_plan_destroy(&plan);
		return COLLECT_E_MEMORY;
	}
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

void col_plan_lane_begin(struct collect_plan *plan)
{
	COL_ASSERT(plan->lane_count < plan->lane_capacity);
	plan->lanes[plan->lane_count++] = (struct col_lane){.step_begin = plan->step_count};
}

void col_plan_step_add(struct collect_plan *plan, struct col_step step)
{
	COL_ASSERT(plan->lane_count > 0);
	COL_ASSERT(plan->step_count < plan->step_capacity);
	COL_ASSERT(step.slice < plan->slice_count);

	struct col_lane *lane = &plan->lanes[plan->lane_count - 1];
	if (lane->step_count == 0 || step.slice < lane->slice_first)
		lane->slice_first = step.slice;
	if (lane->step_count == 0 || step.slice > lane->slice_last)
		lane->slice_last = step.slice;
	lane->step_count++;
	plan->steps[plan->step_count++] = step;
}

int col_plan_build_alone(int algorithm, struct collect_plan **plan_out)
{
	struct collect_plan *plan;
	int status = col_plan_create(algorithm, 1, 0, 1, 1, 1, &plan);
	if (status < 0)
		return status;
	col_plan_lane_begin(plan);
	col_plan_step_add(plan, (struct col_step){
		.opcode = COL_COPY_IN,
		.flags = COL_STEP_FINAL | COL_STEP_SCALE,
		.peer = COL_RANK_NONE,
		.next = COL_RANK_NONE,
	});
	*plan_out = plan;
	return 0;
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
 * The byte at which the slices of the first `weight` of weight_sum end.
 *
 * With n quanta the bound is floor(n * weight / weight_sum) quanta. The product may need 90 bits;
 * with n = a * weight_sum + b it is a * weight + b * weight / weight_sum, exactly, and fits.
 * Equal bounds follow from equal weights, so slices are contiguous whatever the rounding.
 */
static uint64_t bound(const struct collect_plan *plan, uint64_t weight, uint64_t bytes)
{
	COL_ASSERT(bytes <= COL_PLAN_BYTES_MAX);
	COL_ASSERT(plan->weight_sum > 0 && plan->weight_sum <= WEIGHT_SUM_MAX);
	COL_ASSERT(weight <= plan->weight_sum);

	uint64_t quanta = col_div_ceil(bytes, COL_SLICE_QUANTUM);
	uint64_t whole = quanta / plan->weight_sum * weight;
	uint64_t rest = quanta % plan->weight_sum * weight / plan->weight_sum;
	return col_min_u64((whole + rest) * COL_SLICE_QUANTUM, bytes);
}

struct col_span col_plan_slice(const struct collect_plan *plan, uint32_t slice, uint64_t bytes)
{
	COL_ASSERT(slice < plan->slice_count);
	uint64_t before = weight_before(plan, slice);
	return (struct col_span){
		.begin = bound(plan, before, bytes),
		.end = bound(plan, before + slice_weight(plan, slice), bytes),
	};
}

uint64_t col_plan_iterations(const struct collect_plan *plan, uint32_t lane, uint64_t bytes,
                             uint32_t chunk_bytes)
{
	COL_ASSERT(lane < plan->lane_count);
	COL_ASSERT(chunk_bytes > 0);
	const struct col_lane *it = &plan->lanes[lane];
	if (it->step_count == 0)
		return 0;

	uint64_t longest = 0;
	uint64_t weight = weight_before(plan, it->slice_first);
	uint64_t begin = bound(plan, weight, bytes);
	for (uint32_t slice = it->slice_first; slice <= it->slice_last; slice++) {
		weight += slice_weight(plan, slice);
		uint64_t end = bound(plan, weight, bytes);
		if (end - begin > longest)
			longest = end - begin;
		begin = end;
	}
	return col_div_ceil(longest, chunk_bytes);
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

static const char *algorithm_name(int algorithm)
{
	switch (algorithm) {
	case COLLECT_DIRECT: return "direct";
	case COLLECT_RING:   return "ring";
	case COLLECT_STAR:   return "star";
	default:             return "custom";
	}
}

static void step_print(const struct col_step *step, uint32_t index, struct text *text)
{
	text_add(text, "%6" PRIu32 "  %-16s  slice %-4" PRIu32, index, col_opcode_name(step->opcode),
	         step->slice);
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
	text_add(&text, "%s, rank %" PRIu32 " of %" PRIu32 ": lanes %" PRIu32 ", slices %" PRIu32
	         ", steps %" PRIu32 "\n", algorithm_name(plan->algorithm), plan->rank, plan->world,
	         plan->lane_count, plan->slice_count, plan->step_count);
	for (uint32_t i = 0; i < plan->lane_count; i++) {
		const struct col_lane *lane = &plan->lanes[i];
		text_add(&text, "lane %" PRIu32 "\n", i);
		for (uint32_t step = 0; step < lane->step_count; step++)
			step_print(&plan->steps[lane->step_begin + step], step, &text);
	}
	return text.length;
}
