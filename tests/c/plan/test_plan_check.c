#include <string.h>

#include "base/alloc.h"
#include "harness.h"
#include "plan/plan.h"
#include "plan/plan_check.h"

#define WORLD_MAX 8
#define CREDIT 4

/* A world's plans, to be spoiled. */
struct fixture {
	struct collect_plan *plans[WORLD_MAX];
	uint32_t world;
	char reason[256];
};

static void build(struct fixture *fixture, int algorithm, uint32_t world)
{
	*fixture = (struct fixture){.world = world};
	for (uint32_t rank = 0; rank < world; rank++)
		CHECK_EQ(col_plan_build(algorithm, world, rank, &fixture->plans[rank]), 0);
}

/* Plans without lanes. */
static void build_empty(struct fixture *fixture, uint32_t world, uint32_t slice_count)
{
	*fixture = (struct fixture){.world = world};
	for (uint32_t rank = 0; rank < world; rank++)
		CHECK_EQ(col_plan_create(COLLECT_DIRECT, world, rank, slice_count, 2, 8,
		                         &fixture->plans[rank]), 0);
}

static void destroy(struct fixture *fixture)
{
	for (uint32_t rank = 0; rank < fixture->world; rank++)
		col_plan_destroy(&fixture->plans[rank]);
}

static int check(struct fixture *fixture, uint32_t credit)
{
	fixture->reason[0] = '\0';
	return col_plan_check(fixture->plans, fixture->world, credit, fixture->reason,
	                      sizeof(fixture->reason));
}

static void check_rejected(struct fixture *fixture, const char *reason)
{
	CHECK_EQ(check(fixture, CREDIT), COLLECT_E_INVALID);
	CHECK_STR_EQ(fixture->reason, reason);
	destroy(fixture);
}

static struct col_step *step_at(struct fixture *fixture, uint32_t rank, uint32_t lane,
                                uint32_t step)
{
	struct collect_plan *plan = fixture->plans[rank];
	CHECK(lane < plan->lane_count && step < plan->lanes[lane].step_count);
	return &plan->steps[plan->lanes[lane].step_begin + step];
}

static void drop(struct fixture *fixture, uint32_t rank, uint32_t lane, uint32_t step)
{
	struct collect_plan *plan = fixture->plans[rank];
	uint32_t index = plan->lanes[lane].step_begin + step;
	memmove(&plan->steps[index], &plan->steps[index + 1],
	        (plan->step_count - index - 1) * sizeof(*plan->steps));
	plan->step_count--;
	plan->lanes[lane].step_count--;
	for (uint32_t later = lane + 1; later < plan->lane_count; later++)
		plan->lanes[later].step_begin--;
}

/* peer: from or to whom. there: the receiver's step in lane 0, of a send. */
static void add(struct fixture *fixture, uint32_t rank, enum col_opcode opcode, uint32_t slice,
                uint32_t peer, uint32_t there, unsigned flags)
{
	col_plan_step_add(fixture->plans[rank], (struct col_step){
		.opcode = (uint16_t)opcode,
		.flags = (uint16_t)flags,
		.slice = slice,
		.peer = peer,
		.next = COL_RANK_NONE,
		.peer_step = (uint16_t)there,
	});
}

#define COMPLETE (COL_STEP_FINAL | COL_STEP_SCALE)

/* ---- what is right is accepted ------------------------------------------------------------- */

static void check_world(uint32_t world, uint32_t credit)
{
	char reason[256] = "";
	for (int algorithm = 0; algorithm < COLLECT_ALGORITHM_COUNT; algorithm++) {
		int status = collect_plan_check(algorithm, world, credit, reason, sizeof(reason));
		if (status != 0)
			FAIL("algorithm %d, world %u, credit %u: %s", algorithm, (unsigned)world,
			     (unsigned)credit, reason);
	}
}

TEST(every_builder_passes_for_worlds_to_64)
{
	for (uint32_t world = 1; world <= 64; world++)
		check_world(world, 1);
}

TEST(every_builder_passes_for_some_larger_worlds)
{
	check_world(100, 1);
	check_world(127, 1);
	check_world(129, 1);
}

TEST(every_builder_passes_with_any_credit)
{
	for (uint32_t credit = 1; credit <= 20; credit++)
		for (uint32_t world = 1; world <= 9; world++)
			check_world(world, credit);
}

