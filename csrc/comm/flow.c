/*
 * Flow control of sub-groups. The frames of all scopes share the links. If they shared a window,
 * too, a large op that somebody has not begun yet would hold the credit of one that everybody waits
 * for, and two ops that run at once would hold what the other needs. So each scope has a window of
 * its own in each direction of each pair of members:
 *
 *  - A sender may have sent COL_FLOW_EAGER bytes in an epoch before it hears anything of the
 *    receiver: for small ops, and for scopes that are not there yet.
 *  - A receiver that has the sub-group grants a window as large as a link's, when the sender asks
 *    because it has to wait, or when some of the first bytes have been consumed; and then more as
 *    it consumes.
 *  - What is beyond that waits at its sender, in the sub-group's own queue.
 *
 * All of it begins anew with each epoch, so that what was lost with the last one is forgotten.
 *
 * What bounds a receiver's memory: the window for each sub-group that it made itself; and what
 * waits outside of any window, because its scope or epoch is not here yet, is bounded for each link
 * (COL_EARLY_BYTES_MAX in waiting.c).
 */
#include "base/alloc.h"
#include "base/assert.h"
#include "comm/comm.h"

#define COL_FLOW_EAGER 16384u

static uint32_t charge_of(const struct col_frame *frame)
{
	return frame->length + COL_FRAME_HEADER_BYTES;
}

static uint64_t window_of(const struct collect_comm *child)
{
	return (uint64_t)child->engine->options.window_bytes + COL_FLOW_EAGER;
}

void col__flows_reset(struct collect_comm *child)
{
	for (uint32_t rank = 0; rank < child->member_count; rank++) {
		struct col_flow *flow = &child->child->flows[rank];
		COL_ASSERT(flow->head == NULL);
		*flow = (struct col_flow){.limit = COL_FLOW_EAGER, .told = COL_FLOW_EAGER};
	}
}

static void word_send(struct collect_comm *child, uint32_t rank, uint64_t limit, bool asks)
{
	struct col_frame frame = {
		.kind = COL_FRAME_GRANT,
		.group = child->scope,
		.attempt = child->epoch,
		.offset = limit,
		.step = asks,
	};
	(void)col_link_send(child->by_rank[rank], &frame, NULL, NULL, NULL);
}

/* ---- sending ---- */

static int frame_keep(struct collect_comm *child, uint32_t rank,
                      const struct col_flow_frame *fields)
{
	struct col_flow *flow = &child->child->flows[rank];
	struct col_flow_frame *kept = col_alloc(sizeof(*kept));
	if (kept == NULL) {
		/* Nobody would ever send this frame again. */
		col_buffer_put(fields->buffer);
		col__link_lose(child->by_rank[rank], COLLECT_LOSS_RESET, "out of memory");
		return COLLECT_E_MEMORY;
	}
	*kept = *fields;
	if (flow->tail != NULL)
		flow->tail->next = kept;
	else
		flow->head = kept;
	flow->tail = kept;
	if (!flow->has_asked) {
		flow->has_asked = true;
		word_send(child, rank, 0, true);
	}
	return COLLECT_OK;
}

int col__flow_send(struct collect_comm *child, uint32_t rank, const struct col_frame *frame,
                   const uint8_t *payload, struct col_buffer *buffer, void *token)
{
	struct col_flow *flow = &child->child->flows[rank];
	struct col_link *link = child->by_rank[rank];
	uint32_t charge = charge_of(frame);
	if (flow->head == NULL && flow->sent + charge <= flow->limit) {
		flow->sent += charge;
		return col_link_send(link, frame, payload, buffer, token);
	}
	if (!col_link_can_send(link)) {
		col_buffer_put(buffer);
		return COLLECT_E_CLOSED;
	}
	return frame_keep(child, rank, &(struct col_flow_frame){
		.frame = *frame, .payload = payload, .buffer = buffer, .token = token});
}

static struct col_flow_frame *frame_pop(struct col_flow *flow)
{
	struct col_flow_frame *kept = flow->head;
	flow->head = kept->next;
	if (flow->head == NULL)
		flow->tail = NULL;
	return kept;
}

/* Corked: an op may only be over, and its frames purged, when this is. */
static void drain(struct collect_comm *child, uint32_t rank)
{
	struct col_flow *flow = &child->child->flows[rank];
	struct col_link *link = child->by_rank[rank];
	col_link_cork(link);
	while (flow->head != NULL && flow->sent + charge_of(&flow->head->frame) <= flow->limit) {
		struct col_flow_frame *kept = frame_pop(flow);
		struct col_flow_frame fields = *kept;
		flow->sent += charge_of(&fields.frame);
		col_free(kept);
		(void)col_link_send(link, &fields.frame, fields.payload, fields.buffer, fields.token);
	}
	col_link_uncork(link);
}

void col__flows_purge(struct collect_comm *child)
{
	for (uint32_t rank = 0; rank < child->member_count; rank++) {
		struct col_flow *flow = &child->child->flows[rank];
		while (flow->head != NULL) {
			struct col_flow_frame *kept = frame_pop(flow);
			col_buffer_put(kept->buffer);
			col_free(kept);
		}
		if (child->by_rank[rank] != NULL)
			col_link_purge(child->by_rank[rank], child->scope);
	}
}

/* ---- receiving ---- */

/* Tells the sender how far it may go, when that is worth a frame. */
static void tell(struct collect_comm *child, uint32_t rank)
{
	struct col_flow *flow = &child->child->flows[rank];
	uint64_t window = window_of(child);
	uint64_t limit = flow->consumed + window;
	bool is_wanted = flow->is_asked || flow->consumed >= COL_FLOW_EAGER / 4;
	if (!is_wanted || limit - flow->told < window / 4)
		return;
	flow->told = limit;
	word_send(child, rank, limit, false);
}

bool col__flow_take(struct collect_comm *child, uint32_t rank, const struct col_frame *frame)
{
	struct col_flow *flow = &child->child->flows[rank];
	flow->taken += charge_of(frame);
	return flow->taken <= flow->told;
}

void col__flow_consume(struct collect_comm *child, uint32_t rank, uint32_t bytes)
{
	struct col_flow *flow = &child->child->flows[rank];
	/* What came in an earlier epoch is none of this one's. */
	uint64_t unconsumed = flow->taken - flow->consumed;
	uint64_t charge = (uint64_t)bytes + COL_FRAME_HEADER_BYTES;
	flow->consumed += charge < unconsumed ? charge : unconsumed;
	if (!child->is_frozen)
		tell(child, rank);
}

void col__flow_word(struct collect_comm *child, uint32_t rank, const struct col_frame *frame)
{
	struct col_flow *flow = &child->child->flows[rank];
	if (frame->step != 0) {
		flow->is_asked = true;
		tell(child, rank);
	} else if (frame->offset > flow->limit) {
		flow->limit = frame->offset;
		drain(child, rank);
	}
}
