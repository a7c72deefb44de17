/*
 * The engine's event queue: what the core tells the control plane.
 */
#include "comm/engine.h"

void col_engine_post(struct collect_engine *engine, const struct collect_event *event)
{
	pthread_mutex_lock(&engine->mutex);
	uint32_t count = engine->events_tail - engine->events_head;
	bool is_chatter = event->kind == COLLECT_EVENT_REFUSED;
	if (is_chatter && count >= COL_EVENTS_CAPACITY / 2) {
		pthread_mutex_unlock(&engine->mutex);
		return;
	}
	/* Nobody has read for thousands of events: the newest matter, and a report tells the rest. */
	if (count == COL_EVENTS_CAPACITY)
		engine->events_head++;
	struct collect_event *slot = &engine->events[engine->events_tail++ % COL_EVENTS_CAPACITY];
	*slot = *event;
	slot->at_ns = engine->now_ns;
	pthread_mutex_unlock(&engine->mutex);
	col_loop_signal_set(engine->event_fd);
}

int collect_engine_next_event(collect_engine *engine, struct collect_event *event_out)
{
	pthread_mutex_lock(&engine->mutex);
	int has_event = engine->events_head != engine->events_tail;
	if (has_event)
		*event_out = engine->events[engine->events_head++ % COL_EVENTS_CAPACITY];
	else
		col_loop_signal_clear(engine->event_fd);
	pthread_mutex_unlock(&engine->mutex);
	return has_event;
}
