#include <string.h>

#include "base/alloc.h"
#include "harness.h"
#include "plan/plan.h"
#include "plan/plan_build.h"
#include "plan/plan_check.h"
#include "plan/plans.h"

#define WORLD_MAX 8
#define CREDIT 4

/* A world's plans, to be spoiled. */
struct fixture {
	struct collect_plan *plans[WORLD_MAX];
	uint32_t world;
	char reason[256];
};

static int build_rank(struct fixture *fixture, int algorithm, int collective, uint32_t rank)
{
	struct collect_recipe recipe = recipe_of(algorithm);
	return col_plan_build(&recipe, collective, fixture->world,
	                      root_of(collective, fixture->world / 2), rank, &fixture->plans[rank]);
}

static void build_any(struct fixture *fixture, int algorithm, int collective, uint32_t world)
{
	*fixture = (struct fixture){.world = world};
	for (uint32_t rank = 0; rank < world; rank++)
		CHECK_EQ(build_rank(fixture, algorithm, collective, rank), 0);
}

static void build(struct fixture *fixture, int algorithm, uint32_t world)
{
	build_any(fixture, algorithm, COLLECT_ALL_REDUCE, world);
}

/* Plans of an all-reduce without lanes. */
static void build_empty(struct fixture *fixture, uint32_t world, uint32_t slice_count)
{
	*fixture = (struct fixture){.world = world};
	for (uint32_t rank = 0; rank < world; rank++) {
		struct col_request request = {.world = world, .root = COL_RANK_NONE, .rank = rank};
		CHECK_EQ(col__plan_create(&request, COLLECT_DIRECT, slice_count, 1,
		                          &fixture->plans[rank]), 0);
	}
}

static void lane_begin(struct fixture *fixture, uint32_t rank, uint32_t slice)
{
	CHECK_EQ(col__plan_reserve(fixture->plans[rank], 8), 0);
	col__plan_lane_begin(fixture->plans[rank], slice);
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

static struct col_lane *lane_of(struct fixture *fixture, uint32_t rank, uint32_t slice)
{
	struct collect_plan *plan = fixture->plans[rank];
	for (uint32_t lane = 0; lane < plan->lane_count; lane++)
		if (plan->lanes[lane].slice == slice)
			return &plan->lanes[lane];
	FAIL("rank %u has no lane for slice %u", (unsigned)rank, (unsigned)slice);
}

static struct col_step *step_at(struct fixture *fixture, uint32_t rank, uint32_t slice,
                                uint32_t step)
{
	struct col_lane *lane = lane_of(fixture, rank, slice);
	CHECK(step < lane->step_count);
	return &fixture->plans[rank]->steps[lane->step_begin + step];
}

static void drop(struct fixture *fixture, uint32_t rank, uint32_t slice, uint32_t step)
{
	struct collect_plan *plan = fixture->plans[rank];
	struct col_lane *lane = lane_of(fixture, rank, slice);
	uint32_t index = lane->step_begin + step;
	memmove(&plan->steps[index], &plan->steps[index + 1],
	        (plan->step_count - index - 1) * sizeof(*plan->steps));
	plan->step_count--;
	lane->step_count--;
	for (lane++; lane < plan->lanes + plan->lane_count; lane++)
		lane->step_begin--;
}

/* peer: from or to whom. lane, there: the receiver's lane and step, of a send. */
static void add(struct fixture *fixture, uint32_t rank, enum col_opcode opcode, uint32_t peer,
                uint32_t lane, uint32_t there, unsigned flags)
{
	col__plan_step_add(fixture->plans[rank], (struct col_step){
		.opcode = (uint8_t)opcode,
		.flags = (uint8_t)flags,
		.peer = peer,
		.next = COL_RANK_NONE,
		.peer_lane = (uint16_t)lane,
		.peer_step = (uint16_t)there,
	});
}

#define COMPLETE (COL_STEP_FINAL | COL_STEP_SCALE)

/* ---- what is wrong is rejected, where it is wrong ------------------------------------------ */

TEST(a_dropped_step_shifts_what_others_send_to)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 4);
	drop(&fixture, 2, 2, 2);
	check_rejected(&fixture, "rank 3 lane 3 step 0 (send_in of slice 2): "
	               "rank 2 lane 0 step 3 (send_out) does not receive");
}

