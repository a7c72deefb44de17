/*
 * The links of a comm, and what becomes of the frames that come over them.
 *
 * A frame of the current epoch for the head goes to the executor; of a later op or epoch it waits;
 * of anything older it is dropped. All three give the credit back when the bytes are used up.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "comm/comm.h"

static const struct col_link_events link_events;

/* ---- the list ---- */

struct col_link *col__mesh_find(struct collect_comm *comm, uint64_t peer)
{
	for (struct col_link *link = comm->links; link != NULL; link = link->next)
		if (link->options.peer == peer)
			return link;
	return NULL;
}

struct col_link *col__mesh_link(struct collect_comm *comm, uint64_t peer)
{
	struct collect_engine *engine = comm->engine;
	struct col_link *link = col__mesh_find(comm, peer);
	if (link != NULL)
		return link;
	link = col_alloc(sizeof(*link));
	if (link == NULL)
		return NULL;
	struct col_link_options options = {
		.loop = &engine->loop,
		.buffers = &engine->buffers,
		.outbounds = &engine->outbounds,
		.now_ns = &engine->now_ns,
		.delivered = &comm->consumed_op,
		.events = &link_events,
		.user = comm,
		.key = comm->key,
		.self = comm->self,
		.peer = peer,
		.stream_count = engine->options.streams,
		.window_bytes = engine->options.window_bytes,
		.silence_ns = engine->options.silence_ns,
		.connect_ns = engine->options.connect_ns,
	};
	col_link_init(link, &options);
	link->rank = COL_RANK_NONE;
	link->next = comm->links;
	comm->links = link;
	return link;
}

static void waiting_drop(struct collect_comm *comm, struct col_link *link)
{
	col__waiting_drop(&comm->waiting, link);
	col__scopes_drop_waiting(comm, link);
}

void col__mesh_remove(struct collect_comm *comm, struct col_link *link)
{
	waiting_drop(comm, link);
	for (struct col_link **at = &comm->links; *at != NULL; at = &(*at)->next) {
		if (*at != link)
			continue;
		*at = link->next;
		break;
	}
	col_link_fini(link);
	col_free(link);
}

uint32_t col__mesh_rank(const struct collect_comm *comm, uint64_t peer)
{
	for (uint32_t rank = 0; rank < comm->member_count; rank++)
		if (comm->members[rank] == peer)
			return rank;
	return COL_RANK_NONE;
}

bool col__mesh_is_member(const struct collect_comm *comm, uint64_t peer)
{
	return col__mesh_rank(comm, peer) != COL_RANK_NONE;
}

void col__mesh_post(struct collect_comm *comm, int kind, uint64_t peer, int loss,
                    const char *detail)
{
	struct collect_event event = {
		.kind = kind,
		.loss = loss,
		.comm_key = comm->key,
		.peer = peer,
		.op = comm->ops_head != NULL ? comm->ops_head->number : comm->consumed_op,
		.epoch = comm->epoch,
	};
	snprintf(event.detail, sizeof(event.detail), "%s", detail);
	col_engine_post(comm->engine, &event);
}

void col__mesh_mismatch(struct collect_comm *comm, uint64_t peer)
{
	if (comm->mismatch_op != comm->ops_head->number)
		col__mesh_post(comm, COLLECT_EVENT_MISMATCH, peer, 0,
		               "the peer runs this operation with other arguments");
	comm->mismatch_op = comm->ops_head->number;
}

/* ---- frames that wait ---- */

static struct col_sink sink_of(enum col_place place)
{
	return (struct col_sink){.place = place};
}

static struct col_sink sink_waiting(struct collect_comm *comm, const struct col_frame *frame)
{
	struct col_buffer *buffer = col_buffers_get(&comm->engine->buffers, frame->length);
	if (buffer == NULL)
		return (struct col_sink){.place = COL_PLACE_REFUSE, .reason = "out of memory"};
	return (struct col_sink){
		.place = COL_PLACE_EARLY, .target = buffer->bytes, .buffer = buffer};
}

/* ---- where a frame goes ---- */

/* Frames that are words of their sender: all header. */
static bool is_word(const struct col_frame *frame)
{
	return frame->kind == COL_FRAME_DONE || frame->kind == COL_FRAME_SHARE ||
	       frame->kind == COL_FRAME_GRANT;
}

