/*
 * Recursive doubling: in round k everybody exchanges its sum with the one whose number differs in
 * bit k, and both add the two, the lower number's on the left.
 *
 *     0 ◄──► 1    2 ◄──► 3        round 0: (0 op 1), (2 op 3)
 *     0 ◄────────► 2   1 ◄──► 3   round 1: ((0 op 1) op (2 op 3)), on all four
 *
 * With p not a power of two, the first pairs of ranks fold: the odd one hands its input to the even
 * one before the rounds, and gets the result after them. Every rank of the rounds evaluates the
 * same expression, a balanced one in rank order, so the bits agree.
 *
 * Cost for p ranks and S bytes: ⌊log2 p⌋ hops, and 2 more where p is not a power of two; each rank
 * sends and receives about log2 p S. Right for a barrier, where nothing but hops counts; a sum that
 * changes after it was sent must be copied, which only small payloads bear.
 *
 * Source: Thakur, Rabenseifner and Gropp 2005, "Optimization of collective communication operations
 * in MPICH".
 */
#include "plan/plan_build.h"

#define COMPLETE ((unsigned)(COL_STEP_FINAL | COL_STEP_SCALE))

struct doubling {
	uint32_t rounds;
	uint32_t folded; /* pairs (2i, 2i+1), i below this, of which 2i stands for both */
};

static uint32_t number_of(const struct doubling *it, uint32_t rank)
{
	return rank < 2 * it->folded ? rank / 2 : rank - it->folded;
}

static uint32_t rank_of(const struct doubling *it, uint32_t number)
{
	return number < it->folded ? 2 * number : number + it->folded;
}

/* Where a rank with `number` receives in `round`: a fold comes first, then two steps a round. */
static uint32_t round_step(const struct doubling *it, uint32_t number, uint32_t round)
{
	return (number < it->folded) + 2 * round + 1;
}

static void rounds_add(struct collect_plan *plan, const struct doubling *it)
{
	uint32_t number = number_of(it, plan->rank);
	bool is_folded = number < it->folded;
	if (is_folded)
		col__plan_step_add(plan, col__step_take(COL_IN_REDUCE_RECV, plan->rank + 1, 0));
	for (uint32_t round = 0; round < it->rounds; round++) {
		uint32_t other = number ^ 1u << round;
		uint32_t peer = rank_of(it, other);
		bool is_low = number < other;
		bool is_input = round == 0 && !is_folded;
		enum col_opcode take = is_low ? COL_RECV_REDUCE : COL_RECV_REDUCE_OUT;
		if (is_input)
			take = is_low ? COL_IN_REDUCE_RECV : COL_RECV_REDUCE_IN;
		col__plan_step_add(plan, col__step_send(is_input ? COL_SEND_IN : COL_SEND_COPY, peer, 0,
		                                        round_step(it, other, round)));
		col__plan_step_add(plan, col__step_take(take, peer, 0));
	}
	plan->steps[plan->step_count - 1].flags = COMPLETE;
	if (is_folded)
		col__plan_step_add(plan, col__step_send(COL_SEND_OUT, plan->rank + 1, 0, 1));
}

int col__build_doubling(const struct col_request *request, struct collect_plan **plan_out)
{
	struct doubling it = {0};
	while (2u << it.rounds <= request->world)
		it.rounds++;
	it.folded = request->world - (1u << it.rounds);

	struct collect_plan *plan;
	int status = col__plan_create(request, COLLECT_RECURSIVE_DOUBLING, 1, 1, &plan);
	if (status < 0)
		return status;
	status = col__plan_reserve(plan, 2 * it.rounds + 2);
	if (status < 0) {
		col_plan_destroy(&plan);
		return status;
	}
	col__plan_lane_begin(plan, 0);
	uint32_t rank = request->rank;
	if (rank < 2 * it.folded && rank % 2 == 1) {
		col__plan_step_add(plan, col__step_send(COL_SEND_IN, rank - 1, 0, 0));
		col__plan_step_add(plan, col__step_take(COL_RECV, rank - 1, COL_STEP_FINAL));
	} else {
		rounds_add(plan, &it);
	}
	*plan_out = plan;
	return 0;
}
