/*
 * COL_ASSERT: what cannot be false unless this library has a bug. Always on. Operating errors are
 * returned, never asserted.
 */
#ifndef COL_BASE_ASSERT_H
#define COL_BASE_ASSERT_H

/* Prints the condition and where it stands to stderr, then aborts. */
_Noreturn void col_assert_failed(const char *condition, const char *file, int line);

#define COL_ASSERT(condition) \
	((condition) ? (void)0 : col_assert_failed(#condition, __FILE__, __LINE__))

#endif
