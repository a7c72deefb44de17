/* The runner and the checks of harness.h. */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"

#define ALARM_S_DEFAULT 60u
#define DESCRIPTORS_MAX 1024
#define CASES_MAX 1024
#define EXIT_SKIP 77 /* as in automake and meson */

/* The linker names the bounds of a section whose name is an identifier. */
extern const struct test_case *const __start_test_cases[];
extern const struct test_case *const __stop_test_cases[];

/* ---- checks -------------------------------------------------------------------------------- */

/* One write per line: those of several threads or processes do not mix. */
static void diagnose(const char *text)
{
	fflush(stdout);
	while (*text != '\0') {
		int length = (int)strcspn(text, "\n");
		dprintf(STDOUT_FILENO, "# %.*s\n", length, text);
		text += length + (text[length] == '\n');
	}
}

_Noreturn void test_fail(const char *file, int line, const char *format, ...)
{
	char text[4096];
	int length = snprintf(text, sizeof(text), "%s:%d: ", file, line);
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text + length, sizeof(text) - (size_t)length, format, arguments);
	va_end(arguments);
	diagnose(text);
	_exit(EXIT_FAILURE);
}

_Noreturn void test_skip(const char *reason)
{
	diagnose(reason);
	_exit(EXIT_SKIP);
}

struct test_value test_value_signed(int64_t value)
{
	return (struct test_value){.type = TEST_SIGNED, .as_signed = value};
}

struct test_value test_value_unsigned(uint64_t value)
{
	return (struct test_value){.type = TEST_UNSIGNED, .as_unsigned = value};
}

struct test_value test_value_real(double value)
{
	return (struct test_value){.type = TEST_REAL, .as_real = value};
}

struct test_value test_value_pointer(const void *value)
{
	return (struct test_value){.type = TEST_POINTER, .as_pointer = value};
}

static double value_as_real(struct test_value value)
{
	switch (value.type) {
	case TEST_SIGNED: return (double)value.as_signed;
	case TEST_UNSIGNED: return (double)value.as_unsigned;
	case TEST_REAL: return value.as_real;
	case TEST_POINTER: break;
	}
	return 0;
}

static bool value_is_negative(struct test_value value)
{
	return value.type == TEST_SIGNED && value.as_signed < 0;
}

static bool values_equal(struct test_value left, struct test_value right)
{
	if ((left.type == TEST_POINTER) != (right.type == TEST_POINTER))
		return false;
	if (left.type == TEST_POINTER)
		return left.as_pointer == right.as_pointer;
	if (left.type == TEST_REAL || right.type == TEST_REAL)
		return value_as_real(left) == value_as_real(right);
	return value_is_negative(left) == value_is_negative(right)
	       && left.as_unsigned == right.as_unsigned;
}

static void value_print(struct test_value value, char *text_out, size_t capacity)
{
	switch (value.type) {
	case TEST_SIGNED:
		snprintf(text_out, capacity, "%" PRId64, value.as_signed);
		return;
	case TEST_UNSIGNED:
		snprintf(text_out, capacity, "%" PRIu64 " (0x%" PRIx64 ")", value.as_unsigned,
		         value.as_unsigned);
		return;
	case TEST_REAL:
		snprintf(text_out, capacity, "%.17g", value.as_real);
		return;
	case TEST_POINTER:
		snprintf(text_out, capacity, "%p", value.as_pointer);
		return;
	}
}

void test_check_eq(const char *file, int line, const char *text, struct test_value left,
                   struct test_value right)
{
	if (values_equal(left, right))
		return;
	char left_text[64];
	char right_text[64];
	value_print(left, left_text, sizeof(left_text));
	value_print(right, right_text, sizeof(right_text));
	test_fail(file, line, "%s: %s against %s", text, left_text, right_text);
}

