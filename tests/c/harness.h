/*
 * The C tests' harness. A test file defines cases and nothing else; `main` is here.
 *
 *	TEST(a_full_ring_refuses_another_item)
 *	{
 *		CHECK(!col_ring_push(&ring, &item));
 *		CHECK_EQ(col_ring_count(&ring), 4);
 *	}
 *
 * Each case runs in a forked child under an alarm, so that a crash or a hang is one failed case.
 * A case fails too when it leaves a descriptor open, a block of col_alloc unfreed, a thread running
 * or a child process behind. Checks are always on, may be used from any thread, and end the case
 * when they fail.
 *
 * Output is TAP. Arguments are substrings of names: only cases that contain one of them run.
 * TEST_ALARM_S in the environment overrides the seconds that a case may take.
 */
#ifndef COL_TEST_HARNESS_H
#define COL_TEST_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct test_case {
	const char *name;
	int line;
	void (*run)(void);
};

/* The section holds pointers, because the compiler may pad or reorder structures but not these. */
#define TEST(title) \
	static void test_##title(void); \
	static const struct test_case case_##title = {#title, __LINE__, test_##title}; \
	static const struct test_case *const entry_##title \
		__attribute__((used, section("test_cases"))) = &case_##title; \
	static void test_##title(void)

/* One side of a comparison, with enough of its type to compare and to print it. */
struct test_value {
	enum { TEST_SIGNED, TEST_UNSIGNED, TEST_REAL, TEST_POINTER } type;
	union {
		int64_t as_signed;
		uint64_t as_unsigned;
		double as_real;
		const void *as_pointer;
	};
};

struct test_value test_value_signed(int64_t value);
struct test_value test_value_unsigned(uint64_t value);
struct test_value test_value_real(double value);
struct test_value test_value_pointer(const void *value);

#define TEST_VALUE(x) \
	_Generic((x), \
		bool: test_value_unsigned, \
		char: test_value_signed, \
		signed char: test_value_signed, \
		short: test_value_signed, \
		int: test_value_signed, \
		long: test_value_signed, \
		long long: test_value_signed, \
		unsigned char: test_value_unsigned, \
		unsigned short: test_value_unsigned, \
		unsigned int: test_value_unsigned, \
		unsigned long: test_value_unsigned, \
		unsigned long long: test_value_unsigned, \
		float: test_value_real, \
		double: test_value_real, \
		default: test_value_pointer)(x)

#define CHECK(condition) \
	((condition) ? (void)0 : test_fail(__FILE__, __LINE__, "%s", #condition))

/* Integers compare by value whatever their signs and widths, pointers and reals with ==. */
#define CHECK_EQ(left, right) \
	test_check_eq(__FILE__, __LINE__, #left " == " #right, TEST_VALUE(left), TEST_VALUE(right))

/* NULL equals only NULL. */
#define CHECK_STR_EQ(left, right) \
	test_check_str_eq(__FILE__, __LINE__, #left " == " #right, left, right)

/* Says where the first difference is. */
#define CHECK_BYTES_EQ(left, right, count) \
	test_check_bytes_eq(__FILE__, __LINE__, #left " == " #right, left, right, count)

/* Fails the case with a printf-style explanation. */
#define FAIL(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)

/* Ends the case as neither passed nor failed; visible in the output. */
#define SKIP(reason) test_skip(reason)

_Noreturn void test_fail(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
_Noreturn void test_skip(const char *reason);
void test_check_eq(const char *file, int line, const char *text, struct test_value left,
                   struct test_value right);
void test_check_str_eq(const char *file, int line, const char *text, const char *left,
                       const char *right);
void test_check_bytes_eq(const char *file, int line, const char *text, const void *left,
                         const void *right, size_t count);

/* TEST_SEED from the environment, else 1: for random cases, whose checks print it on failure. */
uint64_t test_seed(void);

/* For code that must abort: runs `body` in a child and says whether SIGABRT ended it. */
bool test_aborts(void (*body)(void));

#endif
