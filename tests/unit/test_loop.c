// SPDX-License-Identifier: BSD-2-Clause
/*
 * The event loop: messages, its end, who owns it, and its thread.
 */
#include "loop_tools.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- messages ---- */

static void messages_in_order(void **state)
{
	struct loop *loop = create();
	struct note notes[10];
	(void)state;

	noted_count = 0;
	assert_int_equal(loop_turn(loop, 0), 0);
	for (int i = 0; i < 10; i++) {
		notes[i].value = i;
		loop_post(loop, &notes[i].message, take_note);
	}
	assert_int_equal(noted_count, 0);
	assert_int_equal(loop_turn(loop, -1), 10);
	for (int i = 0; i < 10; i++)
		assert_int_equal(noted[i], i);
	assert_int_equal(loop_turn(loop, 0), 0);
	loop_destroy(loop);
}

static void own_message_comes_next_turn(void **state)
{
	struct loop *loop = create();
	struct note note = { .value = 7, .loop = loop };
	(void)state;

	noted_count = 0;
	loop_post(loop, &note.message, post_again);
	assert_int_equal(loop_turn(loop, -1), 1);
	assert_int_equal(noted_count, 0);
	assert_int_equal(loop_turn(loop, -1), 1);
	assert_int_equal(noted_count, 1);
	loop_destroy(loop);
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

static void one_wake_up_a_sleep(void **state)
{
	struct loop *loop = create();
	struct note notes[10], own = { .loop = loop };
	(void)state;

	noted_count = 0;
	for (int round = 1; round <= 3; round++) {
		for (int i = 0; i < 10; i++)
			loop_post(loop, &notes[i].message, take_note);
		assert_int_equal(wake_ups(loop), round);
		noted_count = 0;
		assert_int_equal(loop_turn(loop, -1), 10);
	}
	/* awake: none */
	loop_post(loop, &own.message, post_again);
	assert_int_equal(wake_ups(loop), 4);
	loop_stop(loop);
	loop_run(loop);
	assert_int_equal(wake_ups(loop), 4);
	loop_turn(loop, 0);
	loop_destroy(loop);
}

#define SENDERS 4
#define SENT_EACH 50000

struct sender {
	pthread_t thread;
	struct loop *loop;
	struct numbered {
		struct loop_message message;
		struct sender *sender;
		unsigned number;
	} *messages;
	unsigned next; /* the receiver's */
	unsigned wrong;
};

static unsigned received;

static void receive(struct loop_message *message)
{
	struct numbered *numbered = container_of(message, struct numbered, message);
	numbered->sender->wrong += numbered->number != numbered->sender->next++;
	if (++received == SENDERS * SENT_EACH)
		loop_stop(numbered->sender->loop);
}

static void *send_all(void *argument)
{
	struct sender *sender = argument;

	for (unsigned i = 0; i < SENT_EACH; i++) {
		sender->messages[i].sender = sender;
		sender->messages[i].number = i;
		loop_post(sender->loop, &sender->messages[i].message, receive);
		if (i % 64 == 0)
			sched_yield(); /* lets the loop fall asleep now and then */
	}
	return NULL;
}

static void no_message_is_lost(void **state)
{
	struct loop *loop = create();
	struct sender senders[SENDERS];
	(void)state;

	received = 0;
	memset(senders, 0, sizeof senders);
	for (int i = 0; i < SENDERS; i++) {
		senders[i].loop = loop;
		senders[i].messages = calloc(SENT_EACH, sizeof *senders[i].messages);
		assert_non_null(senders[i].messages);
		assert_int_equal(pthread_create(&senders[i].thread, NULL, send_all, &senders[i]), 0);
	}
	loop_run(loop); /* a lost one, or a lost wake-up, never ends */
	/* waits for the senders' wake-ups that may still be under way */
	loop_destroy(loop);
	for (int i = 0; i < SENDERS; i++) {
		pthread_join(senders[i].thread, NULL);
		assert_int_equal(senders[i].wrong, 0);
		free(senders[i].messages);
	}
	assert_int_equal(received, SENDERS * SENT_EACH);
}

/* The receiver destroys the loop as soon as the message is there; the sender may not touch it any more. */
struct last {
	struct loop_message message;
	struct loop *loop;
	sem_t go;
	atomic_bool end;
};

static void *send_last(void *argument)
{
	struct last *last = argument;

	for (;;) {
		while (sem_wait(&last->go))
			;
		if (atomic_load(&last->end))
			return NULL;
		loop_post(last->loop, &last->message, take_note);
	}
}

static void destroyed_by_its_last_message(void **state)
{
	struct last last = { 0 };
	pthread_t thread;
	(void)state;

	sem_init(&last.go, 0, 0);
	assert_int_equal(pthread_create(&thread, NULL, send_last, &last), 0);
	for (int i = 0; i < 3000; i++) {
		last.loop = create();
		noted_count = 0;
		sem_post(&last.go);
		while (!noted_count)
			loop_turn(last.loop, 0);
		loop_destroy(last.loop);
	}
	atomic_store(&last.end, true);
	sem_post(&last.go);
	pthread_join(thread, NULL);
}

/* ---- the end of a run ---- */

static void stop_comes_after_earlier_messages(void **state)
{
	struct loop *loop = create();
	struct note notes[2] = { { .value = 1 }, { .value = 2 } };
	(void)state;

	noted_count = 0;
	loop_post(loop, &notes[0].message, take_note);
	loop_stop(loop); /* before it runs at all */
	loop_stop(loop); /* once more is the same */
	assert_int_equal(noted_count, 0);
	loop_run(loop);
	assert_int_equal(noted_count, 1);
	/* what is posted to a loop that nobody runs waits for the next run */
	loop_post(loop, &notes[1].message, take_note);
	assert_int_equal(noted_count, 1);
	loop_stop(loop);
	loop_run(loop);
	assert_int_equal(noted_count, 2);
	loop_destroy(loop);
	loop_destroy(NULL);
}

static void creation_fails_clean(void **state)
{
	struct rlimit before, limit;
	struct pintle_error err = { 0 };
	struct loop *loop = NULL;
	(void)state;

	int first = dup(0);
	close(first);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	/* no descriptor, then one */
	for (rlim_t room = 0; room < 2; room++) {
		limit = before;
		limit.rlim_cur = (rlim_t)first + room;
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
		int rc = loop_create(&loop, "full", &err);
		setrlimit(RLIMIT_NOFILE, &before);
		assert_int_equal(rc, -EMFILE);
		assert_int_equal(err.code, -EMFILE);
		assert_non_null(strstr(err.text, "full"));
		assert_null(loop);
		int now = dup(0);
		close(now);
		assert_int_equal(now, first); /* nothing was left open */
	}
}

/* ---- ownership ---- */

struct question {
	struct loop *loop;
	bool owner;
	bool current;
	sem_t entered, leave;
};

static void *ask_elsewhere(void *argument)
{
	struct question *question = argument;
	question->owner = loop_is_owner(question->loop);
	question->current = loop_current() != NULL;
	return NULL;
}

static void ask(struct question *question)
{
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, ask_elsewhere, question), 0);
	pthread_join(thread, NULL);
}

