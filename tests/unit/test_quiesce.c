// SPDX-License-Identifier: BSD-2-Clause
/*
 * Quiescence (law 1 rests on it): asleep, awake, ended and never started loops, and under load, with memory that is freed as
 * soon as it is granted, so that the address and thread sanitizers see any unit that was not waited for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/loop.h"
#include "base/loop_private.h"
#include "race_time.h"

#define THREADS 3
#define MANY 7
#define ROUNDS 3000

static void create(struct loop **loop)
{
	assert_int_equal(loop_create(loop, "test", NULL), 0);
}

static void start(struct loop_thread **thread)
{
	assert_int_equal(loop_thread_start(thread, "test-io", NULL), 0);
}

struct waiting {
	struct loop_quiesce quiesce;
	bool done;
};

static void note_done(struct loop_quiesce *quiesce)
{
	container_of(quiesce, struct waiting, quiesce)->done = true;
}

/* Quiesces and runs home until it is so. Returns whether it had to wait. */
static bool quiesce_now(struct loop *home, struct loop *const *loops, size_t count)
{
	struct waiting waiting = { .done = false };

	if (loop_quiesce(&waiting.quiesce, home, loops, count, note_done)) {
		assert_false(waiting.done);
		return false;
	}
	while (!waiting.done)
		loop_turn(home, -1);
	return true;
}

/* ---- single cases ---- */

/* A unit that says that it runs, and ends when it is told. */
struct blocker {
	struct loop_message message;
	sem_t entered, leave;
	atomic_bool ended;
};

static void block(struct loop_message *message)
{
	struct blocker *blocker = container_of(message, struct blocker, message);
	sem_post(&blocker->entered);
	while (sem_wait(&blocker->leave))
		;
	atomic_store(&blocker->ended, true);
}

static void block_loop(struct blocker *blocker, struct loop *loop)
{
	memset(blocker, 0, sizeof *blocker);
	sem_init(&blocker->entered, 0, 0);
	sem_init(&blocker->leave, 0, 0);
	loop_post(loop, &blocker->message, block);
	while (sem_wait(&blocker->entered))
		;
}

static void never_started(void **state)
{
	struct loop *home, *other;
	struct waiting waiting = { .done = false };
	(void)state;

	create(&home);
	create(&other);
	assert_true(loop_quiesce(&waiting.quiesce, home, &other, 1, note_done));
	assert_true(loop_quiesce(&waiting.quiesce, home, NULL, 0, note_done));
	assert_int_equal(loop_turn(home, 0), 0);
	assert_false(waiting.done);
	loop_destroy(home);
	loop_destroy(other);
}

static void note(struct loop_message *message)
{
	(void)message;
}

static void with_queued_messages(void **state)
{
	struct loop *home, *other;
	struct loop_message message;
	struct waiting waiting = { .done = false };
	(void)state;

	create(&home);
	create(&other);
	loop_post(other, &message, note);
	assert_true(loop_quiesce(&waiting.quiesce, home, &other, 1, note_done));
	/* the message is still there, and only now runs */
	assert_int_equal(loop_turn(other, 0), 1);
	assert_true(loop_quiesce(&waiting.quiesce, home, &other, 1, note_done));
	loop_destroy(home);
	loop_destroy(other);
}

/* How often the loop has been written awake: its eventfd is never read. */
static unsigned wake_ups(const struct loop *loop)
{
	char path[64], line[128];
	unsigned long long count = 0;

	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", loop->wake_fd);
	FILE *file = fopen(path, "r");
	assert_non_null(file);
	while (fgets(line, sizeof line, file))
		sscanf(line, "eventfd-count: %llx", &count);
	fclose(file);
	return (unsigned)count;
}

static void asleep_is_not_woken(void **state)
{
	struct loop *home;
	struct loop_thread *thread;
	unsigned in_a_row = 0;
	(void)state;

	create(&home);
	start(&thread);
	struct loop *loop = loop_thread_loop(thread);
	/* The thread is still on its way into its loop; once it sleeps, nothing here may change that. */
	while (in_a_row < 100000)
		in_a_row = quiesce_now(home, &loop, 1) ? 0 : in_a_row + 1;
	assert_int_equal(wake_ups(loop), 0);
	loop_thread_stop(thread);
	loop_destroy(home);
}

