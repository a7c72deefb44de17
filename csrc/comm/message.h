/*
 * Messages from one member to another (what callers may expect is told in collect.h, the frames in
 * docs/protocol.md section 10).
 *
 * A send *offers* its message on the link: a frame with a number, and with the payload if that is
 * small. The receiver takes a link's offers in the order of their numbers, and matches each with
 * the oldest receive that fits, or keeps it for one to come. Once matched, a payload that is not
 * here is *fetched*: the sender sends it in pieces, straight into the receiver's memory. At the end
 * the receiver *settles* the offer, with one frame: taken, or declined.
 *
 *   send     waiting for a slot -> offered -> (fetched ->) over
 *   offer    (absent ->) held until its turn -> waiting -> (fetching ->) settled
 *   receive  posted -> (fetching ->) over
 *
 * What bounds memory: an offer has a *slot* of its link, which is free again when the offer is
 * settled; so a peer holds COL_OFFERS_MAX records of ours and COL_KEPT_BYTES_MAX of payload at most
 * (what is beyond is dropped and fetched later), and nothing arrives that was not asked for. A send
 * that ends here early keeps its slot until the other end has answered.
 *
 * One rule keeps this simple: whatever sends a frame may lose the link, and losing a link ends its
 * messages and frees its channel. So frames are sent last, when all else is in order, and who goes
 * on afterwards looks everything up again.
 *
 * Owner: whoever holds the engine's baton.
 */
#ifndef COL_COMM_MESSAGE_H
#define COL_COMM_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "transport/link.h"

/* Messages that one comm may have pending. */
#define COL_MESSAGES_MAX 4096u
/* Offers of one direction of a link that are not settled. */
#define COL_OFFERS_MAX 1024u
/* Payload of a link's offers that waits for its receive. */
#define COL_KEPT_BYTES_MAX (256u << 10)
/* Tags are hashed. */
#define COL_MESSAGE_BUCKETS 64u

struct collect_comm;
struct collect_op;

/* Why an offer was declined: the step of the frame. */
enum col_decline {
	COL_DECLINE_GIVEN_UP = 0,
	COL_DECLINE_TRUNCATED = 1
};

/* In a circular list with a head; alone it is linked to itself. */
struct col_hook {
	struct col_hook *next;
	struct col_hook *previous;
};

/* One end of a message; behind its op, in the same block. */
struct col_message {
	struct col_hook hook; /* of the receives that are posted, or of the sends without a slot */
	struct col_hook all;
	struct collect_op *op;
	bool is_send;
	uint64_t peer;   /* 0: any, until it is matched */
	uint64_t tag;
	uint8_t *memory; /* borrowed */
	uint64_t bytes;  /* of a receive: room */
	uint64_t length; /* of the message; of a receive 0 until it is matched */
	struct col_link *link; /* of a send; of a receive that fetches; NULL: none, or to itself */
	/* Of a receive: what it fetches. Of a send to itself: what it offers. */
	struct col_offer *offer;

	/* Of a send over a link. */
	uint64_t number; /* 0: not offered yet */
	uint16_t slot;
	uint32_t piece_bytes; /* 0: not fetched yet */
	uint32_t queued;      /* pieces in the link's queue */
	uint64_t next_offset;
};

enum col_offer_state {
	COL_OFFER_ABSENT, /* only its withdrawal has come: streams overtake each other */
	COL_OFFER_HELD,   /* an earlier one has not come yet */
	COL_OFFER_WAITING,
	COL_OFFER_FETCHING
};

/* A message that a peer, or this one itself, wants to send us. */
struct col_offer {
	struct col_hook hook; /* of its bucket, or of those that are held */
	enum col_offer_state state;
	bool is_withdrawn;
	uint16_t slot;
	struct col_link *link; /* NULL: from itself */
	uint64_t number;
	uint64_t tag;
	uint64_t bytes;
	uint32_t piece_bytes;        /* in which it is fetched; what its sender can, before */
	struct col_buffer *buffer;   /* its payload, if it came along */
	struct col_message *message; /* that fetches it; of one from itself: the send */
	uint8_t *has;                /* a bit for each piece; owned */
	uint64_t missing;            /* pieces */
};

