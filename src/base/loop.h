// SPDX-License-Identifier: BSD-2-Clause
/*
 * The event loop: readiness, timers, messages, pollers; one thread runs it and owns what is registered with it.
 *
 * Work is done in *units*: one call-back of a descriptor, timer, message or poller. Between two units, and while it sleeps,
 * the thread is *quiescent*: it holds no pointer into guest memory, to a mapping, a vector or a gate's earlier value.
 * loop_quiesce() uses that: it is how a gate is closed, a mapping freed and a descriptor closed without a lock or a reference
 * count on the data path.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pintle/error.h>

#include "base/list.h"

struct loop;

/* ---- the loop itself ---- */

int loop_create(struct loop **out, const char *name, struct pintle_error *err);
/* After loop_run has returned or before it was called; nothing may be registered any more. NULL is accepted. */
void loop_destroy(struct loop *loop);

/* Runs until loop_stop. The calling thread becomes the owner of the loop (and may set things up before, see below). */
void loop_run(struct loop *loop);
/* Any thread. The loop ends after the messages posted before this call have been handled. */
void loop_stop(struct loop *loop);
/* One turn: handles what is ready, waits at most timeout_ms for it (0: does not wait, -1: for ever). For embedders and
 * tests. Returns the number of units done. The calling thread is the owner while it is inside. */
int loop_turn(struct loop *loop, int timeout_ms);
/* A descriptor that polls readable when loop_turn(loop, 0) has something to do; for an embedder's own poll loop. It is the
 * loop's. Owner only. Negative errno if the timer behind it, which only this needs, cannot be created. */
int loop_descriptor(const struct loop *loop);

/* The loop whose thread is calling, NULL on other threads. */
struct loop *loop_current(void);
const char *loop_name(const struct loop *loop);
/* True on the owner's thread, and on any thread while nobody runs the loop (set-up, tear-down). */
bool loop_is_owner(const struct loop *loop);
#ifdef NDEBUG
#define loop_assert_owner(loop) ((void)0)
#else
void loop_assert_owner(const struct loop *loop);
#endif

/* Monotonic time in nanoseconds. loop_now is that of the unit: read when the unit first asks, free from then on; in a poller it
 * can be as old as a few idle turns. Owner only. */
uint64_t loop_clock(void);
uint64_t loop_now(const struct loop *loop);

/* ---- descriptors; owner only ---- */

struct loop_fd {
	void (*fn)(struct loop_fd *watch, uint32_t events); /* EPOLL*; level-triggered unless EPOLLET was asked for */
	struct loop *loop; /* NULL while it is not registered */
	int fd;
	uint32_t events;
	uint32_t generation; /* the loop's: an event harvested before a removal is not delivered */
	uint32_t slot; /* the loop's */
};

int loop_fd_add(struct loop *loop, struct loop_fd *watch, int fd, uint32_t events,
		void (*fn)(struct loop_fd *, uint32_t));
int loop_fd_modify(struct loop_fd *watch, uint32_t events);
/* Also from inside any call-back of the loop, its own included; fn is not called again. Does not close fd. */
void loop_fd_remove(struct loop_fd *watch);

/* ---- timers; owner only ---- */

struct loop_timer {
	void (*fn)(struct loop_timer *timer);
	struct loop *loop; /* NULL while not armed */
	uint64_t when; /* loop_clock() */
	size_t index; /* the loop's: place in its heap */
};

/* Arms or re-arms. One shot. A time in the past fires in the next turn. */
int loop_timer_arm(struct loop *loop, struct loop_timer *timer, uint64_t when, void (*fn)(struct loop_timer *));
void loop_timer_disarm(struct loop_timer *timer);

/* ---- messages; any thread ---- */

struct loop_message {
	struct loop_message *next; /* the loop's */
	void (*fn)(struct loop_message *message); /* on the loop's thread, as a unit */
};

/* Lock-free, never fails, wakes the loop if it sleeps. Messages of one sender arrive in order. The message is the
 * receiver's when fn is called. */
void loop_post(struct loop *loop, struct loop_message *message, void (*fn)(struct loop_message *));

/* ---- pollers and the end of a turn; owner only ---- */

/* While a poller is registered the loop does not sleep: it calls the poller every turn, looks for messages every turn and at
 * descriptors and timers every few microseconds. */
struct loop_poller {
	struct list link;
	bool (*fn)(struct loop_poller *poller); /* true if there was work; may remove itself */
};

void loop_poller_add(struct loop *loop, struct loop_poller *poller, bool (*fn)(struct loop_poller *));
void loop_poller_remove(struct loop_poller *poller);

/* Called once after the units of each turn, before the loop looks whether it may sleep: where batches are sent off
 * (io_uring submissions, interrupts). true if it made new work. Registered for good. */
struct loop_hook {
	struct list link;
	bool (*fn)(struct loop_hook *hook);
};

void loop_hook_add(struct loop *loop, struct loop_hook *hook, bool (*fn)(struct loop_hook *));
void loop_hook_remove(struct loop_hook *hook);

/* ---- quiescence ---- */

/*
 * Ask that each of `loops` passes a quiescent point. Called on `home`, whose own thread is by definition between
 * two units of the others' kind: if home is among the loops it is skipped.
 *
 * Everything stored before the call is seen by every unit that starts on those loops after `done`. A loop that sleeps is
 * quiescent and is not woken: before it sleeps it publishes that, and the first thing it does when it wakes is a
 * read-modify-write of the word that was looked at here, so that it sees what was stored here (see loop_message.c). A loop that
 * nobody runs counts as asleep.
 *
 * Returns true if all are quiescent already; done is then not called. Otherwise false, and done comes from home's loop.
 * The structure is the caller's and busy until then.
 */
struct loop_quiesce {
	void (*done)(struct loop_quiesce *quiesce);
	struct loop *home;
	_Atomic uint32_t waiting;
	struct loop_message message;
	struct loop_quiesce_slot *slots; /* allocated if more loops are awake than there are inline_slots */
	struct loop_quiesce_slot {
		struct loop_message message;
		struct loop_quiesce *quiesce;
	} inline_slots[4];
};

bool loop_quiesce(struct loop_quiesce *quiesce, struct loop *home, struct loop *const *loops, size_t count,
		  void (*done)(struct loop_quiesce *));

/* ---- a thread that runs a loop ---- */

struct loop_thread;
/* Starts a thread named `name` that runs a new loop, all signals blocked but those of its own faults (SIGBUS, ...). */
int loop_thread_start(struct loop_thread **out, const char *name, struct pintle_error *err);
struct loop *loop_thread_loop(struct loop_thread *thread);
/* loop_stop, join, destroy. NULL is accepted. */
void loop_thread_stop(struct loop_thread *thread);
/* CPU time of the thread in ns, for metrics. */
uint64_t loop_thread_cpu(struct loop_thread *thread);

#endif
