/*
 * A link: the edge to one peer. It has 1…COLLECT_STREAMS_MAX streams and two send queues: any
 * stream that is writable takes the next frames, so no frame waits behind a slow stream.
 *
 * Contract
 *  - A frame's payload is borrowed until `sent` is called for it, or it is purged.
 *  - Frames of messages are not charged, and have a queue of their own: their receiver has asked
 *    for what is long, and keeps little of the rest. So they pass, however long an operation's
 *    frames wait for the receiver to begin the operation; while both wait they take turns.
 *    Neither are those of sub-groups, which have a window for each sub-group (comm/flow.c): so none
 *    of them ever waits for another, or for the group.
 *  - Frames of the group's operations are charged to a window; the receiver returns the charge with
 *    col_link_consume once a frame's bytes are where they belong. So a receiver always drains what
 *    it granted, and a sender never has more unconsumed than the window. A peer that sends more
 *    than it was granted is lost as garbage.
 *  - `lost` is called once per loss; afterwards nothing more is called until the link is opened
 *    again. Frames queued at that time are gone.
 *  - Callbacks may call any link function, of this link too; they never free a link.
 *
 * Owner: whoever holds the engine's baton.
 */
#ifndef COL_TRANSPORT_LINK_H
#define COL_TRANSPORT_LINK_H

#include "include/collect.h"
#include "transport/pool.h"
#include "transport/stream.h"
#include "wire/frame.h"

struct col_link;

/* Where a frame's payload goes. */
enum col_place {
	COL_PLACE_DISCARD, /* nowhere, but it is counted as received */
	COL_PLACE_EXEC,    /* memory of the running operation */
	COL_PLACE_REPAIR,  /* the result that is being repaired */
	COL_PLACE_EARLY,   /* a buffer that is kept for later */
	COL_PLACE_MESSAGE, /* a message's receiver's memory, or a buffer */
	COL_PLACE_REFUSE   /* the frame is wrong: `reason` says how; the link is lost */
};

struct col_sink {
	enum col_place place;
	uint8_t *target;
	struct col_buffer *buffer; /* behind target, if pooled; owned by whom `arrived` hands it to */
	const char *reason;
	void *token; /* of a message: whose memory it is, for col_link_forget */
};

struct col_link_events {
	/* The header of a frame came that is not the link's own. */
	struct col_sink (*place)(void *user, struct col_link *link, const struct col_frame *frame);
	/* Its payload is in place. */
	void (*arrived)(void *user, struct col_link *link, const struct col_frame *frame,
	                const struct col_sink *sink);
	/* The last byte of a frame was handed to the network. token may be NULL. */
	void (*sent)(void *user, struct col_link *link, const struct col_frame *frame, void *token);
	void (*up)(void *user, struct col_link *link);
	void (*lost)(void *user, struct col_link *link, int loss, const char *detail);
	/* The connection is over, for whatever reason, and with it all that was queued; `lost` may
	 * follow. May be NULL. It calls no function of the link. */
	void (*closed)(void *user, struct col_link *link);
};

enum col_link_state {
	COL_LINK_IDLE,    /* nobody has opened it: the other side dials, until deadline_ns */
	COL_LINK_DIALING, /* we dial, until deadline_ns */
	COL_LINK_UP,      /* at least one stream carries frames */
	COL_LINK_LOST     /* final, until it is opened again */
};

struct col_link_options {
	struct col_loop *loop;
	struct col_buffers *buffers;
	struct col_pool *outbounds;
	const uint64_t *now_ns;    /* of the last poll */
	const uint64_t *delivered; /* this peer's last consumed op, for headers */
	const struct col_link_events *events;
	void *user;
	uint64_t key;
	uint64_t self;
	uint64_t peer;
	uint32_t stream_count; /* opened at once; grows when further streams are opened */
	uint32_t stream_max;   /* up to which the dialer adds streams on its own; 0: it adds none */
	uint32_t window_bytes; /* unconsumed payload that the peer may have sent us */
	uint64_t silence_ns;
	uint64_t connect_ns;
};

/* What the kernel knows of a link's open streams (TCP_INFO), looked up now and then while bytes
 * move. All 0: unknown. */
struct col_link_figures {
	uint64_t rtt_min_ns;            /* least of all streams */
	uint64_t delivery_bytes_per_s;  /* sum of the streams' latest rates */
	uint64_t retransmitted_bytes;   /* sums over the streams' lives, from here on */
	uint64_t busy_ns;               /* with data under way */
	uint64_t receiver_limited_ns;   /* … waiting for the receiver's window */
	uint64_t buffer_limited_ns;     /* … waiting for room in the send buffer */
};

/* A frame that waits or is being written. */
struct col_outbound {
	struct col_outbound *next;
	uint8_t head[COL_FRAME_HEADER_BYTES]; /* encoded when it is about to be written */
	struct col_frame frame;
	const uint8_t *payload;
	struct col_buffer *buffer; /* owns payload; NULL: borrowed */
	void *token;
};

