// SPDX-License-Identifier: BSD-2-Clause
/*
 * The event loop's pollers and hooks, and a loop that is embedded in another.
 */
#include "loop_tools.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

/* ---- pollers and hooks ---- */

struct polled {
	struct loop_poller poller;
	unsigned calls;
	unsigned stop_after;
	bool busy;
	bool add_again;
	struct polled *victim;
	struct loop *loop;
};

static bool on_poll(struct loop_poller *poller)
{
	struct polled *polled = container_of(poller, struct polled, poller);
	bool busy = polled->busy;

	polled->calls++;
	if (polled->add_again) {
		loop_poller_remove(poller);
		loop_poller_add(polled->loop, poller, on_poll);
	}
	if (polled->stop_after && polled->calls == polled->stop_after)
		loop_stop(polled->loop);
	if (polled->victim) {
		struct polled *victim = polled->victim;
		polled->victim = NULL;
		loop_poller_remove(&victim->poller);
		free(victim); /* perhaps ourselves */
	}
	return busy;
}

static void pollers(void **state)
{
	struct loop *loop = create();
	struct polled a = { .loop = loop }, b = { .loop = loop, .busy = true };
	struct polled *c = calloc(1, sizeof *c), *d = calloc(1, sizeof *d);
	(void)state;

	assert_non_null(c);
	assert_non_null(d);
	loop_poller_add(loop, &a.poller, on_poll);
	loop_poller_add(loop, &b.poller, on_poll);
	assert_int_equal(loop_turn(loop, -1), 1); /* does not sleep; b worked */
	assert_int_equal(a.calls, 1);
	assert_int_equal(b.calls, 1);
	/* a frees the one behind it, d itself */
	loop_poller_remove(&b.poller);
	loop_poller_add(loop, &c->poller, on_poll);
	loop_poller_add(loop, &d->poller, on_poll);
	loop_poller_add(loop, &b.poller, on_poll);
	a.victim = c;
	d->victim = d;
	assert_int_equal(loop_turn(loop, -1), 1);
	assert_int_equal(a.calls, 2);
	assert_int_equal(b.calls, 2);
	/* one that removes and adds itself is still called once a turn */
	a.add_again = true;
	assert_int_equal(loop_turn(loop, -1), 1);
	assert_int_equal(a.calls, 3);
	assert_int_equal(b.calls, 3);
	loop_poller_remove(&a.poller);
	loop_poller_remove(&b.poller);
	loop_poller_remove(&b.poller);
	assert_int_equal(loop_turn(loop, 0), 0);
	loop_destroy(loop);
}

struct all {
	struct polled polled;
	struct watched watched;
	struct alarm alarm;
	struct note note;
};

static bool until_all_served(struct loop_poller *poller)
{
	struct all *all = container_of(poller, struct all, polled.poller);

	if (all->watched.calls && all->alarm.fired && noted_count)
		loop_stop(all->polled.loop);
	return all->polled.busy;
}

/* Idle or busy, a poller starves nothing. */
static void polling_starves_nothing(void **state)
{
	(void)state;
	for (int busy = 0; busy < 2; busy++) {
		struct loop *loop = create();
		struct all all = { .polled = { .loop = loop, .busy = busy } };
		int fd = event_fd(1);

		noted_count = 0;
		loop_poller_add(loop, &all.polled.poller, until_all_served);
		assert_int_equal(loop_fd_add(loop, &all.watched.watch, fd, EPOLLIN | EPOLLET, on_event), 0);
		assert_int_equal(loop_timer_arm(loop, &all.alarm.timer, loop_clock() + MS, on_alarm), 0);
		loop_post(loop, &all.note.message, take_note);
		loop_run(loop);
		loop_fd_remove(&all.watched.watch);
		loop_poller_remove(&all.polled.poller);
		close(fd);
		loop_destroy(loop);
	}
}

/* So does a message that posts itself for ever. */
struct forever {
	struct loop_message message;
	struct loop *loop;
	struct watched watched;
	struct alarm alarm;
	bool end;
};

static void post_forever(struct loop_message *message)
{
	struct forever *forever = container_of(message, struct forever, message);

	if (forever->end)
		return;
	if (forever->watched.calls && forever->alarm.fired)
		loop_stop(forever->loop);
	loop_post(forever->loop, message, post_forever);
}

static void messages_starve_nothing(void **state)
{
	struct loop *loop = create();
	struct forever forever = { .loop = loop };
	int fd = event_fd(1);
	(void)state;

	assert_int_equal(loop_fd_add(loop, &forever.watched.watch, fd, EPOLLIN | EPOLLET, on_event), 0);
	assert_int_equal(loop_timer_arm(loop, &forever.alarm.timer, loop_clock() + MS, on_alarm), 0);
	loop_post(loop, &forever.message, post_forever);
	loop_run(loop); /* nor does it keep the loop from ending */
	forever.end = true;
	assert_int_equal(loop_turn(loop, 0), 1); /* it was kept for the next run */
	loop_fd_remove(&forever.watched.watch);
	close(fd);
	loop_destroy(loop);
}