void test_check_str_eq(const char *file, int line, const char *text, const char *left,
                       const char *right)
{
	if (left == right || (left != NULL && right != NULL && strcmp(left, right) == 0))
		return;
	test_fail(file, line, "%s: \"%s\" against \"%s\"", text, left != NULL ? left : "(null)",
	          right != NULL ? right : "(null)");
}

void test_check_bytes_eq(const char *file, int line, const char *text, const void *left,
                         const void *right, size_t count)
{
	const uint8_t *left_bytes = left;
	const uint8_t *right_bytes = right;
	for (size_t index = 0; index < count; index++) {
		if (left_bytes[index] != right_bytes[index])
			test_fail(file, line, "%s: byte %zu of %zu is 0x%02x against 0x%02x", text, index,
			          count, left_bytes[index], right_bytes[index]);
	}
}

/* ---- one case ------------------------------------------------------------------------------ */

static void descriptors_mark(bool is_open_out[DESCRIPTORS_MAX])
{
	for (int fd = 0; fd < DESCRIPTORS_MAX; fd++)
		is_open_out[fd] = fcntl(fd, F_GETFD) != -1;
}

/* How many descriptors are open now that were not `before`; says what each one is. */
static int descriptors_leaked(const bool before[DESCRIPTORS_MAX])
{
	int leaked_count = 0;
	for (int fd = 0; fd < DESCRIPTORS_MAX; fd++) {
		if (before[fd] || fcntl(fd, F_GETFD) == -1)
			continue;
		char path[64];
		char name[256] = "?";
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		ssize_t length = readlink(path, name, sizeof(name) - 1);
		if (length > 0)
			name[length] = '\0';
		printf("# leaked descriptor %d: %s\n", fd, name);
		leaked_count++;
	}
	return leaked_count;
}

/* The thread sanitizer starts a thread of its own along with the first of ours. */
#ifdef __SANITIZE_THREAD__
#define FOREIGN_THREADS 1
#else
#define FOREIGN_THREADS 0
#endif

static int threads_count(void)
{
	DIR *tasks = opendir("/proc/self/task");
	if (tasks == NULL)
		return 0;
	int count = 0;
	for (struct dirent *entry = readdir(tasks); entry != NULL; entry = readdir(tasks))
		count += entry->d_name[0] != '.';
	closedir(tasks);
	return count;
}

/* A thread that was joined may be listed for a moment longer: it gets a second. */
static bool has_leaked_threads(int before)
{
	for (int round = 0; round < 100 && threads_count() > before + FOREIGN_THREADS; round++)
		usleep(10000);
	return threads_count() > before + FOREIGN_THREADS;
}

/* Whether the case left a child process, running or not waited for. */
static bool has_children(void)
{
	return waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD;
}

/* A number from the environment in [1, maximum], or `otherwise` where it is not set. */
static uint64_t environment_number(const char *name, uint64_t maximum, uint64_t otherwise)
{
	const char *text = getenv(name);
	if (text == NULL)
		return otherwise;
	char *end;
	errno = 0;
	unsigned long long number = strtoull(text, &end, 10);
	if (end == text || *end != '\0' || errno != 0 || number == 0 || number > maximum) {
		fprintf(stderr, "%s: not a number from 1 to %" PRIu64 ": %s\n", name, maximum, text);
		exit(2);
	}
	return number;
}

uint64_t test_seed(void)
{
	return environment_number("TEST_SEED", UINT64_MAX, 1);
}

/* In the child. Its own process group lets the parent end whatever the case leaves running. */
static _Noreturn void case_run(const struct test_case *test)
{
	static bool before[DESCRIPTORS_MAX];

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm((unsigned)environment_number("TEST_ALARM_S", 86400, ALARM_S_DEFAULT));
	descriptors_mark(before);
	int threads_before = threads_count();
	size_t blocks_before = col_alloc_blocks();

	test->run();

	bool has_leaked = false;
	if (has_leaked_threads(threads_before)) {
		printf("# left a thread running\n");
		has_leaked = true;
	}
	if (has_children()) {
		printf("# left a child process\n");
		has_leaked = true;
	}
	if (descriptors_leaked(before) > 0)
		has_leaked = true;
	size_t blocks_after = col_alloc_blocks();
	if (blocks_after != blocks_before) {
		printf("# blocks of col_alloc: %zu before, %zu after\n", blocks_before, blocks_after);
		has_leaked = true;
	}
	int exit_code = has_leaked ? EXIT_FAILURE : EXIT_SUCCESS;
	exit(exit_code); /* and not _exit: the sanitizers report here */
}

