#include "comm/message.h"

#include <stddef.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/size.h"
#include "comm/comm.h"

/* ---- life ---- */

void col__messages_init(struct collect_comm *comm)
{
	struct col_messages *messages = &comm->messages;
	col__hook_init(&messages->all);
	for (uint32_t i = 0; i < COL_MESSAGE_BUCKETS; i++) {
		col__hook_init(&messages->posted[i]);
		col__hook_init(&messages->offered[i]);
	}
	messages->next_deadline_ns = UINT64_MAX;
	col_pool_init(&messages->offers, sizeof(struct col_offer), COL_OFFERS_MAX);
}

void col__messages_fini(struct collect_comm *comm)
{
	COL_ASSERT(comm->messages.count == 0);
	col_pool_fini(&comm->messages.offers);
}

static struct col_message *message_in_all(struct col_hook *hook)
{
	return (struct col_message *)(void *)((char *)hook - offsetof(struct col_message, all));
}

static uint32_t bucket_of(uint64_t tag)
{
	return (uint32_t)((tag * 0x9e3779b97f4a7c15u) >> 32) % COL_MESSAGE_BUCKETS;
}

void col__message_end(struct collect_comm *comm, struct col_message *message, int status)
{
	struct collect_op *op = message->op;
	struct col_link *link = message->link;
	col__hook_remove(&message->hook);
	col__hook_remove(&message->all);
	comm->messages.count--;
	message->link = NULL;
	if (link != NULL && message->is_send && message->number != 0)
		link->channel->sends[message->slot].message = NULL;
	if (link != NULL && (!message->is_send || message->queued > 0))
		col_link_forget(link, message);
	col__op_complete(op, status);
	col__op_release(op);
}

void col__offer_free(struct collect_comm *comm, struct col_offer *offer)
{
	col__hook_remove(&offer->hook);
	if (offer->buffer != NULL)
		offer->link->channel->kept_bytes -= col_buffer_bytes(offer->buffer);
	col_buffer_put(offer->buffer);
	col_free(offer->has);
	col_pool_put(&comm->messages.offers, offer);
}

/* Ends a message early, and tells the other end. */
static void give_up(struct collect_comm *comm, struct col_message *message, int status)
{
	struct col_link *link = message->link;
	struct col_offer *offer = message->offer;
	uint16_t slot = message->slot;
	uint64_t number = message->number;
	message->offer = NULL;
	col__message_end(comm, message, status);
	if (number != 0)
		col__channel_withdraw(link, slot, number);
	else if (offer != NULL && offer->link == NULL)
		col__offer_free(comm, offer);
	else if (offer != NULL)
		col__channel_settle(comm, offer, status);
}

void col__messages_give_up(struct collect_comm *comm, int status)
{
	struct col_hook *all = &comm->messages.all;
	while (!col__hook_is_alone(all))
		give_up(comm, message_in_all(all->next), status);
}

void col__messages_tick(struct collect_comm *comm)
{
	struct col_messages *messages = &comm->messages;
	uint64_t now_ns = comm->engine->now_ns;
	if (now_ns < messages->next_deadline_ns)
		return;
	messages->next_deadline_ns = UINT64_MAX;
	struct col_hook *next;
	for (struct col_hook *it = messages->all.next; it != &messages->all; it = next) {
		struct col_message *message = message_in_all(it);
		uint64_t deadline_ns = message->op->deadline_ns;
		next = it->next;
		if (deadline_ns == 0)
			continue;
		if (now_ns < deadline_ns) {
			messages->next_deadline_ns = col_min_u64(messages->next_deadline_ns, deadline_ns);
			continue;
		}
		uint32_t closings = messages->closings;
		give_up(comm, message, COLLECT_E_TIMEOUT);
		if (closings != messages->closings)
			next = messages->all.next;
	}
}

void col__messages_closed(struct collect_comm *comm, struct col_link *link)
{
	struct col_messages *messages = &comm->messages;
	struct col_hook *next;
	messages->closings++;
	col__channel_free(comm, link);
	for (struct col_hook *it = messages->all.next; it != &messages->all; it = next) {
		struct col_message *message = message_in_all(it);
		next = it->next;
		bool is_from = !message->is_send && message->peer == link->options.peer;
		if (message->link != link && !is_from)
			continue;
		message->link = NULL;
		message->offer = NULL;
		col__message_end(comm, message, COLLECT_E_PEER);
	}
}

/* ---- matching ---- */

static uint64_t source_of(const struct collect_comm *comm, const struct col_offer *offer)
{
	return offer->link != NULL ? offer->link->options.peer : comm->self;
}

/* Who is no member yet may become one: its offers wait. */
static bool is_from_member(const struct col_offer *offer)
{
	return offer->link == NULL || offer->link->rank != COL_RANK_NONE;
}

