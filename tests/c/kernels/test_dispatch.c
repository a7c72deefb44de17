#include "harness.h"

#include <limits.h>
#include <pthread.h>

#include "kernels/kernels.h"

TEST(the_widest_set_is_selected_until_told)
{
	int widest = col_kernels()->isa;
	CHECK_EQ(col_kernels_select(INT_MAX), widest);
	CHECK_EQ(col_kernels()->isa, widest);
}

/* What there is between scalar and the widest depends on the architecture. */
TEST(a_selection_is_at_most_what_was_asked_for)
{
	int widest = col_kernels_select(INT_MAX);
	int before = COLLECT_ISA_SCALAR;
	for (int isa = COLLECT_ISA_SCALAR; isa <= COLLECT_ISA_NEON; isa++) {
		int chosen = col_kernels_select(isa);
		CHECK(chosen == isa || chosen == before);
		CHECK_EQ(col_kernels()->isa, chosen);
		before = chosen;
	}
	CHECK_EQ(before, widest);
	CHECK_EQ(col_kernels_select(-1), COLLECT_ISA_SCALAR);
	CHECK_EQ(col_kernels_select(INT_MIN), COLLECT_ISA_SCALAR);
}

static bool is_widened(int dtype, int reduce_op)
{
	return (dtype == COLLECT_FLOAT16 || dtype == COLLECT_BFLOAT16)
	       && (reduce_op == COLLECT_SUM || reduce_op == COLLECT_AVG
	           || reduce_op == COLLECT_PREMUL_SUM || reduce_op == COLLECT_PROD);
}

TEST(every_set_has_a_kernel_for_all_that_is_defined_and_nothing_else)
{
	int widest = col_kernels()->isa;
	for (int isa = COLLECT_ISA_SCALAR; isa <= widest; isa++) {
		col_kernels_select(isa);
		const struct col_kernels *kernels = col_kernels();
		CHECK(kernels->copy != NULL);
		for (int dtype = 0; dtype < COLLECT_DTYPE_COUNT; dtype++) {
			CHECK_EQ(kernels->divide[dtype] != NULL, col_reduce_is_defined(dtype, COLLECT_AVG));
			CHECK_EQ(kernels->scale[dtype] != NULL,
			         col_reduce_is_defined(dtype, COLLECT_PREMUL_SUM));
			CHECK_EQ(kernels->narrow[dtype] != NULL, is_widened(dtype, COLLECT_SUM));
			for (int op = 0; op < COLLECT_REDUCE_OP_COUNT; op++) {
				CHECK_EQ(kernels->reduce[dtype][op] != NULL, col_reduce_is_defined(dtype, op));
				CHECK_EQ(kernels->reduce_many[dtype][op] != NULL,
				         col_reduce_is_defined(dtype, op));
				CHECK_EQ(kernels->widen[dtype][op] != NULL, is_widened(dtype, op));
				CHECK_EQ(kernels->widen_add[dtype][op] != NULL, is_widened(dtype, op));
			}
		}
	}
}

TEST(an_average_and_a_scaled_sum_accumulate_as_a_sum)
{
	static const int sums[] = {COLLECT_AVG, COLLECT_PREMUL_SUM};
	int widest = col_kernels()->isa;
	for (int isa = COLLECT_ISA_SCALAR; isa <= widest; isa++) {
		col_kernels_select(isa);
		const struct col_kernels *kernels = col_kernels();
		for (int index = 0; index < COLLECT_DTYPE_COUNT * 2; index++) {
			int dtype = index / 2;
			int op = sums[index % 2];
			if (!col_reduce_is_defined(dtype, op))
				continue;
			CHECK(kernels->reduce[dtype][op] == kernels->reduce[dtype][COLLECT_SUM]);
			CHECK(kernels->reduce_many[dtype][op] == kernels->reduce_many[dtype][COLLECT_SUM]);
			CHECK(kernels->widen[dtype][op] == kernels->widen[dtype][COLLECT_SUM]);
			CHECK(kernels->widen_add[dtype][op] == kernels->widen_add[dtype][COLLECT_SUM]);
		}
	}
}

static void *first_use(void *unused)
{
	(void)unused;
	float target = 0;
	const float one = 1;
	col_kernels()->reduce[COLLECT_FLOAT32][COLLECT_SUM](&target, &one, &one, 1);
	CHECK_EQ(target, 2);
	return NULL;
}

TEST(the_first_use_may_be_of_many_threads_at_once)
{
	pthread_t threads[8];
	for (int index = 0; index < 8; index++)
		CHECK_EQ(pthread_create(&threads[index], NULL, first_use, NULL), 0);
	for (int index = 0; index < 8; index++)
		CHECK_EQ(pthread_join(threads[index], NULL), 0);
}