/* ---- what is wrong is rejected, where it is wrong ------------------------------------------ */

TEST(a_dropped_step_shifts_what_others_send_to)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 4);
	drop(&fixture, 2, 2, 2);
	check_rejected(&fixture, "rank 3 lane 2 step 0 (send_in of slice 2): "
	               "rank 2 lane 2 step 3 (send_out) does not receive");
}

TEST(a_dropped_send_is_missed_by_its_receiver)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 4);
	drop(&fixture, 2, 2, 6);
	check_rejected(&fixture, "rank 1 lane 2 step 1 (recv of slice 2): rank 2 sends nothing here");
}

TEST(a_contribution_that_is_left_out_is_named)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 3);
	drop(&fixture, 2, 2, 2);
	step_at(&fixture, 2, 2, 1)->flags = COMPLETE;
	check_rejected(&fixture, "rank 2 lane 2 step 1 (recv_reduce of slice 2): "
	               "it is complete without the part of rank 2");
}

TEST(a_contribution_that_is_added_twice_is_named)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 3);
	step_at(&fixture, 2, 2, 1)->opcode = COL_RECV_REDUCE_IN;
	check_rejected(&fixture, "rank 2 lane 2 step 2 (reduce_in of slice 2): "
	               "it adds the part of rank 2 a second time");
}

TEST(a_send_to_another_rank_finds_no_receive)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 3);
	step_at(&fixture, 0, 1, 0)->peer = 2;
	check_rejected(&fixture, "rank 0 lane 1 step 0 (send_in of slice 1): "
	               "rank 2 lane 1 step 0 (send_in) does not receive");
}

TEST(a_receive_from_another_rank_refuses_the_send)
{
	struct fixture fixture;
	build(&fixture, COLLECT_RING, 4);
	step_at(&fixture, 2, 0, 3)->peer = 3;
	check_rejected(&fixture, "rank 1 lane 0 step 2 (recv_reduce_send of slice 2): "
	               "rank 2 lane 0 step 3 expects slice 2 from rank 3");
}

TEST(a_wrong_receiver_step_is_found_at_the_send)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 3);
	step_at(&fixture, 0, 2, 0)->peer_step = 1;
	check_rejected(&fixture, "rank 0 lane 2 step 0 (send_in of slice 2): "
	               "rank 2 lane 2 step 1 expects slice 2 from rank 1");

	build(&fixture, COLLECT_DIRECT, 3);
	step_at(&fixture, 0, 2, 0)->peer_step = 5;
	check_rejected(&fixture, "rank 0 lane 2 step 0 (send_in of slice 2): "
	               "rank 2 has no lane 2 step 5");
}

TEST(a_second_frame_for_one_receive_is_found_at_the_send)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 3);
	step_at(&fixture, 0, 0, 3)->peer = 1;
	check_rejected(&fixture, "rank 0 lane 0 step 3 (send_out of slice 0): "
	               "rank 1 lane 0 step 1 gets a second frame");
}

TEST(a_result_that_was_never_scaled_is_rejected)
{
	struct fixture fixture;
	build(&fixture, COLLECT_RING, 3);
	step_at(&fixture, 1, 0, 2)->flags = COL_STEP_FINAL;
	check_rejected(&fixture, "rank 1 lane 0 step 2 (recv_reduce_in of slice 1): "
	               "it is final and was never scaled");
}

TEST(a_result_that_is_scaled_again_is_rejected)
{
	struct fixture fixture;
	build(&fixture, COLLECT_STAR, 3);
	step_at(&fixture, 2, 0, 1)->flags = COMPLETE;
	check_rejected(&fixture, "rank 2 lane 0 step 1 (recv of slice 0): it scales what is scaled");
}

TEST(a_result_that_is_sent_before_it_is_final_is_rejected)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 3);
	struct col_step *last_part = step_at(&fixture, 2, 2, 2);
	struct col_step *first_send = step_at(&fixture, 2, 2, 3);
	struct col_step kept = *last_part;
	*last_part = *first_send;
	*first_send = kept;
	check_rejected(&fixture, "rank 2 lane 2 step 2 (send_out of slice 2): "
	               "it sends OUT before it is final");
}

TEST(a_result_that_nobody_declares_final_is_rejected)
{
	struct fixture fixture;
	build(&fixture, COLLECT_STAR, 3);
	step_at(&fixture, 1, 0, 1)->flags = 0;
	check_rejected(&fixture, "rank 1: no step makes slice 0 final");
}

