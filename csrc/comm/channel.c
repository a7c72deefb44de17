/*
 * The frames of messages on one link. Every field that a peer sends is checked here; what breaks
 * the rules loses the link as garbage. What is merely late, because streams overtake each other,
 * is ignored.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/size.h"
#include "comm/comm.h"

/* So much of each message is in the link's queue: enough for one write. */
#define QUEUED_BYTES (512u << 10)
#define QUEUED_MAX 32u
#define PIECE_BYTES_MIN 64u

/* ---- life ---- */

struct col_channel *col__channel_get(struct col_link *link)
{
	if (link->channel != NULL)
		return link->channel;
	struct col_channel *channel = col_alloc_zeroed(1, sizeof(*channel));
	if (channel == NULL)
		return NULL;
	col__hook_init(&channel->waiting);
	col__hook_init(&channel->held);
	/* The lowest first. */
	while (channel->free_count < COL_OFFERS_MAX) {
		channel->free_slots[channel->free_count] =
			(uint16_t)(COL_OFFERS_MAX - 1 - channel->free_count);
		channel->free_count++;
	}
	link->channel = channel;
	return channel;
}

void col__channel_free(struct collect_comm *comm, struct col_link *link)
{
	if (link->channel == NULL)
		return;
	for (uint32_t i = 0; i < COL_OFFERS_MAX; i++)
		if (link->channel->offers[i] != NULL)
			col__offer_free(comm, link->channel->offers[i]);
	/* Its sends are ended by the caller, which finds them among all. */
	col__hook_remove(&link->channel->waiting);
	col_free(link->channel);
	link->channel = NULL;
}

static void lose(struct col_link *link, const char *reason)
{
	col__link_lose(link, COLLECT_LOSS_GARBAGE, reason);
}

/* ---- our messages ---- */

static void offer_send(struct collect_comm *comm, struct col_link *link, struct col_message *send)
{
	struct col_frame frame = {
		.kind = COL_FRAME_OFFER,
		.op = send->number,
		.lane = send->slot,
		.attempt = send->tag,
		.offset = send->length,
		.digest = comm->engine->options.chunk_bytes,
	};
	struct col_buffer *buffer = NULL;
	if (send->length > 0 && send->length <= COL_FRAME_OFFER_BYTES_MAX)
		buffer = col_buffers_get(&comm->engine->buffers, send->length);
	if (buffer != NULL) {
		frame.length = (uint32_t)send->length;
		memcpy(buffer->bytes, send->memory, send->length);
	}
	(void)col_link_send(link, &frame, buffer != NULL ? buffer->bytes : NULL, buffer, NULL);
}

/* Offers what waits, as far as there are slots. */
static void offer_next(struct collect_comm *comm, struct col_link *link)
{
	struct col_channel *channel;
	col_link_cork(link);
	while ((channel = link->channel) != NULL && channel->free_count > 0 &&
	       !col__hook_is_alone(&channel->waiting)) {
		struct col_message *send = col__message_of(channel->waiting.next);
		col__hook_remove(&send->hook);
		send->slot = channel->free_slots[--channel->free_count];
		send->number = ++channel->offered;
		channel->sends[send->slot].message = send;
		channel->sends[send->slot].number = send->number;
		channel->sends[send->slot].is_open = true;
		offer_send(comm, link, send);
	}
	col_link_uncork(link);
}

void col__channel_send(struct col_link *link, struct col_message *message)
{
	col__hook_add_before(&link->channel->waiting, &message->hook);
	offer_next(message->op->comm, link);
}

void col__channel_withdraw(struct col_link *link, uint16_t slot, uint64_t number)
{
	struct col_frame frame = {.kind = COL_FRAME_WITHDRAW, .op = number, .lane = slot};
	if (link->channel != NULL)
		(void)col_link_send(link, &frame, NULL, NULL, NULL);
}

