#include "transport/stream.h"

#include <string.h>
#include <sys/socket.h>

/* The kernel's own header: the C library's structure ends before the figures of interest. Both
 * cannot be included together. */
#include <linux/tcp.h>
#include <netinet/in.h>

#include "base/clock.h"

bool col_stream_tcp_measure(int fd, struct col_stream_figures *figures_out)
{
	struct tcp_info info;
	socklen_t bytes = sizeof(info);
	/* An older kernel fills less of it. */
	memset(&info, 0, sizeof(info));
	if (fd < 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) < 0)
		return false;
	*figures_out = (struct col_stream_figures){
		/* All ones: no sample yet. */
		.rtt_min_ns = info.tcpi_min_rtt == UINT32_MAX
		                      ? 0
		                      : (uint64_t)info.tcpi_min_rtt * COL_NS_PER_US,
		.delivery_bytes_per_s = info.tcpi_delivery_rate,
		.retransmitted_bytes = info.tcpi_bytes_retrans,
		.busy_ns = info.tcpi_busy_time * COL_NS_PER_US,
		.receiver_limited_ns = info.tcpi_rwnd_limited * COL_NS_PER_US,
		.buffer_limited_ns = info.tcpi_sndbuf_limited * COL_NS_PER_US,
	};
	return true;
}
