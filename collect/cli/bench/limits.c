/*
 * What this machine allows at best, for `collect bench --limits`: compiled and run by limits.py.
 * Prints one JSON object; every figure is the best of several rounds. Exits with 1 when a call
 * fails that nothing can be said without.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 7
#define LARGE_BYTES ((size_t)64 << 20)
#define CACHED_BYTES ((size_t)256 << 10)
#define PINGS 40           /* of a round */
#define PING_S 0.5         /* rounds are repeated for so long */
#define FLAG_STOP UINT32_MAX
#define STREAM_BYTES ((size_t)128 << 20)
#define WRITE_BYTES ((size_t)256 << 10)

static void require(int is_true, const char *what)
{
	if (!is_true) {
		perror(what);
		exit(1);
	}
}

static double now_s(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static cpu_set_t allowed; /* before anything was pinned */

/* Two processes on two cores; on a machine of one they share it. */
static void pin(int index)
{
	cpu_set_t one;
	if (CPU_COUNT(&allowed) < 2)
		return;
	CPU_ZERO(&one);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && index-- == 0)
			CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void add(float *restrict target, const float *restrict source, size_t count)
{
	for (size_t i = 0; i < count; i++)
		target[i] += source[i];
}

/* Bytes a second, counting each byte of one operand once. */
static double memory_speed(size_t bytes, int is_add)
{
	float *target = aligned_alloc(4096, bytes), *source = aligned_alloc(4096, bytes);
	require(target != NULL && source != NULL, "aligned_alloc");
	memset(target, 0, bytes);
	memset(source, 1, bytes);
	size_t repeats = LARGE_BYTES / bytes * 2;
	double best_s = 1e9;
	for (int round = 0; round < ROUNDS; round++) {
		double begun_s = now_s();
		for (size_t i = 0; i < repeats; i++) {
			if (is_add)
				add(target, source, bytes / sizeof(float));
			else
				memcpy(target, source, bytes);
			__asm__ volatile("" : : "r"(target), "r"(source) : "memory");
		}
		double took_s = (now_s() - begun_s) / (double)repeats;
		best_s = took_s < best_s ? took_s : best_s;
	}
	free(target);
	free(source);
	return (double)bytes / best_s;
}

/* ---- shared memory --------------------------------------------------------------------------- */

/* Waits for another value than `old`, and returns it. */
static uint32_t await_flag(_Atomic uint32_t *flag, uint32_t old)
{
	uint32_t value;
	while ((value = atomic_load_explicit(flag, memory_order_acquire)) == old) {
#if defined(__x86_64__)
		__builtin_ia32_pause();
#endif
	}
	return value;
}

/* Seconds until a flag that one process sets is seen by another. */
static double flag_one_way(void)
{
	char *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	require(memory != MAP_FAILED, "mmap");
	_Atomic uint32_t *there = (_Atomic uint32_t *)memory;
	_Atomic uint32_t *back = (_Atomic uint32_t *)(memory + 1024);
	pid_t child = fork();
	require(child >= 0, "fork");
	if (child == 0) {
		pin(1);
		for (uint32_t value = 0; value != FLAG_STOP;) {
			value = await_flag(there, value);
			atomic_store_explicit(back, value, memory_order_release);
		}
		_exit(0);
	}
	pin(0);
	double best_s = 1e9, end_s = now_s() + PING_S;
	for (uint32_t value = 0; now_s() < end_s;) {
		double begun_s = now_s();
		for (int i = 0; i < PINGS; i++) {
			atomic_store_explicit(there, value + 1, memory_order_release);
			value = await_flag(back, value);
		}
		double took_s = (now_s() - begun_s) / PINGS / 2;
		best_s = took_s < best_s ? took_s : best_s;
	}
	atomic_store_explicit(there, FLAG_STOP, memory_order_release);
	waitpid(child, NULL, 0);
	munmap(memory, 4096);
	return best_s;
}

/* ---- TCP ------------------------------------------------------------------------------------- */

/* A connected pair over loopback. `control`: of congestion; NULL: the default. 0: no such one. */
static int connected_pair(const char *control, int pair[2])
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t bytes = sizeof(address);
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
	require(listener >= 0, "socket");
	socklen_t control_bytes = control != NULL ? (socklen_t)strlen(control) : 0;
	if (control != NULL &&
	    setsockopt(listener, IPPROTO_TCP, TCP_CONGESTION, control, control_bytes) != 0) {
		close(listener);
		return 0;
	}
	require(bind(listener, (struct sockaddr *)&address, bytes) == 0, "bind");
	require(listen(listener, 1) == 0, "listen");
	require(getsockname(listener, (struct sockaddr *)&address, &bytes) == 0, "getsockname");
	pair[0] = socket(AF_INET, SOCK_STREAM, 0);
	require(pair[0] >= 0, "socket");
	if (control != NULL)
		setsockopt(pair[0], IPPROTO_TCP, TCP_CONGESTION, control, control_bytes);
	require(connect(pair[0], (struct sockaddr *)&address, bytes) == 0, "connect");
	pair[1] = accept(listener, NULL, NULL);
	require(pair[1] >= 0, "accept");
	for (int i = 0; i < 2; i++)
		setsockopt(pair[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	close(listener);
	return 1;
}

/* Receives 8 bytes; spinning, or asleep until they come. 0: the other end is closed. */
static int take(int descriptor, uint64_t *value, int flags)
{
	ssize_t got;
	do
		got = recv(descriptor, value, sizeof(*value), flags);
	while (got < 0 && errno == EAGAIN);
	require(got == 0 || got == (ssize_t)sizeof(*value), "recv");
	return got != 0;
}

static void give(int descriptor, const uint64_t *value)
{
	require(send(descriptor, value, sizeof(*value), 0) == sizeof(*value), "send");
}

/* Seconds of 8 bytes one way. */
static double tcp_one_way(int flags)
{
	int pair[2];
	uint64_t value = 1;
	connected_pair(NULL, pair);
	pid_t child = fork();
	require(child >= 0, "fork");
	if (child == 0) {
		pin(1);
		close(pair[0]);
		while (take(pair[1], &value, flags))
			give(pair[1], &value);
		_exit(0);
	}
	pin(0);
	close(pair[1]);
	double best_s = 1e9, end_s = now_s() + PING_S;
	while (now_s() < end_s) {
		double begun_s = now_s();
		for (int i = 0; i < PINGS; i++) {
			give(pair[0], &value);
			require(take(pair[0], &value, flags), "recv");
		}
		double took_s = (now_s() - begun_s) / PINGS / 2;
		best_s = took_s < best_s ? took_s : best_s;
	}
	close(pair[0]);
	waitpid(child, NULL, 0);
	return best_s;
}

/* Bytes a second of one stream, one way; 0: no such congestion control here. */
static double tcp_stream_speed(const char *control)
{
	int pair[2];
	if (!connected_pair(control, pair))
		return 0;
	char *buffer = calloc(1, WRITE_BYTES);
	require(buffer != NULL, "calloc");
	pid_t child = fork();
	require(child >= 0, "fork");
	if (child == 0) {
		pin(1);
		close(pair[0]);
		for (size_t got = 0;;) {
			ssize_t count = recv(pair[1], buffer, WRITE_BYTES, 0);
			if (count <= 0)
				_exit(0);
			got += (size_t)count;
			if (got % STREAM_BYTES == 0) /* a round is here: the sender waits for this */
				require(send(pair[1], buffer, 1, 0) == 1, "send");
		}
	}
	pin(0);
	close(pair[1]);
	double best_s = 1e9;
	for (int round = 0; round < ROUNDS; round++) {
		double begun_s = now_s();
		for (size_t sent = 0; sent < STREAM_BYTES; sent += WRITE_BYTES)
			require(send(pair[0], buffer, WRITE_BYTES, 0) == (ssize_t)WRITE_BYTES, "send");
		require(recv(pair[0], buffer, 1, 0) == 1, "recv");
		double took_s = now_s() - begun_s;
		best_s = took_s < best_s ? took_s : best_s;
	}
	close(pair[0]);
	waitpid(child, NULL, 0);
	free(buffer);
	return (double)STREAM_BYTES / best_s;
}

int main(void)
{
	require(sched_getaffinity(0, sizeof(allowed), &allowed) == 0, "sched_getaffinity");
	printf("{\"copy_large\": %.4g, ", memory_speed(LARGE_BYTES, 0));
	printf("\"copy_cached\": %.4g, ", memory_speed(CACHED_BYTES, 0));
	printf("\"add_large\": %.4g, ", memory_speed(LARGE_BYTES, 1));
	printf("\"add_cached\": %.4g, ", memory_speed(CACHED_BYTES, 1));
	fflush(stdout);
	printf("\"flag_s\": %.4g, ", flag_one_way());
	fflush(stdout);
	printf("\"tcp_asleep_s\": %.4g, ", tcp_one_way(0));
	fflush(stdout);
	printf("\"tcp_spinning_s\": %.4g, ", tcp_one_way(MSG_DONTWAIT));
	fflush(stdout);
	printf("\"stream_default\": %.4g, ", tcp_stream_speed(NULL));
	fflush(stdout);
	printf("\"stream_reno\": %.4g}\n", tcp_stream_speed("reno"));
	return 0;
}
