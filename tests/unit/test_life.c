// SPDX-License-Identifier: BSD-2-Clause
/*
 * The life of a function: its table, its gate, and when it is settled.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "busy_loop.h"
#include "life/life.h"
#include "life/table.h"

static struct loop *owner;
static struct life *life;

static int setup(void **state)
{
	(void)state;
	assert_int_equal(loop_create(&owner, "owner", NULL), 0);
	assert_int_equal(life_create(&life, owner, NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	turn_idle(owner);
	life_destroy(life);
	turn_idle(owner);
	loop_destroy(owner);
	return 0;
}

/* ---- the table ---- */

static void test_table(void **state)
{
	(void)state;
	/* Walks every pair; what is said here was written from the design, not from the table. */
	for (int s = 0; s < LIFE_STATE_COUNT; s++) {
		for (int e = 0; e < LIFE_EVENT_COUNT; e++) {
			int next = life_table_next((enum life_state)s, (enum life_event)e);
			assert_in_range(next + 1, 0, LIFE_STATE_COUNT);
			/* Only the first client of a free function gets it. */
			if (e == LIFE_EVENT_CONNECT)
				assert_int_equal(next, s == LIFE_STATE_FREE ? (int)LIFE_STATE_ATTACHED : -1);
			/* What is in quarantine never becomes free again, and what is gone only by being plugged. */
			if (s == LIFE_STATE_QUARANTINED || (s == LIFE_STATE_GONE && e != LIFE_EVENT_PLUG))
				assert_true(next < 0 || next == LIFE_STATE_GONE || next == LIFE_STATE_QUARANTINED);
			if (e == LIFE_EVENT_PLUG)
				assert_int_equal(next, s == LIFE_STATE_GONE ? (int)LIFE_STATE_FREE : -1);
			/* Else free again only at the end of leaving. */
			if (next == LIFE_STATE_FREE && s != LIFE_STATE_FREE && e != LIFE_EVENT_PLUG) {
				assert_int_equal(s, LIFE_STATE_LEAVING);
				assert_int_equal(e, LIFE_EVENT_SETTLED);
			}
			/* Forced unplug needs nobody, in no state; and nobody is offered the function afterwards. */
			if (e == LIFE_EVENT_UNPLUG_FORCE)
				assert_true(next == LIFE_STATE_UNPLUGGING || next == LIFE_STATE_GONE);
			if (s == LIFE_STATE_UNPLUGGING && next >= 0)
				assert_true(next == LIFE_STATE_UNPLUGGING || next == LIFE_STATE_GONE || next == LIFE_STATE_QUARANTINED);
			/* A client that was there can always go. */
			if (e == LIFE_EVENT_DISCONNECT)
				assert_int_equal(next >= 0, s != LIFE_STATE_FREE);
			/* A reset brings no client back and takes back no unplug. */
			if (e == LIFE_EVENT_FLR && next >= 0)
				assert_int_equal(next, s == LIFE_STATE_ATTACHED ? (int)LIFE_STATE_RESETTING : s);
			if (e == LIFE_EVENT_VIRTIO_RESET && next >= 0)
				assert_int_equal(next, s);
		}
	}
	assert_int_equal(life_table_next((enum life_state)99, LIFE_EVENT_FLR), -1);
	assert_int_equal(life_table_next(LIFE_STATE_FREE, (enum life_event)99), -1);
}

