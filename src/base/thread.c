// SPDX-License-Identifier: BSD-2-Clause
/*
 * Starting threads.
 */
#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/num.h"

/* A fault whose signal is blocked kills the process; SIGBUS is moreover how a truncated memory file is noticed. */
static const int fault_signals[] = { SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGSYS };

struct start {
	void *(*fn)(void *);
	void *argument;
	char name[16];
};

/* The thread names itself: for another one that would take a file of /proc, which a confined process cannot open. */
static void *begin(void *context)
{
	struct start start = *(struct start *)context;

	free(context);
	pthread_setname_np(pthread_self(), start.name);
	return start.fn(start.argument);
}

int thread_start(pthread_t *out, const char *name, void *(*fn)(void *), void *argument)
{
	sigset_t blocked, before;
	struct start *start = malloc(sizeof *start);

	if (!start)
		return -ENOMEM;
	start->fn = fn;
	start->argument = argument;
	snprintf(start->name, sizeof start->name, "%.15s", name);
	sigfillset(&blocked);
	for (size_t i = 0; i < ARRAY_SIZE(fault_signals); i++)
		sigdelset(&blocked, fault_signals[i]);
	/* The new thread inherits the mask, so that there is no moment in which it could take a signal. */
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	int rc = pthread_create(out, NULL, begin, start);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc)
		free(start);
	return -rc;
}