/* Corked: nothing but a refused frame, which ends the message, happens before the end. */
static void pieces_send(struct col_message *send)
{
	struct col_link *link = send->link;
	uint32_t most = QUEUED_BYTES / send->piece_bytes;
	most = most < 2 ? 2 : most;
	most = most > QUEUED_MAX ? QUEUED_MAX : most;
	int status = COLLECT_OK;
	col_link_cork(link);
	while (status == COLLECT_OK && send->queued < most && send->next_offset < send->length) {
		uint64_t offset = send->next_offset;
		struct col_frame frame = {
			.kind = COL_FRAME_MESSAGE,
			.op = send->number,
			.lane = send->slot,
			.offset = offset,
			.length = (uint32_t)col_min_u64(send->length - offset, send->piece_bytes),
		};
		send->next_offset += frame.length;
		send->queued++;
		status = col_link_send(link, &frame, send->memory + offset, NULL, send);
	}
	col_link_uncork(link);
}

void col__channel_sent(const struct col_frame *frame, void *token)
{
	struct col_message *send = token;
	if (frame->kind != COL_FRAME_MESSAGE || send == NULL)
		return;
	send->queued--;
	pieces_send(send);
}

static void fetch_arrived(struct collect_comm *comm, struct col_link *link,
                          const struct col_frame *frame, struct col_message *send)
{
	/* The rest of a piece must fit a buffer of ours: see col_link_forget. */
	if (frame->offset < PIECE_BYTES_MIN || frame->offset > comm->engine->options.chunk_bytes) {
		lose(link, "pieces of an impossible size");
	} else if (send != NULL && send->piece_bytes != 0) {
		lose(link, "a message that is fetched twice");
	} else if (send != NULL) {
		send->piece_bytes = (uint32_t)frame->offset;
		pieces_send(send);
	}
}

/* To an offer of ours: it is fetched, or settled. */
static void answer_arrived(struct collect_comm *comm, struct col_link *link,
                           const struct col_frame *frame)
{
	struct col_channel *channel = link->channel;
	if (channel == NULL || frame->op > channel->offered) {
		lose(link, "an answer to a message that was not offered");
		return;
	}
	bool is_late = !channel->sends[frame->lane].is_open ||
	               channel->sends[frame->lane].number != frame->op;
	if (is_late)
		return;
	struct col_message *send = channel->sends[frame->lane].message;
	if (frame->kind == COL_FRAME_FETCH) {
		fetch_arrived(comm, link, frame, send);
		return;
	}
	channel->sends[frame->lane].is_open = false;
	channel->free_slots[channel->free_count++] = frame->lane;
	int status = COLLECT_OK;
	if (frame->kind == COL_FRAME_DECLINE)
		status = frame->step == COL_DECLINE_TRUNCATED ? COLLECT_E_TRUNCATED : COLLECT_E_PEER;
	if (send != NULL)
		col__message_end(comm, send, status);
	offer_next(comm, link);
}

/* ---- their messages ---- */

void col__channel_settle(struct collect_comm *comm, struct col_offer *offer, int status)
{
	struct col_link *link = offer->link;
	struct col_frame frame = {.kind = COL_FRAME_TAKEN, .op = offer->number, .lane = offer->slot};
	if (status < 0)
		frame.kind = COL_FRAME_DECLINE;
	if (status == COLLECT_E_TRUNCATED)
		frame.step = COL_DECLINE_TRUNCATED;
	link->channel->offers[offer->slot] = NULL;
	col__offer_free(comm, offer);
	(void)col_link_send(link, &frame, NULL, NULL, NULL);
}

