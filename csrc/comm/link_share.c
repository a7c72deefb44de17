/*
 * Shared memory of single links: where two members claim one host, and not all do (share.c has the
 * other case), or a call names its algorithm, or they send each other messages.
 *
 * It is opened by the first frame of an operation or a message, so links that carry none cost
 * no memory. The dialer makes the segment and names it in a frame RINGS; the acceptor attaches, or
 * says by RINGS that it could not: then the two keep to TCP until another view. Which operations
 * run and how does not depend on it.
 *
 * A claim is not believed: containers that only look alike find no segment. Nor are frames: who is
 * told of a segment opens only a file of the teller's name, made by this very user.
 */
#include <sys/random.h>

#include "comm/comm.h"

/* Of one ring: measured, half the processors' own cache. Smaller ones are slower, by up to a half
 * for long messages; but all rings of one member together are limited too. */
#define RING_BYTES (512u << 10)
#define RINGS_BYTES_MAX (4u << 20)

static bool is_on_own_host(const struct collect_comm *comm, uint32_t rank)
{
	const uint32_t *hosts = comm->recipe.hosts;
	return hosts != NULL && rank != COL_RANK_NONE && hosts[rank] == hosts[comm->self_rank];
}

void col__link_share_view_changed(struct collect_comm *comm)
{
	for (struct col_link *link = comm->links; link != NULL; link = link->next)
		link->wants_shm = comm->recipe.transport != COLLECT_TRANSPORT_TCP &&
		                  is_on_own_host(comm, link->rank);
}

/* The smaller the more there may be. */
static uint32_t ring_bytes(const struct collect_comm *comm)
{
	uint32_t locals = 0;
	for (uint32_t rank = 0; rank < comm->member_count; rank++)
		locals += is_on_own_host(comm, rank);
	uint32_t bytes = RING_BYTES;
	while (bytes > COL_RING_BYTES_MIN && 2 * locals * bytes > RINGS_BYTES_MAX)
		bytes /= 2;
	return bytes;
}

static void word_send(struct collect_comm *comm, struct col_link *link,
                      const struct col_rings_options *options, bool has_made)
{
	struct col_frame frame = {
		.kind = COL_FRAME_RINGS,
		.attempt = comm->epoch,
		.offset = options->nonce,
		.digest = options->ring_bytes,
		.step = has_made,
	};
	(void)col_link_send(link, &frame, NULL, NULL, NULL);
}

static void offer(struct collect_comm *comm, struct col_link *link)
{
	struct col_rings_options options = {.maker = comm->self, .ring_bytes = ring_bytes(comm)};
	link->shm_epoch = comm->epoch;
	if (getrandom(&options.nonce, sizeof(options.nonce), GRND_NONBLOCK) !=
	            (ssize_t)sizeof(options.nonce) ||
	    col_link_shm_make(link, &options) < 0)
		return;
	comm->has_link_shm = true;
	word_send(comm, link, &options, true);
}

void col__link_share_seen(struct collect_comm *comm, struct col_link *link,
                          const struct col_frame *frame)
{
	struct collect_comm *base = link->options.user; /* a sub-group borrows its links */
	struct collect_op *op = comm->ops_head;
	bool is_data = frame->kind == COL_FRAME_DATA || frame->kind == COL_FRAME_REPAIR;
	/* The caller looks at one that it gave up, while its frames go on. */
	if (is_data && op != NULL && op->number == frame->op && !op->is_given_up) {
		op->used_shm |= link->is_shm_turn;
		op->used_sockets |= !link->is_shm_turn;
	}
	if (!link->wants_shm || !link->is_dialer || link->shm_epoch == base->epoch ||
	    link->state != COL_LINK_UP || link->streams[COL_LINK_SHM].state != COL_STREAM_CLOSED)
		return;
	if (is_data || col_frame_is_message(frame))
		offer(base, link);
}

void col__link_share_word(struct collect_comm *comm, struct col_link *link,
                          const struct col_frame *frame)
{
	struct col_rings_options options = {
		.maker = link->options.peer, .nonce = frame->offset, .ring_bytes = frame->digest};
	if (frame->step == 0) {
		col_link_shm_refused(link);
		return;
	}
	/* One answer in a view: else a peer that does not read could have us queue any number. */
	if (link->shm_epoch == comm->epoch)
		return;
	link->shm_epoch = comm->epoch;
	if (link->wants_shm && !link->is_dialer &&
	    col_link_shm_attach(link, &options) == COLLECT_OK)
		comm->has_link_shm = true;
	else
		word_send(comm, link, &options, false);
}

bool col__link_share_progress(struct collect_comm *comm)
{
	bool has_moved = false;
	for (struct col_link *link = comm->links; link != NULL; link = link->next)
		has_moved |= link->state == COL_LINK_UP && col_link_shm_poll(link) > 0;
	return has_moved;
}

void col__link_share_arm(struct collect_comm *comm)
{
	for (struct col_link *link = comm->links; link != NULL; link = link->next)
		col_link_shm_arm(link);
}

void col__link_share_disarm(struct collect_comm *comm)
{
	for (struct col_link *link = comm->links; link != NULL; link = link->next)
		col_link_shm_disarm(link);
}
