/*
 * Ring.
 *
 * The payload has one slice per rank, and rank j owns slice j. The sum of slice j starts at rank
 * j+1 with that rank's part, travels once around, each rank adding its own, and is complete at rank
 * j, which scales it. Then the result travels the same way once more.
 *
 *     reduce   j+1 ──► j+2 ──► … ──► j-1 ──► j      gather   j ──► j+1 ──► … ──► j-1
 *
 * One lane, since every rank receives from one neighbour and sends to the other. With r this rank,
 * all numbers modulo p:
 *
 *     step 0        send_in           slice r-1     the sum of slice r-1 begins here
 *     step k        recv_reduce_send  slice r-1-k   k = 1 … p-2
 *     step p-1      recv_reduce_in    slice r       complete: scale
 *     step p        send_out          slice r
 *     step p+m      recv_send         slice r-m     m = 1 … p-2
 *     step 2p-1     recv              slice r+1     the next rank owns it, so it ends here
 *
 * What step s sends, step s+1 of the next rank receives.
 *
 * Cost for p ranks and S bytes: 2(p-1) dependent hops; each rank sends and receives 2(p-1)/p S; two
 * links per rank. Slice j is summed in the order j+1, j+2, …, j: the same on every rank and in
 * every run, but another than rank order.
 *
 * Source: Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of
 * workstations".
 */
#include "plan/plan.h"

struct ring {
	struct collect_plan *plan;
	uint32_t previous;
	uint32_t next;
};

/* `behind`: how many places the slice's owner is behind this rank. */
static void add(struct ring *ring, enum col_opcode opcode, uint32_t behind, unsigned flags)
{
	struct collect_plan *plan = ring->plan;
	int receives = col_opcode_receives((int)opcode);
	int sends = col_opcode_sends((int)opcode);
	col_plan_step_add(plan, (struct col_step){
		.opcode = (uint16_t)opcode,
		.flags = (uint16_t)flags,
		.slice = (plan->rank + plan->world - behind) % plan->world,
		.peer = receives ? ring->previous : ring->next,
		.next = receives && sends ? ring->next : COL_RANK_NONE,
		.peer_step = (uint16_t)(sends ? plan->step_count + 1 : 0),
	});
}

int col_plan_build_ring(uint32_t world, uint32_t rank, struct collect_plan **plan_out)
{
	if (world == 0 || world > COLLECT_RANKS_MAX || rank >= world)
		return COLLECT_E_INVALID;
	if (world == 1)
		return col_plan_build_alone(COLLECT_RING, plan_out);

	struct ring ring = {
		.previous = (rank + world - 1) % world,
		.next = (rank + 1) % world,
	};
	int status = col_plan_create(COLLECT_RING, world, rank, world, 1, 2 * world, &ring.plan);
	if (status < 0)
		return status;

	col_plan_lane_begin(ring.plan);
	add(&ring, COL_SEND_IN, 1, 0);
	for (uint32_t k = 1; k <= world - 2; k++)
		add(&ring, COL_RECV_REDUCE_SEND, 1 + k, 0);
	add(&ring, COL_RECV_REDUCE_IN, 0, COL_STEP_FINAL | COL_STEP_SCALE);
	add(&ring, COL_SEND_OUT, 0, 0);
	for (uint32_t m = 1; m <= world - 2; m++)
		add(&ring, COL_RECV_SEND, m, COL_STEP_FINAL);
	add(&ring, COL_RECV, world - 1, COL_STEP_FINAL);

	*plan_out = ring.plan;
	return 0;
}