static void test_move(void **state)
{
	(void)state;
	assert_int_equal(life_state(life), LIFE_STATE_FREE);
	assert_int_equal(life_move(life, LIFE_EVENT_SETTLED), -EPROTO);
	assert_int_equal(life_state(life), LIFE_STATE_FREE);
	assert_int_equal(life_count(life, LIFE_EVENT_SETTLED), 0);
	assert_int_equal(life_move(life, LIFE_EVENT_CONNECT), 0);
	assert_int_equal(life_move(life, LIFE_EVENT_CONNECT), -EPROTO);
	assert_int_equal(life_move(life, LIFE_EVENT_FLR), 0);
	assert_int_equal(life_move(life, LIFE_EVENT_UNPLUG_ASK), 0);
	assert_int_equal(life_move(life, LIFE_EVENT_SETTLED), 0);
	assert_int_equal(life_state(life), LIFE_STATE_ASKED);
	assert_int_equal(life_move(life, LIFE_EVENT_DISCONNECT), 0);
	assert_int_equal(life_move(life, LIFE_EVENT_SETTLED), 0);
	assert_int_equal(life_state(life), LIFE_STATE_GONE);
	assert_int_equal(life_move(life, LIFE_EVENT_PLUG), 0);
	assert_int_equal(life_state(life), LIFE_STATE_FREE);
	assert_int_equal(life_count(life, LIFE_EVENT_CONNECT), 1);
	assert_int_equal(life_count(life, LIFE_EVENT_FLR), 1);
}

static void test_names(void **state)
{
	char text[80], small[8];
	(void)state;
	assert_string_equal(life_condition_names(0, text, sizeof text), "open");
	assert_string_equal(life_condition_names(LIFE_NO_BUS_MASTER | LIFE_RESET, text, sizeof text), "reset no-bus-master");
	assert_string_equal(life_condition_names(~0u, small, sizeof small), "reset n");
	assert_string_equal(life_state_name(LIFE_STATE_LEAVING), "leaving");
	assert_string_equal(life_event_name(LIFE_EVENT_FLR), "flr");
	assert_string_equal(life_event_name((enum life_event)1000), "?");
}

/* ---- the gate ---- */

struct watcher {
	struct life_listener listener;
	int opened, closed;
	bool closes_again;
};

static void on_opened(struct life_listener *listener)
{
	struct watcher *w = container_of(listener, struct watcher, listener);
	w->opened++;
	if (w->closes_again)
		life_close(life, LIFE_STOPPED);
}

static void on_closed(struct life_listener *listener)
{
	container_of(listener, struct watcher, listener)->closed++;
}

static void test_gate(void **state)
{
	struct watcher a = { .listener = { .opened = on_opened, .closed = on_closed } };
	struct watcher b = a;
	(void)state;
	life_listen(life, &a.listener);
	life_listen(life, &b.listener);
	assert_int_equal(life_conditions(life), LIFE_NO_CLIENT);
	assert_false(gate_is_open(life_gate(life)));
	life_close(life, LIFE_NO_DRIVER | LIFE_NOT_D0);
	assert_int_equal(a.closed, 0); /* it was closed already */
	life_open(life, LIFE_NO_CLIENT | LIFE_NOT_D0);
	assert_int_equal(a.opened, 0);
	life_open(life, LIFE_NO_DRIVER);
	assert_true(gate_is_open(life_gate(life)));
	assert_int_equal(a.opened, 1);
	life_open(life, LIFE_NO_DRIVER);
	assert_int_equal(a.opened, 1);
	life_close(life, LIFE_RESET);
	life_close(life, LIFE_FENCE);
	assert_int_equal(a.closed, 1);
	a.closes_again = true;
	life_open(life, LIFE_RESET | LIFE_FENCE);
	assert_int_equal(a.opened, 2);
	assert_int_equal(b.opened, 1); /* the gate had closed again before its turn */
	assert_int_equal(b.closed, 2);
}

/* ---- settling ---- */

struct answer {
	struct life_wait wait;
	bool come;
	bool was_inside;
	int number;
	struct busy_loop *busy;
	void (*then)(void);
};

static int answers;

static void on_answer(struct life_wait *wait)
{
	struct answer *a = container_of(wait, struct answer, wait);
	a->come = true;
	a->number = ++answers;
	a->was_inside = a->busy && atomic_load(&a->busy->inside);
	if (a->then)
		a->then();
}