static struct col_sink place_repair(struct collect_comm *comm, const struct col_frame *frame)
{
	const struct collect_op *op = comm->ops_head;
	uint32_t chunk_bytes = comm->engine->options.chunk_bytes;
	if (comm->phase != COL_PHASE_REPAIRING || op->number != frame->op)
		return sink_of(COL_PLACE_DISCARD);
	uint64_t bytes = op->shape.result_bytes;
	uint64_t rest = frame->offset < bytes ? bytes - frame->offset : 0;
	uint64_t length = rest < chunk_bytes ? rest : chunk_bytes;
	if (frame->offset % chunk_bytes != 0 || length == 0 || frame->length != length)
		return (struct col_sink){.place = COL_PLACE_REFUSE,
		                         .reason = "a repair that is no chunk of the result"};
	return (struct col_sink){.place = COL_PLACE_REPAIR,
	                         .target = comm->result.bytes + frame->offset};
}

static struct col_sink place_data(struct collect_comm *comm, struct col_link *link, uint32_t rank,
                                  const struct col_frame *frame)
{
	const struct collect_op *op = comm->ops_head;
	if (frame->op <= comm->consumed_op)
		return sink_of(COL_PLACE_DISCARD);
	bool is_head = op != NULL && op->number == frame->op;
	if (is_head && (comm->phase == COL_PHASE_ABANDONED || comm->phase == COL_PHASE_COMMITTING))
		return sink_of(COL_PLACE_DISCARD);
	if (!is_head || comm->phase != COL_PHASE_RUNNING)
		return sink_of(COL_PLACE_EARLY);
	if (frame->digest != comm->digest) {
		col__mesh_mismatch(comm, link->options.peer);
		return sink_of(COL_PLACE_DISCARD);
	}
	if (rank == COL_RANK_NONE || comm->runner == NULL)
		return sink_of(COL_PLACE_DISCARD);
	struct col_sink sink = col_exec_place(&comm->runner->exec, rank, frame);
	if (sink.place != COL_PLACE_REFUSE || op->target_at == NULL)
		return sink;
	/* The counts of an all-to-all are in no digest: here it shows that callers disagree. */
	col__op_abandon(comm, COLLECT_E_INVALID);
	return sink_of(COL_PLACE_DISCARD);
}

/* EARLY here means: it has to wait. */
static struct col_sink place_now(struct collect_comm *comm, struct col_link *link,
                                 const struct col_frame *frame)
{
	if (frame->attempt > comm->epoch)
		return sink_of(COL_PLACE_EARLY);
	if (frame->attempt < comm->epoch || comm->is_frozen)
		return sink_of(COL_PLACE_DISCARD);
	uint32_t rank = col__rank_of(comm, link);
	if (frame->kind != COL_FRAME_REPAIR)
		return place_data(comm, link, rank, frame);
	return rank != COL_RANK_NONE ? place_repair(comm, frame) : sink_of(COL_PLACE_DISCARD);
}

/* Whether a frame of this scope, which is not here, is worth keeping. */
static bool is_awaited(const struct collect_comm *comm, const struct col_frame *frame)
{
	bool is_over = frame->attempt < comm->epoch ||
	               (frame->attempt == comm->epoch && comm->is_frozen);
	return !is_over && !col__scope_is_gone(comm, frame->group);
}

static struct col_sink link_place(void *user, struct col_link *link, const struct col_frame *frame)
{
	struct collect_comm *comm = user;
	if (col_frame_is_message(frame))
		return col__channel_place(comm, link, frame);
	if (frame->length > comm->engine->options.chunk_bytes)
		return (struct col_sink){.place = COL_PLACE_REFUSE,
		                         .reason = "a frame that is longer than a chunk"};
	/* A word is all header. */
	if (is_word(frame))
		return sink_of(COL_PLACE_DISCARD);
	if (frame->group != 0) {
		struct collect_comm *child = col__scope_find(comm, frame->group);
		if (child == NULL)
			return is_awaited(comm, frame) ? sink_waiting(comm, frame)
			                               : sink_of(COL_PLACE_DISCARD);
		if (col__rank_of(child, link) == COL_RANK_NONE)
			return sink_of(COL_PLACE_DISCARD);
		comm = child;
	}
	struct col_sink sink = place_now(comm, link, frame);
	return sink.place == COL_PLACE_EARLY ? sink_waiting(comm, frame) : sink;
}