static struct col_message *receive_find(struct collect_comm *comm, const struct col_offer *offer)
{
	struct col_hook *head = &comm->messages.posted[bucket_of(offer->tag)];
	uint64_t source = source_of(comm, offer);
	if (!is_from_member(offer))
		return NULL;
	for (struct col_hook *it = head->next; it != head; it = it->next) {
		struct col_message *receive = col__message_of(it);
		if (receive->tag == offer->tag && (receive->peer == 0 || receive->peer == source))
			return receive;
	}
	return NULL;
}

static struct col_offer *offer_find(struct collect_comm *comm, const struct col_message *receive)
{
	struct col_hook *head = &comm->messages.offered[bucket_of(receive->tag)];
	for (struct col_hook *it = head->next; it != head; it = it->next) {
		struct col_offer *offer = col__offer_of(it);
		if (offer->tag == receive->tag && is_from_member(offer) &&
		    (receive->peer == 0 || receive->peer == source_of(comm, offer)))
			return offer;
	}
	return NULL;
}

void col__message_conclude(struct collect_comm *comm, struct col_message *receive,
                           struct col_offer *offer, int status)
{
	receive->offer = NULL;
	col__message_end(comm, receive, status);
	if (offer->link != NULL) {
		col__channel_settle(comm, offer, status);
		return;
	}
	struct col_message *send = offer->message;
	send->offer = NULL;
	col__offer_free(comm, offer);
	col__message_end(comm, send, status);
}

static void match(struct collect_comm *comm, struct col_message *receive, struct col_offer *offer)
{
	const uint8_t *payload = NULL;
	if (offer->link == NULL)
		payload = offer->message->memory;
	else if (offer->buffer != NULL)
		payload = offer->buffer->bytes;
	col__hook_remove(&receive->hook);
	col__hook_remove(&offer->hook);
	receive->peer = source_of(comm, offer);
	receive->length = offer->bytes;
	if (offer->bytes > receive->bytes) {
		col__message_conclude(comm, receive, offer, COLLECT_E_TRUNCATED);
	} else if (payload != NULL || offer->bytes == 0) {
		/* A send to itself may be from where it is received. */
		if (offer->bytes > 0)
			memmove(receive->memory, payload, offer->bytes);
		col__message_conclude(comm, receive, offer, COLLECT_OK);
	} else {
		col__channel_fetch(comm, offer, receive);
	}
}

void col__message_offered(struct collect_comm *comm, struct col_offer *offer)
{
	struct col_message *receive = receive_find(comm, offer);
	offer->state = COL_OFFER_WAITING;
	if (receive != NULL)
		match(comm, receive, offer);
	else
		col__hook_add_before(&comm->messages.offered[bucket_of(offer->tag)], &offer->hook);
}

static void receives_end_of_strangers(struct collect_comm *comm)
{
	struct col_messages *messages = &comm->messages;
	struct col_hook *next;
	for (struct col_hook *it = messages->all.next; it != &messages->all; it = next) {
		struct col_message *message = message_in_all(it);
		uint64_t peer = message->peer;
		next = it->next;
		if (!message->is_send && peer != 0 && peer != comm->self &&
		    !col__mesh_is_member(comm, peer))
			col__message_end(comm, message, COLLECT_E_PEER);
	}
}

void col__messages_view_changed(struct collect_comm *comm)
{
	receives_end_of_strangers(comm);
	for (uint32_t i = 0; i < COL_MESSAGE_BUCKETS; i++) {
		struct col_hook *head = &comm->messages.offered[i];
		struct col_hook *it = head->next;
		while (it != head) {
			struct col_offer *offer = col__offer_of(it);
			struct col_message *receive = receive_find(comm, offer);
			it = it->next;
			if (receive == NULL)
				continue;
			match(comm, receive, offer);
			it = head->next; /* that may have lost a link, and changed the list */
		}
	}
}

/* ---- the callers' side ---- */

/* Whether messages can go to and come from a peer. *link_out: NULL for itself. */
static int peer_reach(struct collect_comm *comm, uint64_t peer, struct col_link **link_out)
{
	*link_out = NULL;
	if (peer == comm->self)
		return COLLECT_OK;
	if (!col__mesh_is_member(comm, peer))
		return COLLECT_E_PEER;
	*link_out = col__mesh_find(comm, peer);
	return *link_out != NULL && col_link_can_send(*link_out) ? COLLECT_OK : COLLECT_E_PEER;
}

