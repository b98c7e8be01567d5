// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the tests of the event loop share: a loop, and call-backs that note that they have been called.
 */
#ifndef TESTS_LOOP_TOOLS_H
#define TESTS_LOOP_TOOLS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "base/loop.h"
#include "base/loop_private.h" /* to force what chance brings about otherwise */

#define MS UINT64_C(1000000)

static inline struct loop *create(void)
{
	struct loop *loop;
	assert_int_equal(loop_create(&loop, "test", NULL), 0);
	return loop;
}

/* ---- messages ---- */

struct note {
	struct loop_message message;
	int value;
	struct loop *loop;
};

__attribute__((unused)) static int noted[16];
__attribute__((unused)) static unsigned noted_count;

static inline void take_note(struct loop_message *message)
{
	noted[noted_count++] = container_of(message, struct note, message)->value;
}

static inline void post_again(struct loop_message *message)
{
	struct note *note = container_of(message, struct note, message);
	unsigned before = noted_count;

	loop_post(note->loop, message, take_note);
	assert_int_equal(noted_count, before); /* never inline */
}

/* ---- descriptors ---- */

struct watched {
	struct loop_fd watch;
	unsigned calls;
	uint32_t events;
	struct watched **victim; /* removed and freed by the call-back */
	struct watched *newcomer; /* then registered, for fd */
	int fd;
	struct loop *loop;
};

static inline void on_event(struct loop_fd *watch, uint32_t events)
{
	struct watched *watched = container_of(watch, struct watched, watch);
	struct watched *newcomer = watched->newcomer;
	int fd = watched->fd;

	watched->calls++;
	watched->events = events;
	struct loop *loop = watch->loop;
	if (watched->victim && *watched->victim) {
		struct watched *victim = *watched->victim;
		*watched->victim = NULL;
		loop_fd_remove(&victim->watch);
		free(victim); /* perhaps ourselves */
		if (newcomer)
			assert_int_equal(loop_fd_add(loop, &newcomer->watch, fd, EPOLLIN, on_event), 0);
	}
}

static inline int event_fd(unsigned count)
{
	int fd = eventfd(count, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_true(fd >= 0);
	return fd;
}

/* ---- timers ---- */

struct alarm {
	struct loop_timer timer;
	unsigned number;
	unsigned fired;
	uint64_t late;
	struct alarm *disarms;
};

__attribute__((unused)) static unsigned alarm_order[8], alarm_count;

static inline void on_alarm(struct loop_timer *timer)
{
	struct alarm *alarm = container_of(timer, struct alarm, timer);

	assert_null(timer->loop);
	assert_true(loop_clock() >= timer->when);
	alarm->fired++;
	if (alarm_count < ARRAY_SIZE(alarm_order))
		alarm_order[alarm_count++] = alarm->number;
	if (alarm->disarms)
		loop_timer_disarm(&alarm->disarms->timer);
}

static inline void arm_for_the_past(struct loop_timer *timer)
{
	struct alarm *alarm = container_of(timer, struct alarm, timer);
	if (++alarm->fired < 5)
		assert_int_equal(loop_timer_arm(loop_current(), timer, 0, arm_for_the_past), 0);
}

#endif
