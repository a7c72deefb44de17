#include "harness.h"

#include <errno.h>
#include <limits.h>

#include "base/status.h"

TEST(every_status_has_its_own_name)
{
	CHECK_STR_EQ(col_status_name(COLLECT_OK), "COLLECT_OK");
	CHECK_STR_EQ(col_status_name(COLLECT_PENDING), "COLLECT_PENDING");
	CHECK_STR_EQ(col_status_name(COLLECT_E_INVALID), "COLLECT_E_INVALID");
	CHECK_STR_EQ(col_status_name(COLLECT_E_MEMORY), "COLLECT_E_MEMORY");
	CHECK_STR_EQ(col_status_name(COLLECT_E_SYSTEM), "COLLECT_E_SYSTEM");
	CHECK_STR_EQ(col_status_name(COLLECT_E_ADDRESS), "COLLECT_E_ADDRESS");
	CHECK_STR_EQ(col_status_name(COLLECT_E_ABORTED), "COLLECT_E_ABORTED");
	CHECK_STR_EQ(col_status_name(COLLECT_E_CLOSED), "COLLECT_E_CLOSED");
	CHECK_STR_EQ(col_status_name(COLLECT_E_FAILED), "COLLECT_E_FAILED");
	CHECK_STR_EQ(col_status_name(COLLECT_E_BUSY), "COLLECT_E_BUSY");
	CHECK_STR_EQ(col_status_name(COLLECT_E_FULL), "COLLECT_E_FULL");
	CHECK_STR_EQ(col_status_name(COLLECT_E_UNAVAILABLE), "COLLECT_E_UNAVAILABLE");
	CHECK_STR_EQ(col_status_name(COLLECT_E_MEMBERS), "COLLECT_E_MEMBERS");
	CHECK_STR_EQ(col_status_name(COLLECT_E_TIMEOUT), "COLLECT_E_TIMEOUT");
	CHECK_STR_EQ(col_status_name(COLLECT_E_PEER), "COLLECT_E_PEER");
	CHECK_STR_EQ(col_status_name(COLLECT_E_BOUNDARY), "COLLECT_E_BOUNDARY");
}

TEST(any_other_number_is_unknown)
{
	CHECK_STR_EQ(col_status_name(2), "COLLECT_E_UNKNOWN");
	CHECK_STR_EQ(col_status_name(COLLECT_E_BOUNDARY - 1), "COLLECT_E_UNKNOWN");
	CHECK_STR_EQ(col_status_name(INT_MIN), "COLLECT_E_UNKNOWN");
	CHECK_STR_EQ(col_status_name(INT_MAX), "COLLECT_E_UNKNOWN");
}

TEST(errno_becomes_the_status_that_says_most)
{
	CHECK_EQ(col_status_from_errno(ENOMEM), COLLECT_E_MEMORY);
	CHECK_EQ(col_status_from_errno(ENOBUFS), COLLECT_E_MEMORY);
	CHECK_EQ(col_status_from_errno(EADDRINUSE), COLLECT_E_ADDRESS);
	CHECK_EQ(col_status_from_errno(EADDRNOTAVAIL), COLLECT_E_ADDRESS);
	CHECK_EQ(col_status_from_errno(EIO), COLLECT_E_SYSTEM);
	CHECK_EQ(col_status_from_errno(0), COLLECT_E_SYSTEM);
}