TEST(a_dropped_send_is_missed_by_its_receiver)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 4);
	drop(&fixture, 2, 2, 6);
	check_rejected(&fixture, "rank 1 lane 1 step 1 (recv of slice 2): "
	               "rank 2 sends nothing here");
}

TEST(a_contribution_that_is_left_out_is_named)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 3);
	drop(&fixture, 2, 2, 2);
	step_at(&fixture, 2, 2, 1)->flags = COMPLETE;
	check_rejected(&fixture, "rank 2 lane 0 step 1 (recv_reduce of slice 2): "
	               "it is complete without the part of rank 2");
}

TEST(a_contribution_that_is_added_twice_is_named)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 3);
	step_at(&fixture, 2, 2, 1)->opcode = COL_RECV_REDUCE_IN;
	check_rejected(&fixture, "rank 2 lane 0 step 2 (reduce_in of slice 2): "
	               "it adds the part of rank 2 a second time");
}

TEST(a_send_to_another_rank_finds_no_receive)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 3);
	step_at(&fixture, 0, 1, 0)->peer = 2;
	check_rejected(&fixture, "rank 0 lane 1 step 0 (send_in of slice 1): "
	               "rank 2 lane 0 step 0 expects slice 2 from rank 0");
}

TEST(a_receive_from_another_rank_refuses_the_send)
{
	struct fixture fixture;
	build(&fixture, COLLECT_RING, 4);
	step_at(&fixture, 2, 0, 1)->peer = 3;
	check_rejected(&fixture, "rank 1 lane 0 step 1 (recv_send of slice 0): "
	               "rank 2 lane 2 step 1 expects slice 0 from rank 3");
}

TEST(a_wrong_receiver_step_is_found_at_the_send)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 3);
	step_at(&fixture, 0, 2, 0)->peer_step = 1;
	check_rejected(&fixture, "rank 0 lane 2 step 0 (send_in of slice 2): "
	               "rank 2 lane 0 step 1 expects slice 2 from rank 1");

	build(&fixture, COLLECT_DIRECT, 3);
	step_at(&fixture, 0, 2, 0)->peer_step = 5;
	check_rejected(&fixture, "rank 0 lane 2 step 0 (send_in of slice 2): "
	               "rank 2 has no lane 0 step 5");
}

TEST(a_second_frame_for_one_receive_is_found_at_the_send)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 3);
	step_at(&fixture, 0, 0, 3)->peer = 1;
	check_rejected(&fixture, "rank 0 lane 0 step 3 (send_out of slice 0): "
	               "rank 1 lane 1 step 1 expects slice 2 from rank 2");
}

TEST(a_result_that_was_never_scaled_is_rejected)
{
	struct fixture fixture;
	build(&fixture, COLLECT_RING, 3);
	step_at(&fixture, 1, 2, 0)->flags = COL_STEP_FINAL;
	check_rejected(&fixture, "rank 1 lane 4 step 0 (recv_reduce_in of slice 2): "
	               "it is final and was never scaled");
}

TEST(a_result_that_is_scaled_again_is_rejected)
{
	struct fixture fixture;
	build(&fixture, COLLECT_STAR, 3);
	step_at(&fixture, 2, 0, 1)->flags = COMPLETE;
	check_rejected(&fixture, "rank 2 lane 0 step 1 (recv of slice 0): it scales what is scaled");
}