static void awake_is_waited_for(void **state)
{
	struct loop *home;
	struct loop_thread *thread;
	struct blocker blocker;
	struct waiting waiting = { .done = false };
	(void)state;

	create(&home);
	start(&thread);
	struct loop *loops[] = { home, loop_thread_loop(thread), home };
	block_loop(&blocker, loops[1]);
	assert_false(loop_quiesce(&waiting.quiesce, home, loops, 3, note_done));
	for (int i = 0; i < 100; i++) {
		assert_int_equal(loop_turn(home, 0), 0);
		assert_false(waiting.done);
	}
	sem_post(&blocker.leave);
	while (!waiting.done)
		loop_turn(home, -1);
	assert_true(atomic_load(&blocker.ended));
	loop_thread_stop(thread);
	loop_destroy(home);
}

static void many_awake(void **state)
{
	struct loop *home, *loops[MANY];
	struct loop_thread *threads[MANY];
	struct blocker blockers[MANY];
	struct waiting waiting = { .done = false };
	(void)state;

	create(&home);
	for (int i = 0; i < MANY; i++) {
		start(&threads[i]);
		loops[i] = loop_thread_loop(threads[i]);
		block_loop(&blockers[i], loops[i]);
	}
	assert_false(loop_quiesce(&waiting.quiesce, home, loops, MANY, note_done));
	for (int i = 0; i < MANY; i++) {
		loop_turn(home, 0);
		assert_false(waiting.done);
		sem_post(&blockers[MANY - 1 - i].leave);
	}
	while (!waiting.done)
		loop_turn(home, -1);
	for (int i = 0; i < MANY; i++) {
		assert_true(atomic_load(&blockers[i].ended));
		loop_thread_stop(threads[i]);
	}
	loop_destroy(home);
}

struct inside {
	struct loop_message message;
	struct loop_quiesce quiesce;
	bool quiescent;
};

static void ask_for_home(struct loop_message *message)
{
	struct inside *inside = container_of(message, struct inside, message);
	struct loop *home = loop_current();
	inside->quiescent = loop_quiesce(&inside->quiesce, home, &home, 1, NULL);
}

/* Asked in a unit of home, which is awake then. */
static void home_is_not_waited_for(void **state)
{
	struct loop *home;
	struct inside inside = { .quiescent = false };
	(void)state;

	create(&home);
	loop_post(home, &inside.message, ask_for_home);
	assert_int_equal(loop_turn(home, -1), 1);
	assert_true(inside.quiescent);
	assert_int_equal(loop_turn(home, 0), 0);
	loop_destroy(home);
}

struct stopping {
	struct loop_message message;
	struct loop *loop;
	struct blocker *blocker;
};

/* Both are handled in the next turn, which is the last. */
static void stop_then_block(struct loop_message *message)
{
	struct stopping *stopping = container_of(message, struct stopping, message);
	loop_stop(stopping->loop);
	loop_post(stopping->loop, &stopping->blocker->message, block);
}

/* Asked while the last unit runs on a loop that has been told to stop: there is no next turn to answer in. */
static void ended_meanwhile(void **state)
{
	struct loop *home;
	struct loop_thread *thread;
	struct blocker blocker;
	struct waiting waiting = { .done = false };
	(void)state;

	memset(&blocker, 0, sizeof blocker);
	sem_init(&blocker.entered, 0, 0);
	sem_init(&blocker.leave, 0, 0);
	create(&home);
	start(&thread);
	struct loop *loop = loop_thread_loop(thread);
	struct stopping stopping = { .loop = loop, .blocker = &blocker };
	loop_post(loop, &stopping.message, stop_then_block);
	while (sem_wait(&blocker.entered))
		;
	assert_false(loop_quiesce(&waiting.quiesce, home, &loop, 1, note_done));
	sem_post(&blocker.leave);
	while (!waiting.done)
		loop_turn(home, -1);
	assert_true(atomic_load(&blocker.ended));
	loop_thread_stop(thread);
	loop_destroy(home);
}

/* ---- under load ---- */

/* What the units read, as they read a mapping: replaced and freed behind a quiescence. */
struct shared {
	_Atomic uint32_t gate; /* closed relaxed, on purpose: only quiescence makes that seen */
	struct thing {
		uint64_t value, copy; /* plain on purpose, so that the thread sanitizer checks the order */
	} *_Atomic thing;
};

