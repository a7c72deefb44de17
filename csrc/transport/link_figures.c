#include "transport/link.h"

#include <string.h>

#include "base/clock.h"

/* The kernel is asked so often at most, and only while bytes move. */
#define MEASURE_NS (250 * COL_NS_PER_MS)

/* One more stream is worth a try on paths of such a round trip, when frames waited in so many of
 * a hundred ticks of a look, and something held back each stream by itself: losses, or a window
 * for so much of the time. It is kept trying while each brings so many percent more. Without a
 * cause one stream fills the path, and a new one's slow start only delays frames. */
#define PROBE_RTT_NS (5 * COL_NS_PER_MS)
#define PROBE_LOOK_NS COL_NS_PER_S
#define PROBE_BUSY_PERCENT 80u
#define PROBE_LIMITED_PERCENT 20u
#define PROBE_GAIN_PERCENT 5u
/* How long the number of streams is left alone after one that brought nothing. */
#define PROBE_QUIET_NS (60 * COL_NS_PER_S)

static void figures_update(struct col_link *link)
{
	uint64_t now_ns = *link->options.now_ns;
	uint64_t moved_bytes = link->sent_bytes + link->received_bytes;
	if (link->measured_ns != 0 && (now_ns < link->measured_ns + MEASURE_NS ||
	                               moved_bytes == link->measured_bytes))
		return;
	link->measured_ns = now_ns;
	link->measured_bytes = moved_bytes;
	struct col_link_figures sum = {0};
	/* Beside shared memory sockets move next to nothing, and tell nothing of the link. */
	uint32_t count = col__link_has_shm(link) ? 0 : link->options.stream_count;
	for (uint32_t i = 0; i < count; i++) {
		const struct col_link_stream *stream = &link->streams[i];
		struct col_stream_figures one;
		if (stream->state != COL_STREAM_OPEN ||
		    !col_stream_tcp_measure(stream->stream.watch.fd, &one))
			continue;
		if (one.rtt_min_ns != 0 &&
		    (sum.rtt_min_ns == 0 || one.rtt_min_ns < sum.rtt_min_ns))
			sum.rtt_min_ns = one.rtt_min_ns;
		sum.delivery_bytes_per_s += one.delivery_bytes_per_s;
		sum.retransmitted_bytes += one.retransmitted_bytes;
		sum.busy_ns += one.busy_ns;
		sum.receiver_limited_ns += one.receiver_limited_ns;
		sum.buffer_limited_ns += one.buffer_limited_ns;
	}
	link->figures = sum;
}

static uint64_t limited_ns(const struct col_link *link)
{
	return link->figures.receiver_limited_ns + link->figures.buffer_limited_ns;
}

/* In this look something held each stream back by itself. */
static bool has_cause(const struct col_link *link)
{
	const struct col_link_probe *probe = &link->probe;
	uint64_t took_ns = *link->options.now_ns - probe->began_ns;
	uint64_t waited_ns = limited_ns(link);
	/* Less than before: a stream is gone, and its figures with it. */
	waited_ns -= waited_ns < probe->began_limited_ns ? waited_ns : probe->began_limited_ns;
	return link->figures.retransmitted_bytes > probe->began_retransmitted ||
	       waited_ns * 100 >= took_ns * PROBE_LIMITED_PERCENT * link->options.stream_count;
}

static void look_begin(struct col_link *link)
{
	link->probe.began_retransmitted = link->figures.retransmitted_bytes;
	link->probe.began_limited_ns = limited_ns(link);
	link->probe.began_ns = *link->options.now_ns;
	link->probe.began_bytes = link->sent_bytes;
	link->probe.ticks = 0;
	link->probe.busy_ticks = 0;
}

/* A look in which the link was busy is over. */
static void look_judge(struct col_link *link, uint64_t bytes_per_s)
{
	struct col_link_probe *probe = &link->probe;
	if (probe->is_settling) {
		probe->is_settling = false;
		return;
	}
	bool has_gained = bytes_per_s * 100 >
	                  probe->before_bytes_per_s * (100 + PROBE_GAIN_PERCENT);
	if (probe->before_bytes_per_s != 0 && !has_gained) {
		probe->before_bytes_per_s = 0;
		probe->quiet_until_ns = *link->options.now_ns + PROBE_QUIET_NS;
		return;
	}
	probe->before_bytes_per_s = 0;
	if (link->options.stream_count >= link->options.stream_max || !has_cause(link) ||
	    col_link_streams_set(link, link->options.stream_count + 1) < 0)
		return;
	probe->before_bytes_per_s = bytes_per_s;
	probe->is_settling = true;
}

static void streams_probe(struct col_link *link)
{
	struct col_link_probe *probe = &link->probe;
	uint64_t now_ns = *link->options.now_ns;
	if (!link->is_dialer || link->options.stream_max <= 1 ||
	    link->figures.rtt_min_ns <= PROBE_RTT_NS || now_ns < probe->quiet_until_ns)
		return;
	if (probe->began_ns == 0)
		look_begin(link);
	probe->ticks++;
	probe->busy_ticks += link->queues[COL_QUEUE_CHARGED].head != NULL ||
	                     link->queues[COL_QUEUE_FREE].head != NULL;
	uint64_t took_ns = now_ns - probe->began_ns;
	if (took_ns < PROBE_LOOK_NS)
		return;
	if (probe->busy_ticks * 100 >= probe->ticks * PROBE_BUSY_PERCENT)
		look_judge(link, (link->sent_bytes - probe->began_bytes) * 1000 /
		                         (took_ns / COL_NS_PER_MS));
	else
		probe->before_bytes_per_s = 0;
	look_begin(link);
}

void col__link_measure(struct col_link *link)
{
	figures_update(link);
	streams_probe(link);
}

void col_link_figures_get(const struct col_link *link, struct col_link_figures *figures_out)
{
	*figures_out = link->figures;
}