static int message_make(struct collect_comm *comm, const struct col_message *fields,
                        uint64_t deadline_ns, struct col_message **message_out)
{
	struct col_messages *messages = &comm->messages;
	if (messages->count >= COL_MESSAGES_MAX)
		return COLLECT_E_FULL;
	struct collect_op *op =
		col_alloc_zeroed(1, sizeof(*op) + sizeof(struct col_message));
	if (op == NULL)
		return COLLECT_E_MEMORY;
	struct col_message *message = (struct col_message *)(void *)op->sums;
	op->comm = comm;
	atomic_init(&op->status, COLLECT_PENDING);
	atomic_init(&op->holds, 2);
	op->message = message;
	op->deadline_ns = deadline_ns;
	op->submitted_ns = comm->engine->now_ns;
	*message = *fields;
	message->op = op;
	col__hook_init(&message->hook);
	col__hook_add_before(&messages->all, &message->all);
	messages->count++;
	if (deadline_ns != 0)
		messages->next_deadline_ns = col_min_u64(messages->next_deadline_ns, deadline_ns);
	*message_out = message;
	return COLLECT_OK;
}

static void self_send(struct collect_comm *comm, struct col_message *send,
                      struct col_offer *offer)
{
	*offer = (struct col_offer){.tag = send->tag, .bytes = send->length, .message = send};
	col__hook_init(&offer->hook);
	send->offer = offer;
	col__message_offered(comm, offer);
}

/* With the baton. */
static int send_begin(struct collect_comm *comm, struct col_message *fields, uint64_t deadline_ns,
                      struct collect_op **op_out)
{
	struct col_message *send;
	struct col_offer *offer = NULL;
	int status = peer_reach(comm, fields->peer, &fields->link);
	if (status < 0)
		return status;
	if (fields->link != NULL && col__channel_get(fields->link) == NULL)
		return COLLECT_E_MEMORY;
	if (fields->link == NULL && (offer = col_pool_get(&comm->messages.offers)) == NULL)
		return COLLECT_E_MEMORY;
	status = message_make(comm, fields, deadline_ns, &send);
	if (status < 0) {
		if (offer != NULL)
			col_pool_put(&comm->messages.offers, offer);
		return status;
	}
	*op_out = send->op;
	if (offer != NULL)
		self_send(comm, send, offer);
	else
		col__channel_send(fields->link, send);
	return COLLECT_OK;
}

static int receive_begin(struct collect_comm *comm, const struct col_message *fields,
                         uint64_t deadline_ns, struct collect_op **op_out)
{
	struct col_message *receive;
	struct col_link *link;
	int status = fields->peer != 0 ? peer_reach(comm, fields->peer, &link) : COLLECT_OK;
	if (status == COLLECT_OK)
		status = message_make(comm, fields, deadline_ns, &receive);
	if (status < 0)
		return status;
	*op_out = receive->op;
	struct col_offer *offer = offer_find(comm, receive);
	if (offer != NULL)
		match(comm, receive, offer);
	else
		col__hook_add_before(&comm->messages.posted[bucket_of(receive->tag)], &receive->hook);
	return COLLECT_OK;
}

int collect_comm_send(collect_comm *comm, uint64_t peer, uint64_t tag, const void *source,
                      uint64_t bytes, uint64_t deadline_ns, collect_op **op_out)
{
	if (comm->scope != 0 || peer == 0 || (bytes > 0 && source == NULL) || bytes > PTRDIFF_MAX)
		return COLLECT_E_INVALID;
	struct col_message fields = {.is_send = true, .peer = peer, .tag = tag, .bytes = bytes,
	                             .memory = (uint8_t *)(uintptr_t)source, .length = bytes};
	col_engine_enter(comm->engine);
	int status = send_begin(comm, &fields, deadline_ns, op_out);
	col_engine_leave(comm->engine);
	return status;
}

int collect_comm_receive(collect_comm *comm, uint64_t peer, uint64_t tag, void *target,
                         uint64_t bytes, uint64_t deadline_ns, collect_op **op_out)
{
	if (comm->scope != 0 || (bytes > 0 && target == NULL) || bytes > PTRDIFF_MAX)
		return COLLECT_E_INVALID;
	struct col_message fields = {.peer = peer, .tag = tag, .memory = target, .bytes = bytes};
	col_engine_enter(comm->engine);
	int status = receive_begin(comm, &fields, deadline_ns, op_out);
	col_engine_leave(comm->engine);
	return status;
}

int collect_op_cancel(collect_op *op)
{
	if (op->message == NULL)
		return COLLECT_E_INVALID;
	/* One that is over may have outlived its comm. */
	if (atomic_load(&op->status) != COLLECT_PENDING)
		return COLLECT_OK;
	struct collect_comm *comm = op->comm;
	col_engine_enter(comm->engine);
	if (atomic_load(&op->status) == COLLECT_PENDING)
		give_up(comm, op->message, COLLECT_E_ABORTED);
	col_engine_leave(comm->engine);
	return COLLECT_OK;
}

int collect_comm_cancel_messages(collect_comm *comm)
{
	col_engine_enter(comm->engine);
	col__messages_give_up(comm, COLLECT_E_ABORTED);
	col_engine_leave(comm->engine);
	return COLLECT_OK;
}