void col__channel_fetch(struct collect_comm *comm, struct col_offer *offer,
                        struct col_message *receive)
{
	uint32_t piece_bytes =
		(uint32_t)col_min_u64(comm->engine->options.chunk_bytes, offer->piece_bytes);
	struct col_frame frame = {
		.kind = COL_FRAME_FETCH,
		.op = offer->number,
		.lane = offer->slot,
		.offset = piece_bytes,
	};
	offer->piece_bytes = piece_bytes;
	offer->missing = col_div_ceil(offer->bytes, piece_bytes);
	offer->has = col_alloc_zeroed(col_div_ceil(offer->missing, 8), 1);
	if (offer->has == NULL) {
		col__message_conclude(comm, receive, offer, COLLECT_E_MEMORY);
		return;
	}
	offer->state = COL_OFFER_FETCHING;
	offer->message = receive;
	receive->offer = offer;
	receive->link = offer->link;
	(void)col_link_send(offer->link, &frame, NULL, NULL, NULL);
}

/* Gives all offers their turn whose turn it is. */
static void turns_take(struct collect_comm *comm, struct col_link *link)
{
	while (link->channel != NULL && !col__hook_is_alone(&link->channel->held)) {
		struct col_offer *offer = col__offer_of(link->channel->held.next);
		if (offer->number != link->channel->turn + 1)
			return;
		link->channel->turn++;
		col__hook_remove(&offer->hook);
		if (offer->is_withdrawn)
			col__channel_settle(comm, offer, COLLECT_E_PEER);
		else
			col__message_offered(comm, offer);
	}
}

/* A record for a number that has not come yet, in a slot that is free. NULL: the link is lost. */
static struct col_offer *offer_make(struct collect_comm *comm, struct col_link *link,
                                    const struct col_frame *frame)
{
	struct col_channel *channel = col__channel_get(link);
	if (channel != NULL && (frame->op <= channel->turn ||
	                        frame->op - channel->turn > COL_OFFERS_MAX ||
	                        channel->offers[frame->lane] != NULL)) {
		lose(link, "a message that is not its turn, or has another's slot");
		return NULL;
	}
	struct col_offer *offer = channel != NULL ? col_pool_get(&comm->messages.offers) : NULL;
	if (offer == NULL) {
		col__link_lose(link, COLLECT_LOSS_RESET, "out of memory");
		return NULL;
	}
	*offer = (struct col_offer){.link = link, .slot = frame->lane, .number = frame->op};
	col__hook_init(&offer->hook);
	channel->offers[frame->lane] = offer;
	return offer;
}

/* The record of this very message; NULL: there is none. */
static struct col_offer *offer_of(const struct col_link *link, const struct col_frame *frame)
{
	struct col_offer *offer = link->channel != NULL ? link->channel->offers[frame->lane] : NULL;
	return offer != NULL && offer->number == frame->op ? offer : NULL;
}

static void offer_arrived(struct collect_comm *comm, struct col_link *link,
                          const struct col_frame *frame, struct col_buffer *buffer)
{
	struct col_offer *offer = offer_of(link, frame);
	if (offer == NULL || offer->state != COL_OFFER_ABSENT)
		offer = offer_make(comm, link, frame);
	if (offer == NULL) {
		col_buffer_put(buffer);
		return;
	}
	offer->state = COL_OFFER_HELD;
	offer->tag = frame->attempt;
	offer->bytes = frame->offset;
	offer->piece_bytes = frame->digest;
	offer->buffer = buffer;
	struct col_hook *before = &link->channel->held;
	while (before->previous != &link->channel->held &&
	       col__offer_of(before->previous)->number > offer->number)
		before = before->previous;
	col__hook_add_before(before, &offer->hook);
	turns_take(comm, link);
}

static void withdraw_arrived(struct collect_comm *comm, struct col_link *link,
                             const struct col_frame *frame)
{
	struct col_offer *offer = offer_of(link, frame);
	if (offer == NULL && link->channel != NULL && frame->op <= link->channel->turn)
		return;
	if (offer == NULL)
		offer = offer_make(comm, link, frame);
	if (offer == NULL)
		return;
	offer->is_withdrawn = true;
	if (offer->state == COL_OFFER_WAITING)
		col__channel_settle(comm, offer, COLLECT_E_PEER);
	else if (offer->state == COL_OFFER_FETCHING)
		col__message_conclude(comm, offer->message, offer, COLLECT_E_PEER);
}