static void test_inline(void **state)
{
	struct answer a = { 0 }, b = { 0 };
	(void)state;
	assert_true(life_settled(life));
	life_wait(life, &a.wait, on_answer);
	assert_true(a.come);
	/* Nobody runs queues: closing needs nobody's answer. */
	life_close(life, LIFE_NO_BUS_MASTER);
	life_wait(life, &b.wait, on_answer);
	assert_true(b.come);
}

static void test_sleeping(void **state)
{
	struct loop *io; /* nobody runs it, which is as if it slept */
	struct answer a = { 0 };
	(void)state;
	assert_int_equal(loop_create(&io, "io", NULL), 0);
	assert_int_equal(life_loop_add(life, io), 0);
	assert_int_equal(life_loop_add(life, owner), 0);
	life_close(life, LIFE_NO_BUS_MASTER);
	assert_false(life_settled(life));
	life_wait(life, &a.wait, on_answer);
	assert_true(a.come);
	assert_true(life_settled(life));
	life_loop_remove(life, io);
	life_loop_remove(life, owner);
	loop_destroy(io);
}

/* Law 1: a closing is answered when the I/O thread has left the unit it was in, and not before. */
static void test_busy(void **state)
{
	struct busy_loop busy;
	struct answer a = { .busy = &busy }, b = { .busy = &busy };
	(void)state;
	answers = 0;
	assert_int_equal(busy_start(&busy), 0);
	assert_int_equal(life_loop_add(life, busy_loop_of(&busy)), 0);
	busy_enter(&busy);
	life_close(life, LIFE_NO_BUS_MASTER);
	life_wait(life, &a.wait, on_answer);
	life_wait(life, &b.wait, on_answer);
	turn_idle(owner);
	assert_false(a.come);
	assert_false(life_settled(life));
	busy_leave(&busy);
	turn_until(owner, &b.come);
	assert_false(a.was_inside);
	assert_int_equal(a.number, 1);
	assert_int_equal(b.number, 2);
	assert_true(life_settled(life));
	life_loop_remove(life, busy_loop_of(&busy));
	busy_stop(&busy);
}

/* Returns when everything that was posted to io before has been run there, and what that posted to the owner here. */
static struct loop_message there, back;
static bool passed;

static void on_back(struct loop_message *message)
{
	(void)message;
	passed = true;
}

static void on_there(struct loop_message *message)
{
	(void)message;
	loop_post(owner, &back, on_back);
}

static void pass_through(struct loop *io)
{
	passed = false;
	loop_post(io, &there, on_there);
	turn_until(owner, &passed);
}

/* What is closed while a round runs was perhaps seen open by a unit of after that round: it needs another one. */
static void test_second_round(void **state)
{
	struct busy_loop first, second;
	struct answer a = { .busy = &second };
	(void)state;
	assert_int_equal(busy_start(&first), 0);
	assert_int_equal(busy_start(&second), 0);
	assert_int_equal(life_loop_add(life, busy_loop_of(&first)), 0);
	busy_enter(&first);
	life_close(life, LIFE_NO_BUS_MASTER);
	life_wait(life, &a.wait, on_answer);
	/* The second thread comes in after the round has begun, and something else is taken away. */
	busy_enter(&second);
	assert_int_equal(life_loop_add(life, busy_loop_of(&second)), 0);
	life_touch(life);
	busy_leave(&first);
	/* The first round ends; it alone must not be the answer. */
	pass_through(busy_loop_of(&first));
	assert_false(a.come);
	busy_leave(&second);
	turn_until(owner, &a.come);
	assert_false(a.was_inside);
	life_loop_remove(life, busy_loop_of(&first));
	life_loop_remove(life, busy_loop_of(&second));
	busy_stop(&first);
	busy_stop(&second);
}

/* Law 3: the owner does not wait in its own thread for the I/O thread. */
static void test_owner_does_not_wait(void **state)
{
	struct busy_loop busy;
	struct answer a = { .busy = &busy };
	(void)state;
	assert_int_equal(busy_start(&busy), 0);
	assert_int_equal(life_loop_add(life, busy_loop_of(&busy)), 0);
	busy_enter(&busy);
	life_close(life, LIFE_NO_BUS_MASTER);
	life_wait(life, &a.wait, on_answer);
	/* Only this lets the unit end in time. */
	busy_leave(&busy);
	turn_until(owner, &a.come);
	assert_false(atomic_load(&busy.abandoned));
	life_loop_remove(life, busy_loop_of(&busy));
	busy_stop(&busy);
}