enum col_link_stream_state {
	COL_STREAM_CLOSED,
	COL_STREAM_CONNECTING, /* the kernel connects */
	COL_STREAM_GREETING,   /* our hello is out, theirs is awaited */
	COL_STREAM_OPEN
};

/* In the order in which they were queued. */
struct col_queue {
	struct col_outbound *head;
	struct col_outbound *tail;
};

enum col_link_queue {
	COL_QUEUE_CHARGED, /* frames of operations: they wait for credit */
	COL_QUEUE_FREE,    /* frames of messages and sub-groups */
	COL_QUEUE_COUNT
};

#define COL_RECEIVE_BYTES 65536u
/* Frames without payload that a link can queue without asking anybody for memory. */
#define COL_LINK_SPARES 8u

struct col_link_stream {
	struct col_stream stream;
	struct col_link *link;
	enum col_link_stream_state state;
	uint32_t index;
	bool is_blocked; /* the last write found no room */

	/* Half written. At most one of the two: between two flushes only what has begun to be written
	 * belongs to the stream, the rest waits in the link's queue. */
	uint8_t control[COL_FRAME_HEADER_BYTES + COL_FRAME_HELLO_BYTES]; /* the link's own frame */
	size_t control_bytes;
	struct col_outbound *sending;
	size_t written_bytes; /* of that frame, header included */

	/* Being read: buffered bytes [begin, end), and the frame whose payload is under way. */
	uint8_t *buffer; /* COL_RECEIVE_BYTES; owned */
	size_t begin;
	size_t end;
	bool has_frame;
	struct col_frame frame;
	struct col_sink sink;
	size_t payload_bytes; /* of the frame that are in place */
	bool expects_long;    /* the last frame was: the next payload should go straight to its place */
	uint8_t hello[COL_FRAME_HELLO_BYTES];
};

/* How a dialer finds out whether one more stream carries more. */
struct col_link_probe {
	uint64_t began_ns;     /* of this look */
	uint64_t began_bytes;  /* sent by then */
	uint32_t ticks;        /* in this look … */
	uint32_t busy_ticks;   /* … with frames waiting */
	uint64_t before_bytes_per_s; /* without the stream that was added last; 0: none was */
	bool is_settling;      /* this look is the new stream's slow start, and does not count */
	uint64_t quiet_until_ns;
};

struct col_link {
	struct col_link_options options;
	enum col_link_state state;
	int loss;             /* enum collect_loss, when lost */
	bool is_dialer;       /* of the current connection */
	uint64_t opened_epoch; /* epoch for which it was opened last */
	char addresses[COLLECT_ADDRESS_BYTES_MAX];
	uint32_t candidate;   /* index into addresses that is being dialed */
	struct col_endpoint endpoint; /* of the candidate that answered */
	uint64_t redial_ns;   /* when to try the next candidate */
	uint64_t deadline_ns; /* when opening counts as failed */
	uint64_t heard_ns;
	uint64_t spoke_ns;
	struct col_link_stream streams[COLLECT_STREAMS_MAX];

	struct col_queue queues[COL_QUEUE_COUNT];
	enum col_link_queue turn; /* whose the next write is, if both wait */
	struct col_queue written; /* `sent` is still to be called */
	struct col_outbound spares[COL_LINK_SPARES];
	uint32_t spares_used; /* a bit for each */
	uint32_t cork_count;
	bool is_flushing;
	bool wants_heartbeat;
	uint32_t peer_window_bytes; /* what the peer lets us have unconsumed */
	uint32_t charged;    /* charge of the frames sent, modulo 2^32 */
	uint32_t granted;    /* … of which the peer has consumed */
	uint32_t taken;      /* charge of the frames that came over this connection, modulo 2^32 */
	uint32_t consumed;   /* … of which we have used up */
	uint32_t advertised; /* … of which the peer may know */
	uint64_t sent_bytes;
	uint64_t received_bytes;
	struct col_link_figures figures;
	uint64_t measured_ns;    /* when the figures were looked up */
	uint64_t measured_bytes; /* sent and received by then */
	struct col_link_probe probe;

	/* The owner's. */
	struct col_link *next; /* in the comm's list */
	uint32_t rank;         /* of the peer in the view; all ones: it is no member */
	struct col_channel *channel; /* messages; NULL: none yet over this connection */
	uint64_t early_bytes; /* memory of the frames of sub-groups that wait outside of any window */
};

void col_link_init(struct col_link *link, const struct col_link_options *options);
/* Closes, frees what it owns. */
void col_link_fini(struct col_link *link);

/* Dials the candidates in turn until connect_ns is over. From IDLE or LOST. */
void col_link_dial(struct col_link *link, const char *addresses, uint64_t epoch);
/* Waits for the peer to dial, until connect_ns is over. From IDLE or LOST. */
void col_link_expect(struct col_link *link, uint64_t epoch);
/* Takes an accepted socket over whose hello was `hello`, and answers it. Stream 0 opens the link
 * anew, whatever its state. The socket is taken on failure too: COLLECT_E_BUSY, a further stream
 * of a link that is not up, or of an earlier connection. */