struct asking {
	struct loop_message message;
	struct question question;
	bool here;
	struct loop *nested;
};

static void ask_inside(struct loop_message *message)
{
	struct asking *asking = container_of(message, struct asking, message);

	asking->here = loop_is_owner(asking->question.loop) && loop_current() == asking->question.loop;
	ask(&asking->question);
	/* another loop may be turned inside a unit */
	loop_turn(asking->nested, 0);
	assert_ptr_equal(loop_current(), asking->question.loop);
}

static void ownership(void **state)
{
	struct loop *loop = create();
	struct asking asking = { .question = { .loop = loop }, .nested = create() };
	(void)state;

	assert_string_equal(loop_name(loop), "test");
	assert_null(loop_current());
	assert_true(loop_is_owner(loop));
	ask(&asking.question);
	assert_true(asking.question.owner);
	loop_post(loop, &asking.message, ask_inside);
	loop_turn(loop, -1);
	assert_true(asking.here);
	assert_false(asking.question.owner);
	assert_false(asking.question.current);
	assert_null(loop_current());
	assert_true(loop_is_owner(loop));
	loop_destroy(asking.nested);
	loop_destroy(loop);
}

#ifndef NDEBUG
static void *use_elsewhere(void *argument)
{
	struct loop_timer timer = { 0 };
	int null = open("/dev/null", O_WRONLY);
	dup2(null, STDERR_FILENO);
	loop_timer_arm(argument, &timer, 0, on_alarm);
	return NULL;
}