TEST(a_change_after_the_result_is_final_is_rejected)
{
	struct fixture fixture;
	build_empty(&fixture, 1, 1);
	col_plan_lane_begin(fixture.plans[0]);
	add(&fixture, 0, COL_COPY_IN, 0, COL_RANK_NONE, 0, COMPLETE);
	add(&fixture, 0, COL_COPY_IN, 0, COL_RANK_NONE, 0, 0);
	check_rejected(&fixture, "rank 0 lane 0 step 1 (copy_in of slice 0): "
	               "it changes OUT, which is final");
}

TEST(a_read_of_out_before_it_is_written_is_rejected)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 3);
	step_at(&fixture, 2, 2, 0)->opcode = COL_RECV_REDUCE;
	check_rejected(&fixture, "rank 2 lane 2 step 0 (recv_reduce of slice 2): "
	               "it reads OUT before anything is written");
}

/* Both ranks get the same sum, but a rounding or a NaN could make their bits differ. */
TEST(two_owners_of_a_slice_are_rejected)
{
	struct fixture fixture;
	build_empty(&fixture, 2, 1);
	for (uint32_t rank = 0; rank < 2; rank++) {
		col_plan_lane_begin(fixture.plans[rank]);
		add(&fixture, rank, COL_SEND_IN, 0, 1 - rank, 1, 0);
		add(&fixture, rank, COL_IN_REDUCE_RECV, 0, 1 - rank, 0, COMPLETE);
	}
	check_rejected(&fixture, "rank 0 lane 0 step 1 (in_reduce_recv of slice 0): "
	               "rank 1 completes this slice too");
}

TEST(two_lanes_that_touch_one_slice_are_rejected)
{
	struct fixture fixture;
	build_empty(&fixture, 1, 1);
	for (uint32_t lane = 0; lane < 2; lane++) {
		col_plan_lane_begin(fixture.plans[0]);
		add(&fixture, 0, COL_COPY_IN, 0, COL_RANK_NONE, 0, COMPLETE);
	}
	check_rejected(&fixture, "rank 0 lane 1 step 0 (copy_in of slice 0): "
	               "lane 0 touches this slice of OUT too");
}

TEST(plans_that_cut_differently_are_rejected)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 2);
	fixture.plans[1]->weights = col_alloc_zeroed(2, sizeof(uint32_t));
	fixture.plans[1]->weights[0] = 2;
	check_rejected(&fixture, "rank 1: it cuts the payload in another way than rank 0");
}

TEST(nonsense_in_a_step_is_rejected)
{
	struct fixture fixture;
	build(&fixture, COLLECT_RING, 3);
	step_at(&fixture, 0, 0, 1)->opcode = COL_OPCODE_COUNT;
	check_rejected(&fixture, "rank 0 lane 0 step 1 (unknown of slice 1): opcode 10 does not exist");

	build(&fixture, COLLECT_RING, 3);
	step_at(&fixture, 0, 0, 1)->next = 0;
	check_rejected(&fixture, "rank 0 lane 0 step 1 (recv_reduce_send of slice 1): "
	               "it forwards to no other rank");

	build(&fixture, COLLECT_RING, 3);
	step_at(&fixture, 0, 0, 1)->flags = COL_STEP_FINAL;
	check_rejected(&fixture, "rank 0 lane 0 step 1 (recv_reduce_send of slice 1): "
	               "it is final or scaled but writes no OUT");

	build(&fixture, COLLECT_RING, 3);
	step_at(&fixture, 2, 0, 0)->slice = 3;
	check_rejected(&fixture, "rank 2 lane 0 step 0 (send_in of slice 3): there are 3 slices");
}

/* ---- deadlocks ----------------------------------------------------------------------------- */

