// SPDX-License-Identifier: BSD-2-Clause
/*
 * An I/O thread that a test keeps inside one unit of work for as long as it likes; and turning the owner's loop until something has happened.
 *
 * A unit that nobody ends gives up after BUSY_PATIENCE, so that an owner that waits for it where it must not fails its test instead of hanging it.
 */
#ifndef TESTS_UNIT_BUSY_LOOP_H
#define TESTS_UNIT_BUSY_LOOP_H

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "base/loop.h"
#include "base/num.h"

#define BUSY_PATIENCE 10 /* seconds */

struct busy_loop {
	struct loop_thread *thread;
	struct loop_message message;
	sem_t entered, leave;
	_Atomic bool inside, abandoned;
	void (*last)(void *context); /* called by the unit before it ends; may be NULL */
	void *context;
};

static inline void busy_unit(struct loop_message *message)
{
	struct busy_loop *busy = container_of(message, struct busy_loop, message);
	atomic_store(&busy->inside, true);
	sem_post(&busy->entered);
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += BUSY_PATIENCE;
	while (sem_timedwait(&busy->leave, &until) < 0) {
		if (errno != ETIMEDOUT)
			continue;
		atomic_store(&busy->abandoned, true);
		break;
	}
	if (busy->last)
		busy->last(busy->context);
	atomic_store(&busy->inside, false);
}

static inline int busy_start(struct busy_loop *busy)
{
	memset(busy, 0, sizeof *busy);
	sem_init(&busy->entered, 0, 0);
	sem_init(&busy->leave, 0, 0);
	return loop_thread_start(&busy->thread, "io", NULL);
}

static inline struct loop *busy_loop_of(struct busy_loop *busy)
{
	return loop_thread_loop(busy->thread);
}

/* Returns when the thread is inside the unit. */
static inline void busy_enter(struct busy_loop *busy)
{
	loop_post(busy_loop_of(busy), &busy->message, busy_unit);
	sem_wait(&busy->entered);
}

static inline void busy_leave(struct busy_loop *busy)
{
	sem_post(&busy->leave);
}

static inline void busy_stop(struct busy_loop *busy)
{
	loop_thread_stop(busy->thread);
	sem_destroy(&busy->entered);
	sem_destroy(&busy->leave);
}

/* Turns the loop until the flag is set. There is no time limit of its own: the test run has one. */
static inline void turn_until(struct loop *loop, const bool *flag)
{
	while (!*flag)
		loop_turn(loop, -1);
}

/* Everything that is ready now. */
static inline void turn_idle(struct loop *loop)
{
	while (loop_turn(loop, 0) > 0)
		;
}

#endif
