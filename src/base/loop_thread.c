// SPDX-License-Identifier: BSD-2-Clause
/*
 * A thread that runs a loop.
 */
#include "base/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/error.h"
#include "base/thread.h"

struct loop_thread {
	struct loop *loop;
	pthread_t thread;
};

static void *run(void *argument)
{
	struct loop_thread *thread = argument;
	loop_run(thread->loop);
	return NULL;
}

int loop_thread_start(struct loop_thread **out, const char *name, struct pintle_error *err)
{
	struct loop_thread *thread = calloc(1, sizeof *thread);
	int rc;

	if (!thread)
		return error_errno(err, -ENOMEM, "cannot start thread %s", name);
	rc = loop_create(&thread->loop, name, err);
	if (rc)
		goto free_thread;
	rc = thread_start(&thread->thread, name, run, thread);
	if (rc) {
		error_errno(err, rc, "cannot start thread %s", name);
		goto destroy_loop;
	}
	*out = thread;
	return 0;
destroy_loop:
	loop_destroy(thread->loop);
free_thread:
	free(thread);
	return rc;
}

struct loop *loop_thread_loop(struct loop_thread *thread)
{
	return thread->loop;
}

void loop_thread_stop(struct loop_thread *thread)
{
	if (!thread)
		return;
	loop_stop(thread->loop);
	pthread_join(thread->thread, NULL);
	loop_destroy(thread->loop);
	free(thread);
}

uint64_t loop_thread_cpu(struct loop_thread *thread)
{
	clockid_t clock;
	struct timespec used;

	if (pthread_getcpuclockid(thread->thread, &clock) || clock_gettime(clock, &used))
		return 0;
	return (uint64_t)used.tv_sec * 1000000000 + (uint64_t)used.tv_nsec;
}
