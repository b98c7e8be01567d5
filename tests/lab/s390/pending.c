// SPDX-License-Identifier: GPL-2.0-only
/*
 * Waiting for the host thread: one lock and one condition for the only processor.
 */
#include "pending.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t over = PTHREAD_COND_INITIALIZER;

void pending_begin(struct pending *pending)
{
	*pending = (struct pending){ 0 };
}

void pending_done_cc(void *context, int cc)
{
	struct pending *pending = context;

	pthread_mutex_lock(&lock);
	pending->cc = cc;
	pending->over = true;
	/* Under the lock: the waiter's stack frame may be gone as soon as it is released. */
	pthread_cond_signal(&over);
	pthread_mutex_unlock(&lock);
}

void pending_done(void *context)
{
	pending_done_cc(context, 0);
}

void pending_wait(struct pending *pending)
{
	pthread_mutex_lock(&lock);
	while (!pending->over)
		pthread_cond_wait(&over, &lock);
	pthread_mutex_unlock(&lock);
}
