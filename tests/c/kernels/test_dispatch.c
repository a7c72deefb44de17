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

TEST(a_selection_is_at_most_what_was_asked_for)
{
	int widest = col_kernels_select(INT_MAX);
	for (int isa = COLLECT_ISA_SCALAR; isa <= COLLECT_ISA_AVX512; isa++) {
		CHECK_EQ(col_kernels_select(isa), isa < widest ? isa : widest);
		CHECK_EQ(col_kernels()->isa, isa < widest ? isa : widest);
	}
	CHECK_EQ(col_kernels_select(-1), COLLECT_ISA_SCALAR);
	CHECK_EQ(col_kernels_select(INT_MIN), COLLECT_ISA_SCALAR);
}

TEST(every_set_has_every_kernel_that_scalar_has)
{
	col_kernels_select(COLLECT_ISA_SCALAR);
	const struct col_kernels scalar = *col_kernels();
	int widest = col_kernels_select(INT_MAX);
	for (int isa = COLLECT_ISA_SCALAR; isa <= widest; isa++) {
		col_kernels_select(isa);
		for (int dtype = 0; dtype < COLLECT_DTYPE_COUNT; dtype++) {
			CHECK_EQ(col_kernels()->divide[dtype] == NULL, scalar.divide[dtype] == NULL);
			for (int op = 0; op < COLLECT_REDUCE_OP_COUNT; op++)
				CHECK_EQ(col_kernels()->reduce[dtype][op] == NULL,
				         scalar.reduce[dtype][op] == NULL);
		}
	}
}

TEST(an_average_accumulates_as_a_sum)
{
	int widest = col_kernels()->isa;
	for (int isa = COLLECT_ISA_SCALAR; isa <= widest; isa++) {
		col_kernels_select(isa);
		for (int dtype = 0; dtype < COLLECT_DTYPE_COUNT; dtype++)
			CHECK(col_kernels()->reduce[dtype][COLLECT_AVG]
			      == col_kernels()->reduce[dtype][COLLECT_SUM]);
	}
}

TEST(the_first_types_have_kernels)
{
	static const int dtypes[] = {COLLECT_INT32, COLLECT_INT64, COLLECT_FLOAT32, COLLECT_FLOAT64};
	for (size_t index = 0; index < sizeof(dtypes) / sizeof(dtypes[0]); index++) {
		CHECK(col_kernels()->divide[dtypes[index]] != NULL);
		for (int op = 0; op < COLLECT_REDUCE_OP_COUNT; op++)
			CHECK(col_kernels()->reduce[dtypes[index]][op] != NULL);
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
