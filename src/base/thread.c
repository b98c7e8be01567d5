// SPDX-License-Identifier: BSD-2-Clause
/*
 * Starting threads.
 */
#include "base/thread.h"

#include <signal.h>
#include <stdio.h>

#include "base/num.h"

/* A fault whose signal is blocked kills the process; SIGBUS is moreover how a truncated memory file is noticed. */
static const int fault_signals[] = { SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGSYS };

int thread_start(pthread_t *out, const char *name, void *(*fn)(void *), void *argument)
{
	sigset_t blocked, before;
	char short_name[16];

	sigfillset(&blocked);
	for (size_t i = 0; i < ARRAY_SIZE(fault_signals); i++)
		sigdelset(&blocked, fault_signals[i]);
	/* The new thread inherits the mask, so that there is no moment in which it could take a signal. */
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	int rc = pthread_create(out, NULL, fn, argument);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc)
		return -rc;
	snprintf(short_name, sizeof short_name, "%.15s", name);
	pthread_setname_np(*out, short_name);
	return 0;
}