/* ---- what a frame does ---- */

static void consume(struct collect_comm *comm, struct col_link *link, const struct col_frame *frame)
{
	if (comm->scope == 0)
		col_link_consume(link, frame->length);
	else
		col__flow_consume(comm, col__rank_of(comm, link), frame->length);
}

static void repair_arrived(struct collect_comm *comm, struct col_link *link,
                           const struct col_frame *frame)
{
	uint64_t chunk = frame->offset / comm->engine->options.chunk_bytes;
	consume(comm, link, frame);
	if (!comm->repair_has[chunk]) {
		comm->repair_has[chunk] = 1;
		comm->repair_missing--;
	}
	col__op_repair_check(comm);
}

/* Frames of a sub-group are in a window from when their epoch is here. */
static void waiting_add(struct collect_comm *comm, struct col_link *link,
                        const struct col_frame *frame, struct col_buffer *buffer)
{
	bool is_early = comm->scope != 0 && frame->attempt > comm->epoch;
	col__waiting_add(&comm->waiting, link, frame, buffer, is_early);
}

/* The word of a later epoch waits for it, one of each kind and link: nobody sends the next before
 * it has ours. */
static void word_keep(struct collect_comm *comm, struct col_link *link,
                      const struct col_frame *frame)
{
	struct col_waiting_frame *it = comm->waiting.head;
	while (it != NULL && (it->link != link || it->frame.kind != frame->kind))
		it = it->next;
	if (it == NULL)
		waiting_add(comm, link, frame, NULL);
	else if (frame->attempt > it->frame.attempt ||
	         (frame->attempt == it->frame.attempt && frame->op > it->frame.op))
		it->frame = *frame;
}

static void word_arrived(struct collect_comm *comm, struct col_link *link,
                         const struct col_frame *frame)
{
	uint32_t rank = col__rank_of(comm, link);
	if (frame->attempt > comm->epoch)
		word_keep(comm, link, frame);
	else if (frame->attempt < comm->epoch || comm->is_frozen || rank == COL_RANK_NONE)
		return;
	else if (frame->kind == COL_FRAME_DONE)
		col__op_word(comm, rank, frame);
	else if (frame->kind == COL_FRAME_SHARE)
		col__share_word(comm, rank, frame->step != 0);
	else
		col__flow_word(comm, rank, frame);
}

static void fail_point(struct collect_comm *comm, const struct col_frame *frame)
{
	if (comm->kill_op == 0)
		return;
	bool counts = frame->kind == COL_FRAME_MESSAGE
	                      ? comm->kill_op == UINT64_MAX
	                      : frame->kind == COL_FRAME_DATA && frame->op == comm->kill_op;
	if (counts && --comm->kill_frames == 0)
		kill(getpid(), SIGKILL);
}

/* It is of this comm, and in its window. */
static void frame_arrived(struct collect_comm *comm, struct col_link *link,
                          const struct col_frame *frame, const struct col_sink *sink)
{
	bool is_current = frame->attempt == comm->epoch && !comm->is_frozen &&
	                  comm->ops_head != NULL && comm->ops_head->number == frame->op;
	switch (sink->place) {
	case COL_PLACE_EARLY:
		waiting_add(comm, link, frame, sink->buffer);
		/* Its time may have come while it was under way. */
		col__mesh_offer_waiting(comm);
		break;
	case COL_PLACE_EXEC:
		if (is_current && comm->phase == COL_PHASE_RUNNING) {
			if (col_exec_arrived(&comm->runner->exec, frame, sink) < 0)
				col__link_lose(link, COLLECT_LOSS_RESET, "out of memory");
			break;
		}
		col_buffer_put(sink->buffer);
		consume(comm, link, frame);
		break;
	case COL_PLACE_REPAIR:
		if (is_current && comm->phase == COL_PHASE_REPAIRING)
			repair_arrived(comm, link, frame);
		else
			consume(comm, link, frame);
		break;
	case COL_PLACE_DISCARD:
		consume(comm, link, frame);
		if (is_word(frame))
			word_arrived(comm, link, frame);
		break;
	case COL_PLACE_MESSAGE:
	case COL_PLACE_REFUSE:
		COL_ASSERT(false);
	}
}