TEST(a_result_that_is_sent_before_it_is_complete_is_rejected)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 3);
	struct col_step *last_part = step_at(&fixture, 2, 2, 2);
	struct col_step *first_send = step_at(&fixture, 2, 2, 3);
	struct col_step kept = *last_part;
	*last_part = *first_send;
	*first_send = kept;
	check_rejected(&fixture, "rank 2 lane 0 step 3 (reduce_in of slice 2): "
	               "it changes OUT, which a frame points into");
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
	lane_begin(&fixture, 0, 0);
	add(&fixture, 0, COL_COPY_IN, COL_RANK_NONE, 0, 0, COMPLETE);
	add(&fixture, 0, COL_COPY_IN, COL_RANK_NONE, 0, 0, 0);
	check_rejected(&fixture, "rank 0 lane 0 step 1 (copy_in of slice 0): "
	               "it changes OUT, which is final");
}

TEST(a_read_of_out_before_it_is_written_is_rejected)
{
	struct fixture fixture;
	build(&fixture, COLLECT_DIRECT, 3);
	step_at(&fixture, 2, 2, 0)->opcode = COL_RECV_REDUCE;
	check_rejected(&fixture, "rank 2 lane 0 step 0 (recv_reduce of slice 2): "
	               "it reads OUT before anything is written");
}

/* Both ranks get the same sum, but in another order its bits could differ. */
TEST(two_orders_of_the_same_sum_are_rejected)
{
	struct fixture fixture;
	build(&fixture, COLLECT_RECURSIVE_DOUBLING, 2);
	CHECK_EQ(check(&fixture, CREDIT), 0);
	step_at(&fixture, 1, 0, 1)->opcode = COL_IN_REDUCE_RECV;
	check_rejected(&fixture, "rank 0 lane 0 step 1 (in_reduce_recv of slice 0): "
	               "it did not add in the order in which rank 1 did");
}

TEST(a_sum_that_only_claims_rank_order_is_rejected)
{
	struct fixture fixture;
	build(&fixture, COLLECT_TREE, 5);
	for (uint32_t rank = 0; rank < 5; rank++)
		fixture.plans[rank]->is_rank_ordered = true;
	check_rejected(&fixture, "rank 0 lane 0 step 0 (in_reduce_recv of slice 0): "
	               "it did not add in rank order");
}

TEST(two_lanes_for_one_slice_are_rejected)
{
	struct fixture fixture;
	build_empty(&fixture, 1, 1);
	for (uint32_t lane = 0; lane < 2; lane++) {
		lane_begin(&fixture, 0, 0);
		add(&fixture, 0, COL_COPY_IN, COL_RANK_NONE, 0, 0, COMPLETE);
	}
	check_rejected(&fixture, "rank 0 lane 1 step 0 (copy_in of slice 0): "
	               "another lane works on this slice too");
}

TEST(a_read_of_in_by_who_contributes_nothing_is_rejected)
{
	struct fixture fixture;
	build_any(&fixture, COLLECT_STAR, COLLECT_BROADCAST, 3);
	step_at(&fixture, 0, 0, 0)->opcode = COL_RECV_REDUCE_IN;
	check_rejected(&fixture, "rank 0 lane 0 step 0 (recv_reduce_in of slice 0): "
	               "it reads IN and contributes nothing to the slice");
}

TEST(a_change_of_what_a_frame_points_into_is_rejected)
{
	struct fixture fixture;
	build(&fixture, COLLECT_RECURSIVE_DOUBLING, 4);
	CHECK_EQ(check(&fixture, CREDIT), 0);
	step_at(&fixture, 2, 0, 2)->opcode = COL_SEND_OUT;
	check_rejected(&fixture, "rank 2 lane 0 step 3 (recv_reduce_out of slice 0): "
	               "it changes OUT, which a frame points into");
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
	step_at(&fixture, 0, 2, 0)->opcode = COL_OPCODE_COUNT;
	check_rejected(&fixture, "rank 0 lane 2 step 0 (unknown of slice 2): "
	               "opcode 14 does not exist");

	build(&fixture, COLLECT_RING, 3);
	step_at(&fixture, 0, 2, 0)->next = 0;
	check_rejected(&fixture, "rank 0 lane 2 step 0 (recv_reduce_send of slice 2): "
	               "it forwards to no other rank");

	build(&fixture, COLLECT_RING, 3);
	step_at(&fixture, 0, 2, 0)->flags = COL_STEP_FINAL;
	check_rejected(&fixture, "rank 0 lane 2 step 0 (recv_reduce_send of slice 2): "
	               "it is final or scaled but writes no OUT");

	build(&fixture, COLLECT_RING, 3);
	lane_of(&fixture, 2, 0)->slice = 6;
	check_rejected(&fixture, "rank 2 lane 2 step 0 (recv_reduce_send of slice 6): "
	               "there are 6 slices");
}

