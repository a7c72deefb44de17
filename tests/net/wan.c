/*
 * A network of long links in one process: a TUN device in each of some namespaces, and between them
 * delay, a rate each way, a bounded queue and random loss. For kernels without netem.
 *
 *   host i ── tun ──► uplink (rate, queue) ──► delay, loss ──► downlink (rate) ──► host j
 *
 * Usage: wan DEVICE DELAY_US RATE_BITS QUEUE_US LOSS_PPM SEED NAMESPACE_FILE...
 * Rate 0: unlimited. Delay and loss are one way. The IPv4 address of host i ends in i + 1.
 * Prints a line when all devices are there, and runs until standard input ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define HOSTS_MAX 32
#define PACKET_MAX 2048
#define QUEUE_MAX 65536
#define BURST 64

struct packet {
	uint64_t due_ns;
	uint32_t bytes;
	uint8_t to;
	uint8_t data[];
};

struct queue {
	struct packet *slots[QUEUE_MAX];
	uint32_t head;
	uint32_t count;
	uint64_t busy_until_ns;
};

static struct queue uplinks[HOSTS_MAX], downlinks[HOSTS_MAX];
static int devices[HOSTS_MAX];
static int host_count;
static uint64_t delay_ns, rate_bits, queue_ns, loss_ppm, random_state;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_get(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static int device_open(const char *name, const char *space)
{
	int space_fd = open(space, O_RDONLY | O_CLOEXEC);
	if (space_fd < 0 || setns(space_fd, CLONE_NEWNET) < 0)
		die(space);
	close(space_fd);
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0)
		die("/dev/net/tun");
	return fd;
}

/* When a link that is busy until then has sent so many bytes more. */
static uint64_t sent_at(struct queue *link, uint64_t from_ns, uint32_t bytes)
{
	uint64_t begin_ns = link->busy_until_ns > from_ns ? link->busy_until_ns : from_ns;
	uint64_t took_ns = rate_bits > 0 ? bytes * 8000000000u / rate_bits : 0;
	link->busy_until_ns = begin_ns + took_ns;
	return link->busy_until_ns;
}

static void push(struct queue *queue, struct packet *packet)
{
	if (queue->count == QUEUE_MAX) {
		free(packet);
		return;
	}
	queue->slots[(queue->head + queue->count++) % QUEUE_MAX] = packet;
}

static struct packet *pop_due(struct queue *queue, uint64_t now_ns)
{
	if (queue->count == 0 || queue->slots[queue->head]->due_ns > now_ns)
		return NULL;
	struct packet *packet = queue->slots[queue->head];
	queue->head = (queue->head + 1) % QUEUE_MAX;
	queue->count--;
	return packet;
}

static void packet_enter(int host, const uint8_t *data, uint32_t bytes, uint64_t now_ns)
{
	struct queue *uplink = &uplinks[host];
	int to = bytes >= 20 && data[0] >> 4 == 4 ? data[19] - 1 : -1;
	if (to < 0 || to >= host_count || uplink->busy_until_ns > now_ns + queue_ns)
		return;
	uint64_t left_ns = sent_at(uplink, now_ns, bytes);
	if (loss_ppm > 0 && random_next() % 1000000 < loss_ppm)
		return;
	struct packet *packet = malloc(sizeof(*packet) + bytes);
	if (packet == NULL)
		die("malloc");
	packet->due_ns = left_ns + delay_ns;
	packet->bytes = bytes;
	packet->to = (uint8_t)to;
	memcpy(packet->data, data, bytes);
	push(uplink, packet);
}

static void device_read(int host, uint64_t now_ns)
{
	uint8_t data[PACKET_MAX];
	for (int i = 0; i < BURST; i++) {
		ssize_t bytes = read(devices[host], data, sizeof(data));
		if (bytes <= 0)
			return;
		packet_enter(host, data, (uint32_t)bytes, now_ns);
	}
}

static void queues_run(uint64_t now_ns)
{
	struct packet *packet;
	for (int host = 0; host < host_count; host++) {
		while ((packet = pop_due(&uplinks[host], now_ns)) != NULL) {
			struct queue *downlink = &downlinks[packet->to];
			if (downlink->busy_until_ns > packet->due_ns + queue_ns) {
				free(packet);
				continue;
			}
			packet->due_ns = sent_at(downlink, packet->due_ns, packet->bytes);
			push(downlink, packet);
		}
	}
	for (int host = 0; host < host_count; host++) {
		while ((packet = pop_due(&downlinks[host], now_ns)) != NULL) {
			/* A device that is full loses packets, as a network does. */
			if (write(devices[host], packet->data, packet->bytes) < 0 && errno == EBADF)
				die("write");
			free(packet);
		}
	}
}

static uint64_t next_due(uint64_t now_ns)
{
	uint64_t due_ns = now_ns + 1000000000u;
	for (int host = 0; host < host_count; host++) {
		const struct queue *queues[] = {&uplinks[host], &downlinks[host]};
		for (int i = 0; i < 2; i++)
			if (queues[i]->count > 0 && queues[i]->slots[queues[i]->head]->due_ns < due_ns)
				due_ns = queues[i]->slots[queues[i]->head]->due_ns;
	}
	return due_ns;
}

static void forward(void)
{
	struct pollfd polled[HOSTS_MAX + 1] = {{.fd = 0, .events = POLLIN}};
	for (int host = 0; host < host_count; host++)
		polled[host + 1] = (struct pollfd){.fd = devices[host], .events = POLLIN};
	while ((polled[0].revents & (POLLIN | POLLHUP)) == 0) {
		uint64_t now_ns = now_get();
		uint64_t due_ns = next_due(now_ns);
		uint64_t wait_ns = due_ns > now_ns ? due_ns - now_ns : 0;
		struct timespec timeout = {
			.tv_sec = (time_t)(wait_ns / 1000000000u),
			.tv_nsec = (long)(wait_ns % 1000000000u),
		};
		ppoll(polled, (nfds_t)host_count + 1, &timeout, NULL);
		now_ns = now_get();
		for (int host = 0; host < host_count; host++)
			if (polled[host + 1].revents & POLLIN)
				device_read(host, now_ns);
		queues_run(now_ns);
	}
}

int main(int count, char **arguments)
{
	if (count < 8 || count - 7 > HOSTS_MAX) {
		fprintf(stderr, "usage: wan DEVICE DELAY_US RATE_BITS QUEUE_US LOSS_PPM SEED SPACE...\n");
		return 2;
	}
	delay_ns = strtoull(arguments[2], NULL, 10) * 1000;
	rate_bits = strtoull(arguments[3], NULL, 10);
	queue_ns = strtoull(arguments[4], NULL, 10) * 1000;
	loss_ppm = strtoull(arguments[5], NULL, 10);
	random_state = strtoull(arguments[6], NULL, 10) * 2 + 1;
	host_count = count - 7;
	for (int host = 0; host < host_count; host++)
		devices[host] = device_open(arguments[1], arguments[7 + host]);
	printf("ready\n");
	fflush(stdout);
	forward();
	return 0;
}