/* Of a scope that is not here. */
static void stranger_arrived(struct collect_comm *comm, struct col_link *link,
                             const struct col_frame *frame, const struct col_sink *sink)
{
	bool is_whole = is_word(frame) || sink->place == COL_PLACE_EARLY;
	if (!is_whole || !is_awaited(comm, frame)) {
		col_buffer_put(sink->buffer);
	} else if (col__scopes_make(comm) < 0) {
		col_buffer_put(sink->buffer);
		col__link_lose(link, COLLECT_LOSS_RESET, "out of memory");
	} else {
		col__waiting_add(&comm->scopes->waiting, link, frame, sink->buffer, true);
	}
}

/* Much may have changed since it was placed: scopes come and go, and views. */
static void scope_arrived(struct collect_comm *comm, struct col_link *link,
                          const struct col_frame *frame, const struct col_sink *sink)
{
	struct collect_comm *child = col__scope_find(comm, frame->group);
	if (child == NULL) {
		stranger_arrived(comm, link, frame, sink);
		return;
	}
	if (is_word(frame)) {
		word_arrived(child, link, frame);
		return;
	}
	uint32_t rank = col__rank_of(child, link);
	bool is_over = frame->attempt < child->epoch ||
	               (frame->attempt == child->epoch && child->is_frozen);
	if (rank == COL_RANK_NONE || is_over) {
		col_buffer_put(sink->buffer);
	} else if (frame->attempt == child->epoch && !col__flow_take(child, rank, frame)) {
		col_buffer_put(sink->buffer);
		col__link_lose(link, COLLECT_LOSS_GARBAGE,
		               "more payload of a sub-group than was granted");
	} else {
		frame_arrived(child, link, frame, sink);
	}
}

static void link_arrived(void *user, struct col_link *link, const struct col_frame *frame,
                         const struct col_sink *sink)
{
	struct collect_comm *comm = user;
	if (col_frame_is_message(frame)) {
		fail_point(comm, frame);
		col__channel_arrived(comm, link, frame, sink);
	} else if (frame->group != 0) {
		scope_arrived(comm, link, frame, sink);
	} else {
		frame_arrived(comm, link, frame, sink);
	}
}

/* Gives a frame that waited to whoever wants it now. It is unlinked already. */
static void waiting_deliver(struct collect_comm *comm, struct col_waiting_frame *waiting,
                            struct col_sink sink)
{
	struct col_link *link = waiting->link;
	struct col_frame frame = waiting->frame;
	struct col_buffer *buffer = waiting->buffer;
	col__waiting_admit(waiting);
	col_free(waiting);
	if (is_word(&frame)) {
		word_arrived(comm, link, &frame);
		return;
	}
	if (sink.place == COL_PLACE_EXEC && sink.buffer != NULL) {
		/* It is in a buffer of its own already. */
		col_buffer_put(sink.buffer);
		sink.buffer = buffer;
	} else {
		if (sink.target != NULL)
			memcpy(sink.target, buffer->bytes, frame.length);
		col_buffer_put(buffer);
	}
	if (sink.place == COL_PLACE_REFUSE) {
		col__link_lose(link, COLLECT_LOSS_GARBAGE, sink.reason);
		return;
	}
	frame_arrived(comm, link, &frame, &sink);
}

void col__mesh_offer_waiting(struct collect_comm *comm)
{
	struct col_waiting_frame *before = NULL;
	struct col_waiting_frame *it = comm->waiting.head;
	while (it != NULL) {
		/* A word has no place. */
		bool is_later = it->frame.attempt > comm->epoch;
		struct col_sink sink = is_word(&it->frame)
		                               ? sink_of(is_later ? COL_PLACE_EARLY : COL_PLACE_DISCARD)
		                               : place_now(comm, it->link, &it->frame);
		if (sink.place == COL_PLACE_EARLY) {
			before = it;
			it = it->next;
			continue;
		}
		waiting_deliver(comm, col__waiting_unlink(&comm->waiting, before), sink);
		/* That may have finished the op and changed the list. */
		before = NULL;
		it = comm->waiting.head;
	}
}