/* ---- deadlocks ----------------------------------------------------------------------------- */

/* Rank 2 takes slice 0 from rank 0 first, slice 1 from rank 1 first. A sender's lanes begin
 * together, so with one credit the frame that is taken second may come first. */
static void build_crossed(struct fixture *fixture)
{
	build_empty(fixture, 3, 2);
	for (uint32_t rank = 0; rank < 3; rank++) {
		fixture->plans[rank]->collective = COLLECT_REDUCE;
		fixture->plans[rank]->root = 2;
	}
	for (uint32_t slice = 0; slice < 2; slice++) {
		for (uint32_t rank = 0; rank < 2; rank++) {
			lane_begin(fixture, rank, slice);
			add(fixture, rank, COL_SEND_IN, 2, slice, rank == slice ? 0 : 1, 0);
		}
		lane_begin(fixture, 2, slice);
		add(fixture, 2, COL_RECV_REDUCE_IN, slice, 0, 0, 0);
		add(fixture, 2, COL_RECV_REDUCE, 1 - slice, 0, 0, COMPLETE);
	}
}

TEST(frames_taken_in_different_orders_deadlock_with_little_credit)
{
	struct fixture fixture;
	build_crossed(&fixture);

	CHECK_EQ(check(&fixture, 1000), 0);
	CHECK_EQ(check(&fixture, 1), COLLECT_E_INVALID);

	CHECK(strstr(fixture.reason, "deadlock: chunk ") != NULL);
	CHECK(strstr(fixture.reason, " waits for a credit to rank 2, of 1 per link") != NULL);
	destroy(&fixture);
}

