// SPDX-License-Identifier: BSD-2-Clause
/*
 * The event loop's turns: wait, messages, descriptors, timers, pollers, hooks; and its beginning and end.
 */
#include "base/loop_private.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/rank.h"

#define NS_PER_SECOND UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

static _Thread_local struct loop *current;

/* ---- who and when ---- */

struct loop *loop_current(void)
{
	return current;
}

const char *loop_name(const struct loop *loop)
{
	return loop->name;
}

bool loop_is_owner(const struct loop *loop)
{
	/* A thread that does not run the loop itself may only have learnt that nobody does by other means (it joined the
	 * thread, or never started one); this load merely finds those that have not. */
	return current == loop || !atomic_load_explicit(&loop->running, memory_order_acquire);
}

#ifndef NDEBUG
void loop_assert_owner(const struct loop *loop)
{
	if (loop_is_owner(loop))
		return;
	fprintf(stderr, "pintle: error: loop %s is used by a thread that does not own it\n", loop->name);
	abort();
}
#endif

uint64_t loop_clock(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

uint64_t loop_now(const struct loop *loop)
{
	/* Read when it is first asked for in a unit, so that units that do not ask pay nothing. */
	if (loop->now_stale) {
		struct loop *owned = (struct loop *)loop;
		owned->now = loop_clock();
		owned->now_stale = false;
	}
	return loop->now;
}

/* ---- creation and end ---- */

static int watch_own(struct loop *loop, int fd, uint32_t slot)
{
	/* Edge-triggered, so that neither has to be read: each write, and each expiry, is a new edge. */
	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.u64 = loop_event_data(slot, 0) };
	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

static void handle_stop(struct loop_message *message)
{
	container_of(message, struct loop, stop)->stopping = true;
}

int loop_create(struct loop **out, const char *name, struct pintle_error *err)
{
	int rc;
	struct loop *loop = aligned_alloc(alignof(struct loop), sizeof *loop);

	if (!loop)
		return error_errno(err, -ENOMEM, "cannot create event loop %s", name);
	*loop = (struct loop){ .wake_fd = -1, .epoll_fd = -1, .timer_fd = -1, .slot_free = LOOP_SLOT_NONE };
	snprintf(loop->name, sizeof loop->name, "%s", name);
	atomic_init(&loop->inbox, LOOP_ASLEEP); /* nobody runs it: quiescent */
	loop->pending_tail = &loop->pending;
	loop->now_stale = true;
	loop->timer_fd_key = LOOP_NEVER;
	list_init(&loop->pollers);
	list_init(&loop->hooks);

	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0) {
		rc = error_errno(err, -errno, "cannot create event loop %s: epoll_create1", name);
		goto destroy;
	}
	loop->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (loop->wake_fd < 0) {
		rc = error_errno(err, -errno, "cannot create event loop %s: eventfd", name);
		goto destroy;
	}
	rc = watch_own(loop, loop->wake_fd, LOOP_SLOT_WAKE);
	if (rc) {
		error_errno(err, rc, "cannot create event loop %s: epoll_ctl", name);
		goto destroy;
	}
	*out = loop;
	return 0;
destroy:
	loop_destroy(loop);
	return rc;
}

/*
 * A sender that found the loop asleep writes wake_fd after its message is in, perhaps after the message has been handled.
 * wake_fd is never read otherwise, so its count says how many of the expected writes have been made; this waits for the
 * rest, that is for threads that are between two instructions of loop_post.
 */
static void await_senders(struct loop *loop)
{
	eventfd_t written;

	loop_messages_take(loop);
	while (loop->wakes && !eventfd_read(loop->wake_fd, &written))
		loop->wakes -= min_of(loop->wakes, written);
}

void loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	assert(!atomic_load(&loop->running));
	assert(!loop->slots_used && !loop->heap_count && list_empty(&loop->pollers) && list_empty(&loop->hooks));
	if (loop->wake_fd >= 0) {
		await_senders(loop);
		close(loop->wake_fd);
	}
	if (loop->timer_fd >= 0)
		close(loop->timer_fd);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	free(loop->slots);
	free(loop->heap);
	free(loop);
}

void loop_stop(struct loop *loop)
{
	if (!atomic_exchange(&loop->stop_asked, true))
		loop_post(loop, &loop->stop, handle_stop);
}

/* ---- embedding: one descriptor stands for messages, descriptors and timers ---- */