static int child_wait(pid_t child)
{
	int wait_status = 0;
	while (waitpid(child, &wait_status, 0) == -1) {
		if (errno != EINTR) {
			perror("waitpid");
			exit(2);
		}
	}
	return wait_status;
}

/* The wait status of a child that ran `test`. */
static int case_fork(const struct test_case *test)
{
	fflush(stdout);
	pid_t child = fork();
	if (child == -1) {
		perror("fork");
		exit(2);
	}
	if (child == 0)
		case_run(test);
	int wait_status = child_wait(child);
	kill(-child, SIGKILL);
	return wait_status;
}

bool test_aborts(void (*body)(void))
{
	fflush(stdout);
	pid_t child = fork();
	CHECK(child != -1);
	if (child == 0) {
		struct rlimit no_core = {0, 0};
		setrlimit(RLIMIT_CORE, &no_core);
		int sink = open("/dev/null", O_WRONLY | O_CLOEXEC);
		dup2(sink, STDERR_FILENO);
		signal(SIGABRT, SIG_DFL);
		body();
		_exit(EXIT_SUCCESS);
	}
	int wait_status = child_wait(child);
	return WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGABRT;
}

/* ---- all cases ----------------------------------------------------------------------------- */

static int case_compare(const void *left, const void *right)
{
	const struct test_case *const *a = left;
	const struct test_case *const *b = right;
	return (*a)->line - (*b)->line;
}

static bool case_is_wanted(const struct test_case *test, int argc, char **argv)
{
	for (int index = 1; index < argc; index++) {
		if (strstr(test->name, argv[index]) != NULL)
			return true;
	}
	return argc <= 1;
}

/* The cases to run in the order of the source, which the linker does not keep. */
static size_t cases_collect(int argc, char **argv, const struct test_case **cases_out)
{
	size_t count = 0;
	for (const struct test_case *const *entry = __start_test_cases; entry < __stop_test_cases;
	     entry++) {
		if (!case_is_wanted(*entry, argc, argv))
			continue;
		if (count == CASES_MAX) {
			fprintf(stderr, "more than %d cases\n", CASES_MAX);
			exit(2);
		}
		cases_out[count++] = *entry;
	}
	qsort(cases_out, count, sizeof(*cases_out), case_compare);
	return count;
}

int main(int argc, char **argv)
{
	static const struct test_case *cases[CASES_MAX];
	size_t case_count = cases_collect(argc, argv, cases);
	unsigned passed = 0;
	unsigned failed = 0;
	unsigned skipped = 0;

	printf("1..%zu\n", case_count);
	for (size_t index = 0; index < case_count; index++) {
		const char *name = cases[index]->name;
		int wait_status = case_fork(cases[index]);
		if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == EXIT_SUCCESS) {
			printf("ok %zu %s\n", index + 1, name);
			passed++;
		} else if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == EXIT_SKIP) {
			printf("ok %zu %s # SKIP\n", index + 1, name);
			skipped++;
		} else {
			if (WIFSIGNALED(wait_status))
				printf("# ended by signal %d (%s)\n", WTERMSIG(wait_status),
				       strsignal(WTERMSIG(wait_status)));
			printf("not ok %zu %s\n", index + 1, name);
			failed++;
		}
	}
	printf("# %u passed, %u failed", passed, failed);
	if (skipped > 0)
		printf(", %u skipped", skipped);
	printf("\n");
	return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