static struct answer late;

static void wait_again(void)
{
	life_hold(life);
	life_wait(life, &late.wait, on_answer);
}

static void test_holds(void **state)
{
	struct answer a = { .then = wait_again }, b = { 0 };
	(void)state;
	late = (struct answer){ 0 };
	answers = 0;
	life_hold(life);
	life_hold(life);
	life_wait(life, &a.wait, on_answer);
	life_wait(life, &b.wait, on_answer);
	life_release(life);
	assert_false(a.come);
	life_release(life);
	/* The first began something new: the others wait for that too, in order. */
	assert_true(a.come);
	assert_false(b.come);
	life_release(life);
	assert_int_equal(b.number, 2);
	assert_int_equal(late.number, 3);
}

static void test_loops_are_counted(void **state)
{
	struct busy_loop busy;
	struct answer a = { .busy = &busy }, b = { 0 };
	(void)state;
	assert_int_equal(busy_start(&busy), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(life_loop_add(life, busy_loop_of(&busy)), 0);
	life_loop_remove(life, busy_loop_of(&busy));
	life_loop_remove(life, busy_loop_of(&busy));
	busy_enter(&busy);
	life_touch(life);
	life_wait(life, &a.wait, on_answer);
	turn_idle(owner);
	assert_false(a.come); /* once added is still there */
	busy_leave(&busy);
	turn_until(owner, &a.come);
	life_loop_remove(life, busy_loop_of(&busy));
	busy_enter(&busy);
	life_touch(life);
	life_wait(life, &b.wait, on_answer);
	assert_true(b.come);
	busy_leave(&busy);
	busy_stop(&busy);
}

/* More loops than fit in any inline array, a round each time. */
static void test_many_loops(void **state)
{
	enum { N = 9 };
	struct busy_loop busy[N];
	struct answer a = { 0 };
	(void)state;
	for (int i = 0; i < N; i++) {
		assert_int_equal(busy_start(&busy[i]), 0);
		assert_int_equal(life_loop_add(life, busy_loop_of(&busy[i])), 0);
		busy_enter(&busy[i]);
	}
	life_close(life, LIFE_RESET);
	life_wait(life, &a.wait, on_answer);
	for (int i = 0; i < N; i++) {
		turn_idle(owner);
		assert_false(a.come);
		busy_leave(&busy[i]);
	}
	turn_until(owner, &a.come);
	for (int i = 0; i < N; i++) {
		life_loop_remove(life, busy_loop_of(&busy[i]));
		busy_stop(&busy[i]);
	}
}

/* A life destroyed while a round runs is freed when that has ended. */
static void test_destroy_in_round(void **state)
{
	struct busy_loop busy;
	struct answer a = { 0 };
	struct life *other;
	(void)state;
	assert_int_equal(life_create(&other, owner, NULL), 0);
	assert_int_equal(busy_start(&busy), 0);
	assert_int_equal(life_loop_add(other, busy_loop_of(&busy)), 0);
	busy_enter(&busy);
	life_touch(other);
	life_wait(other, &a.wait, on_answer);
	list_remove(&a.wait.link);
	life_destroy(other);
	busy_leave(&busy);
	while (atomic_load(&busy.inside))
		;
	busy_stop(&busy);
	turn_idle(owner);
	assert_false(a.come);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_table),      TEST(test_move),		 TEST(test_names),	 TEST(test_gate),
		TEST(test_inline),     TEST(test_sleeping),	 TEST(test_busy),	 TEST(test_second_round), TEST(test_owner_does_not_wait),
		TEST(test_holds),      TEST(test_loops_are_counted), TEST(test_many_loops), TEST(test_destroy_in_round),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