/* Rank 0 sends slice 0 first, rank 1 takes slice 1 first. */
static void build_crossed(struct fixture *fixture)
{
	build_empty(fixture, 2, 2);
	col_plan_lane_begin(fixture->plans[0]);
	add(fixture, 0, COL_SEND_IN, 0, 1, 1, 0);
	add(fixture, 0, COL_SEND_IN, 1, 1, 0, 0);
	add(fixture, 0, COL_RECV, 0, 1, 0, COL_STEP_FINAL);
	add(fixture, 0, COL_RECV, 1, 1, 0, COL_STEP_FINAL);
	col_plan_lane_begin(fixture->plans[1]);
	add(fixture, 1, COL_RECV_REDUCE_IN, 1, 0, 0, COMPLETE);
	add(fixture, 1, COL_RECV_REDUCE_IN, 0, 0, 0, COMPLETE);
	add(fixture, 1, COL_SEND_OUT, 0, 0, 2, 0);
	add(fixture, 1, COL_SEND_OUT, 1, 0, 3, 0);
}

TEST(frames_taken_in_another_order_than_sent_deadlock_without_enough_credit)
{
	struct fixture fixture;
	build_crossed(&fixture);

	CHECK_EQ(check(&fixture, 2), 0);
	CHECK_EQ(check(&fixture, 1), COLLECT_E_INVALID);

	CHECK_STR_EQ(fixture.reason, "rank 0 lane 0 step 1 (send_in of slice 1): "
	             "deadlock: chunk 0 waits for a credit to rank 1, of 1 per link");
	destroy(&fixture);
}

TEST(ranks_that_all_receive_first_deadlock)
{
	struct fixture fixture;
	build_empty(&fixture, 2, 2);
	for (uint32_t rank = 0; rank < 2; rank++) {
		uint32_t other = 1 - rank;
		col_plan_lane_begin(fixture.plans[rank]);
		add(&fixture, rank, COL_RECV_REDUCE_IN, rank, other, 0, COMPLETE);
		add(&fixture, rank, COL_SEND_OUT, rank, other, 3, 0);
		add(&fixture, rank, COL_SEND_IN, other, other, 0, 0);
		add(&fixture, rank, COL_RECV, other, other, 0, COL_STEP_FINAL);
	}
	check_rejected(&fixture, "rank 0 lane 0 step 0 (recv_reduce_in of slice 0): "
	               "deadlock: chunk 0 waits for a frame from rank 1");
}

TEST(no_credit_is_rejected)
{
	struct fixture fixture;
	build(&fixture, COLLECT_RING, 3);
	CHECK_EQ(check(&fixture, 0), COLLECT_E_INVALID);
	CHECK_STR_EQ(fixture.reason, "without credit nothing can be sent");
	destroy(&fixture);
}

/* ---- every small mistake ------------------------------------------------------------------- */

/* For sets, frame op IN and IN op frame are the same. */
static bool is_same_for_sets(int a, int b)
{
	return (a == COL_RECV_REDUCE_IN && b == COL_IN_REDUCE_RECV) ||
	       (b == COL_RECV_REDUCE_IN && a == COL_IN_REDUCE_RECV);
}

static void check_mutant(struct fixture *fixture, struct col_step *step, struct col_step mutant,
                         uint32_t rank)
{
	struct col_step kept = *step;
	*step = mutant;
	if (check(fixture, CREDIT) != COLLECT_E_INVALID)
		FAIL("rank %u step %d: a mutant of %s passed: %s peer %u next %u slice %u there %u.%u "
		     "flags %u", (unsigned)rank, (int)(step - fixture->plans[rank]->steps),
		     col_opcode_name(kept.opcode), col_opcode_name(mutant.opcode), (unsigned)mutant.peer,
		     (unsigned)mutant.next, (unsigned)mutant.slice, (unsigned)mutant.peer_lane,
		     (unsigned)mutant.peer_step, (unsigned)mutant.flags);
	CHECK(fixture->reason[0] != '\0');
	*step = kept;
}

static void check_mutants(struct fixture *fixture, uint32_t rank, struct col_step *step)
{
	for (uint16_t opcode = 0; opcode <= COL_OPCODE_COUNT; opcode++) {
		struct col_step mutant = *step;
		mutant.opcode = opcode;
		if (opcode != step->opcode && !is_same_for_sets(opcode, step->opcode))
			check_mutant(fixture, step, mutant, rank);
	}
	for (uint32_t other = 0; other <= fixture->world; other++) {
		struct col_step mutant = *step;
		mutant.peer = other;
		if (other != step->peer)
			check_mutant(fixture, step, mutant, rank);
		mutant = *step;
		mutant.next = other;
		if (other != step->next)
			check_mutant(fixture, step, mutant, rank);
		mutant = *step;
		mutant.slice = other;
		if (other != step->slice)
			check_mutant(fixture, step, mutant, rank);
	}
	for (uint16_t flags = 0; flags < 8; flags++) {
		struct col_step mutant = *step;
		mutant.flags = flags;
		if (flags != step->flags)
			check_mutant(fixture, step, mutant, rank);
	}
	for (uint16_t there = 0; there < 12 && col_opcode_sends(step->opcode); there++) {
		struct col_step mutant = *step;
		mutant.peer_step = there;
		if (there != step->peer_step)
			check_mutant(fixture, step, mutant, rank);
		mutant = *step;
		mutant.peer_lane = there;
		if (there != step->peer_lane)
			check_mutant(fixture, step, mutant, rank);
	}
}

