/*
 * Frames that came before their op, epoch or sub-group wait in lists.
 *
 * Those of the group hold their link's credit, and those of a sub-group its window, which bounds
 * them. What is in no window, since its scope or epoch is not here, is bounded for each link.
 */
#include "base/alloc.h"
#include "comm/comm.h"

/* Memory, not charges: tiny frames cost more than they weigh. An honest peer has one small op, or
 * COL_FLOW_EAGER of a large one, and some words under way in each scope. */
#define COL_EARLY_BYTES_MAX (64u << 20)

void col__waiting_admit(struct col_waiting_frame *frame)
{
	frame->link->early_bytes -= frame->early_bytes;
	frame->early_bytes = 0;
}

static void waiting_free(struct col_waiting_frame *frame)
{
	col__waiting_admit(frame);
	col_buffer_put(frame->buffer);
	col_free(frame);
}

void col__waiting_add(struct col_waiting *waiting, struct col_link *link,
                      const struct col_frame *frame, struct col_buffer *buffer, bool is_early)
{
	size_t bytes = sizeof(struct col_waiting_frame);
	bytes += buffer != NULL ? col_buffer_bytes(buffer) : 0;
	uint32_t early_bytes = is_early ? (uint32_t)bytes : 0;
	if (link->early_bytes + early_bytes > COL_EARLY_BYTES_MAX) {
		col_buffer_put(buffer);
		col__link_lose(link, COLLECT_LOSS_GARBAGE,
		               "more frames of sub-groups than may wait");
		return;
	}
	struct col_waiting_frame *added = col_alloc(sizeof(*added));
	if (added == NULL) {
		col_buffer_put(buffer);
		col__link_lose(link, COLLECT_LOSS_RESET, "out of memory");
		return;
	}
	*added = (struct col_waiting_frame){
		.link = link, .frame = *frame, .buffer = buffer, .early_bytes = early_bytes};
	link->early_bytes += early_bytes;
	if (waiting->tail != NULL)
		waiting->tail->next = added;
	else
		waiting->head = added;
	waiting->tail = added;
}

struct col_waiting_frame *col__waiting_unlink(struct col_waiting *waiting,
                                              struct col_waiting_frame *before)
{
	struct col_waiting_frame *it = before != NULL ? before->next : waiting->head;
	if (before != NULL)
		before->next = it->next;
	else
		waiting->head = it->next;
	if (waiting->tail == it)
		waiting->tail = before;
	return it;
}

/* Those of a link (NULL: any) whose attempt is no later than `last`. */
static void drop(struct col_waiting *waiting, const struct col_link *link, uint64_t last)
{
	struct col_waiting_frame *before = NULL;
	struct col_waiting_frame *it = waiting->head;
	while (it != NULL) {
		struct col_waiting_frame *next = it->next;
		if ((link == NULL || it->link == link) && it->frame.attempt <= last)
			waiting_free(col__waiting_unlink(waiting, before));
		else
			before = it;
		it = next;
	}
}

void col__waiting_drop(struct col_waiting *waiting, const struct col_link *link)
{
	drop(waiting, link, UINT64_MAX);
}

void col__waiting_drop_older(struct col_waiting *waiting, uint64_t epoch)
{
	drop(waiting, NULL, epoch - 1);
}