struct worker {
	struct loop_thread *thread;
	struct loop *loop;
	struct shared *shared;
	struct loop_message message, last;
	struct loop_poller poller;
	struct loop_timer timer;
	atomic_bool end;
	atomic_uint units;
	atomic_uint wrong;
	_Atomic uint64_t touched; /* while the gate was open; plain enough to be read when quiescent */
	uint64_t plain; /* written by units, read by home when quiescent */
};

static void touch(struct worker *worker)
{
	struct shared *shared = worker->shared;

	atomic_fetch_add_explicit(&worker->units, 1, memory_order_relaxed);
	if (!atomic_load_explicit(&shared->gate, memory_order_acquire)) /* of the opening */
		return;
	struct thing *thing = atomic_load_explicit(&shared->thing, memory_order_acquire);
	for (int i = 0; i < 20; i++)
		if (thing->value != thing->copy)
			atomic_fetch_add(&worker->wrong, 1);
	worker->plain++;
	atomic_fetch_add_explicit(&worker->touched, 1, memory_order_relaxed);
}

static bool touch_polled(struct loop_poller *poller)
{
	touch(container_of(poller, struct worker, poller));
	return false;
}

static void touch_timed(struct loop_timer *timer)
{
	struct worker *worker = container_of(timer, struct worker, timer);
	touch(worker);
	if (!atomic_load(&worker->end))
		loop_timer_arm(worker->loop, timer, loop_now(worker->loop) + 5000, touch_timed);
}

static void touch_posted(struct loop_message *message)
{
	struct worker *worker = container_of(message, struct worker, message);
	touch(worker);
	if (!atomic_load(&worker->end))
		loop_post(worker->loop, message, touch_posted);
}

static void begin_polling(struct loop_message *message)
{
	struct worker *worker = container_of(message, struct worker, message);
	loop_poller_add(worker->loop, &worker->poller, touch_polled);
}

static void end_polling(struct loop_message *message)
{
	loop_poller_remove(&container_of(message, struct worker, last)->poller);
}

static void begin_timing(struct loop_message *message)
{
	touch_timed(&container_of(message, struct worker, message)->timer);
}

static void end_timing(struct loop_message *message)
{
	loop_timer_disarm(&container_of(message, struct worker, last)->timer);
}

static void end_posting(struct loop_message *message)
{
	(void)message;
}

static struct thing *make_thing(uint64_t value)
{
	struct thing *thing = malloc(sizeof *thing);
	assert_non_null(thing);
	thing->value = thing->copy = value;
	return thing;
}

/* One polls, one sleeps between timers, one posts to itself. Replace, quiesce, free; close, quiesce, check, open. */
static void load(void **state)
{
	static void (*const begin[THREADS])(struct loop_message *) = { begin_polling, begin_timing, touch_posted };
	static void (*const end[THREADS])(struct loop_message *) = { end_polling, end_timing, end_posting };
	struct shared shared = { .gate = 1 };
	struct worker workers[THREADS];
	struct loop *home, *loops[THREADS];
	unsigned waited = 0;
	(void)state;

	memset(workers, 0, sizeof workers);
	atomic_store(&shared.thing, make_thing(0));
	create(&home);
	for (int i = 0; i < THREADS; i++) {
		start(&workers[i].thread);
		workers[i].shared = &shared;
		loops[i] = workers[i].loop = loop_thread_loop(workers[i].thread);
		loop_post(loops[i], &workers[i].message, begin[i]);
	}
	uint64_t begun = loop_clock();
	for (unsigned round = 0; race_goes_on(begun, round, 20, ROUNDS);) {
		round++;
		struct thing *old = atomic_load(&shared.thing);
		atomic_store_explicit(&shared.thing, make_thing(round), memory_order_release);
		waited += quiesce_now(home, loops, THREADS);
		old->value = 1; /* now ours alone */
		old->copy = 2;
		free(old);

		uint64_t touched[THREADS];
		atomic_store_explicit(&shared.gate, 0, memory_order_relaxed);
		waited += quiesce_now(home, loops, THREADS);
		for (int i = 0; i < THREADS; i++)
			touched[i] = workers[i].plain;
		for (int i = 0; i < 50 && loop_clock() - begun < RACE_NS; i++)
			sched_yield();
		for (int i = 0; i < THREADS; i++) {
			assert_true(workers[i].plain == touched[i]);
			assert_true(atomic_load(&workers[i].touched) == touched[i]);
		}
		atomic_store_explicit(&shared.gate, 1, memory_order_release);
	}
	assert_true(waited > 0);
	for (int i = 0; i < THREADS; i++)
		atomic_store(&workers[i].end, true);
	quiesce_now(home, loops, THREADS);
	for (int i = 0; i < THREADS; i++) {
		loop_post(loops[i], &workers[i].last, end[i]);
		loop_thread_stop(workers[i].thread);
		assert_int_equal(atomic_load(&workers[i].wrong), 0);
		assert_true(atomic_load(&workers[i].units) > 0);
	}
	free(atomic_load(&shared.thing));
	loop_destroy(home);
}