void col__mesh_repair_send(struct collect_comm *comm, uint64_t needer)
{
	uint32_t rank = col__mesh_rank(comm, needer);
	uint32_t chunk_bytes = comm->engine->options.chunk_bytes;
	if (rank == COL_RANK_NONE || rank == comm->self_rank)
		return;
	for (uint64_t offset = 0; offset < comm->retained_bytes; offset += chunk_bytes) {
		uint64_t rest = comm->retained_bytes - offset;
		struct col_frame frame = {
			.kind = COL_FRAME_REPAIR,
			.op = comm->retained_op,
			.attempt = comm->epoch,
			.offset = offset,
			.length = (uint32_t)(rest < chunk_bytes ? rest : chunk_bytes),
		};
		const uint8_t *payload = comm->retained.bytes + offset;
		if (col__comm_send(comm, rank, &frame, payload, NULL, NULL) < 0)
			return;
	}
}

/* ---- what links call ---- */

static void link_sent(void *user, struct col_link *link, const struct col_frame *frame,
                      void *token)
{
	struct collect_comm *comm = user;
	(void)link;
	if (frame->group != 0)
		comm = col__scope_find(comm, frame->group);
	if (comm != NULL)
		fail_point(comm, frame);
	if (col_frame_is_message(frame)) {
		col__channel_sent(frame, token);
		return;
	}
	if (token != NULL)
		col_exec_sent(token);
}

static void link_up(void *user, struct col_link *link)
{
	col__mesh_post(user, COLLECT_EVENT_LINK_UP, link->options.peer, 0, "");
}

static void link_lost(void *user, struct col_link *link, int loss, const char *detail)
{
	col__mesh_post(user, COLLECT_EVENT_LINK_LOST, link->options.peer, loss, detail);
}

static void link_closed(void *user, struct col_link *link)
{
	/* Also when a peer connects anew: else it could leave a window of early frames each time. */
	waiting_drop(user, link);
	col__messages_closed(user, link);
}

static const struct col_link_events link_events = {
	.place = link_place,
	.arrived = link_arrived,
	.sent = link_sent,
	.up = link_up,
	.lost = link_lost,
	.closed = link_closed,
};

/* ---- what the listener calls ---- */

static uint32_t stranger_count(const struct collect_comm *comm)
{
	uint32_t count = 0;
	for (const struct col_link *link = comm->links; link != NULL; link = link->next)
		count += !col__mesh_is_member(comm, link->options.peer);
	return count;
}

static const char not_open[] = "the link is not open for it";

static const char *hello_refusal(struct collect_comm *comm, const struct col_hello *hello)
{
	if (comm == NULL)
		return "a group that this process is not in";
	if (hello->target != comm->self)
		return "meant for another peer";
	if (hello->source == comm->self || hello->source == 0)
		return "an impossible source";
	if (hello->stream_count < 1 || hello->stream_count > COLLECT_STREAMS_MAX ||
	    hello->stream >= hello->stream_count)
		return "an impossible stream";
	if (col__mesh_find(comm, hello->source) != NULL)
		return NULL;
	if (hello->stream != 0)
		return not_open;
	return stranger_count(comm) < COL_STRANGERS_MAX ? NULL : "too many peers that are not members";
}

static const char *listener_greeted(void *user, int fd, const struct col_hello *hello,
                                    uint64_t epoch)
{
	struct collect_engine *engine = user;
	struct collect_comm *comm = engine->comms;
	while (comm != NULL && (comm->key != hello->key || comm->scope != 0))
		comm = comm->next;
	const char *refusal = hello_refusal(comm, hello);
	struct col_link *link = refusal == NULL ? col__mesh_link(comm, hello->source) : NULL;
	if (link == NULL) {
		col_stream_tcp_refuse(fd);
		return refusal != NULL ? refusal : "out of memory";
	}
	if (hello->stream == 0 && link->state == COL_LINK_UP && epoch <= comm->epoch &&
	    !comm->is_frozen)
		col__link_lose(link, COLLECT_LOSS_RESET, "the peer opened the connection anew");
	if (hello->stream_count > link->options.stream_count)
		link->options.stream_count = hello->stream_count;
	return col_link_adopt(link, fd, hello, epoch) < 0 ? not_open : NULL;
}

static void listener_refused(void *user, const char *from, const char *reason)
{
	struct collect_event event = {.kind = COLLECT_EVENT_REFUSED};
	snprintf(event.detail, sizeof(event.detail), "%s: %s", from, reason);
	col_engine_post(user, &event);
}

const struct col_listener_events col_comm_listener_events = {
	.greeted = listener_greeted,
	.refused = listener_refused,
};
