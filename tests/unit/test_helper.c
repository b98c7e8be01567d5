// SPDX-License-Identifier: BSD-2-Clause
/*
 * The pool of helper threads: where work and its end run, how far it grows, how it ends,
 * and what it does when no thread can be had.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/helper.h"

struct work {
	struct helper_work helper;
	pthread_t runner, finisher;
	unsigned runs, ends;
	struct loop *in_loop;
};

static atomic_uint running, most, finished;
static sem_t entered, leave;

static struct loop *create(void)
{
	struct loop *loop;
	assert_int_equal(loop_create(&loop, "home", NULL), 0);
	atomic_store(&finished, 0);
	return loop;
}

static void run(struct helper_work *helper)
{
	struct work *work = container_of(helper, struct work, helper);
	work->runs++;
	work->runner = pthread_self();
}

static void done(struct helper_work *helper)
{
	struct work *work = container_of(helper, struct work, helper);
	work->ends++;
	work->finisher = pthread_self();
	work->in_loop = loop_current();
	atomic_fetch_add(&finished, 1);
}

static void submit(struct work *work, struct loop *home, void (*fn)(struct helper_work *))
{
	memset(work, 0, sizeof *work);
	work->helper.run = fn;
	work->helper.done = done;
	work->helper.home = home;
	helper_submit(&work->helper);
}

static unsigned thread_count(void)
{
	unsigned count = 0;
	DIR *dir = opendir("/proc/self/task");
	assert_non_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count - 2;
}

/* A thread that has been joined is still listed for a moment. Never ends if they do not end. */
static void until_threads(unsigned count)
{
	while (thread_count() != count)
		usleep(1000);
}

static void *tell_id(void *argument)
{
	*(pid_t *)argument = gettid();
	return NULL;
}

/* The number of threads there is without helpers; a sanitizer may start its own with the first one. */
static unsigned threads_before(void)
{
	pthread_t thread;
	pid_t started;
	assert_int_equal(pthread_create(&thread, NULL, tell_id, &started), 0);
	pthread_join(thread, NULL);
	char path[64];
	snprintf(path, sizeof path, "/proc/self/task/%d", (int)started);
	while (!access(path, F_OK))
		usleep(1000);
	return thread_count();
}

static void elsewhere_and_back(void **state)
{
	struct loop *home = create();
	struct work work;
	(void)state;

	unsigned before = threads_before();
	submit(&work, home, run);
	while (!work.ends)
		loop_turn(home, -1);
	assert_int_equal(work.runs, 1);
	assert_int_equal(work.ends, 1);
	assert_false(pthread_equal(work.runner, pthread_self()));
	assert_true(pthread_equal(work.finisher, pthread_self()));
	assert_ptr_equal(work.in_loop, home);
	for (int i = 0; i < 100; i++) {
		submit(&work, home, run);
		while (!work.ends)
			loop_turn(home, -1);
	}
	helper_drain();
	until_threads(before);
	helper_drain(); /* nothing there */
	loop_destroy(home);
}

/* Takes the pool's idle time, some seconds. */
static void ends_when_idle(void **state)
{
	struct loop *home = create();
	struct work work;
	(void)state;

	unsigned before = threads_before();
	for (int i = 0; i < 2; i++) {
		submit(&work, home, run);
		while (!work.ends)
			loop_turn(home, -1);
		if (!i) {
			assert_true(thread_count() > before);
			until_threads(before);
		}
	}
	helper_drain();
	until_threads(before);
	loop_destroy(home);
}

static void run_blocked(struct helper_work *helper)
{
	unsigned now = atomic_fetch_add(&running, 1) + 1, seen = atomic_load(&most);

	run(helper);
	while (now > seen && !atomic_compare_exchange_weak(&most, &seen, now))
		;
	sem_post(&entered);
	while (sem_wait(&leave))
		;
	atomic_fetch_sub(&running, 1);
}