/* Messages over one connection. */
struct col_channel {
	/* Ours. */
	struct {
		struct col_message *message; /* NULL: over here, unsettled there */
		uint64_t number;
		bool is_open; /* unsettled */
	} sends[COL_OFFERS_MAX];
	uint16_t free_slots[COL_OFFERS_MAX];
	uint32_t free_count;
	uint64_t offered; /* number of the last offer */
	struct col_hook waiting;

	/* Theirs. */
	struct col_offer *offers[COL_OFFERS_MAX]; /* by slot */
	struct col_hook held; /* by number */
	uint64_t turn;        /* all up to this number have had their turn */
	size_t kept_bytes;    /* in buffers, those that are being filled included */
};

/* Of a comm. */
struct col_messages {
	struct col_hook all;
	uint32_t count;
	uint32_t closings; /* changes when a link's messages have ended */
	uint64_t next_deadline_ns;
	struct col_hook posted[COL_MESSAGE_BUCKETS];
	struct col_hook offered[COL_MESSAGE_BUCKETS];
	struct col_pool offers;
};

/* message.c: matching, and the callers' side. */
void col__messages_init(struct collect_comm *comm);
/* After its links are gone. */
void col__messages_fini(struct collect_comm *comm);
/* Ends all that are pending; the other ends are told. */
void col__messages_give_up(struct collect_comm *comm, int status);
/* Deadlines. */
void col__messages_tick(struct collect_comm *comm);
/* A view was installed, its links are in place. */
void col__messages_view_changed(struct collect_comm *comm);
/* A connection is over: so are its messages, and receives from that peer. */
void col__messages_closed(struct collect_comm *comm, struct col_link *link);
/* An offer's turn has come. */
void col__message_offered(struct collect_comm *comm, struct col_offer *offer);
/* A receive, and the offer it was matched with, are over. */
void col__message_conclude(struct collect_comm *comm, struct col_message *receive,
                           struct col_offer *offer, int status);
/* Completes it; its memory is not touched any more. */
void col__message_end(struct collect_comm *comm, struct col_message *message, int status);
void col__offer_free(struct collect_comm *comm, struct col_offer *offer);

/* channel.c: the frames. */
/* Finds or makes. NULL: out of memory. */
struct col_channel *col__channel_get(struct col_link *link);
void col__channel_free(struct collect_comm *comm, struct col_link *link);
void col__channel_send(struct col_link *link, struct col_message *message);
/* Tells the other end that the offer in this slot is given up. */
void col__channel_withdraw(struct col_link *link, uint16_t slot, uint64_t number);
/* Asks for an offer's payload, for a receive with room for it. */
void col__channel_fetch(struct collect_comm *comm, struct col_offer *offer,
                        struct col_message *receive);
/* Frees the offer and tells the other end. */
void col__channel_settle(struct collect_comm *comm, struct col_offer *offer, int status);
/* As the link's events. */
struct col_sink col__channel_place(struct collect_comm *comm, struct col_link *link,
                                   const struct col_frame *frame);
void col__channel_arrived(struct collect_comm *comm, struct col_link *link,
                          const struct col_frame *frame, const struct col_sink *sink);
void col__channel_sent(const struct col_frame *frame, void *token);

static inline void col__hook_init(struct col_hook *hook)
{
	hook->next = hook;
	hook->previous = hook;
}

static inline bool col__hook_is_alone(const struct col_hook *hook)
{
	return hook->next == hook;
}

static inline void col__hook_remove(struct col_hook *hook)
{
	hook->next->previous = hook->previous;
	hook->previous->next = hook->next;
	col__hook_init(hook);
}

/* Of a head: at the list's end. */
static inline void col__hook_add_before(struct col_hook *before, struct col_hook *hook)
{
	hook->next = before;
	hook->previous = before->previous;
	before->previous->next = hook;
	before->previous = hook;
}

static inline struct col_message *col__message_of(struct col_hook *hook)
{
	return (struct col_message *)(void *)hook; /* its first member */
}

static inline struct col_offer *col__offer_of(struct col_hook *hook)
{
	return (struct col_offer *)(void *)hook; /* its first member */
}

#endif