void loop_wake_self(struct loop *loop)
{
	loop->wakes++;
	eventfd_write(loop->wake_fd, 1);
}

/* Outside a turn, the timerfd shows when the next timer is due. */
void loop_embedded_update(struct loop *loop)
{
	uint64_t key = loop_next_timer(loop);

	if (loop->timer_fd < 0 || current == loop || key == loop->timer_fd_key)
		return;
	struct itimerspec spec = { .it_value = { 0 } }; /* disarmed */
	if (key != LOOP_NEVER) {
		spec.it_value.tv_sec = (time_t)(key / NS_PER_SECOND);
		spec.it_value.tv_nsec = (long)(key % NS_PER_SECOND);
		if (!key)
			spec.it_value.tv_nsec = 1; /* 0 would disarm it */
	}
	timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
	loop->timer_fd_key = key;
}

int loop_descriptor(const struct loop *loop)
{
	struct loop *owned = (struct loop *)loop;

	loop_assert_owner(loop);
	if (loop->timer_fd < 0) {
		int rc, fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
		if (fd < 0)
			return -errno;
		rc = watch_own(owned, fd, LOOP_SLOT_TIMER);
		if (rc) {
			close(fd);
			return rc;
		}
		owned->timer_fd = fd;
		loop_embedded_update(owned);
		if (!list_empty(&loop->pollers) || loop->again || loop->pending)
			loop_wake_self(owned);
	}
	return loop->epoll_fd;
}

/* ---- turns ---- */

/* timeout in ns, LOOP_NEVER for none. A signal ends the wait with nothing. */
static int wait_events(struct loop *loop, struct epoll_event *events, uint64_t timeout)
{
	int count;

	if (!timeout || timeout == LOOP_NEVER) {
		count = epoll_wait(loop->epoll_fd, events, LOOP_EVENTS, timeout ? -1 : 0);
		return max_of(count, 0);
	}
	if (!loop->no_pwait2) {
		struct timespec limit = { .tv_sec = (time_t)(timeout / NS_PER_SECOND),
					  .tv_nsec = (long)(timeout % NS_PER_SECOND) };
		count = epoll_pwait2(loop->epoll_fd, events, LOOP_EVENTS, &limit, NULL);
		/* ENOSYS before Linux 5.11, EPERM under a system-call filter that does not know it */
		if (count >= 0 || (errno != ENOSYS && errno != EPERM))
			return max_of(count, 0);
		loop->no_pwait2 = true;
	}
	uint64_t ms = timeout / NS_PER_MS + (timeout % NS_PER_MS != 0); /* never early */
	count = epoll_wait(loop->epoll_fd, events, LOOP_EVENTS, (int)min_of(ms, (uint64_t)INT32_MAX));
	return max_of(count, 0);
}

static void read_clock(struct loop *loop)
{
	loop->now = loop_clock();
	loop->now_stale = false;
}

/* A turn that does not sleep. The clock is read only after work or now and then, descriptors are looked at by the clock. */
static int gather_busy(struct loop *loop, struct epoll_event *events, bool look, bool *clock_read)
{
	*clock_read = look || loop->worked || ++loop->idle_turns % LOOP_CLOCK_TURNS == 0;
	/* Relaxed: a message missed here is found in the next turn; falling asleep looks again. */
	if (atomic_load_explicit(&loop->inbox, memory_order_relaxed))
		loop_messages_take(loop);
	if (!*clock_read)
		return 0;
	read_clock(loop);
	if (!look && loop->now - loop->looked < LOOP_LOOK_NS)
		return 0;
	loop->looked = loop->now;
	return wait_events(loop, events, 0);
}

/* Waits for something to do, if there is nothing yet, until deadline; takes messages and events. */
static int gather(struct loop *loop, struct epoll_event *events, uint64_t deadline, bool look, bool *clock_read)
{
	uint64_t timeout = LOOP_NEVER;

	loop->stale_wake = false;
	if (loop->pending || loop->again || !deadline || !list_empty(&loop->pollers))
		return gather_busy(loop, events, look, clock_read);
	deadline = min_of(deadline, loop_next_timer(loop));
	if (deadline != LOOP_NEVER) {
		read_clock(loop);
		timeout = deadline > loop->now ? deadline - loop->now : 0;
	}
	if (!timeout)
		return gather_busy(loop, events, true, clock_read);
	if (!loop_fall_asleep(loop))
		return gather_busy(loop, events, look, clock_read);
	assert_no_lock();
	int count = wait_events(loop, events, timeout);
	loop_messages_take(loop); /* awake; before anything else is looked at */
	read_clock(loop);
	*clock_read = true;
	loop->looked = loop->now;
	loop->stale_wake = count == 1 && !loop->pending && (uint32_t)events[0].data.u64 == LOOP_SLOT_WAKE;
	return count;
}

