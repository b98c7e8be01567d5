// SPDX-License-Identifier: BSD-2-Clause
/*
 * The event loop's descriptors and timers, above all what may be removed when.
 */
#include "loop_tools.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* ---- descriptors ---- */

static void descriptors(void **state)
{
	struct loop *loop = create();
	struct watched watched = { 0 };
	int fd = event_fd(0), file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	(void)state;

	assert_int_equal(loop_fd_add(loop, &watched.watch, file, EPOLLIN, on_event), -EPERM);
	assert_null(watched.watch.loop);
	assert_int_equal(loop_fd_add(loop, &watched.watch, -1, EPOLLIN, on_event), -EBADF);
	assert_null(watched.watch.loop);
	loop_fd_remove(&watched.watch);
	close(file);

	assert_int_equal(loop_fd_add(loop, &watched.watch, fd, EPOLLIN, on_event), 0);
	assert_int_equal(loop_turn(loop, 0), 0);
	eventfd_write(fd, 1);
	assert_int_equal(loop_turn(loop, -1), 1);
	assert_int_equal(watched.events, EPOLLIN);
	assert_int_equal(loop_turn(loop, -1), 1); /* level-triggered */
	assert_int_equal(loop_fd_modify(&watched.watch, EPOLLOUT), 0);
	assert_int_equal(loop_turn(loop, -1), 1);
	assert_int_equal(watched.events, EPOLLOUT);
	assert_int_equal(loop_fd_modify(&watched.watch, EPOLLIN | EPOLLET), 0);
	assert_int_equal(loop_turn(loop, -1), 1);
	assert_int_equal(loop_turn(loop, 0), 0);
	assert_int_equal(loop_fd_modify(&watched.watch, EPOLLIN | EPOLLET), 0); /* re-arms */
	assert_int_equal(loop_turn(loop, 0), 1);
	loop_fd_remove(&watched.watch);
	assert_int_equal(loop_turn(loop, 0), 0);
	loop_fd_remove(&watched.watch);
	close(fd);
	loop_destroy(loop);
}

/* Two are ready at once; whichever comes first removes and frees the other, on whose slot a third is then registered. */
static void removed_after_harvest(void **state)
{
	struct loop *loop = create();
	struct watched *pair[2], newcomer = { 0 };
	int fds[2], quiet = event_fd(0);
	(void)state;

	for (int i = 0; i < 2; i++) {
		pair[i] = calloc(1, sizeof *pair[i]);
		assert_non_null(pair[i]);
		fds[i] = event_fd(1);
	}
	for (int i = 0; i < 2; i++) {
		pair[i]->victim = &pair[1 - i];
		pair[i]->newcomer = &newcomer;
		pair[i]->fd = quiet;
		assert_int_equal(loop_fd_add(loop, &pair[i]->watch, fds[i], EPOLLIN, on_event), 0);
	}
	assert_int_equal(loop_turn(loop, -1), 1);
	assert_int_equal(newcomer.calls, 0);
	assert_true((pair[0] != NULL) ^ (pair[1] != NULL));
	eventfd_write(quiet, 1);
	assert_int_equal(loop_turn(loop, -1), 2);
	assert_int_equal(newcomer.calls, 1);
	loop_fd_remove(&newcomer.watch);
	for (int i = 0; i < 2; i++) {
		if (pair[i]) {
			loop_fd_remove(&pair[i]->watch);
			free(pair[i]);
		}
		close(fds[i]);
	}
	close(quiet);
	loop_destroy(loop);
}

static void removes_itself(void **state)
{
	struct loop *loop = create();
	struct watched *watched = calloc(1, sizeof *watched), newcomer = { 0 };
	int fd = event_fd(1), other = event_fd(1);
	(void)state;

	assert_non_null(watched);
	watched->victim = &watched;
	watched->newcomer = &newcomer;
	watched->fd = other;
	assert_int_equal(loop_fd_add(loop, &watched->watch, fd, EPOLLIN, on_event), 0);
	assert_int_equal(loop_turn(loop, -1), 1);
	assert_null(watched);
	assert_int_equal(loop_turn(loop, -1), 1);
	assert_int_equal(newcomer.calls, 1);
	loop_fd_remove(&newcomer.watch);
	close(fd);
	close(other);
	loop_destroy(loop);
}

struct remover {
	struct loop_message message;
	struct watched *victim;
};

static void remove_by_message(struct loop_message *message)
{
	struct remover *remover = container_of(message, struct remover, message);
	loop_fd_remove(&remover->victim->watch);
	free(remover->victim);
}