int col_link_adopt(struct col_link *link, int fd, const struct col_hello *hello, uint64_t epoch);
/* For tests: the link is up over this stream, without a greeting; `stream` is moved. */
int col_link_attach(struct col_link *link, uint32_t index, struct col_stream *stream);
/* Back to IDLE, silently. */
void col_link_close(struct col_link *link);

/* Queues a frame and writes what can be written. payload: frame->length bytes, borrowed, or owned
 * by `buffer` (taken, also on failure). Frames without payload do not need the heap while no more
 * than COL_LINK_SPARES of them wait. COLLECT_E_CLOSED: the link is lost. COLLECT_E_MEMORY: it is
 * lost now, because nobody would ever send this frame again. */
int col_link_send(struct col_link *link, const struct col_frame *frame, const uint8_t *payload,
                  struct col_buffer *buffer, void *token);
/* Between the two, frames are only queued; the last uncork writes them, many with one system call.
 * Whoever sends several frames in a row corks. */
void col_link_cork(struct col_link *link);
void col_link_uncork(struct col_link *link);
/* For a caller that spins: reads from each open stream, and writes what found no room before,
 * without asking the loop what is ready. 1: something moved; 0: nothing did; COLLECT_E_CLOSED: the
 * link is not up, or was lost in this call (`lost` has told so). It neither dials nor accepts, and
 * keeps no time: the loop is to be polled now and then all the same. */
int col_link_poll(struct col_link *link);
/* The frame's `bytes` of payload are consumed. */
void col_link_consume(struct col_link *link, uint32_t bytes);
/* Drops queued data and repair frames of a group (as in the frame), without `sent`; of half-written
 * ones the rest is copied, so that no caller's memory is read any more. Other kinds stay queued.
 * Payload of its exec and repair frames that is coming in is discarded from here on. */
void col_link_purge(struct col_link *link, uint32_t group);
/* The same for the frames and payload of one message: those with this token. */
void col_link_forget(struct col_link *link, const void *token);
/* Sends a heartbeat now: whoever sleeps at the other end wakes. Never fails; nothing is queued. */
void col_link_nudge(struct col_link *link);
/* Heartbeats, silence, dialing, deadlines. */
void col_link_tick(struct col_link *link, uint64_t heartbeat_ns);
/* The process was stopped for gap_ns: the silence was its own. */
void col_link_forgive(struct col_link *link, uint64_t gap_ns);
bool col_link_can_send(const struct col_link *link);
void col_link_figures_get(const struct col_link *link, struct col_link_figures *figures_out);
/* Lets the dialer of a link that is up have `count` streams (at most COLLECT_STREAMS_MAX): opens
 * those that are missing. Streams are never taken away. COLLECT_E_CLOSED: not up, or the peer
 * dials; otherwise how opening the first of them that failed did. */
int col_link_streams_set(struct col_link *link, uint32_t count);

/* Between link.c, link_figures.c, link_send.c and link_receive.c. */
static inline bool col__frame_is_own(const struct col_frame *frame)
{
	return frame->kind == COL_FRAME_HELLO || frame->kind == COL_FRAME_CREDIT ||
	       frame->kind == COL_FRAME_HEARTBEAT;
}
static inline bool col_frame_is_message(const struct col_frame *frame)
{
	return frame->kind >= COL_FRAME_OFFER && frame->kind <= COL_FRAME_WITHDRAW;
}
/* The link's own frames and those of messages and sub-groups are free. An operation's costs its
 * payload and its header: so tiny frames are bounded in number too. */
static inline bool col__frame_is_free(const struct col_frame *frame)
{
	return col__frame_is_own(frame) || col_frame_is_message(frame) || frame->group != 0;
}
static inline uint32_t col__frame_charge(const struct col_frame *frame)
{
	return col__frame_is_free(frame) ? 0 : frame->length + COL_FRAME_HEADER_BYTES;
}
void col__link_lose(struct col_link *link, int loss, const char *detail);
void col__link_flush(struct col_link *link);
void col__link_stream_greet(struct col_link_stream *stream);
void col__link_stream_close(struct col_link_stream *stream);
/* The connection of a stream ended. */
void col__link_stream_broken(struct col_link_stream *stream, const char *detail);
/* The greeting is over; the peer's told of its window (0: it is ours). */
void col__link_stream_opened(struct col_link_stream *stream, uint32_t peer_window_bytes);
/* True: something was read. */
bool col__link_readable(struct col_link_stream *stream);
/* Everything that is queued or to be told of. */
void col__link_drop_outbounds(struct col_link *link);
void col__link_stream_reset_sending(struct col_link_stream *stream);
/* Figures, and the policy for the number of streams. Of a link that is up. */
void col__link_measure(struct col_link *link);

#endif