TEST(ranks_that_all_receive_first_deadlock)
{
	struct fixture fixture;
	build_empty(&fixture, 2, 1);
	for (uint32_t rank = 0; rank < 2; rank++) {
		lane_begin(&fixture, rank, 0);
		add(&fixture, rank, rank == 0 ? COL_IN_REDUCE_RECV : COL_RECV_REDUCE_IN, 1 - rank, 0, 0,
		    COMPLETE);
		add(&fixture, rank, COL_SEND_IN, 1 - rank, 0, 0, 0);
	}
	check_rejected(&fixture, "rank 0 lane 0 step 0 (in_reduce_recv of slice 0): "
	               "deadlock: it waits for a frame from rank 1");
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

/* A sum in another order is as good where no order is promised, and a copy is as good as what is
 * left alone. */
static bool is_as_good(const struct collect_plan *plan, int a, int b)
{
	bool is_in = (a == COL_RECV_REDUCE_IN && b == COL_IN_REDUCE_RECV) ||
	             (a == COL_RECV_REDUCE_SEND && b == COL_IN_REDUCE_SEND);
	bool is_out = a == COL_RECV_REDUCE && b == COL_RECV_REDUCE_OUT;
	bool is_copy = a == COL_SEND_OUT && b == COL_SEND_COPY;
	return (!plan->is_rank_ordered && (is_in || is_out)) || is_copy;
}

static void check_mutant(struct fixture *fixture, struct col_step *step, struct col_step mutant,
                         uint32_t rank)
{
	struct col_step kept = *step;
	*step = mutant;
	if (check(fixture, CREDIT) != COLLECT_E_INVALID)
		FAIL("algorithm %d collective %d rank %u step %d: a mutant of %s passed: %s peer %u "
		     "next %u there %u.%u flags %u", fixture->plans[rank]->algorithm,
		     fixture->plans[rank]->collective, (unsigned)rank,
		     (int)(step - fixture->plans[rank]->steps), col_opcode_name(kept.opcode),
		     col_opcode_name(mutant.opcode), (unsigned)mutant.peer, (unsigned)mutant.next,
		     (unsigned)mutant.peer_lane, (unsigned)mutant.peer_step, (unsigned)mutant.flags);
	CHECK(fixture->reason[0] != '\0');
	*step = kept;
}

static void check_mutants(struct fixture *fixture, uint32_t rank, struct col_step *step)
{
	const struct collect_plan *plan = fixture->plans[rank];
	for (uint8_t opcode = 0; opcode <= COL_OPCODE_COUNT; opcode++) {
		struct col_step mutant = *step;
		mutant.opcode = opcode;
		if (opcode != step->opcode && !is_as_good(plan, opcode, step->opcode) &&
		    !is_as_good(plan, step->opcode, opcode))
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
	}
	for (uint8_t flags = 0; flags < 8; flags++) {
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
	FOR_EACH_PLAN(algorithm, collective) {
		for (uint32_t world = 1; world <= 5; world += world == 1 ? 1 : 3) {
			struct fixture fixture;
			build_any(&fixture, algorithm, collective, world);
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
	FOR_EACH_PLAN(algorithm, collective) {
		struct fixture fixture;
		build_any(&fixture, algorithm, collective, 4);
		for (uint32_t rank = 0; rank < 4; rank++) {
			for (uint32_t lane = 0; lane < fixture.plans[rank]->lane_count; lane++) {
				uint32_t slice = fixture.plans[rank]->lanes[lane].slice;
				uint32_t step_count = fixture.plans[rank]->lanes[lane].step_count;
				for (uint32_t step = 0; step < step_count; step++) {
					drop(&fixture, rank, slice, step);
					CHECK_EQ(check(&fixture, CREDIT), COLLECT_E_INVALID);
					col_plan_destroy(&fixture.plans[rank]);
					CHECK_EQ(build_rank(&fixture, algorithm, collective, rank), 0);
				}
			}
		}
		destroy(&fixture);
	}
}

/* ---- failures of the check itself ---------------------------------------------------------- */

TEST(a_check_that_runs_out_of_memory_leaves_nothing)
{
	FOR_EACH_PLAN(algorithm, collective) {
		struct collect_recipe recipe = recipe_of(algorithm);
		int status = COLLECT_E_MEMORY;
		for (uint64_t nth = 1; status == COLLECT_E_MEMORY; nth++) {
			char reason[256];
			col_alloc_fail_at(nth);
			status = collect_plan_check(&recipe, collective, 5, 2, CREDIT, reason,
			                            sizeof(reason));
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

TEST(the_public_check_refuses_what_there_is_not)
{
	char reason[256];
	struct collect_recipe ring = recipe_of(COLLECT_RING);
	CHECK_EQ(collect_plan_check(&ring, COLLECT_GATHER, 4, 0, CREDIT, reason, sizeof(reason)),
	         COLLECT_E_INVALID);
	CHECK_STR_EQ(reason, "there is no plan 1 for collective 6");
	CHECK_EQ(collect_plan_check(&ring, COLLECT_REDUCE, 4, 4, CREDIT, reason, sizeof(reason)),
	         COLLECT_E_INVALID);
	CHECK_STR_EQ(reason, "root 4 is no rank of 4");
	CHECK_EQ(collect_plan_check(&ring, COLLECT_ALL_REDUCE, 0, 0, CREDIT, reason, sizeof(reason)),
	         COLLECT_E_INVALID);
	CHECK_STR_EQ(reason, "a world of 0 ranks is not in 1 to 1024");
	CHECK_EQ(collect_plan_check(&ring, COLLECT_ALL_REDUCE, 1025, 0, CREDIT, NULL, 0),
	         COLLECT_E_INVALID);
	static const uint32_t twice[] = {1, 1};
	ring.order = twice;
	CHECK_EQ(collect_plan_check(&ring, COLLECT_ALL_REDUCE, 2, 0, CREDIT, reason, sizeof(reason)),
	         COLLECT_E_INVALID);
	CHECK_STR_EQ(reason, "the recipe does not fit ring all_reduce of 2 ranks");
}
