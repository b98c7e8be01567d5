// SPDX-License-Identifier: BSD-2-Clause
/*
 * The inside of the event loop, shared by loop.c (turns), loop_watch.c (descriptors and timers) and loop_message.c
 * (messages and quiescence). Nobody else includes it.
 */
#ifndef BASE_LOOP_PRIVATE_H
#define BASE_LOOP_PRIVATE_H

#include <stdalign.h>
#include <stdatomic.h>
#include <sys/epoll.h>

#include "base/loop.h"

/* Events taken from epoll at once: bounds the latency of messages behind them; 768 bytes of stack. */
#define LOOP_EVENTS 64
/* While the loop is busy it looks at its descriptors this often: a look costs about half a microsecond. */
#define LOOP_LOOK_NS 20000
/* Idle turns of pollers between two readings of the clock, which costs several times what such a turn does. */
#define LOOP_CLOCK_TURNS 16

#define LOOP_NEVER UINT64_MAX

/* Slot numbers of the loop's own descriptors in an event's data. */
#define LOOP_SLOT_WAKE UINT32_MAX
#define LOOP_SLOT_TIMER (UINT32_MAX - 1)
#define LOOP_SLOT_NONE (UINT32_MAX - 2)

/*
 * The inbox is one word: the youngest message, and in bit 0 whether the loop is asleep (or run by nobody, which is the
 * same to everyone else). Message and sleep in one word leave no gap between "is it asleep?" and "then post": see
 * loop_message.c.
 */
#define LOOP_ASLEEP ((uintptr_t)1)

struct loop_slot {
	struct loop_fd *watch; /* NULL: free */
	uint32_t generation; /* changes with each removal */
	uint32_t next_free;
};

struct loop_heap_entry {
	uint64_t key; /* the timer's `when`, not before the floor */
	struct loop_timer *timer;
};

struct loop {
	/* any thread; on a cache line of its own because senders write it */
	alignas(64) _Atomic uintptr_t inbox;
	atomic_bool stop_asked;
	atomic_bool running;

	/* constant from creation on */
	alignas(64) int wake_fd;
	int epoll_fd;
	char name[32];
	struct loop_message stop;

	/* owner: messages taken from the inbox, oldest first */
	struct loop_message *pending;
	struct loop_message **pending_tail;
	uint64_t wakes; /* writes to wake_fd that somebody has made or is about to make */

	/* owner: turns */
	bool stopping;
	bool again; /* a hook made new work */
	bool worked; /* the last turn had a unit */
	bool now_stale; /* a unit has run since `now` was read */
	bool stale_wake; /* the last wait was ended by a wake-up whose message had been handled before */
	bool no_pwait2;
	unsigned idle_turns;
	uint64_t now;
	uint64_t looked; /* when the descriptors were last looked at */
	struct list pollers;
	struct list hooks;
	struct loop *outer; /* the loop inside one of whose units this one is run */

	/* owner: descriptors */
	struct loop_slot *slots;
	uint32_t slot_count;
	uint32_t slot_free;
	uint32_t slots_used;

	/* owner: timers */
	struct loop_heap_entry *heap;
	size_t heap_count, heap_size;
	uint64_t timer_floor; /* timers armed by timers do not fire in the same turn */
	int timer_fd; /* -1 unless an embedder asked for the loop's descriptor */
	uint64_t timer_fd_key;
};

/* loop.c */
void loop_wake_self(struct loop *loop);
void loop_embedded_update(struct loop *loop);

/* loop_watch.c */
unsigned loop_run_events(struct loop *loop, const struct epoll_event *events, int count);
unsigned loop_run_timers(struct loop *loop);

/* loop_message.c */
void loop_messages_take(struct loop *loop);
unsigned loop_messages_run(struct loop *loop);
bool loop_fall_asleep(struct loop *loop);
void loop_messages_settle(struct loop *loop);

/* When the earliest timer fires. */
static inline uint64_t loop_next_timer(const struct loop *loop)
{
	return loop->heap_count ? loop->heap[0].key : LOOP_NEVER;
}

static inline uint64_t loop_event_data(uint32_t slot, uint32_t generation)
{
	return (uint64_t)generation << 32 | slot;
}

#endif