/* Blocked work does not hold up other work while there is room; beyond that it waits its turn. */
static void grows_to_its_bound(void **state)
{
	enum { COUNT = HELPER_MAX * 3 };
	static struct work works[COUNT];
	struct loop *home = create();
	(void)state;

	sem_init(&entered, 0, 0);
	sem_init(&leave, 0, 0);
	for (int i = 0; i < COUNT; i++)
		submit(&works[i], home, run_blocked);
	for (int i = 0; i < HELPER_MAX; i++)
		while (sem_wait(&entered))
			;
	assert_int_equal(atomic_load(&running), HELPER_MAX);
	assert_int_equal(atomic_load(&finished), 0);
	for (int i = 0; i < COUNT; i++)
		sem_post(&leave);
	while (atomic_load(&finished) < COUNT)
		loop_turn(home, -1);
	assert_int_equal(atomic_load(&most), HELPER_MAX);
	for (int i = 0; i < COUNT; i++) {
		assert_int_equal(works[i].runs, 1);
		assert_int_equal(works[i].ends, 1);
	}
	helper_drain();
	loop_destroy(home);
}

/* Drained with work in the queue: all of it is done first. */
static void drain_finishes_work(void **state)
{
	enum { COUNT = 200 };
	static struct work works[COUNT];
	struct loop *home = create();
	(void)state;

	for (int round = 0; round < 20; round++) {
		atomic_store(&finished, 0);
		for (int i = 0; i < COUNT; i++)
			submit(&works[i], home, run);
		helper_drain();
		for (int i = 0; i < COUNT; i++)
			assert_int_equal(works[i].runs, 1);
		assert_int_equal(atomic_load(&finished), 0); /* that is for home's loop */
		assert_int_equal(loop_turn(home, 0), COUNT);
		assert_int_equal(atomic_load(&finished), COUNT);
	}
	loop_destroy(home);
}

#define SUBMITTERS 3
#define EACH 400

static struct submitter {
	pthread_t thread;
	struct loop *home;
	struct work works[EACH];
} submitters[SUBMITTERS];

static void *submit_all(void *argument)
{
	struct submitter *submitter = argument;
	for (int i = 0; i < EACH; i++)
		submit(&submitter->works[i], submitter->home, run);
	return NULL;
}

static void from_any_thread(void **state)
{
	struct loop *home = create();
	(void)state;

	for (int i = 0; i < SUBMITTERS; i++) {
		submitters[i].home = home;
		assert_int_equal(pthread_create(&submitters[i].thread, NULL, submit_all, &submitters[i]), 0);
	}
	while (atomic_load(&finished) < SUBMITTERS * EACH)
		loop_turn(home, -1);
	for (int i = 0; i < SUBMITTERS; i++) {
		pthread_join(submitters[i].thread, NULL);
		for (int j = 0; j < EACH; j++)
			assert_int_equal(submitters[i].works[j].runs, 1);
	}
	helper_drain();
	loop_destroy(home);
}

/* From here on this process cannot make a thread. */
static int refuse_threads(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof code / sizeof code[0], .filter = code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* In a child: 0 if the work ran on this thread and its end came from the loop nevertheless. */
static int without_threads(void)
{
	struct loop *home;
	struct work works[3];
	struct loop_thread *thread = NULL;
	struct pintle_error err = { 0 };

	if (loop_create(&home, "home", NULL))
		return 1;
	if (refuse_threads())
		return 2;
	for (int i = 0; i < 3; i++) {
		submit(&works[i], home, run);
		if (works[i].runs != 1 || !pthread_equal(works[i].runner, pthread_self()) || works[i].ends)
			return 3;
	}
	if (loop_turn(home, 0) != 3 || works[2].ends != 1 || works[2].in_loop != home)
		return 4;
	helper_drain();
	if (loop_thread_start(&thread, "io", &err) != -EAGAIN || err.code != -EAGAIN || thread)
		return 5;
	loop_destroy(home);
	return 0;
}

static void does_it_itself_without_threads(void **state)
{
	int status;
	(void)state;

	pid_t child = fork();
	assert_true(child >= 0);
	if (!child)
		_exit(without_threads());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(does_it_itself_without_threads),
		cmocka_unit_test(elsewhere_and_back),
		cmocka_unit_test(ends_when_idle),
		cmocka_unit_test(grows_to_its_bound),
		cmocka_unit_test(drain_finishes_work),
		cmocka_unit_test(from_any_thread),
	};
	return cmocka_run_group_tests_name("helper", tests, NULL, NULL);
}