static void piece_arrived(struct collect_comm *comm, struct col_link *link,
                          const struct col_frame *frame)
{
	struct col_offer *offer = offer_of(link, frame);
	uint64_t index = frame->offset / offer->piece_bytes;
	uint8_t bit = (uint8_t)(1u << index % 8);
	if ((offer->has[index / 8] & bit) != 0) {
		lose(link, "a piece of a message that came twice");
		return;
	}
	offer->has[index / 8] |= bit;
	if (--offer->missing == 0)
		col__message_conclude(comm, offer->message, offer, COLLECT_OK);
}

/* ---- what the link calls ---- */

static struct col_sink refuse(const char *reason)
{
	return (struct col_sink){.place = COL_PLACE_REFUSE, .reason = reason};
}

static struct col_sink place_offer(struct collect_comm *comm, struct col_link *link,
                                   const struct col_frame *frame)
{
	struct col_sink sink = {.place = COL_PLACE_MESSAGE};
	if (frame->length != 0 && frame->length != frame->offset)
		return refuse("a message that is offered with a part of its payload");
	if (frame->digest < PIECE_BYTES_MIN)
		return refuse("a message in pieces of an impossible size");
	/* What is not kept is fetched later. */
	if (frame->length == 0 || link->rank == COL_RANK_NONE)
		return sink;
	struct col_channel *channel = col__channel_get(link);
	struct col_buffer *buffer = NULL;
	if (channel != NULL && channel->kept_bytes < COL_KEPT_BYTES_MAX)
		buffer = col_buffers_get(&comm->engine->buffers, frame->length);
	if (buffer == NULL)
		return sink;
	channel->kept_bytes += col_buffer_bytes(buffer);
	sink.buffer = buffer;
	sink.target = buffer->bytes;
	return sink;
}

static struct col_sink place_piece(struct col_link *link, const struct col_frame *frame)
{
	const struct col_offer *offer = offer_of(link, frame);
	/* The receive was given up while it was under way. */
	if (offer == NULL && link->channel != NULL && frame->op <= link->channel->turn)
		return (struct col_sink){.place = COL_PLACE_DISCARD};
	if (offer == NULL || offer->state != COL_OFFER_FETCHING)
		return refuse("a piece of a message that was not asked for");
	uint64_t rest = frame->offset < offer->bytes ? offer->bytes - frame->offset : 0;
	if (frame->offset % offer->piece_bytes != 0 ||
	    frame->length != col_min_u64(rest, offer->piece_bytes))
		return refuse("a piece that is none of its message");
	return (struct col_sink){.place = COL_PLACE_MESSAGE,
	                         .target = offer->message->memory + frame->offset,
	                         .token = offer->message};
}

struct col_sink col__channel_place(struct collect_comm *comm, struct col_link *link,
                                   const struct col_frame *frame)
{
	if (frame->op == 0 || frame->lane >= COL_OFFERS_MAX)
		return refuse("a message with an impossible number or slot");
	if (frame->kind == COL_FRAME_OFFER)
		return place_offer(comm, link, frame);
	if (frame->kind == COL_FRAME_MESSAGE)
		return place_piece(link, frame);
	return (struct col_sink){.place = COL_PLACE_MESSAGE};
}

void col__channel_arrived(struct collect_comm *comm, struct col_link *link,
                          const struct col_frame *frame, const struct col_sink *sink)
{
	if (frame->kind == COL_FRAME_OFFER)
		offer_arrived(comm, link, frame, sink->buffer);
	else if (frame->kind == COL_FRAME_WITHDRAW)
		withdraw_arrived(comm, link, frame);
	else if (frame->kind != COL_FRAME_MESSAGE)
		answer_arrived(comm, link, frame);
	else if (sink->place == COL_PLACE_MESSAGE)
		piece_arrived(comm, link, frame);
}