struct hooked {
	struct loop_hook hook;
	unsigned calls;
	unsigned again;
	unsigned noted_before;
};

static bool on_hook(struct loop_hook *hook)
{
	struct hooked *hooked = container_of(hook, struct hooked, hook);

	hooked->calls++;
	hooked->noted_before = noted_count;
	return hooked->again && hooked->again--;
}

static void hooks(void **state)
{
	struct loop *loop = create();
	struct hooked hooked = { 0 };
	struct note note;
	(void)state;

	noted_count = 0;
	loop_hook_add(loop, &hooked.hook, on_hook);
	loop_post(loop, &note.message, take_note);
	assert_int_equal(loop_turn(loop, -1), 1);
	assert_int_equal(hooked.calls, 2); /* before the loop may sleep, and after the units */
	assert_int_equal(hooked.noted_before, 1);
	/* new work: does not sleep, though nothing is ready */
	hooked.again = 1;
	assert_int_equal(loop_turn(loop, -1), 0);
	assert_int_equal(hooked.calls, 4);
	loop_hook_remove(&hooked.hook);
	loop_destroy(loop);
}

/* ---- embedding ---- */

static bool readable(const struct loop *loop, int timeout_ms)
{
	struct pollfd pollfd = { .fd = loop_descriptor(loop), .events = POLLIN };
	assert_true(pollfd.fd >= 0);
	return poll(&pollfd, 1, timeout_ms) == 1;
}

/* Turns until nothing is left to do, as an embedder does. Returns the units. */
static int serve(struct loop *loop)
{
	int units = 0, turns = 0;

	while (readable(loop, 0)) {
		units += loop_turn(loop, 0);
		assert_true(++turns < 100);
	}
	return units;
}

static void embedded(void **state)
{
	struct loop *loop = create();
	struct note note = { .loop = loop };
	struct alarm alarm = { 0 };
	struct watched watched = { 0 };
	struct polled polled = { .loop = loop };
	struct hooked hooked = { 0 };
	int fd = event_fd(0);
	(void)state;

	noted_count = 0;
	assert_false(readable(loop, 0));
	/* messages, and those that messages post */
	loop_post(loop, &note.message, post_again);
	assert_true(readable(loop, 0));
	assert_int_equal(serve(loop), 2);
	assert_int_equal(noted_count, 1);
	assert_false(readable(loop, 0));
	/* descriptors */
	assert_int_equal(loop_fd_add(loop, &watched.watch, fd, EPOLLIN, on_event), 0);
	eventfd_write(fd, 1);
	assert_true(readable(loop, 0));
	assert_int_equal(loop_turn(loop, 0), 1);
	loop_fd_remove(&watched.watch);
	serve(loop);
	/* timers: armed outside, re-armed, disarmed */
	assert_int_equal(loop_timer_arm(loop, &alarm.timer, loop_clock() + 3600 * 1000 * MS, on_alarm), 0);
	assert_false(readable(loop, 0));
	assert_int_equal(loop_timer_arm(loop, &alarm.timer, loop_clock() + MS, on_alarm), 0);
	assert_true(readable(loop, -1));
	assert_int_equal(serve(loop), 1);
	assert_int_equal(loop_timer_arm(loop, &alarm.timer, 0, arm_for_the_past), 0);
	alarm.fired = 3;
	assert_true(readable(loop, -1));
	assert_int_equal(loop_turn(loop, 0), 1);
	assert_true(readable(loop, -1)); /* armed inside the turn */
	assert_int_equal(loop_turn(loop, 0), 1);
	serve(loop);
	assert_int_equal(loop_timer_arm(loop, &alarm.timer, loop_clock() + MS, on_alarm), 0);
	loop_timer_disarm(&alarm.timer);
	assert_false(readable(loop, 5));
	/* hooks with new work, pollers */
	hooked.again = 2;
	loop_hook_add(loop, &hooked.hook, on_hook);
	loop_turn(loop, 0);
	serve(loop);
	assert_int_equal(hooked.again, 0);
	loop_hook_remove(&hooked.hook);
	loop_poller_add(loop, &polled.poller, on_poll);
	loop_turn(loop, 0);
	assert_true(readable(loop, 0));
	loop_turn(loop, 0);
	assert_true(readable(loop, 0));
	loop_poller_remove(&polled.poller);
	serve(loop);
	assert_false(readable(loop, 0));
	close(fd);
	loop_destroy(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pollers),
		cmocka_unit_test(polling_starves_nothing),
		cmocka_unit_test(messages_starve_nothing),
		cmocka_unit_test(hooks),
		cmocka_unit_test(embedded),
	};
	return cmocka_run_group_tests_name("loop_poll", tests, NULL, NULL);
}