TEST(every_change_of_one_field_of_one_step_is_rejected)
{
	for (int algorithm = 0; algorithm < COLLECT_ALGORITHM_COUNT; algorithm++) {
		for (uint32_t world = 1; world <= 5; world++) {
			struct fixture fixture;
			build(&fixture, algorithm, world);
			for (uint32_t rank = 0; rank < world; rank++)
				for (uint32_t i = 0; i < fixture.plans[rank]->step_count; i++)
					check_mutants(&fixture, rank, &fixture.plans[rank]->steps[i]);
			CHECK_EQ(check(&fixture, CREDIT), 0);
			destroy(&fixture);
		}
	}
}

TEST(every_dropped_step_is_rejected)
{
	for (int algorithm = 0; algorithm < COLLECT_ALGORITHM_COUNT; algorithm++) {
		struct fixture fixture;
		build(&fixture, algorithm, 4);
		for (uint32_t rank = 0; rank < 4; rank++) {
			for (uint32_t lane = 0; lane < fixture.plans[rank]->lane_count; lane++) {
				uint32_t step_count = fixture.plans[rank]->lanes[lane].step_count;
				for (uint32_t step = 0; step < step_count; step++) {
					drop(&fixture, rank, lane, step);
					CHECK_EQ(check(&fixture, CREDIT), COLLECT_E_INVALID);
					col_plan_destroy(&fixture.plans[rank]);
					CHECK_EQ(col_plan_build(algorithm, 4, rank, &fixture.plans[rank]), 0);
				}
			}
		}
		destroy(&fixture);
	}
}

/* ---- failures of the check itself ---------------------------------------------------------- */

TEST(a_check_that_runs_out_of_memory_leaves_nothing)
{
	for (int algorithm = 0; algorithm < COLLECT_ALGORITHM_COUNT; algorithm++) {
		int status = COLLECT_E_MEMORY;
		for (uint64_t nth = 1; status == COLLECT_E_MEMORY; nth++) {
			char reason[256];
			col_alloc_fail_at(nth);
			status = collect_plan_check(algorithm, 5, CREDIT, reason, sizeof(reason));
			CHECK_EQ(status == COLLECT_E_MEMORY, col_alloc_has_failed());
			CHECK_EQ(col_alloc_blocks(), 0);
		}
		CHECK_EQ(status, 0);
		col_alloc_fail_at(0);
	}
}

TEST(a_reason_is_cut_to_its_room)
{
	struct fixture fixture;
	char reason[8] = "";
	build(&fixture, COLLECT_STAR, 3);
	step_at(&fixture, 2, 0, 1)->flags = COMPLETE;
	CHECK_EQ(col_plan_check(fixture.plans, 3, CREDIT, reason, sizeof(reason)), COLLECT_E_INVALID);
	CHECK_STR_EQ(reason, "rank 2 ");
	CHECK_EQ(col_plan_check(fixture.plans, 3, CREDIT, NULL, 0), COLLECT_E_INVALID);
	destroy(&fixture);
}

TEST(the_public_check_refuses_unknown_algorithms_and_worlds)
{
	char reason[256];
	CHECK_EQ(collect_plan_check(7, 4, CREDIT, reason, sizeof(reason)), COLLECT_E_INVALID);
	CHECK_STR_EQ(reason, "there is no plan 7 for 4 ranks");
	CHECK_EQ(collect_plan_check(COLLECT_RING, 0, CREDIT, reason, sizeof(reason)),
	         COLLECT_E_INVALID);
	CHECK_EQ(collect_plan_check(COLLECT_RING, 1025, CREDIT, NULL, 0), COLLECT_E_INVALID);
}