static void use_from_elsewhere(struct loop_message *message)
{
	pthread_t thread;
	pthread_create(&thread, NULL, use_elsewhere, container_of(message, struct note, message)->loop);
	pthread_join(thread, NULL);
}
#endif

static void foreign_use_aborts(void **state)
{
	(void)state;
#ifdef NDEBUG
	skip();
#else
	int status;
	pid_t child = fork();
	if (!child) {
		struct note note = { .loop = create() };
		signal(SIGABRT, SIG_DFL);
		loop_post(note.loop, &note.message, use_from_elsewhere);
		loop_turn(note.loop, 0);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
#endif
}

/* ---- the thread ---- */

struct report {
	struct loop_message message;
	sem_t done;
	char name[16];
	sigset_t blocked;
	struct loop *current;
};

static void report(struct loop_message *message)
{
	struct report *report = container_of(message, struct report, message);
	uint64_t begin = loop_clock();

	pthread_getname_np(pthread_self(), report->name, sizeof report->name);
	pthread_sigmask(SIG_BLOCK, NULL, &report->blocked);
	report->current = loop_current();
	while (loop_clock() < begin + 3 * MS)
		;
	sem_post(&report->done);
}

static void thread(void **state)
{
	struct loop_thread *thread;
	struct report r = { 0 };
	sigset_t before, after;
	(void)state;

	sem_init(&r.done, 0, 0);
	pthread_sigmask(SIG_BLOCK, NULL, &before);
	assert_int_equal(loop_thread_start(&thread, "a name that is long", NULL), 0);
	pthread_sigmask(SIG_BLOCK, NULL, &after);
	assert_int_equal(sigismember(&after, SIGTERM), sigismember(&before, SIGTERM));
	loop_post(loop_thread_loop(thread), &r.message, report);
	while (sem_wait(&r.done))
		;
	assert_string_equal(r.name, "a name that is ");
	assert_ptr_equal(r.current, loop_thread_loop(thread));
	assert_true(sigismember(&r.blocked, SIGTERM));
	assert_true(sigismember(&r.blocked, SIGUSR1));
	assert_false(sigismember(&r.blocked, SIGBUS));
	assert_false(sigismember(&r.blocked, SIGSEGV));
	assert_true(loop_thread_cpu(thread) > MS / 2);
	/* at once stopped again */
	loop_thread_stop(thread);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(loop_thread_start(&thread, "short", NULL), 0);
		loop_thread_stop(thread);
	}
	loop_thread_stop(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_in_order),
		cmocka_unit_test(own_message_comes_next_turn),
		cmocka_unit_test(one_wake_up_a_sleep),
		cmocka_unit_test(no_message_is_lost),
		cmocka_unit_test(destroyed_by_its_last_message),
		cmocka_unit_test(stop_comes_after_earlier_messages),
		cmocka_unit_test(creation_fails_clean),
		cmocka_unit_test(ownership),
		cmocka_unit_test(foreign_use_aborts),
		cmocka_unit_test(thread),
	};
	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