/* Messages run before the events that were harvested with them. */
static void removed_by_message(void **state)
{
	struct loop *loop = create();
	struct remover remover = { .victim = calloc(1, sizeof *remover.victim) };
	struct note note = { .value = 0 };
	int fd = event_fd(1);
	(void)state;

	noted_count = 0;
	assert_non_null(remover.victim);
	assert_int_equal(loop_fd_add(loop, &remover.victim->watch, fd, EPOLLIN, on_event), 0);
	loop_post(loop, &remover.message, remove_by_message);
	loop_post(loop, &note.message, take_note);
	assert_int_equal(loop_turn(loop, -1), 2);
	assert_int_equal(loop_turn(loop, 0), 0);
	close(fd);
	loop_destroy(loop);
}

static void many_descriptors(void **state)
{
	enum { COUNT = 200 };
	struct loop *loop = create();
	static struct watched watched[COUNT];
	int fds[COUNT];
	unsigned units = 0;
	(void)state;

	memset(watched, 0, sizeof watched);
	for (int i = 0; i < COUNT; i++) {
		fds[i] = event_fd(i % 2);
		assert_int_equal(loop_fd_add(loop, &watched[i].watch, fds[i], EPOLLIN | EPOLLET, on_event), 0);
	}
	for (int i = 0; i < COUNT / LOOP_EVENTS + 1; i++)
		units += (unsigned)loop_turn(loop, 0);
	assert_int_equal(units, COUNT / 2);
	for (int i = 0; i < COUNT; i++) {
		assert_int_equal(watched[i].calls, i % 2);
		loop_fd_remove(&watched[i].watch);
		close(fds[i]);
	}
	loop_destroy(loop);
}

/* ---- timers ---- */

static void timers_in_order(void **state)
{
	static const unsigned delays_us[] = { 900, 300, 2500, 600 };
	struct loop *loop = create();
	struct alarm alarms[4] = { 0 };
	uint64_t now = loop_clock();
	int units = 0;
	(void)state;

	alarm_count = 0;
	for (unsigned i = 0; i < 4; i++) {
		alarms[i].number = i;
		assert_int_equal(loop_timer_arm(loop, &alarms[i].timer, now + delays_us[i] * 1000, on_alarm), 0);
	}
	while (units < 4)
		units += loop_turn(loop, -1);
	assert_int_equal(alarm_order[0], 1);
	assert_int_equal(alarm_order[1], 3);
	assert_int_equal(alarm_order[2], 0);
	assert_int_equal(alarm_order[3], 2);
	loop_destroy(loop);
}

static void timers_without_pwait2(void **state)
{
	struct loop *loop = create();
	(void)state;

	loop->no_pwait2 = true;
	for (unsigned i = 0; i < 10; i++) {
		struct alarm alarm = { 0 };
		assert_int_equal(loop_timer_arm(loop, &alarm.timer, loop_clock() + 100000 * (i + 1), on_alarm), 0);
		assert_int_equal(loop_turn(loop, -1), 1); /* on_alarm checks that it is not early */
	}
	loop_destroy(loop);
}

static void re_armed_and_disarmed(void **state)
{
	struct loop *loop = create();
	struct alarm a = { .number = 0 }, b = { .number = 1 };
	(void)state;

	/* disarming what is not armed */
	loop_timer_disarm(&a.timer);
	/* later, then earlier */
	assert_int_equal(loop_timer_arm(loop, &a.timer, loop_clock() + 3600 * 1000 * MS, on_alarm), 0);
	assert_int_equal(loop_turn(loop, 0), 0);
	assert_int_equal(loop_timer_arm(loop, &a.timer, loop_clock() + MS, on_alarm), 0);
	assert_int_equal(loop_turn(loop, -1), 1);
	assert_int_equal(a.fired, 1);
	/* earlier, then later */
	assert_int_equal(loop_timer_arm(loop, &a.timer, 0, on_alarm), 0);
	assert_int_equal(loop_timer_arm(loop, &a.timer, loop_clock() + 3600 * 1000 * MS, on_alarm), 0);
	assert_int_equal(loop_turn(loop, 0), 0);
	/* two are due, the first disarms the second */
	a.disarms = &b;
	b.disarms = &a;
	assert_int_equal(loop_timer_arm(loop, &a.timer, 1, on_alarm), 0);
	assert_int_equal(loop_timer_arm(loop, &b.timer, 2, on_alarm), 0);
	assert_int_equal(loop_turn(loop, 0), 1);
	assert_int_equal(a.fired, 2);
	assert_int_equal(b.fired, 0);
	assert_null(b.timer.loop);
	loop_destroy(loop);
}