/* ---- loops that end and begin while they are asked ---- */

struct runner {
	struct loop *loop;
	atomic_bool end;
	atomic_uint runs;
};

static void *run_again_and_again(void *argument)
{
	struct runner *runner = argument;

	while (!atomic_load(&runner->end)) {
		loop_stop(runner->loop);
		loop_run(runner->loop);
		loop_turn(runner->loop, 0);
		atomic_fetch_add(&runner->runs, 1);
	}
	return NULL;
}

static void coming_and_going(void **state)
{
	struct runner runner = { 0 };
	struct loop *home;
	pthread_t thread;
	unsigned waited = 0, rounds = 0;
	(void)state;

	create(&home);
	create(&runner.loop);
	assert_int_equal(pthread_create(&thread, NULL, run_again_and_again, &runner), 0);
	/* until both answers have been seen, and then some */
	for (; rounds < ROUNDS * 10 || !waited || waited == rounds; rounds++)
		waited += quiesce_now(home, &runner.loop, 1);
	atomic_store(&runner.end, true);
	pthread_join(thread, NULL);
	assert_true(atomic_load(&runner.runs) > 0);
	loop_destroy(runner.loop);
	loop_destroy(home);
}

/* ---- two that ask each other, neither of which may wait in place ---- */

struct peer {
	struct loop_thread *thread;
	struct loop *loop, *other;
	struct loop_message message;
	struct loop_quiesce quiesce;
	unsigned left;
	sem_t *finished;
};

static void ask(struct loop_message *message);

static void answered(struct loop_quiesce *quiesce)
{
	struct peer *peer = container_of(quiesce, struct peer, quiesce);

	if (--peer->left)
		loop_post(peer->loop, &peer->message, ask);
	else
		sem_post(peer->finished);
}

static void ask(struct loop_message *message)
{
	struct peer *peer = container_of(message, struct peer, message);

	if (loop_quiesce(&peer->quiesce, peer->loop, &peer->other, 1, answered))
		answered(&peer->quiesce);
}

static void each_other(void **state)
{
	struct peer peers[2];
	sem_t finished;
	(void)state;

	memset(peers, 0, sizeof peers);
	sem_init(&finished, 0, 0);
	for (int i = 0; i < 2; i++) {
		start(&peers[i].thread);
		peers[i].loop = loop_thread_loop(peers[i].thread);
		peers[i].left = 20000;
		peers[i].finished = &finished;
	}
	peers[0].other = peers[1].loop;
	peers[1].other = peers[0].loop;
	for (int i = 0; i < 2; i++)
		loop_post(peers[i].loop, &peers[i].message, ask);
	for (int i = 0; i < 2; i++)
		while (sem_wait(&finished))
			;
	for (int i = 0; i < 2; i++)
		loop_thread_stop(peers[i].thread);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(never_started),
		cmocka_unit_test(with_queued_messages),
		cmocka_unit_test(asleep_is_not_woken),
		cmocka_unit_test(awake_is_waited_for),
		cmocka_unit_test(many_awake),
		cmocka_unit_test(home_is_not_waited_for),
		cmocka_unit_test(ended_meanwhile),
		cmocka_unit_test(load),
		cmocka_unit_test(coming_and_going),
		cmocka_unit_test(each_other),
	};
	return cmocka_run_group_tests_name("quiesce", tests, NULL, NULL);
}
