#include "harness.h"

#include "base/assert.h"

static void assert_what_is_false(void)
{
	COL_ASSERT(1 + 1 == 3);
}

static void assert_what_is_true(void)
{
	COL_ASSERT(1 + 1 == 2);
}

TEST(a_false_assertion_aborts_in_every_build)
{
	CHECK(test_aborts(assert_what_is_false));
}

TEST(a_true_assertion_does_nothing)
{
	CHECK(!test_aborts(assert_what_is_true));
}

TEST(an_asserted_condition_is_evaluated_once)
{
	int count = 0;
	COL_ASSERT(++count > 0);
	CHECK_EQ(count, 1);
}