/* Each is called once, whatever is added or removed meanwhile: what has been called is moved behind. */
static unsigned run_pollers(struct loop *loop)
{
	struct list round, *link;
	unsigned units = 0;

	list_init(&round);
	list_splice(&round, &loop->pollers);
	while ((link = list_pop(&round))) {
		struct loop_poller *poller = list_entry(link, struct loop_poller, link);
		list_append(&loop->pollers, link);
		assert_no_lock();
		if (poller->fn(poller)) {
			loop->now_stale = true;
			units++;
		}
	}
	return units;
}

static bool run_hooks(struct loop *loop)
{
	struct list round, *link;
	bool again = false;

	list_init(&round);
	list_splice(&round, &loop->hooks);
	while ((link = list_pop(&round))) {
		struct loop_hook *hook = list_entry(link, struct loop_hook, link);
		list_append(&loop->hooks, link);
		assert_no_lock();
		again |= hook->fn(hook);
	}
	return again;
}

/* deadline 0: does not wait; look: descriptors are looked at in any case. */
static unsigned turn(struct loop *loop, uint64_t deadline, bool look)
{
	struct epoll_event events[LOOP_EVENTS];
	bool clock_read = false;
	int count = gather(loop, events, deadline, look, &clock_read);

	unsigned units = loop_messages_run(loop);
	units += loop_run_events(loop, events, count);
	if (clock_read && loop->heap_count) {
		loop_now(loop);
		units += loop_run_timers(loop);
	}
	if (!list_empty(&loop->pollers))
		units += run_pollers(loop);
	loop->again = run_hooks(loop);
	loop->worked = units || loop->again;
	return units;
}

static void enter(struct loop *loop)
{
	bool was_running = atomic_exchange_explicit(&loop->running, true, memory_order_acq_rel);
	assert(!was_running);
	(void)was_running;
	loop->outer = current;
	current = loop;
	loop_messages_take(loop); /* awake */
	loop->now_stale = true;
	/* What was done between two runs may have left something for the hooks. */
	loop->again |= run_hooks(loop);
}

static void leave(struct loop *loop)
{
	loop_messages_settle(loop); /* asleep */
	current = loop->outer;
	if (loop->timer_fd >= 0) {
		loop_embedded_update(loop);
		if (loop->again || loop->pending || !list_empty(&loop->pollers))
			loop_wake_self(loop);
	}
	atomic_store_explicit(&loop->running, false, memory_order_release);
}

void loop_run(struct loop *loop)
{
	enter(loop);
	while (!loop->stopping)
		turn(loop, LOOP_NEVER, false);
	loop->stopping = false;
	atomic_store(&loop->stop_asked, false);
	leave(loop);
}

int loop_turn(struct loop *loop, int timeout_ms)
{
	uint64_t deadline = LOOP_NEVER;
	unsigned units;

	if (timeout_ms >= 0)
		deadline = timeout_ms ? loop_clock() + (uint64_t)timeout_ms * NS_PER_MS : 0;
	enter(loop);
	do {
		units = turn(loop, deadline, true);
	} while (!units && loop->stale_wake);
	leave(loop);
	return (int)units;
}

/* ---- pollers and hooks ---- */

void loop_poller_add(struct loop *loop, struct loop_poller *poller, bool (*fn)(struct loop_poller *))
{
	loop_assert_owner(loop);
	poller->fn = fn;
	list_append(&loop->pollers, &poller->link);
}

void loop_poller_remove(struct loop_poller *poller)
{
	list_remove(&poller->link);
}

void loop_hook_add(struct loop *loop, struct loop_hook *hook, bool (*fn)(struct loop_hook *))
{
	loop_assert_owner(loop);
	hook->fn = fn;
	list_append(&loop->hooks, &hook->link);
}

void loop_hook_remove(struct loop_hook *hook)
{
	list_remove(&hook->link);
}
