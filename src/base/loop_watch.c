// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a loop watches: descriptors, through a table of slots that outlives the watches, and timers, in a heap.
 *
 * An event that has been taken from epoll names slot and generation, never a watch: so a watch may be removed and freed by
 * any unit, also while its event lies harvested behind that unit.
 */
#include "base/loop_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/rank.h"

#define FIRST_SLOTS 8
#define FIRST_TIMERS 8

/* ---- descriptors ---- */

static int slots_grow(struct loop *loop)
{
	uint32_t count = loop->slot_count ? loop->slot_count * 2 : FIRST_SLOTS;
	struct loop_slot *slots = realloc(loop->slots, count * sizeof *slots);

	if (!slots)
		return -ENOMEM;
	for (uint32_t i = loop->slot_count; i < count; i++)
		slots[i] = (struct loop_slot){ .next_free = i + 1 < count ? i + 1 : LOOP_SLOT_NONE };
	loop->slot_free = loop->slot_count;
	loop->slots = slots;
	loop->slot_count = count;
	return 0;
}

static int watch_control(struct loop *loop, int operation, const struct loop_fd *watch, uint32_t events)
{
	struct epoll_event event = { .events = events,
				     .data.u64 = loop_event_data(watch->slot, watch->generation) };
	return epoll_ctl(loop->epoll_fd, operation, watch->fd, &event) ? -errno : 0;
}

int loop_fd_add(struct loop *loop, struct loop_fd *watch, int fd, uint32_t events,
		void (*fn)(struct loop_fd *, uint32_t))
{
	int rc;

	loop_assert_owner(loop);
	if (loop->slot_free == LOOP_SLOT_NONE && (rc = slots_grow(loop)))
		return rc;
	struct loop_slot *slot = &loop->slots[loop->slot_free];
	*watch = (struct loop_fd){ .fn = fn, .fd = fd, .events = events, .generation = slot->generation,
				   .slot = loop->slot_free };
	rc = watch_control(loop, EPOLL_CTL_ADD, watch, events);
	if (rc)
		return rc;
	loop->slot_free = slot->next_free;
	loop->slots_used++;
	slot->watch = watch;
	watch->loop = loop;
	return 0;
}

int loop_fd_modify(struct loop_fd *watch, uint32_t events)
{
	assert(watch->loop);
	loop_assert_owner(watch->loop);
	/* Setting edge-triggered or one-shot events anew re-arms them; anything else that stays the same costs nothing. */
	if (events == watch->events && !(events & (EPOLLET | EPOLLONESHOT)))
		return 0;
	int rc = watch_control(watch->loop, EPOLL_CTL_MOD, watch, events);
	if (!rc)
		watch->events = events;
	return rc;
}

void loop_fd_remove(struct loop_fd *watch)
{
	struct loop *loop = watch->loop;

	if (!loop)
		return;
	loop_assert_owner(loop);
	watch_control(loop, EPOLL_CTL_DEL, watch, 0); /* fails only if the descriptor is closed, and then is out already */
	struct loop_slot *slot = &loop->slots[watch->slot];
	slot->watch = NULL;
	slot->generation++;
	slot->next_free = loop->slot_free;
	loop->slot_free = watch->slot;
	loop->slots_used--;
	watch->loop = NULL;
}

unsigned loop_run_events(struct loop *loop, const struct epoll_event *events, int count)
{
	unsigned units = 0;

	for (int i = 0; i < count; i++) {
		uint32_t index = (uint32_t)events[i].data.u64, generation = (uint32_t)(events[i].data.u64 >> 32);
		if (index >= loop->slot_count)
			continue; /* the loop's own */
		struct loop_slot *slot = &loop->slots[index];
		if (!slot->watch || slot->generation != generation)
			continue; /* removed by a unit of this turn */
		/* A unit of this turn may also have stopped asking for what was harvested. */
		uint32_t wanted = events[i].events & (slot->watch->events | EPOLLERR | EPOLLHUP);
		if (!wanted)
			continue;
		assert_no_lock();
		slot->watch->fn(slot->watch, wanted);
		loop->now_stale = true;
		units++;
	}
	return units;
}

/* ---- timers ---- */

static void heap_put(struct loop *loop, size_t index, struct loop_heap_entry entry)
{
	loop->heap[index] = entry;
	entry.timer->index = index;
}

/* Moves an entry up or down from index to where it belongs. */
static void heap_settle(struct loop *loop, size_t index, struct loop_heap_entry entry)
{
	while (index && entry.key < loop->heap[(index - 1) / 2].key) {
		heap_put(loop, index, loop->heap[(index - 1) / 2]);
		index = (index - 1) / 2;
	}
	for (;;) {
		size_t child = 2 * index + 1;
		if (child >= loop->heap_count)
			break;
		if (child + 1 < loop->heap_count && loop->heap[child + 1].key < loop->heap[child].key)
			child++;
		if (entry.key <= loop->heap[child].key)
			break;
		heap_put(loop, index, loop->heap[child]);
		index = child;
	}
	heap_put(loop, index, entry);
}

static int heap_grow(struct loop *loop)
{
	size_t size = loop->heap_size ? loop->heap_size * 2 : FIRST_TIMERS;
	struct loop_heap_entry *heap = realloc(loop->heap, size * sizeof *heap);

	if (!heap)
		return -ENOMEM;
	loop->heap = heap;
	loop->heap_size = size;
	return 0;
}

int loop_timer_arm(struct loop *loop, struct loop_timer *timer, uint64_t when, void (*fn)(struct loop_timer *))
{
	int rc;

	loop_assert_owner(loop);
	assert(!timer->loop || timer->loop == loop);
	if (!timer->loop) {
		if (loop->heap_count == loop->heap_size && (rc = heap_grow(loop)))
			return rc;
		timer->index = loop->heap_count++;
		timer->loop = loop;
	}
	timer->fn = fn;
	timer->when = when;
	heap_settle(loop, timer->index,
		    (struct loop_heap_entry){ .key = max_of(when, loop->timer_floor), .timer = timer });
	loop_embedded_update(loop);
	return 0;
}

static void heap_remove(struct loop *loop, struct loop_timer *timer)
{
	size_t index = timer->index;
	struct loop_heap_entry last = loop->heap[--loop->heap_count];

	timer->loop = NULL;
	if (last.timer != timer)
		heap_settle(loop, index, last);
}

void loop_timer_disarm(struct loop_timer *timer)
{
	struct loop *loop = timer->loop;

	if (!loop)
		return;
	loop_assert_owner(loop);
	heap_remove(loop, timer);
	loop_embedded_update(loop);
}

/* Runs what is due at loop->now, which the caller has just read. */
unsigned loop_run_timers(struct loop *loop)
{
	uint64_t now = loop->now;
	unsigned units = 0;

	loop->timer_floor = now + 1;
	while (loop->heap_count && loop->heap[0].key <= now) {
		struct loop_timer *timer = loop->heap[0].timer;
		heap_remove(loop, timer);
		assert_no_lock();
		timer->fn(timer);
		loop->now_stale = true;
		units++;
	}
	return units;
}