static void past_is_next_turn(void **state)
{
	struct loop *loop = create();
	struct alarm alarm = { 0 };
	(void)state;

	assert_int_equal(loop_timer_arm(loop, &alarm.timer, 0, arm_for_the_past), 0);
	for (unsigned i = 1; i <= 5; i++) {
		assert_int_equal(loop_turn(loop, -1), 1);
		assert_int_equal(alarm.fired, i);
	}
	assert_int_equal(loop_turn(loop, 0), 0);
	loop_destroy(loop);
}

/* Against a plain table: arms, re-arms and disarms at random, then all that is left fires in order. */
static uint64_t last_when;

static void check_order(struct loop_timer *timer)
{
	assert_true(timer->when >= last_when);
	last_when = timer->when;
	container_of(timer, struct alarm, timer)->fired++;
}

static void heap_at_random(void **state)
{
	enum { COUNT = 100 };
	struct loop *loop = create();
	static struct alarm alarms[COUNT];
	uint32_t random = 1;
	int armed = 0;
	(void)state;

	memset(alarms, 0, sizeof alarms);
	for (int i = 0; i < 20000; i++) {
		random = random * 1664525 + 1013904223;
		struct alarm *alarm = &alarms[(random >> 8) % COUNT];
		if (random >> 30)
			assert_int_equal(loop_timer_arm(loop, &alarm->timer, 1000 + (random >> 16) % 500, check_order), 0);
		else
			loop_timer_disarm(&alarm->timer);
	}
	for (int i = 0; i < COUNT; i++) {
		alarms[i].number = alarms[i].timer.loop != NULL;
		armed += alarms[i].timer.loop != NULL;
	}
	assert_in_range(armed, 1, COUNT);
	last_when = 0;
	assert_int_equal(loop_turn(loop, 0), armed);
	for (int i = 0; i < COUNT; i++)
		assert_int_equal(alarms[i].fired, alarms[i].number);
	loop_destroy(loop);
}

static void turn_waits_as_told(void **state)
{
	struct loop *loop = create();
	struct alarm alarm = { 0 };
	uint64_t begin = loop_clock();
	(void)state;

	assert_int_equal(loop_turn(loop, 20), 0);
	assert_true(loop_clock() - begin >= 20 * MS);
	/* a wake-up that nothing is left for does not shorten it */
	begin = loop_clock();
	loop_wake_self(loop);
	assert_int_equal(loop_turn(loop, 20), 0);
	assert_true(loop_clock() - begin >= 20 * MS);
	/* a timer does */
	begin = loop_clock();
	assert_int_equal(loop_timer_arm(loop, &alarm.timer, begin + 5 * MS, on_alarm), 0);
	assert_int_equal(loop_turn(loop, 60000), 1);
	assert_true(loop_clock() - begin < 30000 * MS);
	loop_destroy(loop);
}

static void check_now(struct loop_message *message)
{
	(void)message;
	uint64_t before = loop_clock(), now = loop_now(loop_current());
	assert_true(now >= before);
	assert_true(loop_now(loop_current()) == now);
	while (loop_clock() < now + 100000)
		;
	assert_true(loop_now(loop_current()) == now);
	noted_count++;
}

static uint64_t first_now;

static void note_now(struct loop_message *message)
{
	(void)message;
	first_now = loop_now(loop_current());
}

static void now_is_that_of_the_unit(void **state)
{
	struct loop *loop = create();
	struct loop_message messages[3];
	(void)state;

	noted_count = 0;
	/* the first of a turn may see the time of the turn, the others see their own */
	loop_turn(loop, 0);
	for (int i = 0; i < 3; i++)
		loop_post(loop, &messages[i], i ? check_now : note_now);
	assert_int_equal(loop_turn(loop, -1), 3);
	assert_int_equal(noted_count, 2);
	/* no time of an earlier turn is left */
	assert_int_equal(loop_turn(loop, 0), 0);
	loop_post(loop, &messages[0], note_now);
	loop_stop(loop);
	uint64_t begin = loop_clock();
	loop_run(loop);
	assert_true(first_now >= begin);
	loop_destroy(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(descriptors),
		cmocka_unit_test(removed_after_harvest),
		cmocka_unit_test(removes_itself),
		cmocka_unit_test(removed_by_message),
		cmocka_unit_test(many_descriptors),
		cmocka_unit_test(timers_in_order),
		cmocka_unit_test(timers_without_pwait2),
		cmocka_unit_test(re_armed_and_disarmed),
		cmocka_unit_test(past_is_next_turn),
		cmocka_unit_test(heap_at_random),
		cmocka_unit_test(turn_waits_as_told),
		cmocka_unit_test(now_is_that_of_the_unit),
	};
	return cmocka_run_group_tests_name("loop_watch", tests, NULL, NULL);
}
